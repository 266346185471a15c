/*
 * Pins: a request's hold on a connection, and the same without a request.
 *
 * A pin belongs to the initial request of a family (the one that internal
 * redirects and subrequests lead back to), one for each pool that the family
 * uses.  It sits in the initial request's request_config; its cleanup on that
 * request's pool is what gives the connection back if nothing else did.  Only
 * strings go into r->notes: httpd and mod_http2 copy them.
 *
 * The holders of a pin are the requests that have acquired it, the innermost first, each with
 * the session variables that it wants: a request inside of another is a holder before it.  The
 * innermost holder that runs is the one whose variables are set (mod_pgpool_identity.c).
 */
#include "mod_pgpool_private.h"

#include <sys/socket.h>
#include <apr_strings.h>

#include "core/pgp_pq.h"
#include "core/pgp_text.h"

APLOG_USE_MODULE(pgpool);

/* A failure is answered again without a wait for so long. */
#define FAILURE_REMEMBERED PGP_SEC(1)

typedef struct pgpool_pin pin;

typedef struct holder holder;
struct holder {
    holder *outer;
    pin *of;
    request_rec *r;
    pgp_vars vars; /* in r's memory */
};

struct pgpool_pin {
    pin *next;
    const pgpool_child_pool *pool;
    pgp_conn *conn;      /* NULL: not pinned now */
    const char *lease;   /* its identifier */
    int at_response;     /* PgPoolRelease response */
    holder *holders;     /* also while it is not pinned */
    apr_status_t failed; /* how the last ask failed, and in words, until then: */
    const char *failed_text;
    apr_time_t failed_until;
};

/* What is left of a lost connection. */
typedef struct {
    const pgp_pool *pool;
    pgp_link *link;
} remains;

/* A lease without a request; lives in the pool that it was asked with. */
typedef struct {
    pgp_conn *conn;
    apr_pool_t *p;
} lease;

request_rec *pgpool_request_outer(const request_rec *r)
{
    return r->prev ? r->prev : r->main;
}

static request_rec *initial_of(request_rec *r)
{
    request_rec *outer;

    while ((outer = pgpool_request_outer(r)))
        r = outer;
    return r;
}

static int is_within(const request_rec *r, const request_rec *outer)
{
    while (r && r != outer)
        r = pgpool_request_outer(r);
    return r != NULL;
}

/* --- finding things --------------------------------------------------------- */

static const char *name_in(const char *given, ap_conf_vector_t *per_dir)
{
    const pgpool_dir_conf *dir = ap_get_module_config(per_dir, &pgpool_module);

    if (given)
        return given;
    return dir && dir->use ? dir->use : PGPOOL_DEFAULT_NAME;
}

pgpool_request *pgpool_request_of(request_rec *r)
{
    pgpool_request *of = ap_get_module_config(r->request_config, &pgpool_module);

    if (!of) {
        of = apr_pcalloc(r->pool, sizeof(*of));
        ap_set_module_config(r->request_config, &pgpool_module, of);
    }
    return of;
}

static pin *pin_find(request_rec *initial, const pgpool_child_pool *pool)
{
    pin *at = pgpool_request_of(initial)->pins;

    while (at && at->pool != pool)
        at = at->next;
    return at;
}

static apr_status_t pin_end(void *data)
{
    pin *ended = data;

    if (ended->conn && !pgpool_child_is_aborted())
        pgp_pool_release(&ended->conn);
    return APR_SUCCESS;
}

void pgpool_pins_release(request_rec *initial)
{
    pin *held;

    for (held = pgpool_request_of(initial)->pins; held; held = held->next)
        pin_end(held);
}

void pgpool_response_pins_release(request_rec *initial)
{
    pgpool_request *pins = pgpool_request_of(initial);
    pin *held;

    for (held = pins->pins; held; held = held->next)
        if (held->at_response)
            pin_end(held);
    pins->at_response = 0;
}

static pin *pin_make(request_rec *initial, const pgpool_child_pool *pool)
{
    pgpool_request *pins = pgpool_request_of(initial);
    pin *made = apr_pcalloc(initial->pool, sizeof(*made));

    if (!pins->pins)
        pgpool_release_at_request_end(initial);
    made->pool = pool;
    made->next = pins->pins;
    pins->pins = made;
    apr_pool_cleanup_register(initial->pool, made, pin_end, apr_pool_cleanup_null);
    return made;
}

/* --- holders ---------------------------------------------------------------- */

/* All those that a request has become or has begun are at the front. */
static int holders_drop(pin *held, const request_rec *ended)
{
    int dropped = 0;

    for (; held->holders && is_within(held->holders->r, ended); dropped++)
        held->holders = held->holders->outer;
    return dropped;
}

/* Those that r does not run inside of have ended. */
static void holders_prune(pin *held, const request_rec *r)
{
    while (held->holders && !is_within(r, held->holders->r))
        held->holders = held->holders->outer;
}

/* A subrequest's memory goes before the pin's does. */
static apr_status_t holder_end(void *data)
{
    holder *ended = data, **at = &ended->of->holders;

    while (*at && *at != ended)
        at = &(*at)->outer;
    if (*at)
        *at = ended->outer;
    return APR_SUCCESS;
}

/* r is the innermost from now on. */
static void holder_put(pin *held, request_rec *r, const pgp_vars *vars)
{
    holder *put = held->holders;

    if (!put || put->r != r) {
        put = apr_palloc(r->pool, sizeof(*put));
        *put = (holder){.outer = held->holders, .of = held, .r = r};
        held->holders = put;
        if (r->pool != initial_of(r)->pool)
            apr_pool_cleanup_register(r->pool, put, holder_end, apr_pool_cleanup_null);
    }
    put->vars = *vars;
}

/* The request that r runs inside of, and that has acquired the pin. */
static const holder *holder_outer(const pin *held, const request_rec *r)
{
    const holder *at = held->holders;

    return at && at->r == r ? at->outer : at;
}

/* Whether the end of r, or of what r runs inside of, is seen before the outer request goes on.
 */
static int is_bracketed(const request_rec *r, const request_rec *outer)
{
    for (; r != outer; r = pgpool_request_outer(r)) {
        const pgpool_request *of = ap_get_module_config(r->request_config, &pgpool_module);

        if (of && of->bracketed)
            return 1;
    }
    return 0;
}

int pgpool_pins_are_held(request_rec *r)
{
    const pin *held = pgpool_request_of(initial_of(r))->pins;

    while (held && !(held->conn && held->holders))
        held = held->next;
    return held != NULL;
}

/* What the outer handler does next has to fail. */
static void pin_cut(request_rec *r, pin *held, const char *why)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r,
                  "PGP%d: pool %s: backend %u is cut off: the settings of the outer request "
                  "cannot be set again: %s",
                  PGP_MSG_IDENTITY, pgp_pool_name(held->pool->core),
                  pgp_conn_backend(held->conn), why);
    shutdown(PQsocket(pgp_conn_handle(held->conn)), SHUT_RDWR);
}

void pgpool_pins_restore(request_rec *ended)
{
    pin *held = pgpool_request_of(initial_of(ended))->pins;
    pgp_error error;

    if (pgpool_child_is_aborted())
        return;
    for (; held; held = held->next)
        if (holders_drop(held, ended) && held->holders && held->conn &&
            pgp_conn_alive(held->conn) &&
            pgp_conn_set(held->conn, &held->holders->vars, PGP_NEVER, &error) != PGP_SET_DONE)
            pin_cut(ended, held, error.message);
}

/* --- telling ---------------------------------------------------------------- */

/* On the request that asked and on the initial one: a log format looks at the
 * last of a chain of redirects, a handler at its own.  Key and text are not copied: they have
 * to live as long as the initial one. */
static void note(request_rec *r, const char *key, const char *text)
{
    request_rec *initial = initial_of(r);

    apr_table_setn(r->notes, key, text);
    if (initial != r)
        apr_table_setn(initial->notes, key, text);
}

void pgpool_note_error(request_rec *r, const char *text)
{
    char *clean = apr_pstrdup(initial_of(r)->pool, text);

    pgp_text_clean(clean);
    note(r, "pgpool-error", clean);
}

/* What each request is told is put together without a format: that is half the work. */
static const char *lease_text(apr_pool_t *p, const pgp_conn *conn)
{
    return apr_pstrcat(p, pgp_pool_name(pgp_conn_pool(conn)), "/",
                       apr_off_t_toa(p, pgp_conn_backend(conn)), "/",
                       apr_off_t_toa(p, (apr_off_t)pgp_conn_lease_id(conn)), NULL);
}

/* "pool x: what it means: cause (SQLSTATE ..., waited ... ms)" */
static const char *cause_text(apr_pool_t *p, const char *name, apr_status_t rv,
                              const pgp_ticket *ticket)
{
    const char *sqlstate = ticket->error.sqlstate;

    return apr_psprintf(p, "pool %s: %s: %s (%s%s%swaited %" APR_TIME_T_FMT " ms)", name,
                        pgpool_strerror(rv), ticket->error.message,
                        *sqlstate ? "SQLSTATE " : "", sqlstate, *sqlstate ? ", " : "",
                        ticket->waited / 1000);
}

static apr_status_t fail(request_rec *r, pgp_message id, apr_status_t rv, const char *text)
{
    pgpool_note_error(r, text);
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "PGP%d: %s", id, text);
    return rv;
}

/* The same for what many requests may be told at once. */
static apr_status_t refused(request_rec *r, pgp_pool *pool, apr_status_t rv, const char *text)
{
    const pgp_outcome outcome = rv == PGPOOL_EEXHAUSTED ? PGP_EXHAUSTED : PGP_UNAVAILABLE;
    apr_uint64_t unlogged;

    pgpool_note_error(r, text);
    if (!pgp_pool_may_log(pool, outcome, &unlogged))
        ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r, "PGP%d: %s", PGP_MSG_REFUSED, text);
    else
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "PGP%d: %s%s", PGP_MSG_REFUSED, text,
                      unlogged ? apr_psprintf(r->pool,
                                              "; %" APR_UINT64_T_FMT
                                              " more like it since the last line",
                                              unlogged)
                               : "");
    return rv;
}

static apr_status_t fail_no_pool(request_rec *r, const char *name)
{
    return fail(r, PGP_MSG_REFUSED, PGPOOL_ENOPOOL,
                apr_psprintf(r->pool,
                             "pool %s: there is no such pool in this server; write "
                             "PgPoolConninfo or <PgPool %s> in its configuration",
                             name, name));
}

/* --- hooks ------------------------------------------------------------------ */

APR_IMPLEMENT_OPTIONAL_HOOK_RUN_ALL(pgpool, PGPOOL, int, connect,
                                    (const char *pool, PGconn *conn), (pool, conn), OK,
                                    DECLINED)
APR_IMPLEMENT_OPTIONAL_HOOK_RUN_ALL(pgpool, PGPOOL, int, attach,
                                    (request_rec * r, const char *pool, PGconn *conn),
                                    (r, pool, conn), OK, DECLINED)

/* The hooks that a connection owes before its borrower gets it; r is NULL for one
 * without a request.  Returns NULL, or which hook refused. */
static const char *hook_refused(request_rec *r, pgp_conn *conn)
{
    const char *name = pgp_pool_name(pgp_conn_pool(conn));
    PGconn *handle = pgp_conn_handle(conn);

    if (!pgp_conn_is_greeted(conn) && pgpool_run_connect(name, handle) != OK)
        return "connect";
    pgp_conn_set_greeted(conn);
    if (r && pgpool_run_attach(r, name, handle) != OK)
        return "attach";
    return NULL;
}

/* Run them; after a refusal the connection is gone and *error says why. */
static apr_status_t hooks_run(request_rec *initial, pgp_conn **conn, pgp_error *error)
{
    const char *refused = hook_refused(initial, *conn);

    if (!refused)
        return APR_SUCCESS;
    error->sqlstate[0] = '\0';
    apr_snprintf(error->message, sizeof error->message,
                 "the %s hook of a module refused backend %u", refused,
                 pgp_conn_backend(*conn));
    pgp_pool_discard(conn, PGP_REASON_HOOK);
    return PGPOOL_EUNAVAIL;
}

/* r is NULL for one without a request. */
static pgp_set_outcome vars_set(request_rec *r, pgp_conn *conn, const pgp_vars *vars,
                                apr_time_t until, pgp_error *error)
{
    const char *login = PQuser(pgp_conn_handle(conn));
    const char *forbidden = r ? pgpool_identity_forbidden(r, vars, login) : NULL;

    if (!forbidden)
        return pgp_conn_set(conn, vars, until, error);
    *error = (pgp_error){.sqlstate = ""};
    apr_cpystrn(error->message, forbidden, sizeof error->message);
    return PGP_SET_DENIED;
}

/* Variables are set after the hooks, which may undo them.  A connection that fails in that is
 * replaced within the same deadline; one that the server denies them is given back, with
 * *outcome. */
static apr_status_t borrow(request_rec *r, request_rec *initial, pgp_pool *pool,
                           const pgp_vars *vars, pgp_conn **conn, pgp_ticket *ticket,
                           pgp_set_outcome *outcome)
{
    const char *const what[] = {r ? r->method : NULL,
                                " ",
                                r ? r->uri : NULL,
                                " (",
                                r && r->handler ? r->handler : "no handler",
                                ")",
                                NULL};

    *ticket = (pgp_ticket){.client = r ? r->useragent_ip : NULL, .what = what};
    *outcome = PGP_SET_DONE;
    for (;;) {
        const pgp_outcome taken = pgp_pool_acquire(pool, conn, ticket);
        apr_status_t rv = pgpool_outcome_status(taken);

        if (taken == PGP_GRANTED)
            rv = hooks_run(initial, conn, &ticket->error);
        if (rv != APR_SUCCESS)
            return rv;
        *outcome = vars_set(r, *conn, vars, ticket->until, &ticket->error);
        if (*outcome == PGP_SET_DONE)
            return APR_SUCCESS;
        if (*outcome == PGP_SET_FAILED)
            pgp_pool_unfit(conn, &ticket->error);
        else {
            pgp_pool_release(conn);
            return PGPOOL_EUNAVAIL;
        }
    }
}

/* --- with a request --------------------------------------------------------- */

static apr_status_t remains_end(void *data)
{
    remains *ended = data;

    if (!pgpool_child_is_aborted())
        pgp_pool_bury(ended->pool, &ended->link);
    return APR_SUCCESS;
}

/* Said once: the next ask borrows another.  What is left of the connection stays until the
 * request ends, since an outer handler may not know yet. */
static apr_status_t pin_lost(request_rec *r, request_rec *initial, pin *lost)
{
    remains *left = apr_palloc(initial->pool, sizeof(*left));
    char words[PGP_ERROR_WORDS];
    pgp_error error;
    const char *text;

    pgp_conn_last_words(lost->conn, &error);
    text = apr_psprintf(r->pool,
                        "pool %s: backend %u, pinned to this request, is gone%s%s; what it had "
                        "not committed is lost",
                        pgp_pool_name(lost->pool->core), pgp_conn_backend(lost->conn),
                        *error.message ? ": " : "", pgp_error_print(words, &error));
    *left = (remains){.pool = lost->pool->core, .link = pgp_pool_part(&lost->conn)};
    apr_pool_cleanup_register(initial->pool, left, remains_end, apr_pool_cleanup_null);
    return fail(r, PGP_MSG_LOST, PGPOOL_ELOST, text);
}

static int says_response(const request_rec *r)
{
    const pgpool_dir_conf *dir = ap_get_module_config(r->per_dir_config, &pgpool_module);

    return dir->when == PGPOOL_RELEASE_RESPONSE;
}

static void release_at_response(request_rec *r, request_rec *initial, pin *held)
{
    pgpool_request *pins = pgpool_request_of(initial);

    held->at_response = 1;
    if (!pins->at_response)
        pgpool_release_at_response_end(r, initial);
    pins->at_response = 1;
}

static apr_status_t identity_denied(request_rec *r, const pin *to, const pgp_error *error)
{
    return fail(r, PGP_MSG_IDENTITY, PGPOOL_EUNAVAIL,
                apr_psprintf(r->pool, "pool %s: PgPoolSet: %s%s%s%s",
                             pgp_pool_name(to->pool->core), error->message,
                             *error->sqlstate ? " (SQLSTATE " : "", error->sqlstate,
                             *error->sqlstate ? ")" : ""));
}

static apr_status_t pin_borrow(request_rec *r, request_rec *initial, pin *to,
                               const pgp_vars *vars)
{
    pgp_ticket ticket;
    pgp_set_outcome outcome;
    pgp_conn *conn;
    apr_status_t rv = borrow(r, initial, to->pool->core, vars, &conn, &ticket, &outcome);

    note(r, to->pool->wait_note, apr_off_t_toa(initial->pool, ticket.waited));
    to->failed = outcome == PGP_SET_DENIED ? APR_SUCCESS : rv; /* with others it may be had */
    if (outcome == PGP_SET_DENIED)
        return identity_denied(r, to, &ticket.error);
    if (rv != APR_SUCCESS) {
        to->failed_until = pgp_now(pgpool_child_env()) + FAILURE_REMEMBERED;
        to->failed_text = cause_text(initial->pool, pgp_pool_name(to->pool->core), rv, &ticket);
        return refused(r, to->pool->core, rv, to->failed_text);
    }
    to->conn = conn;
    to->lease = lease_text(initial->pool, conn);
    if (says_response(r))
        release_at_response(r, initial, to);
    return APR_SUCCESS;
}

/* A pin whose request has become another's must not be used as the old one.  It stays,
 * since an outer handler may be using it; unless it may have become another's after all:
 * then whatever is tried on it has to fail. */
static apr_status_t pin_set(request_rec *r, request_rec *initial, pin *to, const pgp_vars *vars)
{
    const holder *outer = holder_outer(to, r);
    pgp_error error;

    if (outer && !pgp_vars_equal(&outer->vars, vars) && !is_bracketed(r, outer->r))
        return fail(r, PGP_MSG_IDENTITY, PGPOOL_EUNAVAIL,
                    apr_psprintf(r->pool,
                                 "pool %s: PgPoolSet: the request is only looked up, so that "
                                 "the settings of %s, which has the connection, cannot be "
                                 "changed for it",
                                 pgp_pool_name(to->pool->core), outer->r->uri));
    switch (vars_set(r, to->conn, vars, PGP_NEVER, &error)) {
    case PGP_SET_DONE:
        return APR_SUCCESS;
    case PGP_SET_DENIED:
        return identity_denied(r, to, &error);
    case PGP_SET_FAILED:
        break;
    }
    shutdown(PQsocket(pgp_conn_handle(to->conn)), SHUT_RDWR);
    return pin_lost(r, initial, to);
}

/* Make the pin hold a connection that is set up for this request. */
static apr_status_t pin_fasten(request_rec *r, request_rec *initial, pin *to)
{
    pgp_vars vars;
    const char *wrong;
    apr_status_t rv;

    if (to->conn && !pgp_conn_alive(to->conn))
        return pin_lost(r, initial, to);
    if (!to->conn && to->failed && pgp_now(pgpool_child_env()) < to->failed_until) {
        pgpool_note_error(r, to->failed_text);
        return to->failed;
    }
    wrong = pgpool_identity_evaluate(r, &vars);
    if (wrong)
        return fail(r, PGP_MSG_IDENTITY, PGPOOL_EUNAVAIL, wrong);
    holders_prune(to, r);
    rv = to->conn ? pin_set(r, initial, to, &vars) : pin_borrow(r, initial, to, &vars);
    if (rv != APR_SUCCESS)
        return rv;
    holder_put(to, r, &vars);
    /* Whoever pinned it: this handler may touch it after the response's end. */
    if (!says_response(r))
        to->at_response = 0;
    return APR_SUCCESS;
}

apr_status_t pgpool_acquire(request_rec *r, const char *name, PGconn **conn)
{
    request_rec *initial = initial_of(r);
    const pgpool_child_pool *pool;
    pin *mine;
    apr_status_t rv;

    if (!pgpool_child_is_here())
        return PGPOOL_ESTOPPING;
    name = name_in(name, r->per_dir_config);
    pool = pgpool_child_pool_find(r->server, name);
    if (!pool)
        return fail_no_pool(r, name);
    mine = pin_find(initial, pool);
    if (!mine)
        mine = pin_make(initial, pool);
    rv = pin_fasten(r, initial, mine);
    if (rv != APR_SUCCESS)
        return rv;
    note(r, pool->lease_note, mine->lease);
    *conn = pgp_conn_handle(mine->conn);
    return APR_SUCCESS;
}

void pgpool_release(request_rec *r, const char *name)
{
    const pgpool_child_pool *pool = pgpool_child_pool_find(r->server,
                                                           name_in(name, r->per_dir_config));
    pin *mine = pool ? pin_find(initial_of(r), pool) : NULL;

    if (!mine || !pgpool_child_is_here())
        return;
    holders_drop(mine, r);
    pin_end(mine);
}

/* --- without a request ------------------------------------------------------ */

static apr_status_t lease_end(void *data)
{
    lease *ended = data;

    if (pgpool_child_is_aborted())
        return APR_SUCCESS;
    pgp_conn_set_baton(ended->conn, NULL);
    pgp_pool_release(&ended->conn);
    return APR_SUCCESS;
}

apr_status_t pgpool_open(server_rec *s, const char *name, apr_pool_t *p, PGconn **conn)
{
    const pgpool_child_pool *pool;
    static const pgp_vars none = {.n = 0};
    pgp_conn *borrowed;
    pgp_ticket ticket;
    pgp_set_outcome outcome;
    lease *made;
    apr_status_t rv;

    if (!pgpool_child_is_here())
        return PGPOOL_ESTOPPING;
    name = name_in(name, s->lookup_defaults);
    pool = pgpool_child_pool_find(s, name);
    if (!pool) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, s, "PGP%d: pool %s: %s", PGP_MSG_REFUSED, name,
                     pgpool_strerror(PGPOOL_ENOPOOL));
        return PGPOOL_ENOPOOL;
    }
    rv = borrow(NULL, NULL, pool->core, &none, &borrowed, &ticket, &outcome);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, s, "PGP%d: %s", PGP_MSG_REFUSED,
                     cause_text(p, name, rv, &ticket));
        return rv;
    }
    made = apr_palloc(p, sizeof(*made));
    *made = (lease){.conn = borrowed, .p = p};
    pgp_conn_set_baton(borrowed, made);
    apr_pool_cleanup_register(p, made, lease_end, apr_pool_cleanup_null);
    *conn = pgp_conn_handle(borrowed);
    return APR_SUCCESS;
}

void pgpool_close(PGconn *conn)
{
    const pgp_conn *borrowed = conn && pgpool_child_is_here() ? pgp_pq_owner(conn) : NULL;
    lease *ended = borrowed ? pgp_conn_baton(borrowed) : NULL;

    if (ended)
        apr_pool_cleanup_run(ended->p, ended, lease_end);
}
