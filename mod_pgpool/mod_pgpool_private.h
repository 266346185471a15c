/*
 * What the files of mod_pgpool.so share: httpd's side, a thin layer over core/.
 *
 * Model.  Configuration makes sparse settings a server (mod_pgpool_config.c).
 * Each child makes pools and one keeper of them (mod_pgpool.c).  A request finds
 * its pool by name in its server's table and pins what it borrows
 * (mod_pgpool_request.c).
 *
 * Threads.  The configuration is written by the parent's one thread and, its
 * `pools`, by a child's before it has others; after that all may read it.  A pin
 * belongs to the thread that works on its request.
 */
#ifndef MOD_PGPOOL_PRIVATE_H
#define MOD_PGPOOL_PRIVATE_H

#include "mod_pgpool.h"

#include <ap_expr.h>
#include <apr_hash.h>
#include <http_config.h>
#include <http_log.h>

#include "core/pgp_pool.h"
#include "mod_pgpool_child.h"
#include "mod_pgpool_config.h"
#include "mod_pgpool_definition.h"
#include "mod_pgpool_module.h"

/* mod_pgpool_request.c: the optional functions of mod_pgpool.h */
apr_status_t pgpool_acquire(request_rec *r, const char *pool, PGconn **conn);
void pgpool_release(request_rec *r, const char *pool);
apr_status_t pgpool_open(server_rec *s, const char *pool, apr_pool_t *p, PGconn **conn);
void pgpool_close(PGconn *conn);

/* Where the authentication of a request stands. */
typedef enum {
    PGPOOL_AUTHN_NONE,  /* it has none of its own, or it has not begun */
    PGPOOL_AUTHN_BEGUN, /* under way, or it has failed: the user's name is only a claim */
    PGPOOL_AUTHN_DONE
} pgpool_authn;

typedef struct pgpool_pin pgpool_pin;

/* What we keep of a request, in its request_config. */
typedef struct {
    pgpool_authn authn;
    int bracketed;    /* its end is seen; see mod_pgpool_identity.c */
    pgpool_pin *pins; /* an initial request's: those of its family */
    int at_response;  /* an initial request's: its response's end is looked out for */
} pgpool_request;

/* Made if it is not there. */
pgpool_request *pgpool_request_of(request_rec *r);
/* The request inside of which this one runs, or that it was redirected from; NULL: none. */
request_rec *pgpool_request_outer(const request_rec *r);

/* Whether the family of r holds a connection. */
int pgpool_pins_are_held(request_rec *r);
/* A request inside of others has ended: their session variables are set again, or the
 * connection is cut. */
void pgpool_pins_restore(request_rec *ended);
/* Give back whatever the family of an initial request holds. */
void pgpool_pins_release(request_rec *initial);
/* Only what is to go back at the response's end. */
void pgpool_response_pins_release(request_rec *initial);

/* mod_pgpool_companion.h says what it does. */
void pgpool_note_error(request_rec *r, const char *text);

/* mod_pgpool_release.c */
void pgpool_release_register(void);
/* Look out for the end of a request that has its first pin, or of its response. */
void pgpool_release_at_request_end(request_rec *initial);
void pgpool_release_at_response_end(request_rec *r, request_rec *initial);

/* mod_pgpool_identity.c; for expressions see mod_pgpool_companion.h */
const char *pgpool_expr_value(request_rec *r, const ap_expr_info_t *expr, const char **error);
void pgpool_identity_register(void);
/* The session variables that r wants; memory of r->pool.  Returns NULL, or why a value cannot
 * be had. */
const char *pgpool_identity_evaluate(request_rec *r, pgp_vars *vars);
/* Why they must not be set on a connection of this login role, or NULL. */
const char *pgpool_identity_forbidden(request_rec *r, const pgp_vars *vars, const char *login);

/* mod_pgpool_outcome.c: the same */
int pgpool_http_status(request_rec *r, apr_status_t rv);
const char *pgpool_strerror(apr_status_t rv);
/* How the core's outcome is called outside. */
apr_status_t pgpool_outcome_status(pgp_outcome outcome);

/* mod_pgpool_status.c */
void pgpool_status_register(void);

/* mod_pgpool_home.c */
void pgpool_home_register(void);

#endif
