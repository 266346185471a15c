/*
 * Shared by the files of mod_pgpool_query: the functions of mod_pgpool, and the record that the
 * module keeps of a request.
 */
#ifndef MOD_PGPOOL_QUERY_REQUEST_H
#define MOD_PGPOOL_QUERY_REQUEST_H

#include <httpd.h>
#include <http_config.h>

#include "mod_pgpool.h"
#include "mod_pgpool_companion.h"

extern module __attribute__((visibility("default"))) pgpool_query_module;

/* The functions of mod_pgpool, found once before the first request. */
typedef struct {
    APR_OPTIONAL_FN_TYPE(pgpool_acquire) *acquire;
    APR_OPTIONAL_FN_TYPE(pgpool_release) *release;
    APR_OPTIONAL_FN_TYPE(pgpool_query) *query;
    APR_OPTIONAL_FN_TYPE(pgpool_query_rows) *query_rows;
    APR_OPTIONAL_FN_TYPE(pgpool_http_status) *http_status;
    APR_OPTIONAL_FN_TYPE(pgpool_note_error) *note_error;
    APR_OPTIONAL_FN_TYPE(pgpool_expr_value) *expr_value;
    APR_OPTIONAL_FN_TYPE(pgpool_is_personal) *is_personal;
    APR_OPTIONAL_FN_TYPE(pgpool_statement_sqlstate) *sqlstate;
} pgpool_query_functions;

extern pgpool_query_functions pgpool_query_api;

void pgpool_query_request_register(void);

/* In a request's request_config; used by the thread that works on the request. */
typedef struct {
    const char *body;        /* NULL: it was not read */
    const char *input_error; /* NULL, or what is wrong with a value that it has brought */
    int pins;                /* of an initial request: how often its family got a connection */
} pgpool_query_request;

/* find: NULL if nothing is kept. */
const pgpool_query_request *pgpool_query_request_find(const request_rec *r);
pgpool_query_request *pgpool_query_request_of(request_rec *r);

#endif
