/*
 * Four optional functions of mod_pgpool.h, which says what they do.
 */
#ifndef MOD_PGPOOL_API_H
#define MOD_PGPOOL_API_H

#include <httpd.h>
#include <libpq-fe.h>

apr_status_t pgpool_acquire(request_rec *r, const char *pool, PGconn **conn);
void pgpool_release(request_rec *r, const char *pool);
apr_status_t pgpool_open(server_rec *s, const char *pool, apr_pool_t *p, PGconn **conn);
void pgpool_close(PGconn *conn);

#endif
