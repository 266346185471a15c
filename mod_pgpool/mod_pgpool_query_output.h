/*
 * The formats of PgPoolQueryFormat: rows in, the body of an answer out.
 *
 * Model.  Each format embeds the operator's statement, as a part of WITH, in one of its own
 * (pgpool_output_sql), so that PostgreSQL itself makes the JSON.  Numbers keep all their
 * digits, and booleans, nulls, arrays and json stay what they are.  The rows of that statement
 * are written to a spool as they come; only when the last one is there does the client get
 * anything.
 *
 * Ownership.  An output belongs to its request's pool.  One thread.
 */
#ifndef MOD_PGPOOL_QUERY_OUTPUT_H
#define MOD_PGPOOL_QUERY_OUTPUT_H

#include <stdbool.h>
#include <httpd.h>
#include <libpq-fe.h>

typedef enum {
    PGPOOL_FORMAT_ARRAY,  /* a JSON array with one object for each row */
    PGPOOL_FORMAT_OBJECT, /* the one row as a JSON object; the statement fails with 21000, and
                             has no effect, if there are several */
    PGPOOL_FORMAT_VALUE,  /* the first column of the first row: the bytes of text or bytea */
    PGPOOL_FORMAT_LINES,  /* one JSON object on each line */
    PGPOOL_FORMAT_CSV,    /* RFC 4180, with a header; null is empty, an empty text is "" */
    PGPOOL_FORMATS,
} pgpool_format;

/* Returns PGPOOL_FORMATS for a word that is no format's name. */
pgpool_format pgpool_format_find(const char *name);

/* The SQL, embedded in the format's own statement. */
const char *pgpool_output_sql(apr_pool_t *p, pgpool_format format, const char *sql,
                              apr_size_t length);

typedef struct pgpool_output pgpool_output;

/* most: the greatest length in bytes, 0 = no limit.  etag: send a validator. */
pgpool_output *pgpool_output_make(request_rec *r, pgpool_format format, apr_off_t most,
                                  bool etag);

/* A pgpool_row_fn; the baton is the output.  Returns APR_EGENERAL if the body cannot be made;
 * pgpool_output_error() tells why. */
apr_status_t pgpool_output_rows(void *baton, const PGresult *rows);

/* Call it after the last row. */
apr_status_t pgpool_output_finish(pgpool_output *output);

/* Why the body could not be made; NULL if rows and finish have succeeded. */
const char *pgpool_output_error(const pgpool_output *output);

/* Whether the format asks for a row, or a value, and there is none. */
bool pgpool_output_is_none(const pgpool_output *output);

/* Write the response of a finished output.  type: its Content-Type; NULL or "": the format's.
 * Returns the handler's status. */
int pgpool_output_send(pgpool_output *output, const char *type);

#endif
