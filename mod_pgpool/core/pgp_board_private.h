/*
 * The inside of the board, for the files that implement it:
 *
 *   pgp_board.c    memory, life and death, figures
 *   pgp_permits.c  permits
 */
#ifndef PGP_BOARD_PRIVATE_H
#define PGP_BOARD_PRIVATE_H

#include <stdatomic.h>

#include "pgp_board.h"

#define PGP_CACHE_LINE 64

/* A child's part in one quota, in shared memory.  Only the child's keeper writes it. */
typedef struct {
    _Alignas(PGP_CACHE_LINE) _Atomic int permits;
    _Atomic int closing, connecting;
    _Atomic apr_int64_t moving_at; /* when closing and connecting were published */
    _Atomic apr_int64_t waits_since, idle_since; /* 0: none waits, none is idle */
    _Atomic unsigned tenure;                     /* of the figures in the cell; 0: none yet */
} pgp_standing;

/* The times of a quota's next turn and of its last one, in shared memory.  Any child writes
 * them. */
typedef struct {
    _Alignas(PGP_CACHE_LINE) _Atomic apr_int64_t next, last;
    _Atomic apr_int64_t full_at; /* of a server: when it last refused a connection (53300) */
    _Atomic int full;            /* of a server: how many connections it took then */
} pgp_turn;

pgp_standing *pgp_board_standing(const pgp_board *board, int seat, int row);
pgp_turn *pgp_board_turn(const pgp_board *board, int row);

/* No seat of this number or above was ever claimed. */
int pgp_board_top(const pgp_board *board);

/* Whether a seat has a child, and whether its permits count. */
int pgp_board_is_live(const pgp_board *board, int seat);
int pgp_board_holds_permits(const pgp_board *board, int seat, apr_time_t now);

/* An array with room for a time of each seat, for the keeper's use. */
apr_time_t *pgp_board_times(const pgp_board *board);

void pgp_board_ring(const pgp_board *board, int seat);

#endif
