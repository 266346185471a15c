/*
 * From an SQLSTATE to an HTTP status: PgPoolQueryStatus over the defaults of mod_pgpool.
 *
 * A rule is for one SQLSTATE, for all with the same beginning, or for an answer without a row.
 * Of the rules for an SQLSTATE the longest one wins, of equals the last.
 */
#ifndef MOD_PGPOOL_QUERY_STATUS_H
#define MOD_PGPOOL_QUERY_STATUS_H

#include <apr_tables.h>

/* Append a rule, as the directive has it: "none", an SQLSTATE, or the first characters of one
 * and `*`.  Returns NULL, or what is wrong with the words. */
const char *pgpool_query_status_add(apr_array_header_t *rules, const char *condition,
                                    const char *status);

apr_array_header_t *pgpool_query_status_rules(apr_pool_t *p);

/* The status for an SQLSTATE, or for PGPOOL_QUERY_NONE; 0 if no rule is for it. */
int pgpool_query_status_find(const apr_array_header_t *rules, const char *sqlstate);

/* Stands for an SQLSTATE if there is no row, or no value. */
#define PGPOOL_QUERY_NONE "none"

#endif
