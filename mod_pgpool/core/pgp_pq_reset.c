/* Ends leases, and composes the messages that undo their effects. */

#include "pgp_pq_reset.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_strings.h>

#include "pgp_pq.h"
#include "pgp_pq_effects.h"
#include "pgp_pq_vars.h"

#define DISCARD_ALL "DISCARD ALL"

/* RESET ROLE is part of SET SESSION AUTHORIZATION DEFAULT.
 *
 * The SELECT costs the server 14 of the 24 us of the message, wherever it stands; DISCARD ALL,
 * which needs none, costs 5.  Nothing else frees advisory locks, and no result tells whether
 * there are any, so it cannot be left out. */
#define DISCARD_SESSION                                                                        \
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; "                    \
    "SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES"

/* --- messages --------------------------------------------------------------- */

bool pgp_pq_reset_is_due(pgp_reset reset, unsigned effects)
{
    switch (reset) {
    case PGP_RESET_SESSION:
    case PGP_RESET_ALL:
        return effects != 0;
    case PGP_RESET_AUTO:
        return (effects & PGP_EFFECT_CHANGE) != 0;
    case PGP_RESET_TRANSACTION:
    case PGP_RESET_CLOSE:
        break;
    }
    return false;
}

bool pgp_pq_reset_is_prepare(const char *sql)
{
    static const char blank[] = " \t\r\n";

    sql += strspn(sql, blank);
    return !strncasecmp(sql, "PREPARE", 7) && sql[7] && strchr(blank, sql[7]);
}

/* The text with PgPoolInitSQL behind it; with_prepares: its PREPAREs, too.  Each statement
 * begins a line, since the end of a line ends a comment. */
static const char *init_append(apr_pool_t *p, const char *text, const pgp_settings *settings,
                               bool with_prepares)
{
    int i;

    for (i = 0; settings->init_sql && i < settings->init_sql->nelts; i++) {
        const char *sql = APR_ARRAY_IDX(settings->init_sql, i, const char *);

        if (with_prepares || !pgp_pq_reset_is_prepare(sql))
            text = apr_pstrcat(p, text, ";\n", sql, NULL);
    }
    return text;
}

static bool has_prepares(const pgp_settings *settings)
{
    int i;

    for (i = 0; settings->init_sql && i < settings->init_sql->nelts; i++)
        if (pgp_pq_reset_is_prepare(APR_ARRAY_IDX(settings->init_sql, i, const char *)))
            return true;
    return false;
}

/* PgPoolInitSQL has a transaction of its own: a transaction that began before the RESET ALL is
 * what the borrower has made the default, perhaps read-only. */
void pgp_pq_reset_compose(pgp_settings *settings, apr_pool_t *p)
{
    if (!settings->init_sql) {
        settings->reset_all = DISCARD_ALL;
        settings->reset_session = settings->reset_prepared = DISCARD_SESSION;
        settings->undo_begin = settings->undo_end = "";
        return;
    }
    settings->reset_all = init_append(
        p, "BEGIN; " DISCARD_SESSION "; DEALLOCATE ALL; DISCARD PLANS; COMMIT", settings, true);
    settings->reset_session = init_append(p, "BEGIN; " DISCARD_SESSION "; COMMIT", settings,
                                          false);
    settings->reset_prepared = settings->reset_session;
    if (has_prepares(settings))
        settings->reset_prepared = init_append(
            p, "BEGIN; " DISCARD_SESSION "; DEALLOCATE ALL; COMMIT", settings, true);
    settings->undo_begin = "BEGIN; ";
    settings->undo_end = init_append(p, "; COMMIT", settings, false);
}

const char *pgp_pq_reset_sql(const pgp_settings *settings, unsigned effects)
{
    if (settings->reset == PGP_RESET_ALL)
        return settings->reset_all;
    return effects & PGP_EFFECT_DEALLOCATE ? settings->reset_prepared : settings->reset_session;
}

/* --- the end of a lease ------------------------------------------------------- */

/* A large result of PgPoolInitSQL does not count: the next connection needs it as well. */
void pgp_pq_reset_begin_lease(pgp_connection *connection)
{
    pgp_pq_effects_forget(connection);
    connection->lease.large = false;
    pgp_pq_vars_forget(connection);
}

bool pgp_pq_reset_set_blocking(pgp_connection *connection)
{
    connection->reset_pending = false;
    connection->vars.disturbed = 0;
    return pgp_pq_has_kept_encoding(connection) && PQsetnonblocking(connection->conn, 0) == 0;
}

static bool reset_send(pgp_connection *connection, const char *sql)
{
    pgp_error unsaid;

    connection->reset_pending = true;
    return pgp_pq_exchange_set_nonblocking(connection) &&
           pgp_pq_exchange_send(connection, sql, &unsaid) && PQflush(connection->conn) == 0;
}

/* Send what undoes the lease, without waiting.  If no reset is due, only its variables or the
 * encoding are undone; if both have to be, the connection is given up.  false: it is unfit. */
static bool lease_undo(pgp_connection *connection)
{
    const pgp_settings *settings = connection->settings;
    const bool kept_encoding = pgp_pq_has_kept_encoding(connection);
    unsigned effects = connection->lease.effects;
    char *vars_sql = pgp_pq_vars_undo_sql(connection);
    bool is_fit;

    pgp_pq_effects_forget(connection);
    pgp_pq_vars_forget(connection);
    if (!kept_encoding) /* libpq knows of it, by whatever means it was changed */
        effects |= PGP_EFFECT_ANY | PGP_EFFECT_CHANGE;
    if (pgp_pq_reset_is_due(settings->reset, effects))
        is_fit = reset_send(connection, pgp_pq_reset_sql(settings, effects));
    else if (!kept_encoding)
        is_fit = !vars_sql && reset_send(connection, "SET client_encoding = 'UTF8'");
    else if (vars_sql)
        is_fit = reset_send(connection, vars_sql);
    else
        is_fit = pgp_pq_reset_set_blocking(connection);
    free(vars_sql);
    return is_fit;
}

pgp_return pgp_pq_reset_finish_lease(pgp_connection *connection)
{
    pgp_pq_assert_ready(connection);
    pgp_pq_callbacks_restore(connection);
    pgp_pq_exchange_drop_notifies(connection); /* libpq parses what else has come */
    if (PQstatus(connection->conn) != CONNECTION_OK || connection->is_terminated)
        return PGP_RETURN_BROKEN;
    /* A server that was asked for as a primary has become a standby. */
    if (connection->role.matters && connection->lease.read_only && !connection->vars.hide_role)
        return PGP_RETURN_BROKEN;
    if (PQtransactionStatus(connection->conn) != PQTRANS_IDLE ||
        PQpipelineStatus(connection->conn) != PQ_PIPELINE_OFF)
        return PGP_RETURN_DIRTY;
    if (connection->lease.unsynced)
        return PGP_RETURN_UNKNOWN;
    if (connection->lease.large)
        return PGP_RETURN_LARGE;
    if (connection->settings->reset == PGP_RESET_CLOSE)
        return PGP_RETURN_CLEAN; /* the pool closes it: nothing has to be undone */
    if (!lease_undo(connection))
        return PGP_RETURN_UNKNOWN;
    pgp_pq_callbacks_trap(connection, true);
    return PGP_RETURN_CLEAN;
}
