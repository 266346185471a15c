/*
 * Four optional functions, which mod_pgpool.h documents, and the functions that they share with
 * mod_pgpool_statement.c.
 */
#ifndef MOD_PGPOOL_API_H
#define MOD_PGPOOL_API_H

#include <stdint.h>
#include <httpd.h>
#include <libpq-fe.h>

apr_status_t pgpool_acquire(request_rec *r, const char *pool, PGconn **conn);
void pgpool_release(request_rec *r, const char *pool);
apr_status_t pgpool_open(server_rec *s, const char *pool, apr_pool_t *p, PGconn **conn);
void pgpool_close(PGconn *conn);

/* Optional functions of mod_pgpool_companion.h. */
uint64_t pgpool_lease_number(request_rec *r, const char *pool);
void pgpool_lease_doubt(request_rec *r, const char *pool);

/* The pin of the request's family on the pool that pgpool_acquire() would take for this name;
 * NULL if there is none. */
struct pgpool_pin *pgpool_pin_of(request_rec *r, const char *pool);

/* Report the loss of a pin's connection, which r has just seen.  Returns PGPOOL_ELOST. */
apr_status_t pgpool_pin_report_loss(request_rec *r, struct pgpool_pin *pin);

#endif
