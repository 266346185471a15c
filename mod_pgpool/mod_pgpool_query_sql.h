/*
 * A look at the SQL of a PgPoolQuery, before a server sees it.
 *
 * mod_pgpool_query embeds the operator's statement in one of its own.  An unclosed quote or a
 * second statement would be reported by the server in words about that wrapper, and only at the
 * first request.  The scanner knows PostgreSQL's lexical rules with standard_conforming_strings
 * on: strings, E'' strings, quoted identifiers, dollar quotes, nested comments.  It knows no
 * grammar.
 */
#ifndef MOD_PGPOOL_QUERY_SQL_H
#define MOD_PGPOOL_QUERY_SQL_H

#include <stddef.h>

typedef struct {
    const char *wrong; /* NULL, or what is wrong: a constant */
    const char *at;    /* if something is wrong: the place in the text */
    size_t length; /* of the one statement, without a semicolon or comment behind it; 0: none */
    int params;    /* the greatest n of all $n; 0: there is none */
} pgpool_sql;

/* The greatest number of parameters that a bind message can carry. */
#define PGPOOL_SQL_PARAMS_MOST 65535

pgpool_sql pgpool_sql_scan(const char *text);

#endif
