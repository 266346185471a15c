/**
 * mod_pgpool_bench: handlers that do the same work through mod_pgpool, through mod_dbd, and
 * with libpq only.  For t/bench/run.
 *
 *     SetHandler bench-pgpool    pgpool_acquire, PQexec, answer
 *     SetHandler bench-dbd       ap_dbd_acquire, PQexec, answer
 *     SetHandler bench-select    ap_dbd_acquire, apr_dbd_select, answer
 *     SetHandler bench-thread    one connection for each thread, without any check: the ideal
 *     SetHandler bench-prepared  GET /x?k=VALUE: as bench-thread, with BenchSQL prepared; VALUE
 *                                is its $1, and the answer a JSON array of the first column
 *     SetHandler bench-pselect   the same with ap_dbd_acquire, apr_dbd_pvselect and mod_dbd's
 *                                statement "row" (DBDPrepareSQL)
 *     SetHandler bench-pairs     GET /pairs?WAY&THREADS&PAIRS: each thread opens and closes
 *                                PAIRS times, without a query; WAY is dbd or the name of a pool
 *
 *     BenchConninfo CONNINFO     for bench-thread
 *     BenchSQL SQL               of a section, default SELECT 1
 *     BenchAfter SQL             of a section: sent after the query, without waiting; the next
 *                                PQexec on the connection reads the answer and drops it.
 *                                With mod_dbd it shows the least cost of a reset
 *
 * Both pools take the connection back at the end of the request.  bench-dbd gives mod_dbd the
 * shortest way: the statement goes straight to the PGconn, which is faster than
 * apr_dbd_select() and its copies.  bench-select uses mod_dbd as its consumers do; it serves
 * for the faults, where microseconds do not matter.
 *
 * bench-pairs answers "elapsed processor pairs": nanoseconds from the start of the first thread
 * until the end of the last one, nanoseconds of processor time that the child used for it, and
 * the number of pairs of all threads together.  elapsed / pairs is the mean time of a pair in
 * the whole process: longer if threads wait for each other, shorter with more processors.
 * processor / pairs is the cost of a pair, and hardly depends on the load of the machine.
 */
#include <httpd.h>
#include <http_config.h>
#include <http_protocol.h>
#include <apr_dbd.h>
#include <apr_strings.h>
#include <apr_thread_proc.h>
#include <mod_dbd.h>

#include <pthread.h>
#include <time.h>

#include "mod_pgpool.h"

extern module AP_MODULE_DECLARE_DATA pgpool_bench_module;

#define MOST_THREADS 256

static APR_OPTIONAL_FN_TYPE(pgpool_acquire) *pool_acquire;
static APR_OPTIONAL_FN_TYPE(pgpool_open) *pool_open;
static APR_OPTIONAL_FN_TYPE(pgpool_close) *pool_close;
static APR_OPTIONAL_FN_TYPE(ap_dbd_acquire) *dbd_acquire;
static APR_OPTIONAL_FN_TYPE(ap_dbd_open) *dbd_open;
static APR_OPTIONAL_FN_TYPE(ap_dbd_close) *dbd_close;

static const char *conninfo; /* set by the configuration, then read only */

typedef struct {
    const char *sql;   /* NULL: SELECT 1 */
    const char *after; /* NULL: nothing */
} bench_dir_conf;

/*
 * One query for each request
 */

static PGconn *conn_of_pgpool(request_rec *r)
{
    PGconn *conn;

    return pool_acquire(r, NULL, &conn) == APR_SUCCESS ? conn : NULL;
}

static PGconn *conn_of_dbd(request_rec *r)
{
    ap_dbd_t *dbd = dbd_acquire(r);

    return dbd ? apr_dbd_native_handle(dbd->driver, dbd->handle) : NULL;
}

/* These connections are closed when the process ends. */
static PGconn *conn_of_thread(request_rec *r)
{
    static __thread PGconn *conn;

    if (!conn)
        conn = PQconnectdb(conninfo);
    return conn;
}

static const bench_dir_conf *conf_of(const request_rec *r)
{
    return ap_get_module_config(r->per_dir_config, &pgpool_bench_module);
}

static const char *statement(const request_rec *r)
{
    const bench_dir_conf *conf = conf_of(r);

    return conf->sql ? conf->sql : "SELECT 1";
}

static int answer(request_rec *r, const char *value)
{
    ap_set_content_type(r, "text/plain");
    ap_rputs(value, r);
    return OK;
}

static int query_and_answer(request_rec *r, PGconn *conn)
{
    PGresult *result;
    int rv = HTTP_INTERNAL_SERVER_ERROR;

    if (!conn)
        return HTTP_SERVICE_UNAVAILABLE;
    result = PQexec(conn, statement(r));
    if (PQresultStatus(result) == PGRES_TUPLES_OK)
        rv = answer(r, PQgetvalue(result, 0, 0));
    PQclear(result);
    if (conf_of(r)->after)
        PQsendQuery(conn, conf_of(r)->after);
    return rv;
}

static int select_and_answer(request_rec *r)
{
    const int random_access = 1, first_row = 1;
    ap_dbd_t *dbd = dbd_acquire(r);
    apr_dbd_results_t *results = NULL;
    apr_dbd_row_t *row = NULL;

    if (!dbd)
        return HTTP_SERVICE_UNAVAILABLE;
    if (apr_dbd_select(dbd->driver, r->pool, dbd->handle, &results, statement(r),
                       random_access) ||
        apr_dbd_get_row(dbd->driver, r->pool, results, &row, first_row))
        return HTTP_INTERNAL_SERVER_ERROR;
    return answer(r, apr_dbd_get_entry(dbd->driver, row, 0));
}

/*
 * One prepared query for each request
 */

static const char *argument(const request_rec *r)
{
    return r->args && !strncmp(r->args, "k=", 2) ? r->args + 2 : "";
}

static int answer_array(request_rec *r, const char *row)
{
    const char *body = apr_pstrcat(r->pool, "[", row ? row : "", "]", NULL);

    ap_set_content_type(r, "application/json");
    ap_set_content_length(r, strlen(body));
    ap_rputs(body, r);
    return OK;
}

static int prepared_and_answer(request_rec *r)
{
    static __thread int prepared;
    PGconn *conn = conn_of_thread(r);
    const char *values[] = {argument(r)};
    PGresult *result;
    int rv = HTTP_INTERNAL_SERVER_ERROR;

    if (!prepared)
        PQclear(PQprepare(conn, "row", statement(r), 1, NULL));
    prepared = 1;
    result = PQexecPrepared(conn, "row", 1, values, NULL, NULL, 0);
    if (PQresultStatus(result) == PGRES_TUPLES_OK)
        rv = answer_array(r, PQntuples(result) ? PQgetvalue(result, 0, 0) : NULL);
    PQclear(result);
    return rv;
}

static int pselect_and_answer(request_rec *r)
{
    const int random_access = 1, first_row = 1;
    ap_dbd_t *dbd = dbd_acquire(r);
    apr_dbd_prepared_t *row_statement;
    apr_dbd_results_t *results = NULL;
    apr_dbd_row_t *row = NULL;

    if (!dbd)
        return HTTP_SERVICE_UNAVAILABLE;
    row_statement = apr_hash_get(dbd->prepared, "row", APR_HASH_KEY_STRING);
    if (!row_statement ||
        apr_dbd_pvselect(dbd->driver, r->pool, dbd->handle, &results, row_statement,
                         random_access, argument(r), NULL) ||
        apr_dbd_get_row(dbd->driver, r->pool, results, &row, first_row))
        return HTTP_INTERNAL_SERVER_ERROR;
    return answer_array(r, apr_dbd_get_entry(dbd->driver, row, 0));
}

/*
 * Pairs without a query
 */

typedef struct pair_job pair_job;

typedef struct {
    pair_job *job;
    apr_thread_t *thread;
    apr_pool_t *p;
    apr_int64_t began, ended;
    int failed;
} pair_thread;

struct pair_job {
    server_rec *s;
    int (*pair)(const pair_job *job, apr_pool_t *p); /* 0: failed */
    char way[32];
    int threads, pairs;
    pthread_barrier_t start;
};

static apr_int64_t nanoseconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return now.tv_sec * APR_INT64_C(1000000000) + now.tv_nsec;
}

static int pair_of_pgpool(const pair_job *job, apr_pool_t *p)
{
    PGconn *conn;

    if (pool_open(job->s, job->way, p, &conn) != APR_SUCCESS)
        return 0;
    pool_close(conn);
    return 1;
}

static int pair_of_dbd(const pair_job *job, apr_pool_t *p)
{
    ap_dbd_t *dbd = dbd_open(p, job->s);

    if (!dbd)
        return 0;
    dbd_close(job->s, dbd);
    return 1;
}

static void *APR_THREAD_FUNC pair_thread_run(apr_thread_t *thread, void *data)
{
    /* The APR pool grows with each lease, so it is cleared now and then, as a request's is. */
    enum { PAIRS_A_POOL = 100 };
    pair_thread *self = data;
    pair_job *job = self->job;
    int i;

    pthread_barrier_wait(&job->start);
    self->began = nanoseconds(CLOCK_MONOTONIC);
    for (i = 1; i <= job->pairs && !self->failed; i++) {
        self->failed = !job->pair(job, self->p);
        if (i % PAIRS_A_POOL == 0)
            apr_pool_clear(self->p);
    }
    self->ended = nanoseconds(CLOCK_MONOTONIC);
    return NULL;
}

static void pair_thread_start(pair_thread *self, pair_job *job, apr_pool_t *p)
{
    self->job = job;
    apr_pool_create_unmanaged_ex(&self->p, NULL, NULL);
    if (apr_thread_create(&self->thread, NULL, pair_thread_run, self, p) != APR_SUCCESS)
        abort(); /* the other threads would wait for it at the barrier */
}

/* Returns the nanoseconds, or 0 if one of the threads got no connection. */
static apr_int64_t pair_job_run(pair_job *job, apr_pool_t *p)
{
    pair_thread *threads = apr_pcalloc(p, job->threads * sizeof(*threads));
    apr_int64_t first = APR_INT64_MAX, last = 0;
    int i, failed = 0;

    pthread_barrier_init(&job->start, NULL, job->threads);
    for (i = 0; i < job->threads; i++)
        pair_thread_start(&threads[i], job, p);
    for (i = 0; i < job->threads; i++) {
        apr_status_t rv;

        apr_thread_join(&rv, threads[i].thread);
        apr_pool_destroy(threads[i].p);
        first = threads[i].began < first ? threads[i].began : first;
        last = threads[i].ended > last ? threads[i].ended : last;
        failed |= threads[i].failed;
    }
    pthread_barrier_destroy(&job->start);
    return failed ? 0 : last - first;
}

static int pairs_answer(request_rec *r)
{
    pair_job job = {.s = r->server};
    apr_int64_t elapsed, used;

    if (!r->args ||
        sscanf(r->args, "%31[a-z0-9]&%d&%d", job.way, &job.threads, &job.pairs) != 3 ||
        job.threads < 1 || job.threads > MOST_THREADS || job.pairs < 1)
        return HTTP_BAD_REQUEST;
    job.pair = strcmp(job.way, "dbd") ? pair_of_pgpool : pair_of_dbd;
    used = -nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    elapsed = pair_job_run(&job, r->pool);
    used += nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    if (!elapsed)
        return HTTP_SERVICE_UNAVAILABLE;
    ap_rprintf(r, "%" APR_INT64_T_FMT " %" APR_INT64_T_FMT " %" APR_INT64_T_FMT "\n", elapsed,
               used, (apr_int64_t)job.threads * job.pairs);
    return OK;
}

/*
 * Module
 */

static int bench_handler(request_rec *r)
{
    if (!strcmp(r->handler, "bench-pgpool"))
        return query_and_answer(r, conn_of_pgpool(r));
    if (!strcmp(r->handler, "bench-dbd"))
        return query_and_answer(r, conn_of_dbd(r));
    if (!strcmp(r->handler, "bench-select"))
        return select_and_answer(r);
    if (!strcmp(r->handler, "bench-thread"))
        return query_and_answer(r, conn_of_thread(r));
    if (!strcmp(r->handler, "bench-prepared"))
        return prepared_and_answer(r);
    if (!strcmp(r->handler, "bench-pselect"))
        return pselect_and_answer(r);
    if (!strcmp(r->handler, "bench-pairs"))
        return pairs_answer(r);
    return DECLINED;
}

static void retrieve_optional_fns(void)
{
    pool_acquire = APR_RETRIEVE_OPTIONAL_FN(pgpool_acquire);
    pool_open = APR_RETRIEVE_OPTIONAL_FN(pgpool_open);
    pool_close = APR_RETRIEVE_OPTIONAL_FN(pgpool_close);
    dbd_acquire = APR_RETRIEVE_OPTIONAL_FN(ap_dbd_acquire);
    dbd_open = APR_RETRIEVE_OPTIONAL_FN(ap_dbd_open);
    dbd_close = APR_RETRIEVE_OPTIONAL_FN(ap_dbd_close);
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_optional_fn_retrieve(retrieve_optional_fns, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(bench_handler, NULL, NULL, APR_HOOK_MIDDLE);
}

static void *create_dir_conf(apr_pool_t *p, char *dir)
{
    return apr_pcalloc(p, sizeof(bench_dir_conf));
}

static const char *set_conninfo(cmd_parms *cmd, void *dir_conf, const char *text)
{
    conninfo = text;
    return NULL;
}

static const command_rec directives[] = {
    AP_INIT_TAKE1("BenchConninfo", set_conninfo, NULL, RSRC_CONF, "for bench-thread"),
    AP_INIT_TAKE1("BenchSQL", ap_set_string_slot, (void *)APR_OFFSETOF(bench_dir_conf, sql),
                  ACCESS_CONF, "what the handlers run; default SELECT 1"),
    AP_INIT_TAKE1("BenchAfter", ap_set_string_slot, (void *)APR_OFFSETOF(bench_dir_conf, after),
                  ACCESS_CONF, "what is sent after it, without a wait; default nothing"),
    {.name = NULL},
};

__attribute__((visibility("default"))) AP_DECLARE_MODULE(pgpool_bench) = {
    STANDARD20_MODULE_STUFF,
    .create_dir_config = create_dir_conf,
    .cmds = directives,
    .register_hooks = register_hooks,
};
