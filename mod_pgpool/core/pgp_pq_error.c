/* libpq's errors as a pgp_error. */

#include "pgp_pq.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <apr_strings.h>

void pgp_pq_error_last(pgp_error *error, const pgp_connection *connection)
{
    pgp_error_set_text(error, PQerrorMessage(connection->conn));
}

static bool is_sqlstate(const char *text)
{
    int i;

    for (i = 0; i < 5; i++)
        if (!isdigit((unsigned char)text[i]) && !isupper((unsigned char)text[i]))
            return false;
    return text[5] == ':';
}

/* A limit of the role or of the database has the same SQLSTATE as a server that is full.  The
 * message may be in any language, but the verbose one names the server's function as well. */
static bool is_own_limit(const char *text)
{
    return strstr(text, "  InitializeSessionUserId,") || strstr(text, "  CheckMyDatabase,");
}

/* libpq has no function for the SQLSTATE of a failed connect, nor for the system's error.  Its
 * verbose message has them: "FATAL:  28P01: ...".  The last of several hosts counts. */
void pgp_pq_error_connection(pgp_error *error, const pgp_connection *connection)
{
    const char *text = PQerrorMessage(connection->conn), *at;

    for (at = strstr(text, ":  "); at; at = strstr(at + 3, ":  "))
        if (is_sqlstate(at + 3))
            apr_cpystrn(error->sqlstate, at + 3, sizeof error->sqlstate);
    error->own_limit = !strcmp(error->sqlstate, "53300") && is_own_limit(text);
    error->absent = strstr(text, strerror(ECONNREFUSED)) || strstr(text, strerror(ENOENT));
    pgp_error_set_text(error, text);
}

void pgp_pq_error_result(pgp_error *error, const pgp_connection *connection,
                         const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

    if (sqlstate)
        apr_cpystrn(error->sqlstate, sqlstate, sizeof error->sqlstate);
    pgp_error_set_text(error, text ? text : PQerrorMessage(connection->conn));
}

bool pgp_pq_error_has_field(const PGresult *result, int field, const char *value)
{
    const char *has = PQresultErrorField(result, field);

    return has && !strcmp(has, value);
}

/* PgBouncer's own errors have the localised field alone, in English. */
const char *pgp_pq_error_severity(const PGresult *result)
{
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);

    if (!severity)
        severity = PQresultErrorField(result, PG_DIAG_SEVERITY);
    return severity ? severity : "";
}

void pgp_pq_error_note_end(pgp_connection *connection, const PGresult *result)
{
    connection->exchange.failed = true;
    connection->exchange.rejected = false;
    connection->exchange.error.sqlstate[0] = '\0';
    pgp_pq_error_result(&connection->exchange.error, connection, result);
    connection->is_terminated = true;
}
