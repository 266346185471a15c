/*
 * The inside of the board, for the files that implement it:
 *
 *   pgp_board.c          the memory and where everything is in it
 *   pgp_board_places.c   places of pools, and numbers of servers
 *   pgp_board_seats.c    the life and death of the children in their seats
 *   pgp_board_figures.c  figures of children, and totals of those that have ended
 *   pgp_board_orders.c   an operator's orders for a pool, and the gates of the log
 *   pgp_permits.c        permits
 */
#ifndef PGP_BOARD_PRIVATE_H
#define PGP_BOARD_PRIVATE_H

#include <stdatomic.h>

#include "pgp_board.h"

#define PGP_CACHE_LINE 64

/* --- shared memory: written by any child, believed by none ------------------- */

/* A child's permits of one quota, and what the others need to know about them.  Only that child
 * writes here: its keeper, and its request threads waits_since and idle_since. */
typedef struct {
    _Alignas(PGP_CACHE_LINE) _Atomic int permits;
    _Atomic int closing, connecting;
    _Atomic apr_int64_t moving_at; /* when closing and connecting were published */
    _Atomic apr_int64_t waits_since, idle_since; /* 0: none waits, none is idle */
    _Atomic unsigned tenure;                     /* of the figures in the cell; 0: none yet */
} pgp_standing;

/* The times of a quota's next turn and of its last one.  Any child writes them. */
typedef struct {
    _Alignas(PGP_CACHE_LINE) _Atomic apr_int64_t next, last;
    _Atomic apr_int64_t full_at; /* of a server: when it last refused a connection (53300) */
    _Atomic int full;            /* of a server: how many connections it took then */
} pgp_turn;

/* A pgp_stats is copied word by word. */
#define PGP_STATS_WORDS (sizeof(pgp_stats) / sizeof(apr_uint64_t))
_Static_assert(sizeof(pgp_stats) % sizeof(apr_uint64_t) == 0, "whole words");

/* A child's figures of one pool.  A cell in which no child has published is never touched, and
 * so costs no memory. */
typedef struct {
    _Alignas(PGP_CACHE_LINE) _Atomic unsigned version; /* odd: being written */
    _Atomic apr_uint64_t words[PGP_STATS_WORDS];
} pgp_cell;

typedef struct {
    _Atomic unsigned incarnation; /* how often the seat was claimed */
    _Atomic int in_use;           /* its figures are not in the totals yet */
    _Atomic apr_int64_t ended_at; /* 0: the seat was never used, or is in use */
} pgp_seat;

/* A copy of one pool's totals. */
typedef struct {
    _Atomic unsigned tenure; /* of these figures; 0: there are none */
    _Atomic apr_uint64_t n[PGP_COUNTERS];
    _Atomic apr_int64_t longest[PGP_TIMES];
} pgp_totals;

/* The gates of a pool, common to all children. */
typedef struct {
    _Atomic unsigned tenure;
    pgp_gate gates[PGP_GATES];
} pgp_shared_gates;

/* An operator's order for a pool.  Each has a tenure of its own, so that two orders that are
 * given at the same time do not touch each other. */
typedef struct {
    _Atomic unsigned tenure; /* of the pool that it is for; 0: it was never given */
    _Atomic apr_int64_t time;
} pgp_shared_order;

typedef struct {
    pgp_shared_order suspended_until, reconnect_before;
} pgp_shared_orders;

typedef struct {
    _Alignas(
        PGP_CACHE_LINE) _Atomic unsigned flips; /* copy flips % 2 of the totals is current */
    _Atomic apr_uint64_t folded[2];             /* the last child in each copy */
    _Atomic apr_int64_t reaped_at;
    _Atomic int top; /* no seat of this number or above was ever claimed */
} pgp_head;

/* --- private memory --------------------------------------------------------- */

typedef struct {
    char name[64];
    apr_uint64_t server; /* hash of the connection string, which has no room here */
    int nth;
    int host;             /* index of its server in the board's hosts */
    unsigned tenure;      /* 0: no pool ever had this place */
    bool current, before; /* the newest configuration, or the one before, has its pool */
} pgp_place;

struct pgp_board {
    int nseats, nplaces;
    pgp_locks locks;
    unsigned tenures; /* given so far */
    pgp_place *places;
    apr_uint64_t *hosts; /* [place] hashes of the servers' hosts and ports; 0: free */
    pgp_bells bells;
    apr_time_t *times; /* [seat] for the keeper's use in pgp_permits.c */

    /* shared */
    pgp_head *head;
    pgp_seat *seats;
    pgp_totals *copies[2];     /* [place] */
    pgp_shared_orders *orders; /* [place] */
    pgp_shared_gates *gates;   /* [place], and one more for PGP_NO_PLACE */
    pgp_standing *standings;   /* [place and then host][seat] */
    pgp_turn *turns;           /* [place and then host] */
    pgp_cell *cells;           /* [seat][place] */
};

/* --- pgp_board.c ------------------------------------------------------------ */

pgp_standing *pgp_board_standing(const pgp_board *board, int seat, int row);

/* No seat of this number or above was ever claimed. */
int pgp_board_top(const pgp_board *board);

/* The byte of the reaper's lock, and of a place's lock (pgp_locks.h).  The byte of a seat's
 * lock is its number. */
int pgp_board_reaper_byte(const pgp_board *board);
int pgp_board_place_byte(const pgp_board *board, int place);

/* --- pgp_board_seats.c ------------------------------------------------------ */

/* Whether a seat has a child, and whether its permits count. */
bool pgp_board_is_live(const pgp_board *board, int seat);
bool pgp_board_holds_permits(const pgp_board *board, int seat, apr_time_t now);

/* --- pgp_board_figures.c ---------------------------------------------------- */

/* Write one copy of the totals: those of the other copy, and the figures of an ended child. */
void pgp_board_fold(pgp_board *board, int seat, unsigned from, unsigned to);

#endif
