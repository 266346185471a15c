#include "pgp_libpq.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <apr_strings.h>

#include "pgp_link.h"
#include "pgp_pq_connect.h"
#include "pgp_reset.h"

#ifndef POLLRDHUP
#error "POLLRDHUP is needed to see a half-closed connection: Linux, or FreeBSD 13"
#endif

#define SOCKET_DEAD (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)

/* A link takes in at most this many lots of unasked-for input before it is given
 * up as one that is never quiet. */
#define QUIET_PATIENCE 100

static const char closed_while_idle[] = "the connection was closed while idle";
static const char role_changed[] = "the server has changed its role";

/* --- connecting ------------------------------------------------------------- */

static int link_close(pgp_link *link);

static pgp_link *link_connect(const pgp_context *context, unsigned first_host, int survey,
                              void *owner, pgp_error *error)
{
    pgp_link *link = calloc(1, sizeof(*link));
    int failed;

    if (!link)
        abort(); /* as APR does */
    link->context = context;
    link->settings = context->settings;
    link->owner = owner;
    link->first_host = first_host;
    link->survey = survey;
    if (pgp_pq_connect_begin(link, error))
        return link;
    failed = link_close(link);
    if (failed >= 0)
        close(failed);
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

/* Without an answer to wait for a link is as its borrower expects it. */
static int rest(pgp_link *link)
{
    link->owes = 0;
    return PQsetnonblocking(link->conn, 0) == 0;
}

static int undo_ask(pgp_link *link, const char *sql)
{
    pgp_error error;

    link->owes = 1;
    return pgp_link_nonblocking(link) && pgp_link_ask(link, sql, &error) &&
           PQflush(link->conn) == 0;
}

/* The variables' defaults are the server's: what the init SQL set comes after them. */
static int undo_variables(pgp_link *link)
{
    const char *begin = link->settings->undo_begin, *end = link->settings->undo_end;
    const size_t size = strlen(begin) + strlen(link->undo) + strlen(end) + 1;
    char *sql = malloc(size);
    int sent;

    if (!sql)
        abort();
    apr_snprintf(sql, size, "%s%s%s", begin, link->undo, end);
    sent = undo_ask(link, sql);
    free(sql);
    return sent;
}

/* Send what undoes the lease's deeds, without waiting.  0: could not. */
static int undo_send(pgp_link *link, unsigned deeds)
{
    const pgp_settings *settings = link->settings;
    int sent;

    pgp_link_forget_deeds(link);
    if (pgp_reset_due(settings->reset, deeds))
        sent = undo_ask(link, pgp_reset_sql(settings, deeds));
    else if (link->undo)
        sent = undo_variables(link);
    else
        return rest(link);
    free(link->undo);
    link->undo = NULL;
    link->role_set = 0;
    return sent;
}

/* --- going on --------------------------------------------------------------- */

static pgp_step made_ready(pgp_link *link, pgp_error *error)
{
    link->phase = READY;
    pgp_link_forget_deeds(link);
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
    pgp_link_drop_notifies(link); /* the transaction's end has brought them */
    if (PQtransactionStatus(link->conn) == PQTRANS_IDLE &&
        undo_send(link, PGP_DID_SOMETHING | PGP_DID_CHANGE | link->deeds))
        return PGP_STEP_DONE;
    pgp_error_text(error, "the transaction could not be ended");
    return PGP_STEP_FAILED;
}

/* One more exchange, if there is a reason for it. */
static pgp_step then_ask(pgp_link *link, link_phase phase, const char *sql,
                         struct pollfd *await, pgp_error *error)
{
    link->phase = phase;
    return pgp_link_ask(link, sql, error) ? pgp_link_answer(link, await, error)
                                          : PGP_STEP_FAILED;
}

static pgp_step step_rolling_back(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const pgp_step step = pgp_link_answer(link, await, error);

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
    const pgp_step step = pgp_link_answer(link, await, error);

    return step == PGP_STEP_DONE ? roll_back(link, await, error) : step;
}

static pgp_step step_winding_up(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step = pgp_windup_step(link, await, error);

    if (step == PGP_STEP_DONE && link->cancelled)
        step = then_ask(link, ABSORBING, "", await, error);
    return step == PGP_STEP_DONE ? roll_back(link, await, error) : step;
}

static pgp_step link_step(pgp_link *link, struct pollfd *await, pgp_error *error)
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
        break;
    }
    return PGP_STEP_DONE;
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
        pgp_link_drop_notifies(link);
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
    const pgp_probe probe = look(link, error);

    if (!link->ended)
        return probe;
    *error = link->error;
    return PGP_PROBE_DEAD;
}

/* --- greeting --------------------------------------------------------------- */

/* Sleep until the link may go on or the time is up; 0: it is up. */
static int await_until(const pgp_link *link, struct pollfd *await, apr_time_t until)
{
    const apr_time_t left = until - pgp_now(link->context->env);

    return left > 0 && (poll(await, 1, (int)((left + 999) / 1000)) >= 0 || errno == EINTR);
}

static int answer_until(pgp_link *link, apr_time_t until, pgp_error *error)
{
    struct pollfd await;
    pgp_step step;

    do
        step = pgp_link_answer(link, &await, error);
    while (step == PGP_STEP_AGAIN && await_until(link, &await, until));
    if (step == PGP_STEP_AGAIN)
        pgp_error_text(error, "no answer from the server within PgPoolCheckTimeout");
    return step == PGP_STEP_DONE;
}

/* "SELECT set_config($1,$2,false),set_config($3,..." */
static char *vars_sql(const pgp_vars *vars)
{
    static const char one[] = "pg_catalog.set_config($%d,$%d,false)%s";
    const size_t size = sizeof "SELECT " + vars->n * (sizeof one + 20);
    char *sql = malloc(size), *end;
    int i;

    if (!sql)
        abort();
    end = apr_cpystrn(sql, "SELECT ", size);
    for (i = 0; i < vars->n; i++)
        end += apr_snprintf(end, size - (end - sql), one, 2 * i + 1, 2 * i + 2,
                            i + 1 < vars->n ? "," : "");
    return sql;
}

/* The same with NULL for the values, which gives each setting its default back.
 * Adds to what is to be undone already: a borrower may set others later. */
static void undo_add(pgp_link *link, const pgp_vars *vars)
{
    const size_t before = link->undo ? strlen(link->undo) : 0;
    size_t size = before + sizeof "SELECT ";
    char *end;
    int i;

    for (i = 0; i < vars->n; i++)
        size += strlen(vars->names[i]) + sizeof ",pg_catalog.set_config('',NULL,false)";
    link->undo = realloc(link->undo, size);
    if (!link->undo)
        abort();
    end = link->undo + before;
    for (i = 0; i < vars->n; i++)
        end += apr_snprintf(end, size - (end - link->undo),
                            "%spg_catalog.set_config('%s',NULL,false)",
                            end == link->undo ? "SELECT " : ",", vars->names[i]);
}

static int vars_send(pgp_link *link, const pgp_vars *vars)
{
    const char **params = calloc(2 * vars->n, sizeof(*params));
    char *sql = vars_sql(vars);
    int i, sent;

    if (!params)
        abort();
    for (i = 0; i < vars->n; i++) {
        params[2 * i] = vars->names[i];
        params[2 * i + 1] = vars->values[i];
    }
    link->failed = 0;
    sent = PQsendQueryParams(link->conn, sql, 2 * vars->n, NULL, params, NULL, NULL, 0);
    free(params);
    free(sql);
    return sent;
}

static void role_note_set(pgp_link *link, const pgp_vars *vars)
{
    int i;

    for (i = 0; i < vars->n; i++)
        if (!strcasecmp(vars->names[i], "default_transaction_read_only"))
            link->role_set = 1;
}

/* What the server refused it did not set, so there is nothing more to undo. */
static pgp_greeting vars_set(pgp_link *link, const pgp_vars *vars, apr_time_t until,
                             pgp_error *error)
{
    if (!vars_send(link, vars)) {
        pgp_error_text(error, PQerrorMessage(link->conn));
        return PGP_GREET_BAD;
    }
    if (!answer_until(link, until, error))
        return link->failed && link->refused ? PGP_GREET_REFUSED : PGP_GREET_BAD;
    undo_add(link, vars);
    role_note_set(link, vars);
    return PGP_GREET_GOOD;
}

static pgp_greeting greet(pgp_link *link, const pgp_vars *vars, int ping, apr_time_t until,
                          pgp_error *error)
{
    if (link->owes) {
        if (!answer_until(link, until, error))
            return PGP_GREET_BAD;
        pgp_link_drop_notifies(link);
    }
    if (vars)
        return vars_set(link, vars, until, error);
    if (ping && (!pgp_link_ask(link, "", error) || !answer_until(link, until, error)))
        return PGP_GREET_BAD;
    return PGP_GREET_GOOD;
}

/* What is set within a transaction is lost with it, and its borrower may be in the
 * middle of a query. */
static int in_use(const pgp_link *link)
{
    return !link->owes && (PQtransactionStatus(link->conn) != PQTRANS_IDLE ||
                           PQpipelineStatus(link->conn) != PQ_PIPELINE_OFF);
}

static pgp_greeting link_greet(pgp_link *link, const pgp_vars *vars, int ping, apr_time_t until,
                               pgp_error *error)
{
    const unsigned deeds = link->deeds;
    const int nonblocking = !link->owes && PQisnonblocking(link->conn);
    pgp_greeting greeting;

    if (in_use(link)) {
        pgp_error_text(error, "a setting cannot be changed within a transaction or a query");
        return PQstatus(link->conn) == CONNECTION_OK ? PGP_GREET_REFUSED : PGP_GREET_BAD;
    }
    if (!pgp_link_nonblocking(link)) {
        pgp_error_text(error, PQerrorMessage(link->conn));
        return PGP_GREET_BAD;
    }
    greeting = greet(link, vars, ping, until, error);
    link->deeds = deeds; /* ours do not count */
    if (greeting == PGP_GREET_BAD)
        return greeting;
    if (rest(link) && PQsetnonblocking(link->conn, nonblocking) == 0 && role_kept(link))
        return greeting;
    pgp_error_text(error, role_changed);
    return PGP_GREET_BAD;
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
        step = pgp_link_answer(link, &await, error);
    link->deeds = deeds; /* ours do not count */
    if (step == PGP_STEP_AGAIN)
        return 1;
    pgp_link_drop_notifies(link);
    if (step == PGP_STEP_DONE && rest(link) && role_kept(link))
        return 1;
    if (step == PGP_STEP_DONE)
        pgp_error_text(error, role_changed);
    return 0;
}

static int link_take_in(pgp_link *link, pgp_error *error)
{
    return (!link->owes || answer_take_in(link, error)) &&
           link_probe(link, error) != PGP_PROBE_DEAD;
}

/* --- coming back ------------------------------------------------------------ */

static pgp_return link_settle(pgp_link *link)
{
    pgp_link_restore(link);
    pgp_link_drop_notifies(link); /* and hear what else has come */
    if (PQstatus(link->conn) != CONNECTION_OK || link->ended)
        return PGP_RETURN_BROKEN;
    if (link->role_matters && link->met_read_only && !link->role_set)
        return PGP_RETURN_BROKEN;
    if (PQtransactionStatus(link->conn) != PQTRANS_IDLE ||
        PQpipelineStatus(link->conn) != PQ_PIPELINE_OFF)
        return PGP_RETURN_DIRTY;
    if (link->unsynced)
        return PGP_RETURN_UNKNOWN;
    return undo_send(link, link->deeds) ? PGP_RETURN_CLEAN : PGP_RETURN_UNKNOWN;
}

/* In nonblocking mode PQfinish's good-bye is sent if it can be, and not waited for; what
 * cannot be put into that mode is cut off.  A second descriptor keeps the socket until
 * the server has ended its side. */
static int finish(pgp_link *link)
{
    PGconn *conn = link->conn;
    const int fd = PQsocket(conn);
    const int linger = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;

    if (fd >= 0 && !pgp_link_nonblocking(link))
        shutdown(fd, SHUT_RDWR);
    PQfinish(conn);
    if (linger >= 0)
        shutdown(linger, SHUT_WR);
    return linger;
}

static int link_close(pgp_link *link)
{
    int linger = -1;

    if (link->conn && PQtransactionStatus(link->conn) == PQTRANS_ACTIVE) {
        pgp_windup_abandon(link);
        /* PQfinish() would still send what its borrower has queued, for the server to run. */
        shutdown(PQsocket(link->conn), SHUT_WR);
    }
    if (link->conn)
        linger = finish(link);
    pgp_pq_connect_drop(link);
    if (link->task)
        pgp_task_leave(&link->task);
    free(link->undo);
    free(link);
    return linger;
}

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

const pgp_driver pgp_libpq_driver = {
    .connect = link_connect,
    .step = link_step,
    .alive = link_alive,
    .probe = link_probe,
    .take_in = link_take_in,
    .greet = link_greet,
    .settle = link_settle,
    .clean = pgp_windup_start,
    .close = link_close,
    .capacity = link_capacity,
    .tls = link_tls,
    .backend = link_backend,
    .socket = link_socket,
    .handle = link_handle,
};
