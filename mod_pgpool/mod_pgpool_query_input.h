/*
 * The input of a request: %{arg:name}, %{form:name} and %{REQUEST_BODY} in expressions.
 *
 * Model.  %{arg:name} is a value of the query string.  %{form:name} is a value of the body if
 * that is an urlencoded form, and %{REQUEST_BODY} is the body itself.  httpd evaluates them
 * wherever it evaluates expressions, but a body is there only after pgpool_input_read(), which
 * the handler calls if its statement uses the body: before that, and elsewhere, both are empty.
 * A request that runs inside another one sees the body of that one.
 *
 * Errors.  A value with a bad escape, a NUL, or bytes that are not UTF-8 fails the expression.
 * pgpool_input_error() then tells that the client is to blame.
 *
 * Threads.  A request's input is used by the thread that works on the request.
 */
#ifndef MOD_PGPOOL_QUERY_INPUT_H
#define MOD_PGPOOL_QUERY_INPUT_H

#include <ap_expr.h>
#include <http_config.h>
#include <httpd.h>

/* How a statement uses the body. */
enum { PGPOOL_USES_FORM = 1, PGPOOL_USES_BODY = 2 };

/* An expression for a parameter of the statement. */
typedef struct {
    const ap_expr_info_t *expr;
    const char *arg;  /* the name if the expression is exactly %{arg:name}; else NULL */
    const char *form; /* the name if the expression is exactly %{form:name}; else NULL */
} pgpool_input;

/* Parse an expression; its uses of the body are added to *uses.  Returns NULL, or why it cannot
 * be parsed. */
const char *pgpool_input_parse(cmd_parms *cmd, const char *text, pgpool_input *input,
                               int *uses);

/* Read the body, or discard it if there are no uses.  most: the greatest length in bytes.
 * Returns OK or the handler's status, which is in the log. */
int pgpool_input_read(request_rec *r, int uses, apr_off_t most);

/* Evaluate an expression.  NULL is a null: the expression is exactly %{arg:name} or
 * %{form:name}, and there is no such name.  Otherwise NULL comes with *error, the reason. */
const char *pgpool_input_value(request_rec *r, const pgpool_input *input, const char **error);

/* The fault that this request's expressions have found in the client's values; NULL: none. */
const char *pgpool_input_error(const request_rec *r);

void pgpool_input_register(void);

#endif
