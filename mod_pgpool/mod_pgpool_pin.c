/*
 * Makes pins, keeps the list of their borrowers, and gives connections back (mod_pgpool_pin.h).
 */
#include "mod_pgpool_pin.h"

#include <sys/socket.h>
#include <http_log.h>
#include <libpq-fe.h>

#include "mod_pgpool_request.h"

APLOG_USE_MODULE(pgpool);

pgpool_pin *pgpool_pin_find(request_rec *initial, const pgpool_child_pool *pool)
{
    pgpool_pin *pin = pgpool_request_of(initial)->pins;

    while (pin && pin->pool != pool)
        pin = pin->next;
    return pin;
}

static apr_status_t pin_cleanup(void *data)
{
    pgpool_pin_release(data);
    return APR_SUCCESS;
}

pgpool_pin *pgpool_pin_make(request_rec *initial, const pgpool_child_pool *pool)
{
    pgpool_request *kept = pgpool_request_of(initial);
    pgpool_pin *pin = apr_palloc(initial->pool, sizeof(*pin));

    *pin = (pgpool_pin){.next = kept->pins, .pool = pool};
    kept->pins = pin;
    apr_pool_cleanup_register(initial->pool, pin, pin_cleanup, apr_pool_cleanup_null);
    return pin;
}

void pgpool_pin_release(pgpool_pin *pin)
{
    if (pin->slot && !pgpool_child_is_aborted())
        pgp_pool_release(&pin->slot);
}

/* --- borrowers -------------------------------------------------------------- */

/* A subrequest's memory may go before the pin's. */
static apr_status_t borrower_cleanup(void *data)
{
    pgpool_pin_borrower *ended = data, **at = &ended->pin->borrowers;

    while (*at && *at != ended)
        at = &(*at)->outer;
    if (*at)
        *at = ended->outer;
    return APR_SUCCESS;
}

/* Whether a query is under way.  It may still change the session's variables. */
static bool slot_is_busy(const pgp_slot *slot)
{
    const PGconn *handle = pgp_slot_handle(slot);

    return PQtransactionStatus(handle) == PQTRANS_ACTIVE ||
           PQpipelineStatus(handle) != PQ_PIPELINE_OFF;
}

void pgpool_pin_enter(pgpool_pin *pin, request_rec *r, const pgp_vars *vars)
{
    pgpool_pin_borrower **place = &pin->borrowers, *borrower;

    while (*place && (*place)->r != r && pgpool_request_is_within((*place)->r, r))
        place = &(*place)->outer;
    borrower = *place;
    if (!borrower || borrower->r != r) {
        borrower = apr_palloc(r->pool, sizeof(*borrower));
        *borrower = (pgpool_pin_borrower){
            .outer = *place, .pin = pin, .r = r, .found_busy = slot_is_busy(pin->slot)};
        *place = borrower;
        if (r->pool != pgpool_request_initial(r)->pool)
            apr_pool_cleanup_register(r->pool, borrower, borrower_cleanup,
                                      apr_pool_cleanup_null);
    }
    borrower->vars = *vars;
}

const pgpool_pin_borrower *pgpool_pin_leave(pgpool_pin *pin, const request_rec *ended)
{
    const pgpool_pin_borrower *left = NULL;

    while (pin->borrowers && pgpool_request_is_within(pin->borrowers->r, ended)) {
        left = pin->borrowers;
        pin->borrowers = left->outer;
    }
    return left;
}

void pgpool_pin_prune(pgpool_pin *pin, const request_rec *r)
{
    while (pin->borrowers && !pgpool_request_is_within(r, pin->borrowers->r))
        pin->borrowers = pin->borrowers->outer;
}

const pgpool_pin_borrower *pgpool_pin_outer(const pgpool_pin *pin, const request_rec *r)
{
    const pgpool_pin_borrower *first = pin->borrowers;

    return first && first->r == r ? first->outer : first;
}

const pgpool_pin_borrower *pgpool_pin_inner(const pgpool_pin *pin, const request_rec *r)
{
    const pgpool_pin_borrower *first = pin->borrowers;

    return first && first->r != r && pgpool_request_is_within(first->r, r) &&
                   pgpool_request_is_bracketed(first->r, r)
               ? first
               : NULL;
}

/* --- all pins of a family --------------------------------------------------- */

bool pgpool_pins_are_held(request_rec *r)
{
    const pgpool_pin *pin = pgpool_request_of(pgpool_request_initial(r))->pins;

    while (pin && !(pin->slot && pin->borrowers))
        pin = pin->next;
    return pin != NULL;
}

void pgpool_pins_restore(request_rec *ended)
{
    pgpool_pin *pin = pgpool_request_of(pgpool_request_initial(ended))->pins;

    if (pgpool_child_is_aborted())
        return;
    for (; pin; pin = pin->next) {
        const pgpool_pin_borrower *left = pgpool_pin_leave(pin, ended);
        pgp_error error = {.message = "the inner request has left a query under way"};

        if (!left || !pin->borrowers || !pin->slot || !pgp_slot_is_alive(pin->slot))
            continue;
        pgp_slot_doubt_vars(pin->slot);
        if (!(slot_is_busy(pin->slot) && !left->found_busy) &&
            pgp_slot_set_vars(pin->slot, &pin->borrowers->vars, PGP_NEVER, &error) ==
                PGP_SET_DONE)
            continue;
        ap_log_rerror(
            APLOG_MARK, APLOG_ERR, 0, ended,
            "PGP%d: pool %s: backend %u is shut down: the settings of the outer request "
            "cannot be set again: %s",
            PGP_MSG_IDENTITY, pgp_pool_name(pin->pool->core), pgp_slot_backend(pin->slot),
            error.message);
        pgp_slot_shutdown(pin->slot,
                          "the settings of its outer request could not be set again");
    }
}

void pgpool_pins_release(request_rec *initial)
{
    pgpool_pin *pin;

    for (pin = pgpool_request_of(initial)->pins; pin; pin = pin->next)
        pgpool_pin_release(pin);
}

void pgpool_pins_release_at_response(request_rec *initial)
{
    pgpool_request *kept = pgpool_request_of(initial);
    pgpool_pin *pin;

    for (pin = kept->pins; pin; pin = pin->next)
        if (pin->at_response)
            pgpool_pin_release(pin);
    kept->at_response = false;
}
