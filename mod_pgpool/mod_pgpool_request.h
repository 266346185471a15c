/*
 * Requests, and what we keep of them.
 *
 * Model.  A family of requests is an initial request with all its subrequests and internal
 * redirects.  A request runs inside its outer request: the one that started the subrequest, or
 * that was redirected to it.  One thread works on a family.
 */
#ifndef MOD_PGPOOL_REQUEST_H
#define MOD_PGPOOL_REQUEST_H

#include <stdbool.h>
#include <httpd.h>

/* How far the authentication of a request has come. */
typedef enum {
    PGPOOL_AUTHN_NONE,  /* it has none of its own, or it has not begun */
    PGPOOL_AUTHN_BEGUN, /* it runs, or it has failed: the user's name is only a claim */
    PGPOOL_AUTHN_DONE
} pgpool_authn;

/* In a request's request_config. */
typedef struct {
    pgpool_authn authn;
    bool bracketed; /* we see its end: mod_pgpool_bracket.c */

    /* of an initial request */
    struct pgpool_pin *pins; /* those of its family */
    bool has_handler;        /* a handler of its family has begun, outside of subrequests */
    bool at_response;        /* a filter waits for the end of its response */
    bool has_bad_value;      /* the last acquire has failed on characters in a PgPoolSet */
    char sqlstate[6];        /* of the last statement that the server refused; else "" */
} pgpool_request;

/* The record that we keep of r; it is made if there is none. */
pgpool_request *pgpool_request_of(request_rec *r);
/* The same, but NULL if it is not there. */
const pgpool_request *pgpool_request_find(const request_rec *r);

/* The outer request; NULL: r is initial. */
request_rec *pgpool_request_outer(const request_rec *r);
request_rec *pgpool_request_initial(request_rec *r);

/* Whether r is a subrequest or runs inside one. */
bool pgpool_request_is_subrequest(const request_rec *r);

/* Whether r is `outer` or runs inside it, at any depth. */
bool pgpool_request_is_within(const request_rec *r, const request_rec *outer);

/* Whether we see the end of r, or of a request between r and `outer`, before `outer` goes on.
 */
bool pgpool_request_is_bracketed(const request_rec *r, const request_rec *outer);

#endif
