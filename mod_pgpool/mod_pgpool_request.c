/*
 * Pins: a request's hold on a connection, and the same without a request.
 *
 * A pin belongs to the initial request of a family (the one that internal
 * redirects and subrequests lead back to), one for each pool that the family
 * uses.  It sits in the initial request's request_config; its cleanup on that
 * request's pool is what gives the connection back if nothing else did.  Only
 * strings go into r->notes: httpd and mod_http2 copy them.
 */
#include "mod_pgpool_private.h"

#include <sys/socket.h>
#include <apr_strings.h>

#include "core/pgp_libpq.h"
#include "core/pgp_text.h"

APLOG_USE_MODULE(pgpool);

/* A failure is answered again without a wait for so long. */
#define FAILURE_REMEMBERED PGP_SEC(1)

typedef struct pin pin;
struct pin {
    pin *next;
    const pgpool_child_pool *pool;
    pgp_conn *conn;       /* NULL: not pinned now */
    const char *lease;    /* its identifier */
    int at_response;      /* PgPoolRelease response */
    apr_table_t *applied; /* PgPoolSet: what this lease has set */
    apr_status_t failed;  /* how the last ask failed, and in words, until then: */
    const char *failed_text;
    apr_time_t failed_until;
};

/* The initial request's request_config. */
typedef struct {
    pin *pins;
    int at_response; /* the response's end is looked out for */
} request_pins;

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

static request_rec *initial_of(request_rec *r)
{
    while (r->prev || r->main)
        r = r->prev ? r->prev : r->main;
    return r;
}

/* --- finding things --------------------------------------------------------- */

static const char *name_in(const char *given, ap_conf_vector_t *per_dir)
{
    const pgpool_dir_conf *dir = ap_get_module_config(per_dir, &pgpool_module);

    if (given)
        return given;
    return dir && dir->use ? dir->use : PGPOOL_DEFAULT_NAME;
}

static const pgpool_child_pool *pool_of(server_rec *s, const char *name)
{
    const pgpool_server_conf *conf = ap_get_module_config(s->module_config, &pgpool_module);

    return conf->pools ? apr_hash_get(conf->pools, name, APR_HASH_KEY_STRING) : NULL;
}

static request_pins *pins_of(request_rec *initial)
{
    request_pins *pins = ap_get_module_config(initial->request_config, &pgpool_module);

    if (!pins) {
        pins = apr_pcalloc(initial->pool, sizeof(*pins));
        ap_set_module_config(initial->request_config, &pgpool_module, pins);
    }
    return pins;
}

static pin *pin_find(request_rec *initial, const pgpool_child_pool *pool)
{
    pin *at = pins_of(initial)->pins;

    while (at && at->pool != pool)
        at = at->next;
    return at;
}

static apr_status_t pin_end(void *data)
{
    pin *ended = data;

    if (ended->conn && !pgpool_child_cut_off())
        pgp_pool_release(&ended->conn);
    apr_table_clear(ended->applied);
    return APR_SUCCESS;
}

void pgpool_pins_release(request_rec *initial)
{
    pin *held;

    for (held = pins_of(initial)->pins; held; held = held->next)
        pin_end(held);
}

void pgpool_response_pins_release(request_rec *initial)
{
    request_pins *pins = pins_of(initial);
    pin *held;

    for (held = pins->pins; held; held = held->next)
        if (held->at_response)
            pin_end(held);
    pins->at_response = 0;
}

static pin *pin_make(request_rec *initial, const pgpool_child_pool *pool)
{
    request_pins *pins = pins_of(initial);
    pin *made = apr_pcalloc(initial->pool, sizeof(*made));

    if (!pins->pins)
        pgpool_release_at_request_end(initial);
    made->pool = pool;
    made->applied = apr_table_make(initial->pool, 2);
    made->next = pins->pins;
    pins->pins = made;
    apr_pool_cleanup_register(initial->pool, made, pin_end, apr_pool_cleanup_null);
    return made;
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
    return apr_pstrcat(p, pgp_pool_name(conn->pool), "/",
                       apr_off_t_toa(p, pgp_conn_backend(conn)), "/",
                       apr_off_t_toa(p, (apr_off_t)conn->lease), NULL);
}

/* For the page and PgPoolHoldWarning. */
static void describe(const request_rec *r, pgp_conn *conn)
{
    const char *const what[] = {
        r->method, " ", r->uri, " (", r->handler ? r->handler : "no handler", ")", NULL};

    pgp_conn_describe(conn, r->useragent_ip, what);
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
    int unlogged;

    pgpool_note_error(r, text);
    if (pgp_pool_may_log(pool, &unlogged))
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "PGP%d: %s%s", PGP_MSG_REFUSED, text,
                      unlogged
                          ? apr_psprintf(r->pool, "; %d more like it were not logged", unlogged)
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
    const char *name = pgp_pool_name(conn->pool);
    PGconn *handle = pgp_conn_handle(conn);

    if (!conn->greeted && pgpool_run_connect(name, handle) != OK)
        return "connect";
    conn->greeted = 1;
    if (r && pgpool_run_attach(r, name, handle) != OK)
        return "attach";
    return NULL;
}

/* Run them; after a refusal the connection is gone and *ticket says why. */
static apr_status_t hooks_run(request_rec *initial, pgp_conn **conn, pgp_ticket *ticket)
{
    const char *refused = hook_refused(initial, *conn);

    if (!refused)
        return APR_SUCCESS;
    ticket->error.sqlstate[0] = '\0';
    apr_snprintf(ticket->error.message, sizeof ticket->error.message,
                 "the %s hook of a module refused backend %u", refused,
                 pgp_conn_backend(*conn));
    pgp_pool_discard(conn, PGP_REASON_HOOK);
    return PGPOOL_EUNAVAIL;
}

static apr_status_t borrow(request_rec *initial, pgp_pool *pool, const pgp_vars *vars,
                           pgp_conn **conn, pgp_ticket *ticket)
{
    const pgp_outcome outcome = pgp_pool_acquire(pool, vars, conn, ticket);

    if (outcome != PGP_GRANTED)
        return pgpool_outcome_status(outcome);
    return hooks_run(initial, conn, ticket);
}

/* --- with a request --------------------------------------------------------- */

static apr_status_t remains_end(void *data)
{
    remains *ended = data;

    if (!pgpool_child_cut_off())
        pgp_pool_bury(ended->pool, &ended->link);
    return APR_SUCCESS;
}

/* Said once: the next ask borrows another.  What is left of the connection stays until the
 * request ends, since an outer handler may not know yet. */
static apr_status_t pin_lost(request_rec *r, request_rec *initial, pin *lost)
{
    remains *left = apr_palloc(initial->pool, sizeof(*left));
    const char *text = apr_psprintf(r->pool,
                                    "pool %s: backend %u, pinned to this request, is gone; "
                                    "what it had not committed is lost",
                                    pgp_pool_name(lost->pool->core),
                                    pgp_conn_backend(lost->conn));

    *left = (remains){.pool = lost->pool->core, .link = pgp_pool_part(&lost->conn)};
    apr_pool_cleanup_register(initial->pool, left, remains_end, apr_pool_cleanup_null);
    apr_table_clear(lost->applied);
    return fail(r, PGP_MSG_LOST, PGPOOL_ELOST, text);
}

static int says_response(const request_rec *r)
{
    const pgpool_dir_conf *dir = ap_get_module_config(r->per_dir_config, &pgpool_module);

    return dir->when == PGPOOL_RELEASE_RESPONSE;
}

static void release_at_response(request_rec *r, request_rec *initial, pin *held)
{
    request_pins *pins = pins_of(initial);

    held->at_response = 1;
    if (!pins->at_response)
        pgpool_release_at_response_end(r, initial);
    pins->at_response = 1;
}

static apr_status_t identity_refused(request_rec *r, const pin *to, const pgp_error *error)
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
    pgp_conn *conn;
    apr_status_t rv = borrow(initial, to->pool->core, vars->n ? vars : NULL, &conn, &ticket);

    note(r, to->pool->wait_note, apr_off_t_toa(initial->pool, ticket.waited));
    to->failed = ticket.refused ? APR_SUCCESS : rv; /* with other settings it may be had */
    if (ticket.refused)
        return identity_refused(r, to, &ticket.error);
    if (rv != APR_SUCCESS) {
        to->failed_until = pgp_now(pgpool_child_env()) + FAILURE_REMEMBERED;
        to->failed_text = cause_text(initial->pool, pgp_pool_name(to->pool->core), rv, &ticket);
        return refused(r, to->pool->core, rv, to->failed_text);
    }
    to->conn = conn;
    to->lease = lease_text(initial->pool, conn);
    describe(r, conn);
    if (says_response(r))
        release_at_response(r, initial, to);
    return APR_SUCCESS;
}

/* A pin whose request has become another's must not be used as the old one.  It stays,
 * since an outer handler may be using it; unless it may have become another's after all:
 * then whatever is tried on it has to fail. */
static apr_status_t pin_set(request_rec *r, request_rec *initial, pin *to, const pgp_vars *vars)
{
    pgp_error error;

    switch (pgp_conn_set(to->conn, vars, &error)) {
    case PGP_GREET_GOOD:
        return APR_SUCCESS;
    case PGP_GREET_REFUSED:
        return identity_refused(r, to, &error);
    case PGP_GREET_BAD:
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
    apr_status_t rv = APR_SUCCESS;

    if (to->conn && !pgp_conn_alive(to->conn))
        return pin_lost(r, initial, to);
    if (!to->conn && to->failed && pgp_now(pgpool_child_env()) < to->failed_until) {
        pgpool_note_error(r, to->failed_text);
        return to->failed;
    }
    wrong = pgpool_identity_changed(r, to->applied, &vars);
    if (wrong)
        return fail(r, PGP_MSG_IDENTITY, PGPOOL_EUNAVAIL, wrong);
    if (!to->conn)
        rv = pin_borrow(r, initial, to, &vars);
    else if (vars.n)
        rv = pin_set(r, initial, to, &vars);
    if (rv != APR_SUCCESS)
        return rv;
    pgpool_identity_applied(to->applied, &vars);
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

    name = name_in(name, r->per_dir_config);
    pool = pool_of(r->server, name);
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
    const pgpool_child_pool *pool = pool_of(r->server, name_in(name, r->per_dir_config));
    pin *mine = pool ? pin_find(initial_of(r), pool) : NULL;

    if (mine)
        pin_end(mine);
}

/* --- without a request ------------------------------------------------------ */

static apr_status_t lease_end(void *data)
{
    lease *ended = data;

    if (pgpool_child_cut_off())
        return APR_SUCCESS;
    ended->conn->borrower = NULL;
    pgp_pool_release(&ended->conn);
    return APR_SUCCESS;
}

apr_status_t pgpool_open(server_rec *s, const char *name, apr_pool_t *p, PGconn **conn)
{
    const pgpool_child_pool *pool;
    pgp_conn *borrowed;
    pgp_ticket ticket;
    lease *made;
    apr_status_t rv;

    name = name_in(name, s->lookup_defaults);
    pool = pool_of(s, name);
    if (!pool) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, s, "PGP%d: pool %s: %s", PGP_MSG_REFUSED, name,
                     pgpool_strerror(PGPOOL_ENOPOOL));
        return PGPOOL_ENOPOOL;
    }
    rv = borrow(NULL, pool->core, NULL, &borrowed, &ticket);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, s, "PGP%d: %s", PGP_MSG_REFUSED,
                     cause_text(p, name, rv, &ticket));
        return rv;
    }
    made = apr_palloc(p, sizeof(*made));
    *made = (lease){.conn = borrowed, .p = p};
    borrowed->borrower = made;
    apr_pool_cleanup_register(p, made, lease_end, apr_pool_cleanup_null);
    *conn = pgp_conn_handle(borrowed);
    return APR_SUCCESS;
}

void pgpool_close(PGconn *conn)
{
    const pgp_conn *borrowed = conn ? pgp_libpq_owner(conn) : NULL;
    lease *ended = borrowed ? borrowed->borrower : NULL;

    if (ended)
        apr_pool_cleanup_run(ended->p, ended, lease_end);
}
