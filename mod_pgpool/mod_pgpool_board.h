/*
 * The parent's board: the core's board (core/pgp_board.h) as a part of httpd's parent process.
 *
 * The board outlives graceful restarts.  It is kept with the process and found again by a key.
 * An upgrade of the module may come with a restart, so the key contains the board's layout.
 */
#ifndef MOD_PGPOOL_BOARD_H
#define MOD_PGPOOL_BOARD_H

#include <apr_tables.h>

#include "core/pgp_board.h"

typedef struct {
    pgp_board *core;
    apr_time_t start; /* when it was made; pgpool_env_now() */
} pgpool_board;

/* NULL before pgpool_board_make(). */
const pgpool_board *pgpool_board_find(void);

/* Make the board, with room for so many pools and for some that later configurations add; p
 * must live as long as the process.  Returns APR_SUCCESS or the system's error. */
apr_status_t pgpool_board_make(apr_pool_t *p, int pools);

/* Set the place of each definition (array of pgpool_definition *).  Returns how many have
 * none. */
int pgpool_board_configure(const pgpool_board *board, const apr_array_header_t *definitions);

#endif
