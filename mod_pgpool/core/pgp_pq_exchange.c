#include "pgp_pq_private.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <apr_strings.h>
#include <libpq-events.h>

#include "pgp_pq.h"
#include "pgp_pq_vars.h"
#include "pgp_pq_reset.h"
#include "pgp_text.h"

/* --- what went wrong -------------------------------------------------------- */

/* Lines after the first are indented by tabs.  LOCATION is of use to nobody but the server's
 * developers. */
void pgp_error_text(pgp_error *error, const char *text)
{
    char *out = error->message;
    const char *end = out + sizeof error->message - 3;

    while (*text && out < end) {
        size_t line;

        text += strspn(text, "\t");
        line = strcspn(text, "\r\n");
        if (line && strncmp(text, "LOCATION:", 9)) {
            size_t room;

            if (out > error->message)
                out = apr_cpystrn(out, "; ", 3);
            room = end > out ? (size_t)(end - out) : 0;
            out = apr_cpystrn(out, text, (line < room ? line : room) + 1);
        }
        text += line;
        text += strspn(text, "\r\n");
    }
    *out = '\0';
    pgp_text_clean(error->message);
}

const char *pgp_error_print(char words[PGP_ERROR_WORDS], const pgp_error *error)
{
    apr_snprintf(words, PGP_ERROR_WORDS, "%s%s%s%s", error->message,
                 *error->sqlstate ? " (SQLSTATE " : "", error->sqlstate,
                 *error->sqlstate ? ")" : "");
    return words;
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
 * counts.  Nor has it one for the system's error. */
void pgp_error_connection(pgp_error *error, const pgp_link *link)
{
    const char *text = PQerrorMessage(link->conn), *at;

    for (at = strstr(text, ":  "); at; at = strstr(at + 3, ":  "))
        if (is_sqlstate(at + 3))
            apr_cpystrn(error->sqlstate, at + 3, sizeof error->sqlstate);
    error->absent = strstr(text, strerror(ECONNREFUSED)) || strstr(text, strerror(ENOENT));
    pgp_error_text(error, text);
}

void pgp_error_result(pgp_error *error, const pgp_link *link, const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

    if (sqlstate)
        apr_cpystrn(error->sqlstate, sqlstate, sizeof error->sqlstate);
    pgp_error_text(error, text ? text : PQerrorMessage(link->conn));
}

static const char *severity_of(const PGresult *result)
{
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

    if (!severity)
        severity = PQresultErrorField(result, PG_DIAG_SEVERITY); /* PgBouncer's own */
    return severity ? severity : "";
}

/* The first error of an exchange is why it fails, at its end, which may come later. */
static void fail(pgp_link *link, const PGresult *result)
{
    if (!link->failed) {
        link->error.sqlstate[0] = '\0';
        pgp_error_result(&link->error, link, result);
        link->refused = !strcmp(severity_of(result), "ERROR");
    }
    link->failed = 1;
}

/* --- what is done on a link ------------------------------------------------- */

static unsigned deeds_of(pgp_link *link, const PGresult *result)
{
    const char *sqlstate;

    switch (PQresultStatus(result)) {
    case PGRES_EMPTY_QUERY:
        return 0;
    case PGRES_COMMAND_OK:
        return pgp_pq_reset_tag(PQcmdStatus((PGresult *)result), 0);
    case PGRES_TUPLES_OK:
        return pgp_pq_reset_tag(PQcmdStatus((PGresult *)result), 1);
    case PGRES_FATAL_ERROR:
        sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        if (sqlstate && !strcmp(sqlstate, "25006"))
            link->met_read_only = 1;
        return PGP_DID_SOMETHING | PGP_DID_CHANGE; /* a DO may have done it before it failed */
    default:
        return PGP_DID_SOMETHING;
    }
}

void pgp_pq_mark(pgp_link *link, bool idle)
{
#ifdef PGP_CHECKED
    link->idle = idle;
#else
    (void)link;
    (void)idle;
#endif
}

static void idle_check(const pgp_link *link)
{
#ifdef PGP_CHECKED
    if (!link->idle)
        return;
    fprintf(stderr,
            "mod_pgpool: pool %s, backend %u: a result has come while nobody had the "
            "connection: its last borrower uses it after it has gone back\n",
            link->context->pool, link->backend);
    abort();
#else
    (void)link;
#endif
}

/* libpq's buffers grow to hold what comes, and stay so until the connection is closed.  A
 * result larger than this marks its connection as one to be closed.  An upper bound: the rows
 * of a result may have come one by one, through a small buffer. */
#define LARGE_RESULT (8u * 1024 * 1024)

/* libpq's event procedure; its address is also the key under which the link is kept
 * with the PGconn. */
static int link_event(PGEventId event, void *info, void *baton)
{
    if (event == PGEVT_RESULTCREATE) {
        const PGEventResultCreate *created = info;
        pgp_link *link = PQinstanceData(created->conn, link_event);

        (void)baton;
        if (link) {
            const unsigned deeds = deeds_of(link, created->result);

            idle_check(link);
            link->deeds |= deeds;
            if (PQresultMemorySize(created->result) > LARGE_RESULT)
                link->large = 1;
            if (deeds & PGP_DID_CHANGE)
                pgp_pq_vars_disturb(link, created->result);
            link->unsynced = PQpipelineStatus(created->conn) != PQ_PIPELINE_OFF &&
                             PQresultStatus(created->result) != PGRES_PIPELINE_SYNC;
        }
    }
    return 1;
}

void *pgp_pq_owner(const PGconn *conn)
{
    const pgp_link *link = PQinstanceData(conn, link_event);

    return link ? link->owner : NULL;
}

void pgp_pq_forget_deeds(pgp_link *link)
{
    link->deeds = 0;
    link->met_read_only = 0;
}

/* --- the client's side ------------------------------------------------------ */

/* A PGconn's results carry its receiver, its processor and their batons along, and may outlive
 * the link.  But when they call, it is with a NOTICE of libpq's own.  A borrower who puts them
 * back after his own knows no baton: then it is NULL. */

static void notice(void *baton, const char *text)
{
    const pgp_context *context = baton;
    pgp_error line;

    if (!context)
        return;
    pgp_error_text(&line, text);
    pgp_log(context->env, PGP_LOG_DEBUG, PGP_MSG_NOTICE, context->pool, 0,
            "the server says: %s", line.message);
}

/* Only libpq's own receiver can call the processor, which may be a borrower's, and only a
 * PGconn tells where it is: this one is never connected. */
static void process(const PGresult *result)
{
    PGconn *none = PQconnectStart("?");
    const PQnoticeReceiver libpqs = PQsetNoticeReceiver(none, NULL, NULL);

    if (libpqs)
        libpqs(NULL, result);
    PQfinish(none);
}

static int is_error(const char *severity)
{
    return !strcmp(severity, "ERROR") || !strcmp(severity, "FATAL") ||
           !strcmp(severity, "PANIC");
}

/* An error that comes while nothing runs says why the server ends the connection; to libpq it
 * is a notice.  The end itself may take its time. */
static void receive(void *baton, const PGresult *result)
{
    pgp_link *link = baton;

    if (link && is_error(severity_of(result))) {
        link->failed = 0;
        fail(link, result);
        link->refused = 0;
        link->ended = 1;
    }
    process(result);
}

int pgp_pq_adopt(pgp_link *link)
{
    pgp_pq_restore(link);
    return PQregisterEventProc(link->conn, link_event, "mod_pgpool", NULL) &&
           PQsetInstanceData(link->conn, link_event, link);
}

void pgp_pq_listen(pgp_link *link)
{
    PQsetNoticeReceiver(link->conn, receive, link);
    PQsetNoticeProcessor(link->conn, notice, (void *)link->context);
}

void pgp_pq_restore(pgp_link *link)
{
    pgp_pq_listen(link);
    PQsetErrorVerbosity(link->conn, PQERRORS_DEFAULT);
    PQsetErrorContextVisibility(link->conn, PQSHOW_CONTEXT_ERRORS);
    PQuntrace(link->conn);
}

void pgp_pq_drop_notifies(pgp_link *link)
{
    PGnotify *notify;

    while ((notify = PQnotifies(link->conn)) != NULL)
        PQfreemem(notify);
}

/* --- one question, one answer ----------------------------------------------- */

int pgp_pq_ask(pgp_link *link, const char *sql, pgp_error *error)
{
    link->failed = 0;
    if (PQsendQuery(link->conn, sql))
        return 1;
    pgp_error_text(error, PQerrorMessage(link->conn));
    return 0;
}

/* Outside pipeline mode libpq sends all that it has, a COPY's end included, before it waits for
 * the answer after which it is idle. */
static int all_sent(const pgp_link *link)
{
    return PQtransactionStatus(link->conn) == PQTRANS_IDLE &&
           PQpipelineStatus(link->conn) == PQ_PIPELINE_OFF;
}

short pgp_poll_now(int fd, short events)
{
    struct pollfd polled = {.fd = fd, .events = events};
    int n;

    do
        n = poll(&polled, 1, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? POLLERR : polled.revents;
}

int pgp_pq_blocked(const pgp_link *link)
{
    if (PQisnonblocking(link->conn) || all_sent(link))
        return 0;
    return !(pgp_poll_now(PQsocket(link->conn), POLLOUT) & POLLOUT);
}

int pgp_pq_nonblocking(pgp_link *link)
{
    if (pgp_pq_blocked(link))
        shutdown(PQsocket(link->conn), SHUT_RDWR);
    return PQsetnonblocking(link->conn, 1) == 0;
}

struct pollfd pgp_pq_await(const pgp_link *link, int unsent)
{
    return (struct pollfd){.fd = PQsocket(link->conn),
                           .events = unsent ? POLLIN | POLLOUT : POLLIN};
}

/* A proxy may answer with no row, or a null. */
static int capacity_told(const PGresult *result)
{
    const int is_told = PQntuples(result) == 1 && PQnfields(result) == 1 &&
                        !PQgetisnull(result, 0, 0);
    const int capacity = is_told ? atoi(PQgetvalue(result, 0, 0)) : 0;

    return capacity > 0 ? capacity : 0;
}

int pgp_pq_judge(pgp_link *link, const PGresult *result)
{
    switch (PQresultStatus(result)) {
    case PGRES_EMPTY_QUERY:
    case PGRES_COMMAND_OK:
        return 0;
    case PGRES_TUPLES_OK:
        if (link->phase == SURVEYING)
            link->capacity = capacity_told(result);
        return 0;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH:
        link->error = (pgp_error){.message = "a COPY has no place here"};
        link->refused = 0;
        link->failed = 1;
        return 1;
    default:
        fail(link, result);
        return 0;
    }
}

pgp_step pgp_pq_answer(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const int unsent = PQflush(link->conn);

    if (unsent < 0 || !PQconsumeInput(link->conn)) {
        pgp_error_text(error, PQerrorMessage(link->conn));
        return PGP_STEP_FAILED;
    }
    while (!PQisBusy(link->conn)) {
        PGresult *result = PQgetResult(link->conn);
        const int ended = !result || pgp_pq_judge(link, result);

        PQclear(result);
        if (ended && link->failed)
            *error = link->error;
        if (ended)
            return link->failed ? PGP_STEP_FAILED : PGP_STEP_DONE;
    }
    *await = pgp_pq_await(link, unsent);
    return PGP_STEP_AGAIN;
}

/* Sleep until the link may go on or the time is up; 0: it is up. */
static int await_until(const pgp_link *link, struct pollfd *await, apr_time_t until)
{
    const apr_time_t left = until - pgp_now(link->context->env);

    return left > 0 && (poll(await, 1, (int)((left + 999) / 1000)) >= 0 || errno == EINTR);
}

int pgp_pq_answer_until(pgp_link *link, apr_time_t until, pgp_error *error)
{
    struct pollfd await;
    pgp_step step;

    do
        step = pgp_pq_answer(link, &await, error);
    while (step == PGP_STEP_AGAIN && await_until(link, &await, until));
    if (step == PGP_STEP_AGAIN)
        pgp_error_text(error, "no answer from the server within PgPoolCheckTimeout");
    return step == PGP_STEP_DONE;
}
