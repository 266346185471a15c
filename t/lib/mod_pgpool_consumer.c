/*
 * A consumer of mod_dbd, for t/81-dbd-api.t.  It is compiled with httpd's mod_dbd.h and
 * apr_dbd.h, not with mod_pgpool's headers.  It calls each function and each wrapper, and
 * writes their results, one line each.
 *
 *   SetHandler dbd-consumer   calls all of them
 *   SetHandler dbd-hold       begins a transaction, writes a row, and leaves it open
 *   SetHandler dbd-lost       loses its connection in a transaction, and acquires another one
 *   SetHandler dbd-kept       uses what was acquired before the handler, after its connection
 *                             has been closed
 */
#include <stdbool.h>
#include <httpd.h>
#include <apr_buckets.h>
#include <apr_dbd.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_protocol.h>
#include <http_request.h>
#include <libpq-fe.h>
#include <mod_dbd.h>

module __attribute__((visibility("default"))) pgpool_consumer_module;

/* The state of a request, which all checks use. */
typedef struct {
    request_rec *r;
    ap_dbd_t *dbd;
} consumer;

#define D c->dbd->driver
#define H c->dbd->handle
#define P c->r->pool

static apr_dbd_prepared_t *prepared_of(consumer *c, const char *sql)
{
    apr_dbd_prepared_t *prepared = NULL;

    ap_rprintf(c->r, "prepare %d\n", apr_dbd_prepare(D, P, H, sql, NULL, &prepared));
    return prepared;
}

static void row_print(consumer *c, const char *what, int rv, apr_dbd_results_t *res)
{
    apr_dbd_row_t *row = NULL;

    ap_rprintf(c->r, "%s %d", what, rv);
    while (!rv && apr_dbd_get_row(D, P, res, &row, -1) == 0)
        ap_rprintf(c->r, " %s", apr_dbd_get_entry(D, row, 0));
    ap_rputs("\n", c->r);
}

static void check_results(consumer *c)
{
    apr_dbd_results_t *res = NULL;
    apr_dbd_row_t *row = NULL;
    int rv = apr_dbd_select(D, P, H, &res, "SELECT i AS n, NULL FROM generate_series(1, 3) i",
                            1);

    ap_rprintf(c->r, "random %d %d %d %s %s\n", rv, apr_dbd_num_cols(D, res),
               apr_dbd_num_tuples(D, res), apr_dbd_get_name(D, res, 0),
               apr_dbd_get_name(D, res, 2) ? "?" : "none");
    rv = apr_dbd_get_row(D, P, res, &row, 3);
    ap_rprintf(c->r, "third %d %s", rv, apr_dbd_get_entry(D, row, 0));
    rv = apr_dbd_get_row(D, P, res, &row, 1);
    ap_rprintf(c->r, " first %d %s", rv, apr_dbd_get_entry(D, row, 0));
    rv = apr_dbd_get_row(D, P, res, &row, -1);
    ap_rprintf(c->r, " next %d %s [%s]", rv, apr_dbd_get_entry(D, row, 0),
               apr_dbd_get_entry(D, row, 1));
    ap_rprintf(c->r, " null %d",
               apr_dbd_datum_get(D, row, 1, APR_DBD_TYPE_INT, &rv) == APR_ENOENT);
    ap_rprintf(c->r, " none %d\n", apr_dbd_get_row(D, P, res, &row, 4));
    res = NULL;
    rv = apr_dbd_select(D, P, H, &res, "SELECT 7", 0);
    ap_rprintf(c->r, "sequential %d %d\n", rv, apr_dbd_num_tuples(D, res));
    row_print(c, "rows", rv, res);
    res = NULL;
    rv = apr_dbd_select(D, P, H, &res, "SELECT 1/0", 0);
    ap_rprintf(c->r, "error %d %s\n", rv != 0, apr_dbd_error(D, H, rv));
}

static void check_natives(consumer *c)
{
    apr_dbd_prepared_t *st = prepared_of(
        c, "SELECT %hhd || ' ' || %hhu || ' ' || %hd || ' ' || %hu || ' ' || %d || ' ' || %u "
           "|| ' ' || %ld || ' ' || %lld || ' ' || %llu || ' ' || %f || ' ' || %lf || ' ' || "
           "%s::text || ' ' || coalesce(%pDn, 'null')");
    signed char tiny = -5;
    unsigned char utiny = 250;
    short small = -300;
    unsigned short usmall = 65000;
    int number = -70000;
    unsigned unumber = 4000000000u;
    long wide = -5000000000L;
    apr_int64_t big = APR_INT64_C(-9000000000000000000);
    apr_uint64_t ubig = APR_UINT64_C(18000000000000000000);
    float real = 0.5f;
    double exact = 0.1;
    const void *args[] = {&tiny, &utiny, &small, &usmall, &number, &unumber, &wide,
                          &big,  &ubig,  &real,  &exact,  "text",  NULL};
    apr_dbd_results_t *res = NULL;
    int rv = apr_dbd_pbselect(D, P, H, &res, st, 0, args);

    row_print(c, "pbselect", rv, res);
    res = NULL;
    rv = apr_dbd_pvbselect(D, P, H, &res, st, 0, &tiny, &utiny, &small, &usmall, &number,
                           &unumber, &wide, &big, &ubig, &real, &exact, "text", NULL);
    row_print(c, "pvbselect", rv, res);
}

static void check_texts(consumer *c)
{
    apr_dbd_prepared_t *st = prepared_of(c, "SELECT %d + 1 || %s || '%%'");
    apr_dbd_prepared_t *put = prepared_of(c,
                                          "INSERT INTO thing (name, number) VALUES (%s, %d)");
    const char *args[] = {"41", "x"}, *nulls[] = {NULL, NULL};
    int number = 5, n = -1, rv;
    const void *natives[] = {"native", &number};
    apr_dbd_results_t *res = NULL;

    rv = apr_dbd_pselect(D, P, H, &res, st, 0, 2, args);
    row_print(c, "pselect", rv, res);
    res = NULL;
    rv = apr_dbd_pvselect(D, P, H, &res, st, 0, "1", "y", NULL);
    row_print(c, "pvselect", rv, res);
    rv = apr_dbd_pquery(D, P, H, &n, put, 2, nulls);
    ap_rprintf(c->r, "pquery %d %d\n", rv, n);
    rv = apr_dbd_pvquery(D, P, H, &n, put, "it's", "2", NULL);
    ap_rprintf(c->r, "pvquery %d %d\n", rv, n);
    rv = apr_dbd_pbquery(D, P, H, &n, put, natives);
    ap_rprintf(c->r, "pbquery %d %d\n", rv, n);
    rv = apr_dbd_pvbquery(D, P, H, &n, put, "native", &number, NULL);
    ap_rprintf(c->r, "pvbquery %d %d\n", rv, n);
    rv = apr_dbd_query(D, H, &n,
                       apr_psprintf(P, "DELETE FROM thing WHERE name = '%s' OR number = 5",
                                    apr_dbd_escape(D, P, "it's", H)));
    ap_rprintf(c->r, "query %d %d\n", rv, n);
    rv = apr_dbd_pselect(D, P, H, &res, NULL, 0, 0, NULL);
    ap_rprintf(c->r, "missing %d\n", rv != 0);
}

static void lob_print(consumer *c, apr_dbd_row_t *row, int column, apr_dbd_type_e type)
{
    apr_bucket_brigade *bb = apr_brigade_create(P, c->r->connection->bucket_alloc);
    char *bytes;
    apr_size_t length;
    apr_status_t rv = apr_dbd_datum_get(D, row, column, type, bb);

    apr_brigade_pflatten(bb, &bytes, &length, P);
    ap_rprintf(c->r, "lob %d %" APR_SIZE_T_FMT " %d\n", rv, length,
               length ? bytes[length - 1] : -1);
}

static void check_lobs(consumer *c)
{
    apr_dbd_prepared_t *st = prepared_of(c, "SELECT %pDb::bytea, %pDc::text, 1.5, -3");
    apr_dbd_results_t *res = NULL;
    apr_dbd_row_t *row = NULL;
    apr_size_t blob = 4, clob = 3;
    double exact = 0;
    short small = 0;
    int rv = apr_dbd_pvbselect(D, P, H, &res, st, 1, "a\0b\x07", &blob, NULL, NULL, "xyz",
                               &clob, NULL, NULL);

    ap_rprintf(c->r, "lobs %d\n", rv || apr_dbd_get_row(D, P, res, &row, 1));
    lob_print(c, row, 0, APR_DBD_TYPE_BLOB);
    lob_print(c, row, 1, APR_DBD_TYPE_CLOB);
    rv = apr_dbd_datum_get(D, row, 2, APR_DBD_TYPE_DOUBLE, &exact) ||
         apr_dbd_datum_get(D, row, 3, APR_DBD_TYPE_SHORT, &small);
    ap_rprintf(c->r, "datums %d %g %d\n", rv, exact, small);
}

/* The length of a text that a LOB's arguments make; -1: they are refused. */
static int lob_made(consumer *c, apr_dbd_prepared_t *st, const char *length)
{
    const char *args[] = {"four", length, NULL, NULL};
    apr_dbd_results_t *res = NULL;
    apr_dbd_row_t *row = NULL;

    if (apr_dbd_pselect(D, P, H, &res, st, 1, 4, args) || apr_dbd_get_row(D, P, res, &row, 1))
        return -1;
    return atoi(apr_dbd_get_entry(D, row, 0));
}

static void check_lob_lengths(consumer *c)
{
    apr_dbd_prepared_t *st = prepared_of(c, "SELECT length(%pDc::text)");

    ap_rprintf(c->r, "made %d %d", lob_made(c, st, "3"), lob_made(c, st, NULL));
    ap_rprintf(c->r, " %d", lob_made(c, st, "-1"));
    ap_rprintf(c->r, " %d %s\n", lob_made(c, st, "3000000000"), apr_dbd_error(D, H, 0));
}

static const char *things(consumer *c)
{
    apr_dbd_results_t *res = NULL;
    apr_dbd_row_t *row = NULL;

    apr_dbd_select(D, P, H, &res,
                   "SELECT coalesce(string_agg(name, ',' ORDER BY name), '') "
                   "FROM thing WHERE name LIKE 't%'",
                   1);
    return res && apr_dbd_get_row(D, P, res, &row, 1) == 0 ? apr_dbd_get_entry(D, row, 0) : "?";
}

static void transaction(consumer *c, const char *what, int mode, const char *const *sql)
{
    apr_dbd_transaction_t *trans = NULL;
    int rv = apr_dbd_transaction_start(D, P, H, &trans), n;

    ap_rprintf(c->r, "%s %d %d", what, rv, apr_dbd_transaction_mode_set(D, trans, mode));
    for (; *sql; sql++)
        ap_rprintf(c->r, " %d", apr_dbd_query(D, H, &n, *sql) != 0);
    rv = apr_dbd_transaction_end(D, P, trans);
    ap_rprintf(c->r, " %d %s\n", rv, things(c));
}

static void check_transactions(consumer *c)
{
    static const char put[] = "INSERT INTO thing (name) VALUES ('t1')", bad[] = "SELECT 1/0";
    static const char clear[] = "DELETE FROM thing";
    const char *const good[] = {put, NULL}, *const failing[] = {clear, bad, put, NULL};

    transaction(c, "commit", APR_DBD_TRANSACTION_COMMIT, good);
    transaction(c, "failed", APR_DBD_TRANSACTION_COMMIT, failing);
    transaction(c, "rollback", APR_DBD_TRANSACTION_ROLLBACK, good);
    transaction(c, "ignoring", APR_DBD_TRANSACTION_IGNORE_ERRORS, failing);
    ap_rprintf(c->r, "mode %d\n", apr_dbd_transaction_mode_get(D, NULL));
}

/* Statements that the driver refuses fail the transaction, too. */
static void check_refusals(consumer *c)
{
    apr_dbd_prepared_t *st = prepared_of(c, "SELECT length(%pDc::text)");
    const char *args[] = {"four", "-1", NULL, NULL};
    int i, n;

    for (i = 0; i < 2; i++) {
        apr_dbd_transaction_t *trans = NULL;
        apr_dbd_results_t *res = NULL;
        int rv = apr_dbd_transaction_start(D, P, H, &trans);

        ap_rprintf(c->r, "refused %d %d", rv,
                   apr_dbd_query(D, H, &n, "INSERT INTO thing (name) VALUES ('t2')"));
        ap_rprintf(c->r, " %d", apr_dbd_pselect(D, P, H, &res, i ? st : NULL, 0, 4, args) != 0);
        rv = apr_dbd_transaction_end(D, P, trans);
        ap_rprintf(c->r, " %d %s\n", rv, things(c));
    }
}

/* A transaction begun inside another one; and a failure that the driver does not see. */
static void check_odd_transactions(consumer *c)
{
    apr_dbd_transaction_t *one = NULL, *two = NULL;
    int rv = apr_dbd_transaction_start(D, P, H, &one);

    ap_rprintf(c->r, "two %d %d", rv, apr_dbd_transaction_start(D, P, H, &two));
    PQclear(PQexec(apr_dbd_native_handle(D, H), "SELECT 1/0"));
    ap_rprintf(c->r, " %d\n", apr_dbd_transaction_end(D, P, one));
}

static void check_handles(consumer *c)
{
    ap_dbd_t *again = ap_dbd_acquire(c->r), *own = ap_dbd_open(P, c->r->server);
    ap_dbd_t *kept = ap_dbd_cacquire(c->r->connection);
    apr_dbd_t *refused = NULL;

    ap_rprintf(c->r, "same %d other %d kept %d", again == c->dbd, own && own->handle != H,
               kept && kept == ap_dbd_cacquire(c->r->connection));
    ap_dbd_close(c->r->server, kept);
    kept = ap_dbd_cacquire(c->r->connection);
    ap_rprintf(c->r, " closed %d\n",
               kept && apr_dbd_check_conn(D, P, kept->handle) == APR_SUCCESS);
    ap_rprintf(c->r, "name %s native %d alive %d\n", apr_dbd_name(D),
               apr_dbd_native_handle(D, H) != apr_dbd_native_handle(D, own->handle),
               apr_dbd_check_conn(D, P, H));
    ap_dbd_close(c->r->server, own);
    ap_rprintf(c->r, "open %d dbname %d labels %u hook %d\n",
               apr_dbd_open(D, P, "", &refused) == APR_EGENERAL,
               apr_dbd_set_dbname(D, P, H, "x") == APR_ENOTIMPL,
               apr_hash_count(c->dbd->prepared),
               apr_hash_get(c->dbd->prepared, "of the hook", APR_HASH_KEY_STRING) != NULL);
}

static void check_labels(consumer *c)
{
    const char *label = c->r->args ? c->r->args : "late";
    apr_dbd_prepared_t *st = apr_hash_get(c->dbd->prepared, label, APR_HASH_KEY_STRING);
    apr_dbd_results_t *res = NULL;
    const int rv = st ? apr_dbd_pvselect(D, P, H, &res, st, 0, NULL) : -2;

    row_print(c, label, rv, res);
}

/* A transaction that was begun in a lost connection ends with an error, not in the next one. */
static void lose(consumer *c, bool is_asked_before_end)
{
    apr_dbd_transaction_t *trans = NULL;
    apr_dbd_results_t *res = NULL;
    int n, rv = apr_dbd_transaction_start(D, P, H, &trans);

    ap_rprintf(c->r, "%d %d", rv,
               apr_dbd_query(D, H, &n, "SELECT pg_terminate_backend(pg_backend_pid())") != 0);
    if (is_asked_before_end)
        c->dbd = ap_dbd_acquire(c->r);
    ap_rprintf(c->r, " %d", apr_dbd_transaction_end(D, P, trans) != 0);
    c->dbd = ap_dbd_acquire(c->r);
    rv = c->dbd ? apr_dbd_select(D, P, H, &res, "SELECT 1", 0) : -1;
    row_print(c, "", rv, res);
}

/* A statement in a subrequest whose section has a short PgPoolStatementTimeout, which costs the
 * connection, and one after it. */
static void check_timeouts(consumer *c)
{
    request_rec *inner = ap_sub_req_lookup_uri("/brief", c->r, c->r->output_filters);
    int n, rv = ap_run_sub_req(inner);

    ap_destroy_sub_req(inner);
    ap_rprintf(c->r, "inner %d", rv);
    c->dbd = ap_dbd_acquire(c->r);
    ap_rprintf(c->r, " outer %d\n", apr_dbd_query(D, H, &n, "SELECT pg_sleep(1)"));
}

/* Acquire early, and keep what comes of it for the handler. */
static int acquire_early(request_rec *r)
{
    if (r->handler && !strcmp(r->handler, "dbd-kept"))
        ap_set_module_config(r->request_config, &pgpool_consumer_module, ap_dbd_acquire(r));
    return DECLINED;
}

/* The handle's connection has gone back, so it is the next one to be lent.  Lose it, wait until
 * the pool has closed it, and go on with the statements that came with the handle. */
static void check_kept(consumer *c)
{
    ap_dbd_t *other = ap_dbd_open(P, c->r->server);
    apr_dbd_prepared_t *st;
    int n, rv = apr_dbd_query(other->driver, other->handle, &n,
                              "SELECT pg_terminate_backend(pg_backend_pid())");

    ap_dbd_close(c->r->server, other);
    apr_sleep(apr_time_from_msec(300));
    c->dbd = ap_get_module_config(c->r->request_config, &pgpool_consumer_module);
    st = apr_hash_get(c->dbd->prepared, "of the hook", APR_HASH_KEY_STRING);
    ap_rprintf(c->r, "kept %d %d %d", rv, apr_dbd_native_handle(D, H) == NULL, st != NULL);
    rv = apr_dbd_pvquery(D, P, H, &n, st, NULL);
    ap_rprintf(c->r, " %d %s\n", rv, apr_dbd_error(D, H, rv));
}

static int handle(request_rec *r)
{
    consumer at = {.r = r}, *c = &at;
    int n;
    apr_dbd_transaction_t *trans = NULL;

    if (!r->handler || strncmp(r->handler, "dbd-", 4) != 0)
        return DECLINED;
    ap_set_content_type(r, "text/plain");
    if (!strcmp(r->handler, "dbd-kept")) {
        check_kept(c);
        return OK;
    }
    c->dbd = ap_dbd_acquire(r);
    if (!c->dbd)
        return HTTP_SERVICE_UNAVAILABLE;
    if (!strcmp(r->handler, "dbd-lost")) {
        lose(c, r->args != NULL);
        return OK;
    }
    if (!strcmp(r->handler, "dbd-outer")) {
        check_timeouts(c);
        return OK;
    }
    if (!strcmp(r->handler, "dbd-brief"))
        return apr_dbd_query(D, H, &n, "SELECT pg_sleep(60)") ? OK : HTTP_CONFLICT;
    if (!strcmp(r->handler, "dbd-hold")) {
        n = apr_dbd_transaction_start(D, P, H, &trans);
        ap_rprintf(r, "%d", n);
        n = apr_dbd_query(D, H, &n, "INSERT INTO thing (name) VALUES ('held')");
        ap_rprintf(r, " %d\n", n);
        return OK;
    }
    if (!strcmp(r->handler, "dbd-named")) {
        apr_dbd_results_t *res = NULL;

        n = apr_dbd_select(D, P, H, &res, "SELECT current_setting('app.user', true)", 0);
        row_print(c, "named", n, res);
        return OK;
    }
    if (!r->args) {
        check_handles(c);
        check_results(c);
        check_natives(c);
        check_texts(c);
        check_lobs(c);
        check_lob_lengths(c);
        check_transactions(c);
        check_refusals(c);
        check_odd_transactions(c);
    }
    check_labels(c);
    return OK;
}

/* Prepare one more statement on each new connection, and drop all that its session has; the
 * other host's hook changes a setting, of which no command tag tells.  In the server whose
 * connections are named for it the hook ends them. */
static apr_status_t post_connect(apr_pool_t *p, dbd_cfg_t *conf, ap_dbd_t *dbd)
{
    apr_dbd_prepared_t *prepared = NULL;
    int n;

    apr_dbd_query(dbd->driver, dbd->handle, &n,
                  strcmp(conf->server->server_hostname, "other") != 0
                      ? "DISCARD ALL"
                      : "SELECT set_config('app.user', 'hook', false)");
    apr_dbd_query(dbd->driver, dbd->handle, &n,
                  "SELECT pg_terminate_backend(pg_backend_pid()) "
                  "WHERE current_setting('application_name') = 'ends in the hook'");
    if (strcmp(conf->name, "pgsql") != 0 || conf->nmax != 3 || conf->exptime != 60)
        return APR_EGENERAL;
    apr_dbd_prepare(dbd->driver, p, dbd->handle, "SELECT 'hook'", "of the hook", &prepared);
    apr_hash_set(dbd->prepared, "of the hook", APR_HASH_KEY_STRING, prepared);
    return APR_SUCCESS;
}

/* Register a statement at the last moment, also for servers without a directive. */
static int post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    APR_OPTIONAL_FN_TYPE(ap_dbd_prepare) *prepare = APR_RETRIEVE_OPTIONAL_FN(ap_dbd_prepare);

    for (; s; s = s->next)
        prepare(s, "SELECT 'late'", "late");
    return OK;
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_fixups(acquire_early, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(handle, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(post_config, NULL, NULL, APR_HOOK_REALLY_LAST);
    APR_OPTIONAL_HOOK(dbd, post_connect, post_connect, NULL, NULL, APR_HOOK_MIDDLE);
}

module pgpool_consumer_module = {
    STANDARD20_MODULE_STUFF,
    .register_hooks = register_hooks,
};
