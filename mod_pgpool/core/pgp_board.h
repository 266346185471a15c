/*
 * The board: what the children of one httpd tell each other, in shared memory.
 *
 * Model.  The parent makes one board.  All children inherit it, including those of later
 * generations.  A child that has connections holds a seat.  A pool has a place, which is the
 * same number in all children.  For each seat and place there are a standing (permits and a few
 * words) and a cell (the pool's figures, two kilobytes).
 *
 * Trust.  A child may be hostile, and can write every word of the shared memory.  So the
 * struct pgp_board itself is private memory: the parent writes it, fork() copies it, and a
 * child writes only the array of times in its copy.  It holds the numbers of seats and places,
 * all addresses, and the names of the pools.  Only plain figures are shared.  No figure decides
 * where a process writes; private numbers bound each loop; each figure is brought into its
 * range when it is read.  The parent neither reads nor writes the shared memory once it has
 * made it.  A hostile child can falsify figures, take all permits, hide those of others, and
 * keep locks while it lives: it can deny the service and exceed the caps, and no more.
 *
 * Life.  The kernel's locks (pgp_locks.h), not words in memory, tell whether a child lives.
 * There is one lock for each seat, held by its child; one for each place, shared by all
 * children whose configuration has that pool; and one for the reaper.  A seat has one of
 * these states:
 *
 *     state    lock   in_use  goes to
 *     FREE     free   0       LIVE by claim()
 *     LIVE     held   1       ENDED when its child dies; COUNTED by leave()
 *     ENDED    free   1       COUNTED by reap() in any other child
 *     COUNTED  free   0       FREE after PGP_BOARD_GRACE; until then its permits count,
 *                             since the server takes a moment to notice a death
 *
 * Totals.  The reaper is one process at a time: the one that holds its lock.  It folds the
 * counters of an ended child into the totals, which therefore never go backwards.  There are
 * two copies of the totals.  The reaper writes the idle copy completely: the figures of the
 * other copy plus those of the child, and the child's name (seat and incarnation).  Then it
 * increments one word (flips), which makes the idle copy the current one.  Wherever the reaper
 * is killed, the current copy is whole, and names the child that it has counted last.  A reader
 * reads flips before and after the figures, and leaves out the seat that the current copy
 * names.
 *
 * Places.  The parent gives places to the pools of each new configuration.  It recognises a
 * pool by its name, its connection string without secrets, and its number among equal ones.  It
 * gives a place to another pool if neither the last configuration nor the new one has the old
 * pool, and no living child shares the lock of the place.  Each pool that gets a place has a
 * greater tenure than the one before.  Figures carry the tenure that they belong to, so those
 * of an earlier pool do not count.
 *
 * Permits.  pgp_permits.h has the model of the standings.  There is a row of standings for each
 * place, and one for each server.  The host and port in a connection string identify a server;
 * it has its row for as long as the place of some pool refers to it.
 *
 * Threads.  The parent's functions: its only thread.  claim(), leave(), reap(): the keeper's
 * thread.  The rest: any thread.
 */
#ifndef PGP_BOARD_H
#define PGP_BOARD_H

#include "pgp_bells.h"
#include "pgp_gate.h"
#include "pgp_locks.h"
#include "pgp_stats.h"

/* The permits of an ended child count for this time. */
#define PGP_BOARD_GRACE PGP_MS(500)

/* The children together look for ended ones this often, and each of them no more often. */
#define PGP_BOARD_REAP_STEP PGP_MS(50)

typedef struct pgp_board pgp_board;

/* A pool as the parent knows it.  server: the connection string without its secrets. */
typedef struct {
    const char *name, *server;
    const char *host; /* host and port of the server */
    int nth;          /* its number among pools with the same name and string, from 0 */
} pgp_board_pool;

/* --- the parent ------------------------------------------------------------- */

/* The number of seats to make if the MPM allows this many children at a time.  Spare seats are
 * for ended children that still count (PGP_BOARD_GRACE), and for children of older generations
 * that finish their requests, which MPM worker does not count among its children.  There are
 * three spare seats for each child, but at least 256 and at most 1024.  An unused seat costs
 * address space only. */
int pgp_board_seats_for(int children);

/* How many locks a board needs. */
int pgp_board_locks(int seats, int places);

/* Make a board.  Its private memory is from p, which must live as long as the process.  Returns
 * APR_SUCCESS or the system's error (no memory). */
apr_status_t pgp_board_create(pgp_board **board, apr_pool_t *p, int seats, int places,
                              const pgp_locks *locks);

/* Give the board the bells by which children wake each other. */
void pgp_board_attach_bells(pgp_board *board, const pgp_bells *bells);

/* A number that tells boards of different layouts apart. */
apr_size_t pgp_board_layout(void);

/* Give places to the pools of a new configuration.  Returns how many pools got none. */
int pgp_board_configure(pgp_board *board, const pgp_board_pool *pools, int n);

/* --- a child ---------------------------------------------------------------- */

/* A pool's place in the current configuration; -1: it has none. */
int pgp_board_place(const pgp_board *board, const pgp_board_pool *pool);

/* The rows of standings of a place's pool and of its server. */
int pgp_board_pool_row(const pgp_board *board, int place);
int pgp_board_server_row(const pgp_board *board, int place);

/* The descriptor that the child in a seat polls for its bell, or -1. */
int pgp_board_bell(const pgp_board *board, int seat);

/* Ring the child in a seat. */
void pgp_board_ring(const pgp_board *board, int seat);

/* Claim a seat for this process.  Returns its number, or -1 if none is free now. */
int pgp_board_claim(pgp_board *board, apr_time_t now);

/* Give a seat back, after the last publish().  Its permits count for PGP_BOARD_GRACE. */
void pgp_board_leave(pgp_board *board, int seat, apr_time_t now);

/* Fold the figures of children that have ended.  Does nothing if another child did so less than
 * PGP_BOARD_REAP_STEP ago. */
void pgp_board_reap(pgp_board *board, apr_time_t now);

/* Publish the figures of a child's pool. */
void pgp_board_publish(pgp_board *board, int seat, int place, const pgp_stats *stats);

/* --- what one child logs for all -------------------------------------------- */

/* The place of events that do not concern a pool. */
#define PGP_NO_PLACE (-1)

/* The gate (pgp_gate.h) of a place, or of PGP_NO_PLACE.  All children share it. */
pgp_gate *pgp_board_gate(pgp_board *board, int place, pgp_gate_id id);

/* --- what an operator orders -------------------------------------------------- */

/* Orders for a pool in all children, also in those that start later.  The times are on the
 * env's clock; 0: there is no such order. */
typedef struct {
    apr_time_t suspended_until;  /* it lends nothing, and has no idle connection */
    apr_time_t reconnect_before; /* older connections are closed as soon as nobody uses them */
} pgp_orders;

/* The longest suspension. */
#define PGP_SUSPENSION_MOST PGP_SEC(3600)

/* The orders for the pool of a place.  A suspension does not count if it has ended or is longer
 * than PGP_SUSPENSION_MOST, nor does a reconnect_before that lies in the future. */
pgp_orders pgp_board_orders(const pgp_board *board, int place, apr_time_t now);

/* Give one order, and wake all children.  It leaves the other one as it is, also if two
 * operators order at the same time.  until: 0 ends a suspension. */
void pgp_board_suspend(pgp_board *board, int place, apr_time_t until);
void pgp_board_reconnect(pgp_board *board, int place, apr_time_t before);

/* --- readers ---------------------------------------------------------------- */

int pgp_board_seats(const pgp_board *board);

/* A number that changes when figures move from a seat to the totals.  If it is the same before
 * and after, the figures read in between belong together. */
unsigned pgp_board_flips(const pgp_board *board);

/* Whether the figures of a seat count, i.e. are not in the totals.  *pid is the child's; 0 if
 * the child has ended and its figures are not folded yet. */
bool pgp_board_counts(const pgp_board *board, int seat, int *pid);

/* Copy the figures that the child in a seat has published, or the totals of ended children
 * (seat -1), and bring each into its range. */
void pgp_board_read(const pgp_board *board, int seat, int place, apr_time_t now,
                    pgp_stats *stats);

#endif
