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

/* The one symbol that httpd looks for; all others are hidden (-fvisibility). */
extern module __attribute__((visibility("default"))) pgpool_module;

#define PGPOOL_DEFAULT_NAME "default"

/* One server's pools. */
typedef struct {
    pgp_settings *bare;        /* sparse: what stands outside of any <PgPool> */
    apr_hash_t *named;         /* name -> pgp_settings *, sparse: what stands inside */
    apr_hash_t *origins;       /* name -> "file:line" of its <PgPool> in this server */
    pgp_settings *section;     /* while its <PgPool> is read, else NULL */
    apr_array_header_t *uses;  /* of pgpool_use: each PgPoolUse, to be checked */
    apr_array_header_t *needs; /* of const char *, "file:line": see mod_pgpool_companion.h */
    apr_hash_t *pools;         /* in a child: name -> pgpool_child_pool * */
} pgpool_server_conf;

typedef struct {
    const char *pool, *origin;
} pgpool_use;

/* A pool that a child has, and the notes that its requests get. */
typedef struct {
    pgp_pool *core;
    const char *lease_note, *wait_note;
} pgpool_child_pool;

/* One PgPoolSet. */
typedef struct {
    const char *name;
    ap_expr_info_t *value;
    int constant; /* the value is the same for every request */
} pgpool_set;

typedef enum {
    PGPOOL_RELEASE_UNSET,
    PGPOOL_RELEASE_REQUEST,
    PGPOOL_RELEASE_RESPONSE
} pgpool_release_time;

typedef struct {
    const char *use;          /* PgPoolUse, or NULL */
    pgpool_release_time when; /* PgPoolRelease */
    apr_array_header_t *sets; /* of pgpool_set, each name once; NULL: none */
} pgpool_dir_conf;

/* mod_pgpool_config.c */
extern const command_rec pgpool_commands[];
void *pgpool_server_conf_make(apr_pool_t *p, server_rec *s);
void *pgpool_server_conf_merge(apr_pool_t *p, void *base, void *over);
void *pgpool_dir_conf_make(apr_pool_t *p, char *dir);
void *pgpool_dir_conf_merge(apr_pool_t *p, void *base, void *over);
int pgpool_config_check(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s);
void pgpool_config_dump(apr_pool_t *p, server_rec *s);
/* The optional function of mod_pgpool_companion.h. */
void pgpool_config_needs_pool(cmd_parms *cmd);
/* A server's pools with complete settings: name -> pgp_settings *. */
apr_hash_t *pgpool_config_complete(apr_pool_t *p, server_rec *s);

/* A pool that a child is to have: servers whose pools are equal share one. */
typedef struct {
    const char *name;
    pgp_settings *settings;
    const char *server;      /* its connection string without secrets */
    int nth;                 /* among those of the same name and server */
    const server_rec *owner; /* the first server that has it */
    const char *label;       /* the name; where several have it, a virtual host's says whose it
                              * is: "name (host:port)".  Letters, digits and " #()*-.:[]_?" */
} pgpool_plan;

/* All pools of a list of servers, each once, in an order that stays the same as long
 * as the configuration does: array of pgpool_plan. */
apr_array_header_t *pgpool_config_plans(apr_pool_t *p, server_rec *s);
/* The number of the plan for a server's pool. */
int pgpool_config_plan(const apr_array_header_t *plans, const char *name,
                       const pgp_settings *settings);

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

/* mod_pgpool.c: the board of all children; NULL before it is made. */
pgp_board *pgpool_board(void);
/* When it was made, and a pool's place on it; -1: it has none. */
apr_time_t pgpool_board_start(void);
int pgpool_board_place(const pgpool_plan *plan);
/* This child's environment; NULL in the parent. */
const pgp_env *pgpool_child_env(void);
/* Whether this process is the child that made the pools, and not a fork of it. */
int pgpool_child_is_here(void);
/* Whether nothing may be closed when a pool is destroyed now: this is another process than the
 * one that made the connections, or a child that has ended in a signal handler in the middle of
 * a request, as prefork does.  That request may have locked malloc's heap; the end of the
 * process closes all. */
int pgpool_child_cut_off(void);
/* The pools that this child has: array of pgpool_plan. */
const apr_array_header_t *pgpool_child_plans(void);

#endif
