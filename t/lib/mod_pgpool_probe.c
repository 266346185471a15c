/**
 * mod_pgpool_probe: a handler for tests that calls mod_pgpool's API as the URL says, and
 * reports the results.
 *
 *     SetHandler pgpool-probe
 *     GET /probe?acquire&sql=select+1&again&release&acquire=other
 *
 * The query string is a list of commands, run from left to right, separated by `&`, with an
 * argument after `=` (URL-encoded).  Each command writes `key=value` lines, with the keys that
 * stand after the colon below.  If a request redirects or fails, its lines so far go to the
 * probe that answers instead.
 *
 *   acquire[=pool]   pgpool_acquire: status, and pid, waited (microseconds)
 *   again            acquires from the same pool once more: again (status), same (0, 1)
 *   release[=pool]   pgpool_release: released
 *   open[=pool]      pgpool_open, with an APR pool of the request: status, pid
 *   close            pgpool_close: closed
 *   destroy          destroys the APR pool that open used: destroyed
 *   param=TEXT       a value for the next query, rows or stop
 *   query=SQL        pgpool_query on the pool of the last acquire: status, result, value,
 *                    sqlstate
 *   rows=SQL         pgpool_query_rows: status, rows, calls (with rows), empty (calls without)
 *   stop=SQL         the same with a function that stops at the first row
 *   meddle=SQL       the same with a function that waits for 300 ms at the first row and
 *                    acquires: meddled (status), status
 *   replace=SQL      the same with a function that acquires once more then
 *   httpstatus       pgpool_http_status of the last status: httpstatus; unless it is OK, the
 *                    response has it and the list ends
 *   strerror         pgpool_strerror of the last status: strerror
 *   notes            the pgpool- notes: note.NAME, and initial.NAME of the initial request
 *   hooks            how often the hooks ran in this child: connect, attach; child (its pid)
 *
 * On the connection of the last acquire or open (`noconn=COMMAND` without one):
 *
 *   pid              pid
 *   sql=SQL          PQexec: result, value (first row and column), sqlstate
 *   socket           the socket's options: keepalive, idle and interval (seconds), count,
 *                    user_timeout (milliseconds)
 *   state            conn, tx, pipeline, nonblocking, busy, processor (own, other)
 *   send=SQL         PQsendQuery, without reading the results: sent
 *   single=SQL       the same in single row mode, reads one row: result, value
 *   copyin=SQL       PQexec of a COPY FROM STDIN, without ending it: result, ...
 *   copyout=SQL      likewise COPY TO STDOUT
 *   flood=SQL        COPY FROM STDIN, and rows until the server takes in no more and one row
 *                    is left in libpq's buffer: flooded (bytes)
 *   pipeline[=SQL]   enters pipeline mode, sends SQL without a sync: pipeline
 *   queue=SQL        PQsendQueryParams: queued
 *   sync             PQpipelineSync: synced
 *   leave            PQexitPipelineMode: left
 *   request          PQsendFlushRequest: the server answers without a sync: requested
 *   flushes          in pipeline mode: PQsendFlushRequest, until the server takes in no more
 *                    and some requests are left in libpq's buffer: flushes
 *   result           PQgetResult: result, ...; none if there was none
 *   prepare=SQL      PQprepare as "protocol": result, ...
 *   notifies         reads the notifications that have come: notifies (their number)
 *   encoding         PQclientEncoding: encoding
 *   verbose          PQsetErrorVerbosity: verbosity (the one before)
 *   nonblocking      PQsetnonblocking: nonblocking
 *   notice           sets a notice processor whose argument is the request's memory: notice
 *   swap             sets a notice receiver and a processor, and puts the old ones back:
 *                    swapped
 *   noticed          how often the notice processor was called: noticed
 *   keep=SQL         PQexec, and keeps the result until the request's end: result, ...
 *   late=SQL         PQexec in a cleanup of the request's APR pool: late
 *   trace            PQtrace into a file that is closed with the request: trace
 *
 * On the request:
 *
 *   misuse           reads a row that the kept result does not have: misused
 *   basicpw          ap_get_basic_auth_pw: user, as the header has it
 *   fork             forks; the other process acquires, opens, closes and releases, destroys
 *                    its copy of the request's APR pool and ends: forked, opened, exit
 *   sleep=SECONDS    keeps the thread
 *   heap=SECONDS     the same, allocating and freeing memory all the time
 *   touch=PATH       creates a file: touched
 *   hold=PATH        waits until the file exists, 30 s at most: held (1, or 0 after 30 s)
 *   write=BYTES      writes that many bytes
 *   flush            sends the output so far to the client: flushed
 *   eos              ends the response; later lines are dropped
 *   early            the result of PgPoolProbeEarly: early (status), early.pid, early.value
 *   subreq=URI       runs a subrequest, whose output becomes part of this response: subreq
 *   lookfile=NAME    looks a file up as a subrequest, without running it: lookfile (its status)
 *   redirect=URI     internal redirect; ends the list
 *   through=URI      internal redirect, and goes on; later lines are dropped
 *   fail=STATUS      returns this HTTP status; ends the list
 *   abort            marks the client's connection as aborted; ends the list
 *
 * `PgPoolProbeHook connect|attach count|fail|begin|discard|lose|encode|acquire` (server config)
 * chooses what the module's hook of that name does: count only (the default), fail, leave a
 * transaction open, discard all of the session's state, lose its connection the first time,
 * change client_encoding, or acquire (attach only).
 *
 * `PgPoolProbeEarly SQL` (per directory) acquires and runs SQL before authentication, in the
 * access_checker hook.
 *
 * `SetOutputFilter PGPOOL_PROBE` acquires for the filter's request whenever content passes,
 * also that of a subrequest.  The command `early` then reports filtered (status).
 */
#include <httpd.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <util_filter.h>
#include <apr_atomic.h>
#include <apr_strings.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mod_pgpool.h"

module AP_MODULE_DECLARE_DATA pgpool_probe_module;

static APR_OPTIONAL_FN_TYPE(pgpool_acquire) *acquire;
static APR_OPTIONAL_FN_TYPE(pgpool_release) *release;
static APR_OPTIONAL_FN_TYPE(pgpool_open) *open_conn;
static APR_OPTIONAL_FN_TYPE(pgpool_close) *close_conn;
static APR_OPTIONAL_FN_TYPE(pgpool_query) *query;
static APR_OPTIONAL_FN_TYPE(pgpool_query_rows) *query_rows;
static APR_OPTIONAL_FN_TYPE(pgpool_http_status) *http_status;
static APR_OPTIONAL_FN_TYPE(pgpool_strerror) *strerror_of;

/* The note with the result of PgPoolProbeEarly or of the filter. */
static const char early_note[] = "probe-early";

typedef struct {
    request_rec *r;
    apr_bucket_brigade *out;    /* lines that were not passed on yet */
    const char *pool;           /* of the last acquire */
    PGconn *conn;               /* of the last acquire or open */
    apr_pool_t *lease;          /* of the last open */
    apr_status_t rv;            /* of the last acquire or open */
    int ended;                  /* the response has ended: later lines are dropped */
    int *noticed;               /* of the last notice */
    PGresult *kept;             /* of the last keep */
    apr_array_header_t *params; /* of const char *, for the next query; NULL: none */
    int meddles;                /* so often the function of meddle is still to acquire */
} probe_t;

/* A command returns NEXT, or the handler's result, which ends the list. */
enum { NEXT = 1 };
typedef int (*command_fn)(probe_t *probe, const char *arg);

typedef struct {
    const char *name;
    command_fn run;
    int needs_conn;
} command_t;

__attribute__((format(printf, 2, 3))) static void tell(probe_t *probe, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    apr_brigade_vprintf(probe->out, NULL, NULL, format, args);
    va_end(args);
    apr_brigade_putc(probe->out, NULL, NULL, '\n');
}

/* Pass the lines on.  The response has begun then, so the request cannot fail or redirect. */
static void flush_output(probe_t *probe)
{
    if (!probe->ended)
        ap_pass_brigade(probe->r->output_filters, probe->out);
    apr_brigade_cleanup(probe->out);
}

/*
 * Borrowing
 */

static const char *status_name(apr_pool_t *p, apr_status_t rv)
{
    switch (rv) {
    case APR_SUCCESS:
        return "0";
    case PGPOOL_EEXHAUSTED:
        return "EEXHAUSTED";
    case PGPOOL_EUNAVAIL:
        return "EUNAVAIL";
    case PGPOOL_ELOST:
        return "ELOST";
    case PGPOOL_ENOPOOL:
        return "ENOPOOL";
    case PGPOOL_ESTOPPING:
        return "ESTOPPING";
    case PGPOOL_ESTATEMENT:
        return "ESTATEMENT";
    case PGPOOL_ETIMEDOUT:
        return "ETIMEDOUT";
    case PGPOOL_EABORTED:
        return "EABORTED";
    default:
        return apr_itoa(p, rv);
    }
}

static void tell_borrowed(probe_t *probe, apr_time_t started)
{
    apr_time_t waited = apr_time_now() - started;

    tell(probe, "status=%s", status_name(probe->r->pool, probe->rv));
    if (probe->rv == APR_SUCCESS)
        tell(probe, "pid=%d", PQbackendPID(probe->conn));
    tell(probe, "waited=%" APR_TIME_T_FMT, waited);
}

static int run_acquire(probe_t *probe, const char *arg)
{
    apr_time_t started = apr_time_now();

    probe->pool = arg;
    probe->conn = NULL;
    probe->rv = acquire(probe->r, probe->pool, &probe->conn);
    tell_borrowed(probe, started);
    return NEXT;
}

static int run_again(probe_t *probe, const char *arg)
{
    PGconn *conn = NULL;

    probe->rv = acquire(probe->r, probe->pool, &conn);
    tell(probe, "again=%s", status_name(probe->r->pool, probe->rv));
    tell(probe, "same=%d", conn && conn == probe->conn);
    probe->conn = conn;
    return NEXT;
}

static int run_release(probe_t *probe, const char *arg)
{
    const char *pool = arg ? arg : probe->pool;

    release(probe->r, pool);
    probe->conn = NULL;
    tell(probe, "released=%s", pool ? pool : "");
    return NEXT;
}

static int run_open(probe_t *probe, const char *arg)
{
    apr_time_t started = apr_time_now();

    apr_pool_create(&probe->lease, probe->r->pool);
    probe->conn = NULL;
    probe->rv = open_conn(probe->r->server, arg, probe->lease, &probe->conn);
    tell_borrowed(probe, started);
    return NEXT;
}

static int run_close(probe_t *probe, const char *arg)
{
    close_conn(probe->conn);
    probe->conn = NULL;
    tell(probe, "closed=1");
    return NEXT;
}

static int run_destroy(probe_t *probe, const char *arg)
{
    if (!probe->lease)
        return NEXT;
    apr_pool_destroy(probe->lease);
    probe->lease = NULL;
    probe->conn = NULL;
    tell(probe, "destroyed=1");
    return NEXT;
}

static int run_httpstatus(probe_t *probe, const char *arg)
{
    int status = http_status(probe->r, probe->rv);

    tell(probe, "httpstatus=%d", status);
    return status == OK ? NEXT : status;
}

static int run_strerror(probe_t *probe, const char *arg)
{
    tell(probe, "strerror=%s", strerror_of(probe->rv));
    return NEXT;
}

/*
 * Using the connection
 */

static void tell_result(probe_t *probe, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    tell(probe, "result=%s", PQresStatus(PQresultStatus(result)));
    if (PQntuples(result) > 0 && PQnfields(result) > 0)
        tell(probe, "value=%s", PQgetvalue(result, 0, 0));
    if (sqlstate)
        tell(probe, "sqlstate=%s", sqlstate);
}

static int run_pid(probe_t *probe, const char *arg)
{
    tell(probe, "pid=%d", PQbackendPID(probe->conn));
    return NEXT;
}

static int run_sql(probe_t *probe, const char *arg)
{
    PGresult *result = PQexec(probe->conn, arg ? arg : "");

    tell_result(probe, result);
    PQclear(result);
    return NEXT;
}

/*
 * Statements of mod_pgpool's
 */

static int run_param(probe_t *probe, const char *arg)
{
    if (!probe->params)
        probe->params = apr_array_make(probe->r->pool, 2, sizeof(const char *));
    APR_ARRAY_PUSH(probe->params, const char *) = arg;
    return NEXT;
}

static pgpool_statement statement_of(const probe_t *probe, const char *sql)
{
    return (pgpool_statement){.sql = sql ? sql : "",
                              .nparams = probe->params ? probe->params->nelts : 0};
}

static pgpool_params params_of(probe_t *probe)
{
    const pgpool_params params = {
        .values = probe->params ? (const char *const *)probe->params->elts : NULL};

    probe->params = NULL;
    return params;
}

static int run_query(probe_t *probe, const char *arg)
{
    const pgpool_statement st = statement_of(probe, arg);
    const pgpool_params params = params_of(probe);
    PGresult *result = NULL;

    probe->rv = query(probe->r, probe->pool, &st, &params, &result);
    tell(probe, "status=%s", status_name(probe->r->pool, probe->rv));
    if (result)
        tell_result(probe, result);
    return NEXT;
}

typedef struct {
    int rows, calls, empty, stops;
} counted;

static apr_status_t count_rows(void *baton, const PGresult *rows)
{
    counted *seen = baton;

    seen->rows += PQntuples(rows);
    seen->calls += PQntuples(rows) > 0;
    seen->empty += PQntuples(rows) == 0 && PQnfields(rows) > 0;
    return seen->stops && seen->rows ? APR_EGENERAL : APR_SUCCESS;
}

static int rows_run(probe_t *probe, const char *sql, int stops)
{
    const pgpool_statement st = statement_of(probe, sql);
    const pgpool_params params = params_of(probe);
    counted seen = {.stops = stops};

    probe->rv = query_rows(probe->r, probe->pool, &st, &params, count_rows, &seen);
    tell(probe, "status=%s",
         probe->rv == APR_EGENERAL ? "EGENERAL" : status_name(probe->r->pool, probe->rv));
    tell(probe, "rows=%d", seen.rows);
    tell(probe, "calls=%d", seen.calls);
    tell(probe, "empty=%d", seen.empty);
    return NEXT;
}

/* Acquires as an output filter might that the rows pass. */
static apr_status_t meddle_with_rows(void *baton, const PGresult *rows)
{
    probe_t *probe = baton;

    if (probe->meddles)
        apr_sleep(apr_time_from_msec(300));
    for (; probe->meddles; probe->meddles--) {
        const apr_status_t rv = acquire(probe->r, probe->pool, &probe->conn);

        tell(probe, "meddled=%s", status_name(probe->r->pool, rv));
    }
    return APR_SUCCESS;
}

static int rows_meddled(probe_t *probe, const char *sql, int times)
{
    const pgpool_statement st = statement_of(probe, sql);

    probe->meddles = times;
    probe->rv = query_rows(probe->r, probe->pool, &st, NULL, meddle_with_rows, probe);
    tell(probe, "status=%s", status_name(probe->r->pool, probe->rv));
    return NEXT;
}

static int run_meddle(probe_t *probe, const char *arg)
{
    return rows_meddled(probe, arg, 1);
}

static int run_replace(probe_t *probe, const char *arg)
{
    return rows_meddled(probe, arg, 2);
}

static int run_rows(probe_t *probe, const char *arg)
{
    return rows_run(probe, arg, 0);
}

static int run_rows_stopped(probe_t *probe, const char *arg)
{
    return rows_run(probe, arg, 1);
}

static int run_send(probe_t *probe, const char *arg)
{
    tell(probe, "sent=%d", PQsendQuery(probe->conn, arg ? arg : ""));
    return NEXT;
}

static int run_single(probe_t *probe, const char *arg)
{
    PGresult *result;

    PQsendQuery(probe->conn, arg ? arg : "");
    PQsetSingleRowMode(probe->conn);
    result = PQgetResult(probe->conn);
    tell_result(probe, result);
    PQclear(result);
    return NEXT;
}

static int run_pipeline(probe_t *probe, const char *arg)
{
    int entered = PQenterPipelineMode(probe->conn);

    if (entered && arg)
        PQsendQueryParams(probe->conn, arg, 0, NULL, NULL, NULL, NULL, 0);
    tell(probe, "pipeline=%d", entered);
    return NEXT;
}

static int run_queue(probe_t *probe, const char *arg)
{
    tell(probe, "queued=%d",
         PQsendQueryParams(probe->conn, arg ? arg : "", 0, NULL, NULL, NULL, NULL, 0));
    return NEXT;
}

static int run_sync(probe_t *probe, const char *arg)
{
    tell(probe, "synced=%d", PQpipelineSync(probe->conn));
    return NEXT;
}

static int run_result(probe_t *probe, const char *arg)
{
    PGresult *result = PQgetResult(probe->conn);

    if (result)
        tell_result(probe, result);
    else
        tell(probe, "result=none");
    PQclear(result);
    return NEXT;
}

static int run_prepare(probe_t *probe, const char *arg)
{
    PGresult *result = PQprepare(probe->conn, "protocol", arg ? arg : "", 0, NULL);

    tell_result(probe, result);
    PQclear(result);
    return NEXT;
}

static int writable(const PGconn *conn)
{
    struct pollfd fd = {.fd = PQsocket(conn), .events = POLLOUT};

    return poll(&fd, 1, 100) == 1;
}

static void buffer(const PGconn *conn, int bytes)
{
    setsockopt(PQsocket(conn), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

/* Send rows of 1000 bytes until the server has not taken in any for 100 ms.  Then make the
 * socket's buffer small, so that it has no room for one more row.  Make it large before: an
 * earlier flood has made it small, and libpq waits until there was room for all of its 8 kB. */
static int run_flood(probe_t *probe, const char *arg)
{
    static const char row[1000] = {[0 ... sizeof(row) - 2] = 'x', '\n'};
    apr_size_t flooded = 0;
    int status = run_sql(probe, arg);

    buffer(probe->conn, 65536);
    while (writable(probe->conn) && PQputCopyData(probe->conn, row, sizeof(row)) == 1)
        flooded += sizeof(row);
    buffer(probe->conn, 1);
    PQputCopyData(probe->conn, row, sizeof(row));
    tell(probe, "flooded=%" APR_SIZE_T_FMT, flooded);
    return status;
}

static int run_leave(probe_t *probe, const char *arg)
{
    tell(probe, "left=%d", PQexitPipelineMode(probe->conn));
    return NEXT;
}

static int run_request(probe_t *probe, const char *arg)
{
    tell(probe, "requested=%d", PQsendFlushRequest(probe->conn) && PQflush(probe->conn) == 0);
    return NEXT;
}

/* Write 8200 bytes (1640 requests) at a time.  libpq sends 8192 at once, so a few are left each
 * time.  The server answers nothing, so the transaction status stays idle. */
static int run_flushes(probe_t *probe, const char *arg)
{
    int n = 0;

    buffer(probe->conn, 65536);
    while (PQsendFlushRequest(probe->conn) && (++n % 1640 || writable(probe->conn)))
        ;
    buffer(probe->conn, 1);
    tell(probe, "flushes=%d", n);
    return NEXT;
}

static int run_notifies(probe_t *probe, const char *arg)
{
    PGnotify *notify;
    int n = 0;

    PQconsumeInput(probe->conn);
    while ((notify = PQnotifies(probe->conn)) != NULL) {
        PQfreemem(notify);
        n++;
    }
    tell(probe, "notifies=%d", n);
    return NEXT;
}

static int run_encoding(probe_t *probe, const char *arg)
{
    tell(probe, "encoding=%s", pg_encoding_to_char(PQclientEncoding(probe->conn)));
    return NEXT;
}

static int run_verbose(probe_t *probe, const char *arg)
{
    tell(probe, "verbosity=%d", PQsetErrorVerbosity(probe->conn, PQERRORS_VERBOSE));
    return NEXT;
}

static int run_nonblocking(probe_t *probe, const char *arg)
{
    PQsetnonblocking(probe->conn, 1);
    tell(probe, "nonblocking=%d", PQisnonblocking(probe->conn));
    return NEXT;
}

static void count_notice(void *count, const char *message)
{
    ++*(int *)count;
}

static void ignore_notice(void *none, const PGresult *result)
{
}

/* A notice after the request's end would be counted in memory that was freed. */
static int run_notice(probe_t *probe, const char *arg)
{
    probe->noticed = apr_pcalloc(probe->r->pool, sizeof(int));
    PQsetNoticeProcessor(probe->conn, count_notice, probe->noticed);
    tell(probe, "notice=1");
    return NEXT;
}

/* libpq returns the earlier function, but not its argument. */
static int run_swap(probe_t *probe, const char *arg)
{
    PQnoticeReceiver receiver = PQsetNoticeReceiver(probe->conn, ignore_notice, NULL);
    PQnoticeProcessor processor = PQsetNoticeProcessor(probe->conn, count_notice, NULL);

    PQsetNoticeReceiver(probe->conn, receiver, NULL);
    PQsetNoticeProcessor(probe->conn, processor, NULL);
    tell(probe, "swapped=1");
    return NEXT;
}

static int run_noticed(probe_t *probe, const char *arg)
{
    tell(probe, "noticed=%d", probe->noticed ? *probe->noticed : -1);
    return NEXT;
}

static apr_status_t clear_result(void *result)
{
    PQclear(result);
    return APR_SUCCESS;
}

static int run_keep(probe_t *probe, const char *arg)
{
    probe->kept = PQexec(probe->conn, arg ? arg : "");
    apr_pool_cleanup_register(probe->r->pool, probe->kept, clear_result, apr_pool_cleanup_null);
    tell_result(probe, probe->kept);
    return NEXT;
}

/* libpq reports the misuse to the notice receiver that was set when the result was made. */
static int run_misuse(probe_t *probe, const char *arg)
{
    tell(probe, "misused=%d", PQgetvalue(probe->kept, 99, 0) == NULL);
    return NEXT;
}

/* A statement to run on a connection that was returned. */
typedef struct {
    PGconn *conn;
    const char *sql;
} late_t;

static apr_status_t exec_late(void *data)
{
    const late_t *late = data;

    PQclear(PQexec(late->conn, late->sql));
    return APR_SUCCESS;
}

static int run_late(probe_t *probe, const char *arg)
{
    late_t *late = apr_palloc(probe->r->pool, sizeof(*late));

    *late = (late_t){.conn = probe->conn, .sql = arg ? arg : ""};
    apr_pool_cleanup_register(probe->r->pool, late, exec_late, apr_pool_cleanup_null);
    tell(probe, "late=1");
    return NEXT;
}

static apr_status_t close_trace(void *file)
{
    fclose(file);
    return APR_SUCCESS;
}

/* A message after the request's end would be traced into a closed file. */
static int run_trace(probe_t *probe, const char *arg)
{
    FILE *file = tmpfile();

    if (file) {
        PQtrace(probe->conn, file);
        apr_pool_cleanup_register(probe->r->pool, file, close_trace, apr_pool_cleanup_null);
    }
    tell(probe, "trace=%d", file != NULL);
    return NEXT;
}

static const char *transaction_name(PGTransactionStatusType status)
{
    static const char *const names[] = {
        [PQTRANS_IDLE] = "IDLE",       [PQTRANS_ACTIVE] = "ACTIVE",
        [PQTRANS_INTRANS] = "INTRANS", [PQTRANS_INERROR] = "INERROR",
        [PQTRANS_UNKNOWN] = "UNKNOWN",
    };

    return names[status];
}

static int run_state(probe_t *probe, const char *arg)
{
    PGconn *conn = probe->conn;
    int own = PQsetNoticeProcessor(conn, NULL, NULL) == count_notice;

    tell(probe, "conn=%s", PQstatus(conn) == CONNECTION_OK ? "OK" : "BAD");
    tell(probe, "tx=%s", transaction_name(PQtransactionStatus(conn)));
    tell(probe, "pipeline=%d", PQpipelineStatus(conn) != PQ_PIPELINE_OFF);
    tell(probe, "nonblocking=%d", PQisnonblocking(conn));
    tell(probe, "busy=%d", PQisBusy(conn));
    tell(probe, "processor=%s", own ? "own" : "other");
    return NEXT;
}

static int socket_option(const probe_t *probe, int level, int option)
{
    int value = -1;
    socklen_t size = sizeof(value);

    getsockopt(PQsocket(probe->conn), level, option, &value, &size);
    return value;
}

static int run_socket(probe_t *probe, const char *arg)
{
    tell(probe, "keepalive=%d", socket_option(probe, SOL_SOCKET, SO_KEEPALIVE));
    tell(probe, "idle=%d", socket_option(probe, IPPROTO_TCP, TCP_KEEPIDLE));
    tell(probe, "interval=%d", socket_option(probe, IPPROTO_TCP, TCP_KEEPINTVL));
    tell(probe, "count=%d", socket_option(probe, IPPROTO_TCP, TCP_KEEPCNT));
    tell(probe, "user_timeout=%d", socket_option(probe, IPPROTO_TCP, TCP_USER_TIMEOUT));
    return NEXT;
}

/*
 * The request
 */

static int run_basicpw(probe_t *probe, const char *arg)
{
    const char *password;
    const int status = ap_get_basic_auth_pw(probe->r, &password);

    tell(probe, "user=%s", status == OK ? probe->r->user : "none");
    return NEXT;
}

/* Runs in the forked process, whose memory is a copy. */
static void use_in_fork(probe_t *probe, int told)
{
    apr_pool_t *p;
    PGconn *conn;
    const pgpool_statement st = {.sql = "SELECT 1"};
    apr_status_t acquired = acquire(probe->r, probe->pool, &conn), opened, queried;
    PGresult *result;
    char text[96];

    apr_pool_create(&p, probe->r->pool);
    opened = open_conn(probe->r->server, probe->pool, p, &conn);
    queried = query(probe->r, probe->pool, &st, NULL, &result);
    apr_snprintf(text, sizeof(text), "forked=%s\nopened=%s\nqueried=%s",
                 status_name(p, acquired), status_name(p, opened), status_name(p, queried));
    close_conn(probe->conn);
    release(probe->r, probe->pool);
    if (write(told, text, strlen(text)) < 0)
        _exit(1);
    apr_pool_destroy(probe->r->pool);
    _exit(0);
}

static int run_fork(probe_t *probe, const char *arg)
{
    char text[64];
    apr_size_t length = 0;
    apr_ssize_t got;
    int ends[2], status = -1;
    pid_t pid;

    if (pipe(ends) != 0)
        return HTTP_INTERNAL_SERVER_ERROR;
    pid = fork();
    if (pid == 0) {
        alarm(30);
        use_in_fork(probe, ends[1]);
    }
    close(ends[1]);
    while (pid > 0 && (got = read(ends[0], text + length, sizeof(text) - 1 - length)) > 0)
        length += got;
    close(ends[0]);
    text[length] = '\0';
    waitpid(pid, &status, 0);
    tell(probe, "%s\nexit=%d", text, status);
    return NEXT;
}

static int run_sleep(probe_t *probe, const char *arg)
{
    apr_sleep((apr_interval_time_t)(atof(arg ? arg : "0") * APR_USEC_PER_SEC));
    return NEXT;
}

static int run_heap(probe_t *probe, const char *arg)
{
    apr_time_t end = apr_time_now() + apr_time_from_sec(atoi(arg ? arg : "0"));
    void *volatile block; /* volatile, so that the compiler keeps the calls */

    while (apr_time_now() < end) {
        int i;

        for (i = 0; i < 1000; i++) {
            block = malloc(100000);
            free(block);
        }
    }
    return NEXT;
}

static int run_touch(probe_t *probe, const char *arg)
{
    FILE *file = arg ? fopen(arg, "w") : NULL;

    if (file)
        fclose(file);
    tell(probe, "touched=%d", file != NULL);
    return NEXT;
}

static int run_hold(probe_t *probe, const char *arg)
{
    apr_time_t deadline = apr_time_now() + apr_time_from_sec(30);
    int there;

    while (!(there = access(arg ? arg : "", F_OK) == 0) && apr_time_now() < deadline)
        apr_sleep(apr_time_from_msec(2));
    tell(probe, "held=%d", there);
    return NEXT;
}

static int run_write(probe_t *probe, const char *arg)
{
    static const char block[8192] = {[0 ... sizeof(block) - 1] = 'x'};
    apr_off_t left = apr_atoi64(arg ? arg : "0");

    flush_output(probe);
    while (left > 0 && !probe->r->connection->aborted) {
        int wrote = ap_rwrite(block, (int)(left < 8192 ? left : 8192), probe->r);

        if (wrote < 0)
            break;
        left -= wrote;
    }
    tell(probe, "\nwrite=%s", arg ? arg : "0");
    return NEXT;
}

static int run_flush(probe_t *probe, const char *arg)
{
    flush_output(probe);
    ap_rflush(probe->r);
    tell(probe, "flushed=");
    return NEXT;
}

static int run_eos(probe_t *probe, const char *arg)
{
    apr_bucket_alloc_t *alloc = probe->r->connection->bucket_alloc;

    APR_BRIGADE_INSERT_TAIL(probe->out, apr_bucket_eos_create(alloc));
    flush_output(probe);
    probe->ended = 1;
    return NEXT;
}

static int run_subreq(probe_t *probe, const char *arg)
{
    request_rec *subrequest;
    int status;

    flush_output(probe);
    subrequest = ap_sub_req_lookup_uri(arg ? arg : "", probe->r, probe->r->output_filters);
    status = subrequest->status == HTTP_OK ? ap_run_sub_req(subrequest) : subrequest->status;
    ap_destroy_sub_req(subrequest);
    tell(probe, "subreq=%d", status);
    return NEXT;
}

static int run_lookfile(probe_t *probe, const char *arg)
{
    request_rec *found = ap_sub_req_lookup_file(arg ? arg : "", probe->r, NULL);
    const char *early = apr_table_get(found->notes, early_note);

    tell(probe, "lookfile=%d", found->status);
    if (early)
        tell(probe, "%s", early);
    ap_destroy_sub_req(found);
    return NEXT;
}

static int run_redirect(probe_t *probe, const char *arg)
{
    ap_internal_redirect(arg ? arg : "", probe->r);
    return OK;
}

static int run_through(probe_t *probe, const char *arg)
{
    ap_internal_redirect(arg ? arg : "", probe->r);
    probe->ended = 1;
    return NEXT;
}

static int run_fail(probe_t *probe, const char *arg)
{
    return arg ? atoi(arg) : HTTP_INTERNAL_SERVER_ERROR;
}

static int run_abort(probe_t *probe, const char *arg)
{
    probe->r->connection->aborted = 1;
    return DONE;
}

typedef struct {
    probe_t *probe;
    const char *prefix;
} note_printer;

static int tell_note(void *data, const char *key, const char *value)
{
    const note_printer *printer = data;

    if (strncmp(key, "pgpool-", 7) == 0)
        tell(printer->probe, "%s.%s=%s", printer->prefix, key, value);
    return 1;
}

static int run_notes(probe_t *probe, const char *arg)
{
    const request_rec *initial = probe->r;

    while (initial->main || initial->prev)
        initial = initial->main ? initial->main : initial->prev;
    apr_table_do(tell_note, &(note_printer){probe, "note"}, probe->r->notes, NULL);
    apr_table_do(tell_note, &(note_printer){probe, "initial"}, initial->notes, NULL);
    return NEXT;
}

/*
 * Hooks
 */

typedef enum {
    HOOK_COUNT,
    HOOK_FAIL,
    HOOK_BEGIN,
    HOOK_DISCARD,
    HOOK_LOSE,
    HOOK_ENCODE,
    HOOK_ACQUIRE
} hook_mode;

typedef struct {
    hook_mode mode;            /* set by the configuration */
    volatile apr_uint32_t ran; /* in this child, apr_atomic */
} hook_t;

static hook_t connect_hook, attach_hook;

static int run_hook(hook_t *hook, PGconn *conn)
{
    const int is_first = apr_atomic_inc32(&hook->ran) == 0;

    if (hook->mode == HOOK_BEGIN)
        PQclear(PQexec(conn, "BEGIN"));
    if (hook->mode == HOOK_DISCARD)
        PQclear(PQexec(conn, "DISCARD ALL"));
    if (hook->mode == HOOK_LOSE && is_first)
        PQclear(PQexec(conn, "SELECT pg_terminate_backend(pg_backend_pid())"));
    if (hook->mode == HOOK_ENCODE)
        PQclear(PQexec(conn, "SET client_encoding = LATIN1"));
    return hook->mode == HOOK_FAIL ? HTTP_INTERNAL_SERVER_ERROR : OK;
}

static int on_connect(const char *pool, PGconn *conn)
{
    return run_hook(&connect_hook, conn);
}

static int on_attach(request_rec *r, const char *pool, PGconn *conn)
{
    PGconn *again;

    if (attach_hook.mode == HOOK_ACQUIRE)
        acquire(r, pool, &again);
    return run_hook(&attach_hook, conn);
}

static int run_hooks(probe_t *probe, const char *arg)
{
    tell(probe, "connect=%u", apr_atomic_read32(&connect_hook.ran));
    tell(probe, "attach=%u", apr_atomic_read32(&attach_hook.ran));
    tell(probe, "child=%d", (int)getpid());
    return NEXT;
}

/*
 * Before authentication.  The hook depends only on the configuration (PER_CONF), so httpd
 * authenticates subrequests and redirects as it does without this module.
 */

/* Per directory. */
typedef struct {
    const char *sql; /* PgPoolProbeEarly, or NULL */
} probe_dir_conf;

static void *make_dir_conf(apr_pool_t *p, char *path)
{
    return apr_pcalloc(p, sizeof(probe_dir_conf));
}

static const char *asked_early(request_rec *r, const char *sql)
{
    PGconn *conn;
    PGresult *result;
    const char *text;
    apr_status_t rv = acquire(r, NULL, &conn);

    if (rv != APR_SUCCESS)
        return apr_psprintf(r->pool, "early=%s", status_name(r->pool, rv));
    result = PQexec(conn, sql);
    text = apr_psprintf(r->pool, "early=0\nearly.pid=%d\nearly.value=%s", PQbackendPID(conn),
                        PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "none");
    PQclear(result);
    return text;
}

static int ask_early(request_rec *r)
{
    const probe_dir_conf *conf = ap_get_module_config(r->per_dir_config, &pgpool_probe_module);

    if (conf->sql)
        apr_table_setn(r->notes, early_note, asked_early(r, conf->sql));
    return DECLINED;
}

static apr_status_t acquire_filter(ap_filter_t *f, apr_bucket_brigade *bb)
{
    PGconn *conn;
    const apr_status_t rv = acquire(f->r, NULL, &conn);

    apr_table_setn(f->r->notes, early_note,
                   apr_pstrcat(f->r->pool, "filtered=", status_name(f->r->pool, rv), NULL));
    return ap_pass_brigade(f->next, bb);
}

static int run_early(probe_t *probe, const char *arg)
{
    const char *text = apr_table_get(probe->r->notes, early_note);

    tell(probe, "%s", text ? text : "early=none");
    return NEXT;
}

/*
 * Handler
 */

static const command_t commands[] = {
    {"acquire", run_acquire, 0},
    {"again", run_again, 0},
    {"release", run_release, 0},
    {"open", run_open, 0},
    {"close", run_close, 0},
    {"destroy", run_destroy, 0},
    {"httpstatus", run_httpstatus, 0},
    {"strerror", run_strerror, 0},
    {"notes", run_notes, 0},
    {"hooks", run_hooks, 0},
    {"pid", run_pid, 1},
    {"param", run_param, 0},
    {"query", run_query, 0},
    {"rows", run_rows, 0},
    {"stop", run_rows_stopped, 0},
    {"meddle", run_meddle, 0},
    {"replace", run_replace, 0},
    {"sql", run_sql, 1},
    {"socket", run_socket, 1},
    {"state", run_state, 1},
    {"send", run_send, 1},
    {"single", run_single, 1},
    {"copyin", run_sql, 1},
    {"copyout", run_sql, 1},
    {"flood", run_flood, 1},
    {"pipeline", run_pipeline, 1},
    {"queue", run_queue, 1},
    {"sync", run_sync, 1},
    {"leave", run_leave, 1},
    {"request", run_request, 1},
    {"flushes", run_flushes, 1},
    {"result", run_result, 1},
    {"prepare", run_prepare, 1},
    {"notifies", run_notifies, 1},
    {"encoding", run_encoding, 1},
    {"verbose", run_verbose, 1},
    {"nonblocking", run_nonblocking, 1},
    {"notice", run_notice, 1},
    {"swap", run_swap, 1},
    {"noticed", run_noticed, 1},
    {"keep", run_keep, 1},
    {"misuse", run_misuse, 0},
    {"late", run_late, 1},
    {"trace", run_trace, 1},
    {"basicpw", run_basicpw, 0},
    {"fork", run_fork, 0},
    {"sleep", run_sleep, 0},
    {"heap", run_heap, 0},
    {"touch", run_touch, 0},
    {"hold", run_hold, 0},
    {"write", run_write, 0},
    {"flush", run_flush, 0},
    {"eos", run_eos, 0},
    {"early", run_early, 0},
    {"subreq", run_subreq, 0},
    {"lookfile", run_lookfile, 0},
    {"redirect", run_redirect, 0},
    {"through", run_through, 0},
    {"fail", run_fail, 0},
    {"abort", run_abort, 0},
    {NULL, NULL, 0},
};

static const command_t *find_command(const char *name)
{
    for (const command_t *command = commands; command->name; command++) {
        if (strcmp(command->name, name) == 0)
            return command;
    }
    return NULL;
}

static int run_word(probe_t *probe, char *word)
{
    char *arg = strchr(word, '=');
    const command_t *command;

    if (arg) {
        *arg++ = '\0';
        ap_unescape_urlencoded(arg);
    }
    command = find_command(word);
    if (!command) {
        tell(probe, "unknown=%s", word);
        return HTTP_BAD_REQUEST;
    }
    if (command->needs_conn && !probe->conn) {
        tell(probe, "noconn=%s", word);
        return NEXT;
    }
    return command->run(probe, arg);
}

static int run_list(probe_t *probe, char *list)
{
    char *state, *word;
    int status = NEXT;

    for (word = apr_strtok(list, "&", &state); word && status == NEXT;
         word = apr_strtok(NULL, "&", &state))
        status = run_word(probe, word);
    return status;
}

/* The lines of the request that was redirected to this one. */
static apr_bucket_brigade *carried_over(const request_rec *r)
{
    const probe_t *before = r->prev ? ap_get_module_config(r->prev->request_config,
                                                           &pgpool_probe_module)
                                    : NULL;

    return before ? before->out : apr_brigade_create(r->pool, r->connection->bucket_alloc);
}

static int probe_handler(request_rec *r)
{
    probe_t *probe;
    int status;

    if (strcmp(r->handler, "pgpool-probe") != 0)
        return DECLINED;
    if (!acquire)
        return HTTP_NOT_IMPLEMENTED;

    probe = apr_pcalloc(r->pool, sizeof(*probe));
    probe->r = r;
    probe->out = carried_over(r);
    ap_set_module_config(r->request_config, &pgpool_probe_module, probe);
    ap_set_content_type(r, "text/plain");

    status = run_list(probe, apr_pstrdup(r->pool, r->args ? r->args : ""));
    if (status != NEXT)
        return status;
    flush_output(probe);
    return OK;
}

/*
 * Module
 */

static const char *set_hook(cmd_parms *cmd, void *dir_conf, const char *name, const char *mode)
{
    hook_t *hook = strcmp(name, "connect") == 0  ? &connect_hook
                   : strcmp(name, "attach") == 0 ? &attach_hook
                                                 : NULL;

    if (!hook)
        return "PgPoolProbeHook: connect or attach";
    if (strcmp(mode, "count") == 0)
        hook->mode = HOOK_COUNT;
    else if (strcmp(mode, "fail") == 0)
        hook->mode = HOOK_FAIL;
    else if (strcmp(mode, "begin") == 0)
        hook->mode = HOOK_BEGIN;
    else if (strcmp(mode, "discard") == 0)
        hook->mode = HOOK_DISCARD;
    else if (strcmp(mode, "lose") == 0)
        hook->mode = HOOK_LOSE;
    else if (strcmp(mode, "encode") == 0)
        hook->mode = HOOK_ENCODE;
    else if (strcmp(mode, "acquire") == 0)
        hook->mode = HOOK_ACQUIRE;
    else
        return "PgPoolProbeHook: count, fail, begin, discard, lose, encode or acquire";
    return NULL;
}

static int forget_hooks(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    connect_hook.mode = attach_hook.mode = HOOK_COUNT;
    return OK;
}

static void retrieve_optional_fns(void)
{
    acquire = APR_RETRIEVE_OPTIONAL_FN(pgpool_acquire);
    release = APR_RETRIEVE_OPTIONAL_FN(pgpool_release);
    open_conn = APR_RETRIEVE_OPTIONAL_FN(pgpool_open);
    close_conn = APR_RETRIEVE_OPTIONAL_FN(pgpool_close);
    http_status = APR_RETRIEVE_OPTIONAL_FN(pgpool_http_status);
    strerror_of = APR_RETRIEVE_OPTIONAL_FN(pgpool_strerror);
    query = APR_RETRIEVE_OPTIONAL_FN(pgpool_query);
    query_rows = APR_RETRIEVE_OPTIONAL_FN(pgpool_query_rows);
}

static void register_hooks(apr_pool_t *p)
{
    ap_hook_pre_config(forget_hooks, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_optional_fn_retrieve(retrieve_optional_fns, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_access(ask_early, NULL, NULL, APR_HOOK_MIDDLE, AP_AUTH_INTERNAL_PER_CONF);
    ap_hook_handler(probe_handler, NULL, NULL, APR_HOOK_MIDDLE);
    ap_register_output_filter("PGPOOL_PROBE", acquire_filter, NULL, AP_FTYPE_RESOURCE);
    APR_OPTIONAL_HOOK(pgpool, connect, on_connect, NULL, NULL, APR_HOOK_MIDDLE);
    APR_OPTIONAL_HOOK(pgpool, attach, on_attach, NULL, NULL, APR_HOOK_MIDDLE);
}

static const command_rec directives[] = {
    AP_INIT_TAKE2("PgPoolProbeHook", set_hook, NULL, RSRC_CONF,
                  "connect or attach, and what our hook does: count, fail, begin, and so on"),
    AP_INIT_TAKE1("PgPoolProbeEarly", ap_set_string_slot,
                  (void *)APR_OFFSETOF(probe_dir_conf, sql), ACCESS_CONF,
                  "SQL to run before anybody is authenticated"),
    {.name = NULL},
};

__attribute__((visibility("default"))) AP_DECLARE_MODULE(pgpool_probe) = {
    STANDARD20_MODULE_STUFF,
    .create_dir_config = make_dir_conf,
    .cmds = directives,
    .register_hooks = register_hooks,
};
