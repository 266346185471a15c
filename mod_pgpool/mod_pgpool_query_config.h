/*
 * The directives of mod_pgpool_query, and their values for a request.
 *
 * The configuration is immutable once it has been read.  A section inherits each directive that
 * it does not have; of PgPoolQuery it inherits the statement of each method without one.
 */
#ifndef MOD_PGPOOL_QUERY_CONFIG_H
#define MOD_PGPOOL_QUERY_CONFIG_H

#include <httpd.h>
#include <http_config.h>

#include "mod_pgpool.h"
#include "mod_pgpool_query_input.h"
#include "mod_pgpool_query_output.h"

/* One PgPoolQuery. */
typedef struct {
    pgpool_statement statements[PGPOOL_FORMATS]; /* the SQL, embedded for each format */
    const pgpool_input *params;                  /* $1 is params[0] */
    int nparams;
    int uses;          /* of the body, see mod_pgpool_query_input.h */
    const char *where; /* file:line of the directive, for the log */
} pgpool_query_definition;

typedef struct {
    const pgpool_query_definition *plain; /* outside of <Limit>: for GET and POST */
    const pgpool_query_definition *by_method[METHODS]; /* in <Limit>, or from a parent */
    pgpool_format format;                   /* PGPOOL_FORMATS: the directive is not there */
    const ap_expr_info_t *type;             /* NULL: the format's own */
    const apr_array_header_t *status_rules; /* NULL: none */
    apr_off_t body_most;                    /* -1: the directive is not there */
    apr_off_t result_most;                  /* -1: the directive is not there */
    int etag;                               /* -1: the directive is not there */
} pgpool_query_conf;

extern const command_rec pgpool_query_directives[];

void *pgpool_query_conf_create(apr_pool_t *p, char *path);
void *pgpool_query_conf_merge(apr_pool_t *p, void *parent, void *child);

const pgpool_query_conf *pgpool_query_conf_of(const request_rec *r);

/* The statement for a method's number; NULL if there is none. */
const pgpool_query_definition *pgpool_query_for(const pgpool_query_conf *conf, int method);

/* The methods with a statement, as bits AP_METHOD_BIT << number. */
apr_int64_t pgpool_query_methods(const pgpool_query_conf *conf);

/* The directives' values, or their defaults. */
pgpool_format pgpool_query_format(const pgpool_query_conf *conf);
apr_off_t pgpool_query_body_most(const pgpool_query_conf *conf);
apr_off_t pgpool_query_result_most(const pgpool_query_conf *conf);
bool pgpool_query_etag(const pgpool_query_conf *conf);

#endif
