/*
 * Reads one value from a query string or an urlencoded form: `name=value&name=value`.
 *
 * "%xy" is a byte and "+" a blank, in names and values.  A name without "=" has an empty value.
 * If a name stands there several times, the first one counts.  A value is text for PostgreSQL:
 * well-formed UTF-8 without a NUL.  Knows APR, but not httpd.  Any thread.
 */
#ifndef MOD_PGPOOL_QUERY_FORM_H
#define MOD_PGPOOL_QUERY_FORM_H

#include <apr_pools.h>

typedef enum {
    PGPOOL_FORM_ABSENT,   /* there is no such name */
    PGPOOL_FORM_FOUND,    /* *value is set */
    PGPOOL_FORM_MALFORMED /* the value has a bad escape or a NUL, or is no UTF-8 */
} pgpool_form_result;

/* Find the value of a name in `form`, which may be NULL; *value is allocated from p. */
pgpool_form_result pgpool_form_find(apr_pool_t *p, const char *form, const char *name,
                                    const char **value);

#endif
