/*
 * The board: what the children of one httpd know of each other, in shared memory.
 *
 * Model.  The parent makes a board once and hands it to all its children, those of
 * later generations included.  It has a slot a child, and in each slot a cell a pool.
 * A cell has one writer, the keeper of its child; all may read.
 *
 * A child claims a slot by locking its robust mutex on its keeper's thread and keeps it
 * locked for life.  The kernel tells the next one who tries it that the holder is dead,
 * however it died; who hears it buries the dead: adds its counters to those of the dead
 * (totals never go backwards), keeps the longest times, and notes when.  What it held at
 * the server counts for PGP_BOARD_GRACE more, since the server takes a moment to notice.
 *
 * Permits.  A connection needs a permit of its pool while it exists.  To take one a child
 * adds it to its own cell and then counts all: if that is too many it takes it back.  Of
 * two who do so at once the later counts both, so the cap is never exceeded, without a
 * lock.
 *
 * Threads.  claim, leave and reap: the keeper's thread only (a robust mutex has a thread
 * as its owner).  The rest: any thread.
 */
#ifndef PGP_BOARD_H
#define PGP_BOARD_H

#include "pgp_stats.h"

#define PGP_BOARD_GRACE PGP_MS(500)
#define PGP_BOARD_NAME 64

typedef struct pgp_board pgp_board;

/* --- the parent ------------------------------------------------------------- */

apr_size_t pgp_board_size(int slots, int pools);

/* mem: zeroed, shared by all processes, of the size above.  Returns APR_SUCCESS or the
 * system's error (no robust mutex). */
apr_status_t pgp_board_init(pgp_board **board, void *mem, int slots, int pools);

/* The number of the nth pool of that name and connection string, made if it is new; -1
 * if there is no room. */
int pgp_board_pool(pgp_board *board, const char *name, const char *conninfo, int nth);

/* --- a child's keeper ------------------------------------------------------- */

/* A slot for this process, or -1 if none is free at the moment. */
int pgp_board_claim(pgp_board *board, int pid, apr_time_t now);

/* Give it back; what is still lent counts for the grace. */
void pgp_board_leave(pgp_board *board, int slot, apr_time_t now);

/* Bury who has died. */
void pgp_board_reap(pgp_board *board, apr_time_t now);

/* Publish the figures of a child's pool. */
void pgp_board_publish(pgp_board *board, int slot, int pool, const pgp_stats *stats);

/* --- permits ---------------------------------------------------------------- */

/* 1: taken; 0: there are `total` already.  total 0: no cap. */
int pgp_board_take(pgp_board *board, int slot, int pool, int total, apr_time_t now);
void pgp_board_give(pgp_board *board, int slot, int pool);

/* 1 for the first of all children who asks, 0 for all others. */
int pgp_board_first(pgp_board *board, int pool);

/* Say how many permits this child lacks, and how much it could use (in any unit that is
 * the same for all). */
void pgp_board_want(pgp_board *board, int slot, int pool, int lacking, int demand);

/* How it stands between this child and the others. */
typedef struct {
    int used;         /* permits of all children */
    int mine;         /* of this one */
    int lacking;      /* how many the others lack */
    int without;      /* how many of the others lack some and have none */
    double surplus;   /* what this one has beyond its part of `total`, by demand */
    double shortfall; /* the greatest of the others that lack some; below 0 where all have
                       * more than their parts, since quiet children have parts, too */
} pgp_standing;

void pgp_board_standing(const pgp_board *board, int slot, int pool, int total, apr_time_t now,
                        pgp_standing *standing);

/* --- readers ---------------------------------------------------------------- */

int pgp_board_slots(const pgp_board *board);
int pgp_board_pools(const pgp_board *board);
const char *pgp_board_pool_name(const pgp_board *board, int pool);

/* The pid in a slot, or 0. */
int pgp_board_pid(const pgp_board *board, int slot, apr_time_t now);

/* Burials move counters from a child's cells to those of the dead.  Who reads both reads
 * again unless as many had ended before as have begun since. */
unsigned pgp_board_burials_begun(const pgp_board *board);
unsigned pgp_board_burials_ended(const pgp_board *board);

/* A consistent copy of what a child published, or of the sum of the dead (slot -1). */
void pgp_board_read(const pgp_board *board, int slot, int pool, pgp_stats *stats);

#endif
