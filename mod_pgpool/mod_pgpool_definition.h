/*
 * Pool definitions: the pools that the configuration of all servers amounts to.
 *
 * Model.  Servers whose pools have one name and equal settings share one definition, and so one
 * pool in each child.  The parent resolves the configuration once, in post_config: it completes
 * the settings, gives each definition its place on the board, and leaves in each server a table
 * from the pool's name to its definition.  Children inherit the result by fork.
 *
 * Threads.  The parent's one thread writes; after the fork nobody does.
 */
#ifndef MOD_PGPOOL_DEFINITION_H
#define MOD_PGPOOL_DEFINITION_H

#include <apr_tables.h>
#include <httpd.h>

#include "core/pgp_settings.h"

typedef struct {
    int index; /* in the array of all; a child's pool has the same index */
    const char *name;
    pgp_settings *settings;  /* complete */
    const char *server;      /* the connection string without its secrets */
    const char *host;        /* host and port in it; the same for all pools of one server */
    int nth;                 /* among the definitions with this name and server */
    int place;               /* on the board; -1: it has none */
    const server_rec *owner; /* the first server that has it */
    const char *label;       /* the name; if several definitions have it, a virtual host's
                              * says whose it is: "name (host:port)".  Letters, digits and
                              * " #()*-.:[]_?" */
} pgpool_definition;

/*
 * Resolve the configuration of all servers: an array of pgpool_definition * without places,
 * whose order changes only with the configuration.  Each server's configuration gets its table
 * (`pools`), the main server's the array (`definitions`).
 *
 * The memory goes with pconf, unless pgpool_definitions_keep() was called: a child calls it,
 * since a thread of an ending child may use a pool's settings after pconf has gone.
 */
apr_array_header_t *pgpool_definitions_resolve(apr_pool_t *pconf, server_rec *main_server);
void pgpool_definitions_keep(apr_pool_t *pconf, const apr_array_header_t *definitions);

#endif
