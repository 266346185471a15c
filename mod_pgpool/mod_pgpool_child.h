/*
 * The child: what one child process of httpd has of mod_pgpool.
 *
 * Model.  A child has an environment, a board that it shares with the other children, a pool
 * for each definition, and one keeper that looks after the pools.  There is one child in a
 * process, and httpd's hooks have no argument to pass it in; hence these functions have none
 * either.
 *
 * Life.  make() in child_init.  stop() when httpd announces the end, perhaps twice, on any
 * thread, in prefork in a signal handler: it only tells the keeper its phase.  end() waits for
 * the keeper.  exit() comes last.
 *
 * Memory.  The pools' memory has no parent pool and is never destroyed: a thread that outlives
 * pchild (mod_http2 has such threads) still finds its locks.
 *
 * Threads.  make() and end(): the child's main thread.  The rest: any thread.
 */
#ifndef MOD_PGPOOL_CHILD_H
#define MOD_PGPOOL_CHILD_H

#include <stdbool.h>
#include <httpd.h>

#include "core/pgp_pool.h"
#include "mod_pgpool_board.h"

/* A child's pool, and the names of the notes that its requests get. */
typedef struct {
    pgp_pool *core;
    const char *lease_note, *wait_note;
} pgpool_child_pool;

/* --- life ------------------------------------------------------------------- */

/* Make the pools of these definitions and start the keeper.  Returns APR_SUCCESS or the error
 * of the system; then the child has to end. */
apr_status_t pgpool_child_make(server_rec *main_server, const apr_array_header_t *definitions);

/* graceful: requests that run may still acquire.  Otherwise every acquire fails from now on,
 * and so does one that waits. */
void pgpool_child_stop(bool graceful);

/* A pre-cleanup of pchild: wait for the keeper's end, for a limited time. */
apr_status_t pgpool_child_end(void *main_server);

/* The last cleanup of pchild: if the child is aborted, leave the process at once. */
apr_status_t pgpool_child_exit(void *unused);

/* --- use -------------------------------------------------------------------- */

/* Whether this process is the child that made the pools, and not a fork of it. */
bool pgpool_child_is_here(void);

/* Whether no connection may be given back or closed any more: this process is a fork of the
 * child, or the child has ended in a signal handler in the middle of a request, as prefork
 * does.  That request may have locked malloc's heap; the end of the process closes all. */
bool pgpool_child_is_aborted(void);

/* A server's pool of that name; NULL if it has none. */
const pgpool_child_pool *pgpool_child_pool_find(const server_rec *s, const char *name);

/* The environment, board and definitions that the child was made with. */
const pgp_env *pgpool_child_env(void);
const pgpool_board *pgpool_child_board(void);
const apr_array_header_t *pgpool_child_definitions(void);

#endif
