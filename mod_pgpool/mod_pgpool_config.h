/*
 * The configuration as httpd keeps it: for each server, and for each directory.
 *
 * Model.  A server's pools are sparse settings: `bare` from the directives outside of any
 * <PgPool>, `named` from those inside, and between the two `offered`, from another module's
 * directives.  A virtual host's are laid over the main server's.
 * pgpool_config_complete() adds the defaults; the parent then makes pool definitions of the
 * complete settings of all servers (mod_pgpool_definition.h), and fills the resolved fields.
 *
 * Threads.  The parent's only thread writes; after the fork nobody writes.
 */
#ifndef MOD_PGPOOL_CONFIG_H
#define MOD_PGPOOL_CONFIG_H

#include <stdbool.h>
#include <httpd.h>
#include <ap_expr.h>
#include <apr_hash.h>
#include <http_config.h>

#include "core/pgp_settings.h"

#define PGPOOL_DEFAULT_NAME "default"

typedef struct {
    pgp_settings *bare;        /* sparse */
    apr_hash_t *named;         /* name -> pgp_settings *, sparse */
    apr_hash_t *offered;       /* the same, see pgpool_config_offer() */
    apr_hash_t *origins;       /* name -> "file:line" of its <PgPool> in this server */
    pgp_settings *section;     /* while its <PgPool> is read, else NULL */
    apr_array_header_t *uses;  /* of pgpool_use: each directive that names a pool */
    apr_array_header_t *needs; /* of const char *, "file:line": see mod_pgpool_companion.h */

    /* resolved, from post_config on */
    apr_hash_t *pools;               /* name -> pgpool_definition * */
    apr_array_header_t *definitions; /* the main server's: of pgpool_definition *, all */
} pgpool_server_conf;

typedef struct {
    const char *directive, *pool, *origin;
} pgpool_use;

/* One PgPoolSet. */
typedef struct {
    const char *name;
    ap_expr_info_t *value;
    bool constant; /* the value is the same for every request */
} pgpool_set;

typedef enum {
    PGPOOL_RELEASE_UNSET,
    PGPOOL_RELEASE_REQUEST,
    PGPOOL_RELEASE_AUTH,
    PGPOOL_RELEASE_RESPONSE
} pgpool_release_time;

typedef enum { PGPOOL_ABORT_UNSET, PGPOOL_ABORT_CANCEL, PGPOOL_ABORT_IGNORE } pgpool_abort;

typedef struct {
    const char *use;          /* PgPoolUse, or NULL */
    pgpool_release_time when; /* PgPoolRelease */
    pgpool_abort abort;       /* PgPoolAbort */
    const apr_interval_time_t
        *statement_timeout;   /* PgPoolStatementTimeout; NULL: the default */
    apr_array_header_t *sets; /* of pgpool_set, each name once; NULL: none */
} pgpool_dir_conf;

extern const command_rec pgpool_commands[];
void *pgpool_server_conf_make(apr_pool_t *p, server_rec *s);
void *pgpool_server_conf_merge(apr_pool_t *p, void *base, void *over);
void *pgpool_dir_conf_make(apr_pool_t *p, char *dir);
void *pgpool_dir_conf_merge(apr_pool_t *p, void *base, void *over);

pgpool_server_conf *pgpool_config_of(const server_rec *s);

/* The time that a statement may take; PGP_NEVER: no limit. */
apr_interval_time_t pgpool_config_statement_timeout(const pgpool_dir_conf *dir);

/* A server's pools with complete settings: name -> pgp_settings *. */
apr_hash_t *pgpool_config_complete(apr_pool_t *p, const server_rec *s);

/* Hooks: check what one directive alone cannot, and print all under -D DUMP_PGPOOL. */
int pgpool_config_check(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s);
void pgpool_config_dump(apr_pool_t *p, server_rec *s);

/* The directive's "file:line". */
const char *pgpool_config_origin(const cmd_parms *cmd);

/* The option of a pool directive; PGP_OPTION_COUNT: it is none. */
pgp_option_id pgpool_config_option(const char *directive);

/* Let mod_info print the directive's connection string without the secrets. */
void pgpool_config_hide_secret(cmd_parms *cmd, const char *conninfo);

/* Optional functions of mod_pgpool_companion.h: mod_pgpool_offer.c. */
void pgpool_config_needs_pool(cmd_parms *cmd);
void pgpool_config_uses_pool(cmd_parms *cmd, const char *pool);
const char *pgpool_config_offer(cmd_parms *cmd, const char *pool, const char *directive,
                                const char *value);
const char *pgpool_config_value(apr_pool_t *p, const server_rec *s, const char *pool,
                                const char *directive);

#endif
