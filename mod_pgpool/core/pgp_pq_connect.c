/* Connecting with libpq: names, hosts, log-in, PgPoolInitSQL, the server's capacity. */

#include "pgp_pq_connect.h"

#include <stdlib.h>
#include <string.h>
#include <apr_strings.h>

#include "pgp_passfile.h"
#include "pgp_pq_reset.h"

/* A server that sends without end must not keep the keeper from other connections. */
#define MOVES_A_STEP 100

/* --- names ------------------------------------------------------------------ */

/* The hosts belong to the look-up's task as long as there is one. */
static void hosts_drop(pgp_link *link)
{
    if (link->task)
        pgp_task_leave(&link->task);
    else
        pgp_pq_hosts_free(link->hosts);
    link->hosts = NULL;
}

void pgp_pq_connect_drop(pgp_link *link)
{
    if (link->hosts)
        hosts_drop(link);
}

/* --- logging in ------------------------------------------------------------- */

/* Why there is no connection.  What is wrong with the passfile comes first: the rest may be
 * long, and be cut. */
static void login_error(pgp_link *link, pgp_error *error)
{
    char words[sizeof error->message], *end;

    pgp_error_connection(error, link);
    if (!PQconnectionNeedsPassword(link->conn))
        return;
    pgp_passfile_explain(link->conn, words, sizeof words);
    end = words + strlen(words);
    apr_snprintf(end, sizeof words - (end - words), ": %s", error->message);
    pgp_error_text(error, words);
}

/* libpq lets the later of two equal keywords win.  Before the connection string
 * stand defaults: a black hole needs both keepalives and tcp_user_timeout to be
 * seen.  After it the hosts, as they were looked up, and the encoding, which neither a service
 * file nor the environment may change. */
static int connect_start(pgp_link *link, pgp_error *error)
{
    static const char *const keywords[] = {"fallback_application_name",
                                           "keepalives",
                                           "keepalives_idle",
                                           "keepalives_interval",
                                           "keepalives_count",
                                           "tcp_user_timeout",
                                           "dbname",
                                           "host",
                                           "hostaddr",
                                           "port",
                                           "client_encoding",
                                           NULL};
    const char *host[3] = {NULL, NULL, NULL};
    const char *values[] = {
        "mod_pgpool", "1",  "5",  "2",    "3", "10000", link->settings->conninfo,
        NULL,         NULL, NULL, "UTF8", NULL};

    if (pgp_pq_hosts_error(link->hosts)) {
        pgp_error_text(error, pgp_pq_hosts_error(link->hosts));
        return 0;
    }
    if (pgp_pq_hosts_params(link->hosts, link->first_host, host))
        memcpy(values + 7, host, sizeof host);
    link->conn = PQconnectStartParams(keywords, values, 1);
    hosts_drop(link);
    if (!link->conn || !pgp_pq_adopt(link)) {
        pgp_error_text(error, "libpq cannot register the connection: out of memory");
        return 0;
    }
    PQsetErrorVerbosity(link->conn, PQERRORS_VERBOSE);
    link->wants = PGRES_POLLING_WRITING;
    link->phase = CONNECTING;
    if (PQstatus(link->conn) != CONNECTION_BAD)
        return 1;
    login_error(link, error);
    return 0;
}

int pgp_pq_connect_begin(pgp_link *link, pgp_error *error)
{
    link->hosts = pgp_pq_hosts_read(link->settings->conninfo);
    link->phase = LOOKING_UP;
    if (!pgp_pq_hosts_unknown(link->hosts))
        return connect_start(link, error);
    link->task = pgp_task_start(pgp_pq_hosts_resolve, pgp_pq_hosts_free, link->hosts);
    if (link->task)
        return 1;
    pgp_error_text(error, "there is no thread to look the host's name up");
    return 0;
}

/* --- setting up the session ------------------------------------------------- */

/* A server that does not tell is as good as another. */
static pgp_step step_surveying(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const pgp_step step = pgp_pq_answer(link, await, error);

    return step == PGP_STEP_FAILED && PQstatus(link->conn) == CONNECTION_OK ? PGP_STEP_DONE
                                                                            : step;
}

static pgp_step survey(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    static const char sql[] =
        "SELECT pg_catalog.current_setting('max_connections')::pg_catalog.int4"
        " OPERATOR(pg_catalog.-) "
        "pg_catalog.current_setting('superuser_reserved_connections')::pg_catalog.int4"
        " OPERATOR(pg_catalog.-) "
        "coalesce(pg_catalog.current_setting('reserved_connections', true), '0')"
        "::pg_catalog.int4";

    link->phase = SURVEYING;
    return pgp_pq_ask(link, sql, error) ? step_surveying(link, await, error) : PGP_STEP_FAILED;
}

/* A reset runs the init SQL again, but where prepared statements stay it must not
 * prepare them again. */
static int init_hides_prepare(const pgp_link *link)
{
    const apr_array_header_t *sql = link->settings->init_sql;

    return link->init_done > 0 && link->deeds & PGP_DID_PREPARE &&
           link->settings->reset != PGP_RESET_ALL && link->settings->reset != PGP_RESET_CLOSE &&
           !pgp_pq_reset_prepares(APR_ARRAY_IDX(sql, link->init_done - 1, const char *));
}

/* The next statement of PgPoolInitSQL; after the last one, the survey. */
static pgp_step init_next(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    const apr_array_header_t *sql = link->settings->init_sql;

    if (init_hides_prepare(link)) {
        pgp_error_text(error, "PgPoolInitSQL: a PREPARE must stand in a directive of its own");
        return PGP_STEP_FAILED;
    }
    pgp_pq_forget_deeds(link);
    if (sql && link->init_done < sql->nelts) {
        if (!pgp_pq_ask(link, APR_ARRAY_IDX(sql, link->init_done++, const char *), error))
            return PGP_STEP_FAILED;
        return pgp_pq_answer(link, await, error);
    }
    if (link->survey)
        return survey(link, await, error);
    link->phase = READY;
    return PGP_STEP_DONE;
}

static pgp_step step_initialising(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    pgp_step step = pgp_pq_answer(link, await, error);

    while (step == PGP_STEP_DONE && link->phase == INITIALISING)
        step = init_next(link, await, error);
    return step;
}

static pgp_step connection_made(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    link->backend = (unsigned)PQbackendPID(link->conn);
    PQsetErrorVerbosity(link->conn, PQERRORS_DEFAULT);
    PQsetnonblocking(link->conn, 1);
    link->phase = INITIALISING;
    return step_initialising(link, await, error);
}

static pgp_step step_connecting(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    int n;

    for (n = 0; n < MOVES_A_STEP; n++) {
        const short events = link->wants == PGRES_POLLING_READING ? POLLIN : POLLOUT;

        *await = (struct pollfd){.fd = PQsocket(link->conn), .events = events};
        if (!pgp_poll_now(await->fd, events))
            return PGP_STEP_AGAIN;
        link->wants = PQconnectPoll(link->conn);
        if (link->wants == PGRES_POLLING_OK)
            return connection_made(link, await, error);
        if (link->wants == PGRES_POLLING_FAILED) {
            login_error(link, error);
            return PGP_STEP_FAILED;
        }
    }
    return PGP_STEP_AGAIN;
}

static pgp_step step_looking_up(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    if (!pgp_task_done(link->task)) {
        *await = (struct pollfd){.fd = pgp_task_fd(link->task), .events = POLLIN};
        return PGP_STEP_AGAIN;
    }
    return connect_start(link, error) ? step_connecting(link, await, error) : PGP_STEP_FAILED;
}

pgp_step pgp_pq_connect_step(pgp_link *link, struct pollfd *await, pgp_error *error)
{
    switch (link->phase) {
    case LOOKING_UP:
        return step_looking_up(link, await, error);
    case CONNECTING:
        return step_connecting(link, await, error);
    case INITIALISING:
        return step_initialising(link, await, error);
    default:
        return step_surveying(link, await, error);
    }
}
