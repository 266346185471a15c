/*
 * The bridge: mod_dbd's interface over pools of mod_pgpool, for the modules that were written
 * for mod_dbd.
 *
 * Model.  mod_pgpool_dbd.so takes mod_dbd's place: httpd knows it as mod_dbd.c, consumers find
 * its functions under mod_dbd's names.  Each server has a pool, "dbd" or the one of DBDPool,
 * and queries with labels.  A consumer gets an ap_dbd_t: a driver in apr_dbd's form
 * (mod_pgpool_dbd_driver.h), a handle, and its server's prepared statements.
 *
 *   connection   what the bridge keeps of a PGconn, as long as that lives or a handle has it:
 *                for each server that has used the PGconn the statements by label, with what
 *                post_connect hooks have added.
 *   handle       apr_dbd_t: one lease, with its transaction and its last error.
 *
 * Prepared on demand.  A prepared statement of apr_dbd is its text and its parameters' types;
 * the pool prepares it on a connection when it is first executed there.  So a bad one makes no
 * other fail, and none is lost with a connection.
 *
 * Return.  ap_dbd_acquire() shares the request's pin with pgpool_acquire(); the pin
 * gives the connection back.  ap_dbd_open() has a lease of its own until ap_dbd_close(), or
 * until the caller's apr_pool_t dies; that of the process lives as long as the child, so there
 * only close counts.
 *
 * Threads.  Configuration: the parent's one thread, and child_init.  A handle and its
 * connection: the thread that has the lease.  Statements that a handle has: read only.  A
 * connection's end: any thread, after its lease.
 */
#ifndef MOD_PGPOOL_DBD_H
#define MOD_PGPOOL_DBD_H

#include <stdbool.h>
#include <httpd.h>
#include <apr_dbd.h>
#include <apr_hash.h>
#include <http_config.h>

#pragma GCC visibility push(default)
#include <mod_dbd.h>
extern module dbd_module;
#pragma GCC visibility pop

#include "mod_pgpool.h"
#include "mod_pgpool_companion.h"

/* mod_pgpool's functions that the bridge calls. */
typedef struct {
    APR_OPTIONAL_FN_TYPE(pgpool_acquire) *acquire;
    APR_OPTIONAL_FN_TYPE(pgpool_open) *open;
    APR_OPTIONAL_FN_TYPE(pgpool_strerror) *strerror;
    APR_OPTIONAL_FN_TYPE(pgpool_execute) *execute;
    APR_OPTIONAL_FN_TYPE(pgpool_lease_number) *lease_number;
    APR_OPTIONAL_FN_TYPE(pgpool_lease_doubt) *lease_doubt;
    APR_OPTIONAL_FN_TYPE(pgpool_config_value) *config_value;
} pgpool_dbd_functions;

/* Set from check_config on. */
extern pgpool_dbd_functions pgpool_dbd_api;

/* The error for a configuration without mod_pgpool. */
#define PGPOOL_DBD_NEEDS_POOL                                                                  \
    "mod_pgpool_dbd gives out the connections of mod_pgpool, which is not loaded: write "      \
    "\"LoadModule pgpool_module .../mod_pgpool.so\""

/* --- configuration: mod_pgpool_dbd_config.c --------------------------------- */

typedef struct {
    const char *sql;    /* with apr_dbd's marks; "": an inherited label has none here */
    const char *origin; /* "file:line" of DBDPrepareSQL; NULL: another module's */
} pgpool_dbd_query;

/* A server's configuration. */
typedef struct {
    const char *pool;    /* DBDPool; NULL: "dbd" */
    const char *params;  /* DBDParams, or NULL */
    int persist, keep;   /* -1: not set */
    apr_hash_t *queries; /* label -> pgpool_dbd_query * */

    /* from child_init on */
    apr_hash_t *prepared; /* label -> apr_dbd_prepared_t *; read only */
    dbd_cfg_t shown;      /* for the post_connect hooks */
} pgpool_dbd_conf;

extern const command_rec pgpool_dbd_directives[];
void *pgpool_dbd_conf_make(apr_pool_t *p, server_rec *s);
void *pgpool_dbd_conf_merge(apr_pool_t *p, void *base, void *over);

/* The server's configuration, made now if it has none. */
pgpool_dbd_conf *pgpool_dbd_conf_of(server_rec *s);
const char *pgpool_dbd_pool_name(const pgpool_dbd_conf *conf);

/* Of a child: make the prepared statements of all servers. */
void pgpool_dbd_conf_prepare(apr_pool_t *p, server_rec *main_server);

/* --- leases: mod_pgpool_dbd_lease.c ----------------------------------------- */

struct apr_dbd_t {
    PGconn *conn;                 /* NULL: none yet */
    server_rec *s;                /* the server whose statements it has */
    request_rec *initial;         /* the request whose pin it shares; NULL: its own lease */
    request_rec *running;         /* of that family: the last one that acquired and lives */
    conn_rec *client;             /* the client's connection that keeps it; NULL: none */
    uint64_t lease;               /* of that pin */
    apr_pool_t *own, *caller;     /* of its own lease; caller: NULL for the process's pool */
    apr_dbd_transaction_t *trans; /* the open one; or NULL */
    ap_dbd_t shown;               /* what the consumer has */
    char error[512];              /* what went wrong last */
};

/* Whether the handle still has its connection. */
bool pgpool_dbd_handle_is_held(const apr_dbd_t *handle);

/* Give back the connection of a handle with its own lease; a request's stays. */
void pgpool_dbd_handle_close(apr_dbd_t *handle);

/* --- apr_dbd's layout: mod_pgpool_dbd_layout.c ------------------------------ */

/* Whether this apr-util finds each of a driver's functions where mod_pgpool_dbd_driver.h has
 * it. Returns NULL, or the name of the first wrapper that called another one. */
const char *pgpool_dbd_layout_check(apr_pool_t *p);

#endif
