#include "pgp_libpq.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <apr_strings.h>
#include <libpq-events.h>

#ifndef POLLRDHUP
#error "POLLRDHUP is needed to see a half-closed connection: Linux, or FreeBSD 13"
#endif

#define SOCKET_DEAD (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)

/* A link takes in at most this many lots of unasked-for input before it is given
 * up as one that is never quiet. */
#define QUIET_PATIENCE 100

typedef enum { CONNECTING, INITIALISING, ROLLING_BACK, READY } link_phase;

struct pgp_link {
    PGconn *conn;
    const pgp_env *env;
    const char *pool;
    const pgp_settings *settings;
    void *owner;
    PQnoticeReceiver receiver; /* libpq's own */

    link_phase phase;
    PostgresPollingStatusType wants; /* in CONNECTING */
    int init_done;                   /* in INITIALISING: statements run so far */
    int failed;                      /* the exchange under way has failed */
};

/* --- what went wrong -------------------------------------------------------- */

/* libpq's text may have several lines, and ends in one; LOCATION is of use to
 * nobody but the server's developers. */
static void error_text(pgp_error *error, const char *text)
{
    char *out = error->message;
    const char *end = out + sizeof error->message - 3;

    while (*text && out < end) {
        size_t line = strcspn(text, "\n"), room = end - out;

        if (line && strncmp(text, "LOCATION:", 9)) {
            if (out > error->message)
                out = apr_cpystrn(out, "; ", 3);
            room = end > out ? (size_t)(end - out) : 0;
            out = apr_cpystrn(out, text, (line < room ? line : room) + 1);
        }
        text += line + (text[line] == '\n');
    }
    *out = '\0';
}

static int is_sqlstate(const char *text)
{
    int i;

    for (i = 0; i < 5; i++)
        if (!isdigit((unsigned char)text[i]) && !isupper((unsigned char)text[i]))
            return 0;
    return text[5] == ':';
}

/* libpq has no function for the SQLSTATE of a failed connect; in its verbose
 * messages it stands as "FATAL:  28P01: ...".  With several hosts the last
 * counts. */
static void error_connect(pgp_link *link, pgp_error *error)
{
    const char *text = PQerrorMessage(link->conn), *at;

    for (at = strstr(text, ":  "); at; at = strstr(at + 3, ":  "))
        if (is_sqlstate(at + 3))
            apr_cpystrn(error->sqlstate, at + 3, sizeof error->sqlstate);
    error_text(error, text);
}

static void error_result(pgp_link *link, const PGresult *result, pgp_error *error)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

    if (sqlstate)
        apr_cpystrn(error->sqlstate, sqlstate, sizeof error->sqlstate);
    error_text(error, text ? text : PQerrorMessage(link->conn));
}

/* --- the client's side of a connection -------------------------------------- */

static void notice(void *baton, const char *text)
{
    pgp_link *link = baton;
    pgp_error line;

    error_text(&line, text);
    pgp_log(link->env, PGP_LOG_DEBUG, PGP_MSG_NOTICE, link->pool, PQbackendPID(link->conn),
            "the server says: %s", line.message);
}

/* libpq calls it for its events; we want only its address, as the key under which
 * the link is kept with the PGconn. */
static int link_key(PGEventId event, void *info, void *baton)
{
    (void)event;
    (void)info;
    (void)baton;
    return 1;
}

void *pgp_libpq_owner(const PGconn *conn)
{
    const pgp_link *link = PQinstanceData(conn, link_key);

    return link ? link->owner : NULL;
}

static void client_restore(pgp_link *link)
{
    PQsetNoticeReceiver(link->conn, link->receiver, NULL);
    PQsetNoticeProcessor(link->conn, notice, link);
    PQsetErrorVerbosity(link->conn, PQERRORS_DEFAULT);
    PQsetErrorContextVisibility(link->conn, PQSHOW_CONTEXT_ERRORS);
    PQuntrace(link->conn);
}

static void notifies_drop(pgp_link *link)
{
    PGnotify *notify;

    while ((notify = PQnotifies(link->conn)) != NULL)
        PQfreemem(notify);
}

/* --- one question, one answer, without blocking ----------------------------- */

static int ask_server(pgp_link *link, const char *sql, pgp_error *error)
{
    link->failed = 0;
    if (PQsendQuery(link->conn, sql))
        return 1;
    error_text(error, PQerrorMessage(link->conn));
    return 0;
}

static void judge(pgp_link *link, const PGresult *result, pgp_error *error)
{
    switch (PQresultStatus(result)) {
    case PGRES_EMPTY_QUERY:
    case PGRES_COMMAND_OK:
    case PGRES_TUPLES_OK:
        break;
    default:
        if (!link->failed)
            error_result(link, result, error);
        link->failed = 1;
    }
}

static int is_copy(const PGresult *result)
{
    const ExecStatusType status = PQresultStatus(result);

    return status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
}

static pgp_step take_answer(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const int unsent = PQflush(link->conn);
    PGresult *result;

    if (unsent < 0 || !PQconsumeInput(link->conn)) {
        error_text(error, PQerrorMessage(link->conn));
        return PGP_STEP_FAILED;
    }
    while (!PQisBusy(link->conn)) {
        int copying;

        result = PQgetResult(link->conn);
        if (!result)
            return link->failed ? PGP_STEP_FAILED : PGP_STEP_DONE;
        judge(link, result, error);
        copying = is_copy(result);
        PQclear(result);
        if (copying) /* has no end of its own */
            return PGP_STEP_FAILED;
    }
    *await = (struct pollfd){.fd = PQsocket(link->conn),
                             .events = unsent ? POLLIN | POLLOUT : POLLIN};
    return PGP_STEP_AGAIN;
}

/* --- connecting ------------------------------------------------------------- */

static pgp_link *link_connect(const pgp_env *env, const char *pool,
                              const pgp_settings *settings, void *owner, pgp_error *error)
{
    /* libpq lets the later of two equal keywords win: these are defaults, and the
     * connection string comes after them.  A black hole needs both keepalives and
     * tcp_user_timeout to be seen. */
    static const char *const keywords[] = {"fallback_application_name",
                                           "keepalives",
                                           "keepalives_idle",
                                           "keepalives_interval",
                                           "keepalives_count",
                                           "tcp_user_timeout",
                                           "dbname",
                                           NULL};
    const char *const values[] = {"mod_pgpool",       "1", "5", "2", "3", "10000",
                                  settings->conninfo, NULL};
    pgp_link *link = calloc(1, sizeof(*link));

    if (!link)
        abort(); /* as APR does */
    link->env = env;
    link->pool = pool;
    link->settings = settings;
    link->owner = owner;
    link->wants = PGRES_POLLING_WRITING;
    link->conn = PQconnectStartParams(keywords, values, 1);
    PQsetErrorVerbosity(link->conn, PQERRORS_VERBOSE);
    if (PQstatus(link->conn) != CONNECTION_BAD)
        return link;
    error_connect(link, error);
    PQfinish(link->conn);
    free(link);
    return NULL;
}

static int ready_for(const struct pollfd *await)
{
    struct pollfd fd = *await;

    return poll(&fd, 1, 0) != 0;
}

static pgp_step init_next(pgp_link *link, struct pollfd *await, pgp_error *error);

static pgp_step connection_made(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    link->receiver = PQsetNoticeReceiver(link->conn, NULL, NULL);
    client_restore(link);
    PQregisterEventProc(link->conn, link_key, "mod_pgpool", NULL);
    PQsetInstanceData(link->conn, link_key, link);
    PQsetnonblocking(link->conn, 1);
    link->phase = INITIALISING;
    return init_next(link, await, error);
}

static pgp_step step_connecting(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    for (;;) {
        *await = (struct pollfd){.fd = PQsocket(link->conn),
                                 .events = link->wants == PGRES_POLLING_READING ? POLLIN
                                                                                : POLLOUT};
        if (!ready_for(await))
            return PGP_STEP_AGAIN;
        link->wants = PQconnectPoll(link->conn);
        if (link->wants == PGRES_POLLING_OK)
            return connection_made(link, await, error);
        if (link->wants == PGRES_POLLING_FAILED) {
            error_connect(link, error);
            return PGP_STEP_FAILED;
        }
    }
}

/* Everything slow is done: from here on the link is as a borrower expects it. */
static pgp_step link_ready(pgp_link *link, pgp_error *error)
{
    link->phase = READY;
    if (PQsetnonblocking(link->conn, 0) == 0 && PQtransactionStatus(link->conn) == PQTRANS_IDLE)
        return PGP_STEP_DONE;
    error_text(error, "the transaction is still open");
    return PGP_STEP_FAILED;
}

static pgp_step init_next(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const apr_array_header_t *sql = link->settings->init_sql;

    if (!sql || link->init_done == sql->nelts)
        return link_ready(link, error);
    if (!ask_server(link, APR_ARRAY_IDX(sql, link->init_done++, const char *), error))
        return PGP_STEP_FAILED;
    return take_answer(link, await, error);
}

static pgp_step step_initialising(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step = take_answer(link, await, error);

    while (step == PGP_STEP_DONE && link->phase == INITIALISING)
        step = init_next(link, await, error);
    return step;
}

/* --- cleaning --------------------------------------------------------------- */

static void link_clean(pgp_link *link)
{
    pgp_error error;

    link->phase = ROLLING_BACK;
    if (PQsetnonblocking(link->conn, 1) || !ask_server(link, "ROLLBACK", &error))
        link->failed = 1; /* step() will find the connection broken, or say so */
}

static pgp_step step_rolling_back(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const pgp_step step = take_answer(link, await, error);

    return step == PGP_STEP_DONE ? link_ready(link, error) : step;
}

static pgp_step link_step(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    switch (link->phase) {
    case CONNECTING:
        return step_connecting(link, await, error);
    case INITIALISING:
        return step_initialising(link, await, error);
    case ROLLING_BACK:
        return step_rolling_back(link, await, error);
    case READY:
        break;
    }
    return PGP_STEP_DONE;
}

/* --- testing ---------------------------------------------------------------- */

static int socket_events(const pgp_link *link)
{
    struct pollfd fd = {.fd = PQsocket(link->conn), .events = POLLIN | POLLRDHUP};

    return poll(&fd, 1, 0) > 0 ? fd.revents : 0;
}

static int link_alive(pgp_link *link)
{
    return PQstatus(link->conn) == CONNECTION_OK && !(socket_events(link) & SOCKET_DEAD);
}

static pgp_probe link_probe(pgp_link *link)
{
    int i, events = 0;

    for (i = 0; i < QUIET_PATIENCE; i++) {
        events = socket_events(link);
        if (!events)
            return i ? PGP_PROBE_HEARD : PGP_PROBE_QUIET;
        if (events & SOCKET_DEAD || !PQconsumeInput(link->conn))
            return PGP_PROBE_DEAD;
        notifies_drop(link);
    }
    return PGP_PROBE_DEAD;
}

/* Sleep until the link may go on or the time is up; 0: it is up. */
static int await_until(const pgp_link *link, struct pollfd *await, apr_time_t until)
{
    const apr_time_t left = until - pgp_now(link->env);

    return left > 0 && (poll(await, 1, (int)((left + 999) / 1000)) >= 0);
}

static int link_ping(pgp_link *link, apr_time_t until, pgp_error *error)
{
    struct pollfd await;
    pgp_step step = PGP_STEP_FAILED;

    if (PQsetnonblocking(link->conn, 1) == 0 && ask_server(link, "", error))
        do
            step = take_answer(link, &await, error);
        while (step == PGP_STEP_AGAIN && await_until(link, &await, until));
    if (step == PGP_STEP_AGAIN)
        error_text(error, "no answer to a ping in time");
    return step == PGP_STEP_DONE && PQsetnonblocking(link->conn, 0) == 0;
}

/* --- coming back ------------------------------------------------------------ */

static pgp_return link_settle(pgp_link *link)
{
    if (PQstatus(link->conn) != CONNECTION_OK)
        return PGP_RETURN_BROKEN;
    client_restore(link);
    if (PQpipelineStatus(link->conn) != PQ_PIPELINE_OFF && !PQexitPipelineMode(link->conn))
        return PGP_RETURN_UNKNOWN;
    if (PQsetnonblocking(link->conn, 0))
        return PGP_RETURN_UNKNOWN;
    switch (PQtransactionStatus(link->conn)) {
    case PQTRANS_IDLE:
        notifies_drop(link);
        return PGP_RETURN_CLEAN;
    case PQTRANS_INTRANS:
    case PQTRANS_INERROR:
        return PGP_RETURN_DIRTY;
    default:
        return PGP_RETURN_UNKNOWN;
    }
}

/* PQfinish says good-bye to the server, and waits until that can be sent.  What is
 * not in good order is cut off instead. */
static void link_close(pgp_link *link)
{
    const int fd = PQsocket(link->conn);

    if (fd >= 0 && PQtransactionStatus(link->conn) != PQTRANS_IDLE)
        shutdown(fd, SHUT_RDWR);
    else
        PQsetnonblocking(link->conn, 1);
    PQfinish(link->conn);
    free(link);
}

static int link_backend(const pgp_link *link)
{
    return PQbackendPID(link->conn);
}

static void *link_handle(const pgp_link *link)
{
    return link->conn;
}

const pgp_driver pgp_libpq_driver = {
    .connect = link_connect,
    .step = link_step,
    .alive = link_alive,
    .probe = link_probe,
    .ping = link_ping,
    .settle = link_settle,
    .clean = link_clean,
    .close = link_close,
    .backend = link_backend,
    .handle = link_handle,
};
