#include "pgp_pq.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <apr_strings.h>

#include "pgp_pq_private.h"
#include "pgp_pq_connect.h"
#include "pgp_pq_vars.h"
#include "pgp_pq_reset.h"

#ifndef POLLRDHUP
#error "POLLRDHUP is needed to see a half-closed connection: Linux, or FreeBSD 13"
#endif

#define SOCKET_DEAD (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)

/* A link takes in at most this many lots of unasked-for input before it is given
 * up as one that is never quiet. */
#define QUIET_PATIENCE 100

static const char closed_while_idle[] = "the connection was closed while idle";
static const char role_changed[] = "the server has changed its role";
static const char encoding_changed[] = "client_encoding is not UTF8 after a reset";

/* --- connecting ------------------------------------------------------------- */

static void link_destroy(pgp_link *link);

static pgp_link *link_connect(const pgp_context *context, unsigned first_host, int survey,
                              void *owner, pgp_error *error)
{
    pgp_link *link = calloc(1, sizeof(*link));

    if (!link)
        abort(); /* as APR does */
    link->context = context;
    link->settings = context->settings;
    link->owner = owner;
    link->first_host = first_host;
    link->survey = survey;
    if (pgp_pq_connect_begin(link, error))
        return link;
    link_destroy(link);
    return NULL;
}

static char parameter(const pgp_link *link, const char *name)
{
    const char *value = PQparameterStatus(link->conn, name);

    return value ? value[1] : '-'; /* "on" or "off" */
}

static void role_note(pgp_link *link)
{
    PQconninfoOption *options = PQconninfo(link->conn), *o;

    for (o = options; o && o->keyword; o++)
        if (!strcmp(o->keyword, "target_session_attrs"))
            link->role_matters = o->val && strcmp(o->val, "any");
    PQconninfoFree(options);
    link->hot_standby = parameter(link, "in_hot_standby");
    link->read_only = parameter(link, "default_transaction_read_only");
}

/* After a failover a server that was asked for as a primary may be none.  While a
 * borrower's variable stands in for the server's own, that does not tell. */
static int role_kept(const pgp_link *link)
{
    return !link->role_matters || link->role_set ||
           (link->hot_standby == parameter(link, "in_hot_standby") &&
            link->read_only == parameter(link, "default_transaction_read_only"));
}

/* --- undoing ---------------------------------------------------------------- */

static int encoding_kept(const pgp_link *link)
{
    return PQclientEncoding(link->conn) == link->encoding;
}

/* Without an answer to wait for a link is as its borrower expects it. */
static int rest(pgp_link *link)
{
    link->owes = 0;
    link->disturbed = 0;
    return encoding_kept(link) && PQsetnonblocking(link->conn, 0) == 0;
}

static int undo_ask(pgp_link *link, const char *sql)
{
    pgp_error error;

    link->owes = 1;
    return pgp_pq_nonblocking(link) && pgp_pq_ask(link, sql, &error) &&
           PQflush(link->conn) == 0;
}

/* Send what undoes the lease's deeds, without waiting.  0: could not. */
static int undo_send(pgp_link *link, unsigned deeds)
{
    const pgp_settings *settings = link->settings;
    char *undo = pgp_pq_vars_undo_sql(link);
    int sent;

    pgp_pq_forget_deeds(link);
    pgp_pq_vars_forget(link);
    if (!encoding_kept(link)) /* libpq is told of it, however it was set */
        deeds |= PGP_DID_SOMETHING | PGP_DID_CHANGE;
    if (pgp_pq_reset_due(settings->reset, deeds))
        sent = undo_ask(link, pgp_pq_reset_sql(settings, deeds));
    else if (!encoding_kept(link))
        sent = !undo && undo_ask(link, "SET client_encoding = 'UTF8'");
    else if (undo)
        sent = undo_ask(link, undo);
    else
        sent = rest(link);
    free(undo);
    return sent;
}

/* --- going on --------------------------------------------------------------- */

/* Whether the connection speaks UTF-8, as each borrower may expect. */
static int encoding_note(pgp_link *link, pgp_error *error)
{
    const char *name = PQparameterStatus(link->conn, "client_encoding");

    link->encoding = PQclientEncoding(link->conn);
    if (!name ||
        !strcmp(name, "UTF8")) /* it was asked for: a proxy that does not tell has it */
        return 1;
    apr_snprintf(
        error->message, sizeof error->message,
        "client_encoding is %s after PgPoolInitSQL, but the text of requests is UTF-8: "
        "leave it as it is",
        name);
    return 0;
}

static pgp_step made_ready(pgp_link *link, pgp_error *error)
{
    link->phase = READY;
    if (!encoding_note(link, error))
        return PGP_STEP_FAILED;
    pgp_pq_forget_deeds(link);
    pgp_pq_vars_forget(link);
    link->large = 0; /* what PgPoolInitSQL needs, the next connection needs as well */
    role_note(link);
    if (PQtransactionStatus(link->conn) == PQTRANS_IDLE && rest(link))
        return PGP_STEP_DONE;
    pgp_error_text(error, "PgPoolInitSQL leaves a transaction open");
    return PGP_STEP_FAILED;
}

static pgp_step step_new(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const pgp_step step = pgp_pq_connect_step(link, await, error);

    return step == PGP_STEP_DONE ? made_ready(link, error) : step;
}

static pgp_step rolled_back(pgp_link *link, pgp_error *error)
{
    link->phase = READY;
    pgp_pq_drop_notifies(link); /* the transaction's end has brought them */
    link->deeds |= PGP_DID_SOMETHING |
                   PGP_DID_CHANGE; /* what was drained may not tell of all */
    if (PQtransactionStatus(link->conn) == PQTRANS_IDLE)
        return PGP_STEP_DONE;
    pgp_error_text(error, "the transaction could not be ended");
    return PGP_STEP_FAILED;
}

/* One more exchange, if there is a reason for it. */
static pgp_step then_ask(pgp_link *link, link_phase phase, const char *sql,
                         struct pollfd *await, pgp_error *error)
{
    link->phase = phase;
    return pgp_pq_ask(link, sql, error) ? pgp_pq_answer(link, await, error) : PGP_STEP_FAILED;
}

static pgp_step step_rolling_back(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const pgp_step step = pgp_pq_answer(link, await, error);

    return step == PGP_STEP_DONE ? rolled_back(link, error) : step;
}

static pgp_step roll_back(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step = PGP_STEP_DONE;

    if (PQtransactionStatus(link->conn) != PQTRANS_IDLE)
        step = then_ask(link, ROLLING_BACK, "ROLLBACK", await, error);
    return step == PGP_STEP_DONE ? rolled_back(link, error) : step;
}

static pgp_step step_absorbing(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const pgp_step step = pgp_pq_answer(link, await, error);

    return step == PGP_STEP_DONE ? roll_back(link, await, error) : step;
}

static pgp_step step_winding_up(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step = pgp_pq_cleanup_step(link, await, error);

    if (step == PGP_STEP_DONE && link->cancelled)
        step = then_ask(link, ABSORBING, "", await, error);
    return step == PGP_STEP_DONE ? roll_back(link, await, error) : step;
}

static pgp_step link_go_on(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    switch (link->phase) {
    case LOOKING_UP:
    case CONNECTING:
    case INITIALISING:
    case SURVEYING:
        return step_new(link, await, error);
    case WINDING_UP:
        return step_winding_up(link, await, error);
    case ABSORBING:
        return step_absorbing(link, await, error);
    case ROLLING_BACK:
        return step_rolling_back(link, await, error);
    case READY:
    case CLOSING:
        break;
    }
    return PGP_STEP_DONE;
}

static void link_last_words(pgp_link *link, pgp_error *error);

static pgp_step step_phase(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const int is_new = link->phase < WINDING_UP;
    const pgp_step step = link_go_on(link, await, error);
    pgp_error words;

    if (step != PGP_STEP_FAILED || is_new)
        return step;
    link_last_words(link, &words);
    if (*words.message)
        *error = words;
    return step;
}

/* --- testing ---------------------------------------------------------------- */

static int socket_events(const pgp_link *link)
{
    return pgp_poll_now(PQsocket(link->conn), POLLIN | POLLRDHUP);
}

static int link_alive(pgp_link *link)
{
    return PQstatus(link->conn) == CONNECTION_OK && !link->ended &&
           !(socket_events(link) & SOCKET_DEAD);
}

/* The answer to a reset is ours to take, and may end with the reason. */
static void answer_take(pgp_link *link)
{
    PGresult *result;

    while (!PQisBusy(link->conn) && (result = PQgetResult(link->conn)) != NULL) {
        pgp_pq_judge(link, result);
        PQclear(result);
    }
}

/* An error that comes outside of a statement goes to our receiver, one that ends a borrower's
 * statement stays in libpq as its result, which is his: only its text is read. */
static void link_last_words(pgp_link *link, pgp_error *error)
{
    const PGVerbosity before = PQsetErrorVerbosity(link->conn, PQERRORS_VERBOSE);
    const int is_active = PQtransactionStatus(link->conn) == PQTRANS_ACTIVE;
    int more = 1, n;

    pgp_pq_mark(link, false); /* it lies idle no more: it will be closed */
    *error = (pgp_error){.sqlstate = ""};
    if (!link->ended)
        link->failed = 0;
    pgp_pq_listen(link);
    for (n = 0; n < QUIET_PATIENCE && more && !link->ended; n++) {
        more = pgp_poll_now(PQsocket(link->conn), POLLIN) & POLLIN &&
               PQconsumeInput(link->conn);
        if (link->owes)
            answer_take(link);
        PQisBusy(link->conn); /* libpq reads on in what it has got */
    }
    if (link->ended || link->failed)
        *error = link->error;
    else if (is_active)
        pgp_error_connection(error, link);
    PQsetErrorVerbosity(link->conn, before);
}

static pgp_probe dead(pgp_error *error, const char *why)
{
    *error = (pgp_error){.sqlstate = ""};
    pgp_error_text(error, why);
    return PGP_PROBE_DEAD;
}

/* Take in what came unasked, until it is quiet. */
static pgp_probe hear(pgp_link *link, pgp_error *error)
{
    int i;

    for (i = 0; i < QUIET_PATIENCE; i++) {
        const int events = socket_events(link);

        if (!events)
            return role_kept(link) ? PGP_PROBE_HEARD : dead(error, role_changed);
        if (events & SOCKET_DEAD || !PQconsumeInput(link->conn))
            return dead(error, closed_while_idle);
        pgp_pq_drop_notifies(link);
    }
    return dead(error, "the connection does not become quiet");
}

static pgp_probe look(pgp_link *link, pgp_error *error)
{
    const int events = socket_events(link);

    if (events & SOCKET_DEAD)
        return dead(error, closed_while_idle);
    if (link->owes)
        return PGP_PROBE_OWING;
    return events ? hear(link, error) : PGP_PROBE_QUIET;
}

static pgp_probe link_probe(pgp_link *link, pgp_error *error)
{
    pgp_probe probe;
    pgp_error words;

    pgp_pq_mark(link, false);
    probe = look(link, error);
    if (probe != PGP_PROBE_DEAD && !link->ended)
        return probe;
    link_last_words(link, &words);
    if (*words.message)
        *error = words;
    return PGP_PROBE_DEAD;
}

/* --- greeting --------------------------------------------------------------- */

static int greet(pgp_link *link, int ping, apr_time_t until, pgp_error *error)
{
    if (link->owes) {
        if (!pgp_pq_answer_until(link, until, error))
            return 0;
        pgp_pq_drop_notifies(link);
    }
    return !ping || (pgp_pq_ask(link, "", error) && pgp_pq_answer_until(link, until, error));
}

static int link_greet(pgp_link *link, int ping, apr_time_t until, pgp_error *error)
{
    const unsigned deeds = link->deeds;

    if (!pgp_pq_nonblocking(link)) {
        pgp_error_text(error, PQerrorMessage(link->conn));
        return 0;
    }
    if (!greet(link, ping, until, error))
        return 0;
    link->deeds = deeds; /* ours do not count */
    if (rest(link) && role_kept(link))
        return 1;
    pgp_error_text(error, encoding_kept(link) ? role_changed : encoding_changed);
    return 0;
}

/* --- idle ------------------------------------------------------------------- */

/* The answer to a reset, as far as it has come; the rest is left to greet().  0: it failed. */
static int answer_take_in(pgp_link *link, pgp_error *error)
{
    const unsigned deeds = link->deeds;
    struct pollfd await;
    pgp_step step = PGP_STEP_AGAIN;
    int i;

    for (i = 0; i < QUIET_PATIENCE && step == PGP_STEP_AGAIN && socket_events(link); i++)
        step = pgp_pq_answer(link, &await, error);
    link->deeds = deeds; /* ours do not count */
    if (step == PGP_STEP_AGAIN)
        return 1;
    pgp_pq_drop_notifies(link);
    if (step == PGP_STEP_DONE && rest(link) && role_kept(link))
        return 1;
    if (step == PGP_STEP_DONE)
        pgp_error_text(error, encoding_kept(link) ? role_changed : encoding_changed);
    return 0;
}

static int link_take_in(pgp_link *link, pgp_error *error)
{
    int quiet;

    pgp_pq_mark(link, false);
    quiet = (!link->owes || answer_take_in(link, error)) &&
            link_probe(link, error) != PGP_PROBE_DEAD;
    pgp_pq_mark(link, quiet);
    return quiet;
}

/* --- coming back ------------------------------------------------------------ */

static pgp_return link_settle(pgp_link *link)
{
    pgp_pq_restore(link);
    pgp_pq_drop_notifies(link); /* and hear what else has come */
    if (PQstatus(link->conn) != CONNECTION_OK || link->ended)
        return PGP_RETURN_BROKEN;
    if (link->role_matters && link->met_read_only && !link->role_set)
        return PGP_RETURN_BROKEN;
    if (PQtransactionStatus(link->conn) != PQTRANS_IDLE ||
        PQpipelineStatus(link->conn) != PQ_PIPELINE_OFF)
        return PGP_RETURN_DIRTY;
    if (link->unsynced)
        return PGP_RETURN_UNKNOWN;
    if (link->large)
        return PGP_RETURN_LARGE;
    if (link->settings->reset == PGP_RESET_CLOSE)
        return PGP_RETURN_CLEAN; /* the pool closes it: nothing has to be undone */
    if (!undo_send(link, link->deeds))
        return PGP_RETURN_UNKNOWN;
    pgp_pq_mark(link, true);
    return PGP_RETURN_CLEAN;
}

/* --- closing ---------------------------------------------------------------- */

/* A step drops at most so many times so many bytes of what the server still sends, so that a
 * server that sends without end does not keep the keeper from other connections. */
#define CLOSING_READS 8
#define CLOSING_READ 4096

/* In nonblocking mode PQfinish() sends its good-bye if the socket takes it, and does not wait;
 * a connection that cannot be put into that mode is cut off.  A second descriptor keeps the
 * socket until the server has ended its side. */
static int finish(pgp_link *link)
{
    const int fd = PQsocket(link->conn);
    const int second = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;

    if (fd >= 0 && !pgp_pq_nonblocking(link))
        shutdown(fd, SHUT_RDWR);
    PQfinish(link->conn);
    link->conn = NULL;
    if (second >= 0)
        shutdown(second, SHUT_WR);
    return second;
}

static void link_close(pgp_link *link)
{
    pgp_error error;

    pgp_pq_mark(link, false);
    /* A reset that has ended need not be cancelled. */
    if (link->conn && link->owes)
        answer_take_in(link, &error);
    if (link->conn && PQtransactionStatus(link->conn) == PQTRANS_ACTIVE) {
        pgp_pq_cleanup_abandon(link);
        /* PQfinish() would still send what its borrower has queued, for the server to run. */
        shutdown(PQsocket(link->conn), SHUT_WR);
    }
    link->closing_fd = link->conn ? finish(link) : -1;
    pgp_pq_connect_drop(link);
    if (link->task)
        pgp_task_leave(&link->task);
    link->phase = CLOSING;
}

/* DONE when the server has ended its side. */
static pgp_step step_closing(pgp_link *link, struct pollfd *await)
{
    char dropped[CLOSING_READ];
    ssize_t got = 1;
    int n;

    if (link->closing_fd < 0)
        return PGP_STEP_DONE;
    for (n = 0; n < CLOSING_READS && got > 0; n++)
        got = recv(link->closing_fd, dropped, sizeof dropped, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        return PGP_STEP_DONE;
    *await = (struct pollfd){.fd = link->closing_fd, .events = POLLIN};
    return PGP_STEP_AGAIN;
}

static void link_destroy(pgp_link *link)
{
    if (link->phase != CLOSING)
        link_close(link);
    if (link->closing_fd >= 0)
        close(link->closing_fd);
    free(link->applied);
    free(link);
}

static pgp_step link_step(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step;

    if (link->phase == CLOSING)
        return step_closing(link, await);
    step = step_phase(link, await, error);
    pgp_pq_mark(link, step == PGP_STEP_DONE);
    return step;
}

/* --- what it is ------------------------------------------------------------- */

static int link_capacity(const pgp_link *link)
{
    return link->capacity;
}

static const char *link_tls(const pgp_link *link)
{
    return PQsslInUse(link->conn) ? PQsslAttribute(link->conn, "protocol") : NULL;
}

static unsigned link_backend(const pgp_link *link)
{
    return link->backend;
}

static int link_socket(const pgp_link *link)
{
    return PQsocket(link->conn);
}

static void *link_handle(const pgp_link *link)
{
    return link->conn;
}

const pgp_driver pgp_pq_driver = {
    .connect = link_connect,
    .step = link_step,
    .alive = link_alive,
    .probe = link_probe,
    .take_in = link_take_in,
    .last_words = link_last_words,
    .greet = link_greet,
    .is_set = pgp_pq_vars_are_set,
    .set = pgp_pq_vars_set,
    .settle = link_settle,
    .clean = pgp_pq_cleanup_start,
    .close = link_close,
    .destroy = link_destroy,
    .capacity = link_capacity,
    .tls = link_tls,
    .backend = link_backend,
    .socket = link_socket,
    .handle = link_handle,
};
