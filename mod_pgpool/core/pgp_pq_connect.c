/* Connects with libpq: looks names up, logs in, runs PgPoolInitSQL, asks for the capacity. */

#include "pgp_pq_connect.h"

#include <stdlib.h>
#include <string.h>
#include <apr_strings.h>

#include "pgp_alloc.h"
#include "pgp_passfile.h"
#include "pgp_pq_effects.h"
#include "pgp_pq_reset.h"

/* A server that sends without end must not keep the keeper from other connections. */
#define MOVES_A_STEP 100

/* --- names ------------------------------------------------------------------ */

static pgp_pq_lookup *lookup_make(const pgp_settings *settings)
{
    pgp_pq_lookup *lookup = pgp_alloc(sizeof(*lookup));

    lookup->hosts = pgp_pq_hosts_read(settings->conninfo);
    if (settings->password)
        lookup->password = pgp_password_make(settings->password, settings->connect_timeout);
    return lookup;
}

static void lookup_free(pgp_pq_lookup *lookup)
{
    pgp_pq_hosts_free(lookup->hosts);
    if (lookup->password)
        pgp_password_free(lookup->password);
    free(lookup);
}

static void lookup_run(pgp_pq_lookup *lookup)
{
    if (lookup->password)
        pgp_password_read(lookup->password);
    pgp_pq_hosts_resolve(lookup->hosts);
}

PGP_TASK_DEFINE(lookup_start, pgp_pq_lookup, lookup_run, lookup_free)

/* Why the look-up has failed, or NULL. */
static const char *lookup_error(const pgp_pq_lookup *lookup)
{
    const char *error = lookup->password ? pgp_password_error(lookup->password) : NULL;

    return error ? error : pgp_pq_hosts_error(lookup->hosts);
}

/* The look-up belongs to its task while there is one. */
void pgp_pq_connect_abandon(pgp_connection *connection)
{
    if (!connection->connecting.lookup)
        return;
    if (connection->task)
        pgp_task_leave(&connection->task);
    else
        lookup_free(connection->connecting.lookup);
    connection->connecting.lookup = NULL;
}

/* --- logging in ------------------------------------------------------------- */

/* Set *error to the reason why there is no connection.  The passfile's part comes first, since
 * the rest may be too long. */
static void login_error(pgp_connection *connection, pgp_error *error)
{
    char words[sizeof error->message], *end;

    pgp_pq_error_connection(error, connection);
    if (!PQconnectionNeedsPassword(connection->conn))
        return;
    pgp_passfile_explain(connection->conn, words, sizeof words);
    end = words + strlen(words);
    apr_snprintf(end, sizeof words - (end - words), ": %s", error->message);
    pgp_error_set_text(error, words);
}

/* Give libpq the parameters.  It lets the later of two equal keywords win.  Before the
 * connection string stand defaults: only keepalives together with tcp_user_timeout end a black
 * hole.  After it stand the hosts, as they were looked up; the encoding, which neither a
 * service file nor the environment may change; and the password of PgPoolPassword. */
static PGconn *conn_start(const pgp_connection *connection)
{
    const pgp_pq_lookup *lookup = connection->connecting.lookup;
    const char *host[3] = {NULL, NULL, NULL}; /* libpq ignores a NULL */
    const bool has_hosts = pgp_pq_hosts_params(lookup->hosts, connection->connecting.first_host,
                                               host);
    const char *const params[][2] = {
        {"fallback_application_name", "mod_pgpool"},
        {"keepalives", "1"},
        {"keepalives_idle", "5"},
        {"keepalives_interval", "2"},
        {"keepalives_count", "3"},
        {"tcp_user_timeout", "10000"},
        {"dbname", connection->settings->conninfo},
        {"host", has_hosts ? host[0] : NULL},
        {"hostaddr", has_hosts ? host[1] : NULL},
        {"port", has_hosts ? host[2] : NULL},
        {"client_encoding", "UTF8"},
        {"password", lookup->password ? pgp_password_text(lookup->password) : NULL},
        {NULL, NULL},
    };
    enum { PARAMS = sizeof params / sizeof *params };
    const char *keywords[PARAMS], *values[PARAMS];
    int i;

    for (i = 0; i < PARAMS; i++) {
        keywords[i] = params[i][0];
        values[i] = params[i][1];
    }
    return PQconnectStartParams(keywords, values, 1);
}

static bool login_start(pgp_connection *connection, pgp_error *error)
{
    const char *why = lookup_error(connection->connecting.lookup);

    if (why) {
        pgp_error_set_text(error, why);
        return false;
    }
    connection->conn = conn_start(connection);
    pgp_pq_connect_abandon(connection);
    if (!connection->conn || !pgp_pq_callbacks_register(connection)) {
        pgp_error_set_text(error, "libpq cannot register the connection: out of memory");
        return false;
    }
    PQsetErrorVerbosity(connection->conn, PQERRORS_VERBOSE);
    connection->connecting.wants = PGRES_POLLING_WRITING;
    connection->phase = PGP_PQ_CONNECTING;
    if (PQstatus(connection->conn) != CONNECTION_BAD)
        return true;
    login_error(connection, error);
    return false;
}

bool pgp_pq_connect_start(pgp_connection *connection, pgp_error *error)
{
    pgp_pq_lookup *lookup = lookup_make(connection->settings);

    connection->connecting.lookup = lookup;
    connection->phase = PGP_PQ_LOOKING_UP;
    if (!lookup->password && !pgp_pq_hosts_has_names(lookup->hosts))
        return login_start(connection, error);
    connection->task = lookup_start(lookup);
    if (connection->task)
        return true;
    pgp_error_set_text(error, "there is no thread to look up the host's name or the password");
    return false;
}

/* --- setting up the session ------------------------------------------------- */

/* Note the encoding, and check that it is UTF-8.  A proxy may not tell the encoding; then it
 * has the one that login_start() asked for. */
static bool note_encoding(pgp_connection *connection, pgp_error *error)
{
    const char *name = PQparameterStatus(connection->conn, "client_encoding");

    connection->encoding = PQclientEncoding(connection->conn);
    if (!name || !strcmp(name, "UTF8"))
        return true;
    apr_snprintf(
        error->message, sizeof error->message,
        "client_encoding is %s after PgPoolInitSQL, but the text of requests is UTF-8: "
        "leave it as it is",
        name);
    return false;
}

static pgp_step session_ready(pgp_connection *connection, pgp_error *error)
{
    connection->phase = PGP_PQ_READY;
    if (!note_encoding(connection, error))
        return PGP_STEP_FAILED;
    pgp_pq_reset_begin_lease(connection);
    pgp_pq_idle_note_role(connection);
    if (PQtransactionStatus(connection->conn) == PQTRANS_IDLE &&
        pgp_pq_reset_set_blocking(connection))
        return PGP_STEP_DONE;
    pgp_error_set_text(error, "PgPoolInitSQL leaves a transaction open");
    return PGP_STEP_FAILED;
}

/* Go on with asking for the capacity.  If the query fails, it stays unknown. */
static pgp_step survey_step(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    pgp_step step = pgp_pq_exchange_receive(connection, await, error);

    if (step == PGP_STEP_FAILED && PQstatus(connection->conn) == CONNECTION_OK)
        step = PGP_STEP_DONE;
    return step == PGP_STEP_DONE ? session_ready(connection, error) : step;
}

static pgp_step survey_start(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    static const char sql[] =
        "SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int4"
        " OPERATOR(pg_catalog.-) "
        "pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4"
        " OPERATOR(pg_catalog.-) "
        "coalesce(pg_catalog.current_setting('reserved_connections', true), '0')"
        "::pg_catalog.int4";

    connection->phase = PGP_PQ_SURVEYING;
    return pgp_pq_exchange_send(connection, sql, error) ? survey_step(connection, await, error)
                                                        : PGP_STEP_FAILED;
}

/* Whether the last statement of PgPoolInitSQL has prepared something, though it does not begin
 * with PREPARE: a reset that keeps prepared statements would run it again, and fail. */
static bool init_hides_prepare(const pgp_connection *connection)
{
    const apr_array_header_t *sql = connection->settings->init_sql;
    const int last = connection->connecting.init_started - 1;

    return last >= 0 && connection->lease.effects & PGP_EFFECT_PREPARE &&
           connection->settings->reset != PGP_RESET_ALL &&
           connection->settings->reset != PGP_RESET_CLOSE &&
           !pgp_pq_reset_is_prepare(APR_ARRAY_IDX(sql, last, const char *));
}

/* Run the statements of PgPoolInitSQL one after another, then the survey if one is due. */
static pgp_step init_step(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    const apr_array_header_t *sql = connection->settings->init_sql;
    const int statements = sql ? sql->nelts : 0;
    int *const started = &connection->connecting.init_started;

    for (;;) {
        const pgp_step step = pgp_pq_exchange_receive(connection, await, error);

        if (step != PGP_STEP_DONE)
            return step;
        if (init_hides_prepare(connection)) {
            pgp_error_set_text(error,
                               "PgPoolInitSQL: a PREPARE must stand in a directive of its own");
            return PGP_STEP_FAILED;
        }
        pgp_pq_effects_forget(connection);
        if (*started >= statements)
            break;
        if (!pgp_pq_exchange_send(connection, APR_ARRAY_IDX(sql, (*started)++, const char *),
                                  error))
            return PGP_STEP_FAILED;
    }
    return connection->connecting.survey ? survey_start(connection, await, error)
                                         : session_ready(connection, error);
}

/* --- phases ----------------------------------------------------------------- */

/* Whether to read the password once more: it may have changed before the log-in. */
static bool needs_second_login(const pgp_connection *connection, const pgp_error *error)
{
    return connection->settings->password && !connection->connecting.is_second &&
           !strcmp(error->sqlstate, "28P01");
}

/* Look everything up once more, and log in with that. */
static pgp_step login_again(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    PQfinish(connection->conn);
    connection->conn = NULL;
    connection->connecting.is_second = true;
    if (!pgp_pq_connect_start(connection, error))
        return PGP_STEP_FAILED;
    *error = (pgp_error){.sqlstate = ""};
    *await = (struct pollfd){.fd = pgp_task_fd(connection->task), .events = POLLIN};
    return PGP_STEP_AGAIN;
}

static pgp_step login_step(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    PostgresPollingStatusType *const wants = &connection->connecting.wants;
    int n;

    for (n = 0; n < MOVES_A_STEP; n++) {
        const short events = *wants == PGRES_POLLING_READING ? POLLIN : POLLOUT;

        *await = (struct pollfd){.fd = PQsocket(connection->conn), .events = events};
        if (!pgp_pq_exchange_poll_now(await->fd, events))
            return PGP_STEP_AGAIN;
        *wants = PQconnectPoll(connection->conn);
        if (*wants == PGRES_POLLING_FAILED) {
            login_error(connection, error);
            return needs_second_login(connection, error) ? login_again(connection, await, error)
                                                         : PGP_STEP_FAILED;
        }
        if (*wants == PGRES_POLLING_OK) {
            connection->backend = (unsigned)PQbackendPID(connection->conn);
            PQsetErrorVerbosity(connection->conn, PQERRORS_DEFAULT);
            PQsetnonblocking(connection->conn, 1);
            connection->phase = PGP_PQ_INITIALISING;
            return init_step(connection, await, error);
        }
    }
    return PGP_STEP_AGAIN;
}

static pgp_step lookup_step(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    if (!pgp_task_is_done(connection->task)) {
        *await = (struct pollfd){.fd = pgp_task_fd(connection->task), .events = POLLIN};
        return PGP_STEP_AGAIN;
    }
    return login_start(connection, error) ? login_step(connection, await, error)
                                          : PGP_STEP_FAILED;
}

pgp_step pgp_pq_connect_step(pgp_connection *connection, struct pollfd *await, pgp_error *error)
{
    switch (connection->phase) {
    case PGP_PQ_LOOKING_UP:
        return lookup_step(connection, await, error);
    case PGP_PQ_CONNECTING:
        return login_step(connection, await, error);
    case PGP_PQ_INITIALISING:
        return init_step(connection, await, error);
    default:
        assert(connection->phase == PGP_PQ_SURVEYING);
        return survey_step(connection, await, error);
    }
}
