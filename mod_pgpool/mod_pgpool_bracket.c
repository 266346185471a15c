/*
 * Brackets: makes the end of a request inside another one visible, so that the outer request
 * goes on with its own session variables (mod_pgpool_identity.h).
 *
 * httpd has no hook for the end of a subrequest or of a redirected request.  So one of our
 * hooks brackets it: the hook runs before those of all other modules, calls httpd's runner of
 * the same hook once more (and declines when it is called again), and then restores the outer
 * request's variables.  There are two brackets:
 *
 *   handler         around the handler of any subrequest or redirected request.
 *   quick handler   around the other phases as well, if the family holds a connection: those of
 *                   a look-up (ap_sub_req_lookup_uri), and of a whole redirected request.
 *
 * An outer request may acquire while a bracket is open: a subrequest's content passes its
 * filters.  Such an acquire must not change the variables that the inner request runs with.
 *
 * A look-up that httpd begins without its quick handlers (of a file, or with no filter) has no
 * bracket; there an acquire that would change the outer request's variables is refused.
 */
#include <httpd.h>
#include <http_config.h>
#include <http_protocol.h>
#include <http_request.h>

#include "mod_pgpool_pin.h"
#include "mod_pgpool_register.h"
#include "mod_pgpool_request.h"

static bool bracket_is_needed(request_rec *r)
{
    return pgpool_request_outer(r) && !pgpool_request_of(r)->bracketed;
}

static int bracket_run(request_rec *r, int (*run)(request_rec *r))
{
    int status;

    pgpool_request_of(r)->bracketed = true;
    status = run(r);
    pgpool_request_of(r)->bracketed = false;
    pgpool_pins_restore(r);
    return status;
}

static int bracket_handler(request_rec *r)
{
    return bracket_is_needed(r) ? bracket_run(r, ap_run_handler) : DECLINED;
}

/* Does what httpd does after its quick handlers, for a look-up and for a redirected request. */
static int run_lookup(request_rec *r)
{
    const int status = ap_run_quick_handler(r, 1);

    return status == DECLINED ? ap_process_request_internal(r) : status;
}

static int run_redirected(request_rec *r)
{
    int status = ap_run_quick_handler(r, 0);

    if (status != DECLINED)
        return status;
    status = ap_process_request_internal(r);
    return status == OK ? ap_invoke_handler(r) : status;
}

/* The status of a look-up goes into r, where httpd would put it: some versions of httpd process
 * the request again after a quick handler that failed. */
static int bracket_quick_handler(request_rec *r, int lookup)
{
    int status;

    if (!(r->prev || lookup) || !bracket_is_needed(r) || !pgpool_pins_are_held(r))
        return DECLINED;
    if (r->prev)
        return bracket_run(r, run_redirected);
    status = bracket_run(r, run_lookup);
    if (status != OK)
        r->status = status;
    return OK;
}

void pgpool_bracket_register(void)
{
    ap_hook_quick_handler(bracket_quick_handler, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_handler(bracket_handler, NULL, NULL, APR_HOOK_REALLY_FIRST);
}
