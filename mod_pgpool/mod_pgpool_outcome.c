/*
 * Tells how an acquire ended (mod_pgpool_outcome.h).
 */
#include "mod_pgpool_outcome.h"

#include <apr_strings.h>
#include <http_log.h>

#include "core/pgp_text.h"
#include "mod_pgpool.h"
#include "mod_pgpool_request.h"
#include "mod_pgpool_sqlstate.h"

APLOG_USE_MODULE(pgpool);

/* --- statuses --------------------------------------------------------------- */

/* Not registered; the access logs of other servers show it as well. */
#define HTTP_CLIENT_HAS_GONE 499

typedef struct {
    apr_status_t rv;
    int http;
    const char *retry_after; /* seconds */
    const char *text;
} outcome_row;

static const outcome_row outcome_rows[] = {
    {APR_SUCCESS, OK, NULL, "a connection was given"},
    {PGPOOL_EEXHAUSTED, HTTP_SERVICE_UNAVAILABLE, "1",
     "all connections stayed in use until the deadline"},
    {PGPOOL_EUNAVAIL, HTTP_SERVICE_UNAVAILABLE, "5",
     "no connection to the PostgreSQL server can be had"},
    {PGPOOL_ELOST, HTTP_SERVICE_UNAVAILABLE, "1", "the connection of this request was lost"},
    {PGPOOL_ENOPOOL, HTTP_INTERNAL_SERVER_ERROR, NULL,
     "no pool of that name is configured for this server"},
    {PGPOOL_ESTOPPING, HTTP_SERVICE_UNAVAILABLE, "1", "this child process is stopping"},
    {PGPOOL_ESTATEMENT, HTTP_INTERNAL_SERVER_ERROR, NULL, "the server refused the statement"},
    {PGPOOL_ETIMEDOUT, HTTP_GATEWAY_TIME_OUT, NULL,
     "the statement had not ended at its deadline"},
    {PGPOOL_EABORTED, HTTP_CLIENT_HAS_GONE, NULL, "the client has gone"},
};

static const outcome_row outcome_unknown = {0, HTTP_INTERNAL_SERVER_ERROR, NULL,
                                            "not a status of mod_pgpool"};

static const outcome_row *outcome_row_of(apr_status_t rv)
{
    size_t i;

    for (i = 0; i < sizeof(outcome_rows) / sizeof(outcome_rows[0]); i++)
        if (outcome_rows[i].rv == rv)
            return &outcome_rows[i];
    return &outcome_unknown;
}

apr_status_t pgpool_outcome_status(pgp_outcome outcome)
{
    static const apr_status_t statuses[] = {
        [PGP_GRANTED] = APR_SUCCESS,
        [PGP_EXHAUSTED] = PGPOOL_EEXHAUSTED,
        [PGP_UNAVAILABLE] = PGPOOL_EUNAVAIL,
        [PGP_STOPPING] = PGPOOL_ESTOPPING,
    };

    return statuses[outcome];
}

/* The server's refusal of a statement, by its SQLSTATE. */
static int refusal_status(request_rec *r)
{
    const int status = pgpool_sqlstate_http(
        pgpool_request_of(pgpool_request_initial(r))->sqlstate);

    if (status == HTTP_SERVICE_UNAVAILABLE)
        apr_table_setn(r->err_headers_out, "Retry-After", "1");
    return status;
}

int pgpool_http_status(request_rec *r, apr_status_t rv)
{
    const outcome_row *row = outcome_row_of(rv);

    if (rv == PGPOOL_ESTATEMENT)
        return refusal_status(r);
    if (rv == PGPOOL_EUNAVAIL && pgpool_request_of(pgpool_request_initial(r))->has_bad_value)
        return HTTP_BAD_REQUEST;
    if (row->retry_after)
        apr_table_setn(r->err_headers_out, "Retry-After", row->retry_after);
    return row->http;
}

const char *pgpool_strerror(apr_status_t rv)
{
    return outcome_row_of(rv)->text;
}

const char *pgpool_outcome_text(apr_pool_t *p, const char *pool, apr_status_t rv,
                                const pgp_acquire_info *info)
{
    const char *sqlstate = info->error.sqlstate;

    return apr_psprintf(p, "pool %s: %s: %s (%s%s%swaited %" APR_TIME_T_FMT " ms)", pool,
                        pgpool_strerror(rv), info->error.message, *sqlstate ? "SQLSTATE " : "",
                        sqlstate, *sqlstate ? ", " : "", info->waited / 1000);
}

/* --- notes and log ---------------------------------------------------------- */

void pgpool_note(request_rec *r, const char *key, const char *text)
{
    request_rec *initial = pgpool_request_initial(r);

    apr_table_setn(r->notes, key, text);
    if (initial != r)
        apr_table_setn(initial->notes, key, text);
}

void pgpool_note_error(request_rec *r, const char *text)
{
    char *clean = apr_pstrdup(pgpool_request_initial(r)->pool, text);

    pgp_text_clean(clean);
    pgpool_note(r, "pgpool-error", clean);
}

apr_status_t pgpool_fail(request_rec *r, pgp_message id, apr_status_t rv, const char *text)
{
    pgpool_note_error(r, text);
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "PGP%d: %s", id, text);
    return rv;
}

/* The line to log.  *level is APLOG_ERR at most once a minute for each pool and outcome. */
static const char *often_text(apr_pool_t *p, pgp_pool *pool, apr_status_t rv, const char *text,
                              int *level)
{
    const pgp_outcome outcome = rv == PGPOOL_EEXHAUSTED ? PGP_EXHAUSTED : PGP_UNAVAILABLE;
    apr_uint64_t unlogged = 0;

    *level = pgp_pool_may_log(pool, outcome, &unlogged) ? APLOG_ERR : APLOG_DEBUG;
    if (*level == APLOG_DEBUG || !unlogged)
        return text;
    return apr_psprintf(p, "%s; %" APR_UINT64_T_FMT " more like it since the last line", text,
                        unlogged);
}

apr_status_t pgpool_fail_often(request_rec *r, pgp_pool *pool, apr_status_t rv,
                               const char *text)
{
    int level;
    const char *line = often_text(r->pool, pool, rv, text, &level);

    pgpool_note_error(r, text);
    ap_log_rerror(APLOG_MARK, level, 0, r, "PGP%d: %s", PGP_MSG_NO_CONNECTION, line);
    return rv;
}

apr_status_t pgpool_fail_often_in_server(server_rec *s, apr_pool_t *p, pgp_pool *pool,
                                         apr_status_t rv, const char *text)
{
    int level;
    const char *line = often_text(p, pool, rv, text, &level);

    ap_log_error(APLOG_MARK, level, 0, s, "PGP%d: %s", PGP_MSG_NO_CONNECTION, line);
    return rv;
}
