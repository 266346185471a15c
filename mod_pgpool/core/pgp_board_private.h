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

/* A child's part in one quota.  In shared memory: the child's keeper writes it, others read. */
typedef struct {
    _Alignas(PGP_CACHE_LINE) _Atomic int permits;
    _Atomic int closing, connecting;
    _Atomic apr_int64_t waits_since, idle_since; /* 0: it does not wait, nothing is idle */
    _Atomic unsigned tenure;                     /* whose figures the cell has; 0: none yet */
} pgp_standing;

/* When a quota's next turn comes, and when the last one was.  In shared memory: any child
 * writes it. */
typedef struct {
    _Alignas(PGP_CACHE_LINE) _Atomic apr_int64_t next, last;
    _Atomic apr_int64_t full_at; /* of a server: when it had no place for more */
    _Atomic int full;            /* than these */
} pgp_turn;

pgp_standing *pgp_board_standing(const pgp_board *board, int seat, int row);
pgp_turn *pgp_board_turn(const pgp_board *board, int row);

/* No seat of this number or above was ever claimed. */
int pgp_board_top(const pgp_board *board);

/* Whether a seat has a child, and whether its permits count. */
int pgp_board_is_live(const pgp_board *board, int seat);
int pgp_board_holds_permits(const pgp_board *board, int seat, apr_time_t now);

/* Room for a time of each seat: the keeper's. */
apr_time_t *pgp_board_times(const pgp_board *board);

void pgp_board_ring(const pgp_board *board, int seat);

#endif
