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
    const char *server; /* its connection string without secrets */
    int nth;            /* among those of the same name and server */
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

/* mod_pgpool_identity.c */
/* The settings that r wants otherwise than applied says; memory of r->pool.  Returns
 * NULL, or why a value cannot be had. */
const char *pgpool_identity_changed(request_rec *r, apr_table_t *applied, pgp_vars *changed);
void pgpool_identity_applied(apr_table_t *applied, const pgp_vars *changed);

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
/* Whether this child has ended in a signal handler in the middle of a request, as prefork
 * does.  The request may have locked malloc's heap, so nothing may be closed when its pool
 * is destroyed now; the end of the process does it. */
int pgpool_child_cut_off(void);
/* The pools that this child has: array of pgpool_plan. */
const apr_array_header_t *pgpool_child_plans(void);

#endif
