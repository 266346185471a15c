/*
 * The HTTP status for a statement that the server refused, by SQLSTATE.
 */
#ifndef MOD_PGPOOL_SQLSTATE_H
#define MOD_PGPOOL_SQLSTATE_H

/* An optional function of mod_pgpool_companion.h. */
int pgpool_sqlstate_http(const char *sqlstate);

#endif
