/*
 * A spool: the body of an answer, kept until it is complete.
 *
 * Model.  The caller writes, finishes, and then takes the body as buckets.  Up to 1 MB stays in
 * memory.  A longer body goes into a temporary file, so that memory stays flat whatever the
 * length of the body and the pace of its reader.  The file has no name any more when its first
 * byte is written, and ends with its pool, also if the process is killed.
 *
 * Ownership.  All belongs to the pool that the spool was made with.  The buckets refer to the
 * spool's memory or file; httpd copies what outlives the pool.  One thread.
 *
 * Errors.  A failed write or finish returns APR_EGENERAL, and pgpool_spool_error() tells why;
 * the spool is of no further use then.
 */
#ifndef MOD_PGPOOL_QUERY_SPOOL_H
#define MOD_PGPOOL_QUERY_SPOOL_H

#include <stdbool.h>
#include <apr_buckets.h>
#include <apr_pools.h>

typedef struct pgpool_spool pgpool_spool;

/* most: the greatest length in bytes, 0 = no limit.  hashed: pgpool_spool_hash() will be
 * called.
 */
pgpool_spool *pgpool_spool_make(apr_pool_t *p, apr_off_t most, bool hashed);

apr_status_t pgpool_spool_write(pgpool_spool *spool, const char *data, apr_size_t length);

/* No write may follow. */
apr_status_t pgpool_spool_finish(pgpool_spool *spool);

const char *pgpool_spool_error(const pgpool_spool *spool);

/* Of the finished spool. */
apr_off_t pgpool_spool_length(const pgpool_spool *spool);
/* The SHA-1 of all bytes in hexadecimal digits. */
const char *pgpool_spool_hash(pgpool_spool *spool);
void pgpool_spool_insert(pgpool_spool *spool, apr_bucket_brigade *brigade);

#endif
