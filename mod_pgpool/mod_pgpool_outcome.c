/*
 * How an ask ended, in the words of mod_pgpool.h and of HTTP: one table.
 */
#include "mod_pgpool_private.h"

#include <apr_strings.h>

typedef struct {
    apr_status_t rv;
    int http;
    const char *retry_after; /* seconds */
    const char *text;
} outcome_row;

static const outcome_row rows[] = {
    {APR_SUCCESS, OK, NULL, "a connection was given"},
    {PGPOOL_EEXHAUSTED, HTTP_SERVICE_UNAVAILABLE, "1",
     "all connections stayed lent until the deadline"},
    {PGPOOL_EUNAVAIL, HTTP_SERVICE_UNAVAILABLE, "5",
     "no connection to the PostgreSQL server can be had"},
    {PGPOOL_ELOST, HTTP_SERVICE_UNAVAILABLE, "1", "the connection of this request was lost"},
    {PGPOOL_ENOPOOL, HTTP_INTERNAL_SERVER_ERROR, NULL,
     "no pool of that name is configured for this server"},
    {PGPOOL_ESTOPPING, HTTP_SERVICE_UNAVAILABLE, "1", "this child process is stopping"},
};

static const outcome_row unknown = {0, HTTP_INTERNAL_SERVER_ERROR, NULL,
                                    "not a status of mod_pgpool"};

static const outcome_row *row_of(apr_status_t rv)
{
    size_t i;

    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].rv == rv)
            return &rows[i];
    return &unknown;
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

int pgpool_http_status(request_rec *r, apr_status_t rv)
{
    const outcome_row *row = row_of(rv);

    if (row->retry_after)
        apr_table_setn(r->err_headers_out, "Retry-After", row->retry_after);
    return row->http;
}

const char *pgpool_strerror(apr_status_t rv)
{
    return row_of(rv)->text;
}
