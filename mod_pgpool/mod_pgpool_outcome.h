/*
 * The outcome of an acquire, for the handler (a status), the client (an HTTP status), the
 * request's notes, and the log.
 */
#ifndef MOD_PGPOOL_OUTCOME_H
#define MOD_PGPOOL_OUTCOME_H

#include <httpd.h>

#include "core/pgp_pool.h"

/* Optional functions of mod_pgpool.h. */
int pgpool_http_status(request_rec *r, apr_status_t rv);
const char *pgpool_strerror(apr_status_t rv);

/* The core's outcome as a status of mod_pgpool.h. */
apr_status_t pgpool_outcome_status(pgp_outcome outcome);

/* "pool x: what the status means: the cause (SQLSTATE ..., waited ... ms)" */
const char *pgpool_outcome_text(apr_pool_t *p, const char *pool, apr_status_t rv,
                                const pgp_acquire_info *info);

/* Set a note on r and on the initial request: a log format looks at the last one of a chain of
 * redirects, a handler at its own request.  Key and text are not copied; they must live as long
 * as the initial request. */
void pgpool_note(request_rec *r, const char *key, const char *text);
/* An optional function of mod_pgpool_companion.h. */
void pgpool_note_error(request_rec *r, const char *text);

/* Set the note "pgpool-error", and log an error.  Returns rv. */
apr_status_t pgpool_fail(request_rec *r, pgp_message id, apr_status_t rv, const char *text);

/* The same for a failure that may hit many requests at once (PGPOOL_EEXHAUSTED or
 * PGPOOL_EUNAVAIL): an error is logged once a minute, the others are logged at level debug. */
apr_status_t pgpool_fail_often(request_rec *r, pgp_pool *pool, apr_status_t rv,
                               const char *text);
/* The same for a caller without a request; p: for the text. */
apr_status_t pgpool_fail_often_in_server(server_rec *s, apr_pool_t *p, pgp_pool *pool,
                                         apr_status_t rv, const char *text);

#endif
