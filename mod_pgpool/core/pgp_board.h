/*
 * The board: what the children of one httpd tell each other, in shared memory.
 *
 * Model.  The parent makes one board, and all its children inherit it, those of later
 * generations included.  A child that has connections holds a seat.  A pool has a place,
 * the same number in all children.  At each seat and place stand a standing (permits, a few
 * words) and a cell (figures, two kilobytes).
 *
 * Trust.  Any child may be hostile, and it can write every word of the shared memory.  So
 * a pgp_board is private memory: numbers of seats and places, addresses, names and
 * identities of pools stand there, written by the parent alone and copied by fork().  Only
 * plain figures are shared.  No figure decides where a process writes, and private numbers
 * bound each loop; each figure is brought into its range when it is read.  After it has made
 * the memory, the parent neither reads nor writes it.  A hostile child can falsify figures,
 * take all permits, and keep locks while it lives: it can deny the service, and no more.
 *
 * Life.  Whether a child lives is not told by memory but by locks of the kernel
 * (pgp_locks.h): one a seat, held by its child; one a place, shared by all children whose
 * configuration has that pool; and one for the undertaker.  A seat is in one of these states:
 *
 *     state    lock   in_use  goes to
 *     FREE     free   0       LIVE by claim()
 *     LIVE     held   1       ENDED when its child dies; COUNTED by leave()
 *     ENDED    free   1       COUNTED by reap() of any other child
 *     COUNTED  free   0       FREE after PGP_BOARD_GRACE: until then its permits count,
 *                             since the server takes a moment to notice a death
 *
 * Totals.  The undertaker, one process at a time, folds the counters of an ended child
 * into the totals, which therefore never go backwards.  There are two copies of the totals.  It
 * writes the idle copy completely (the other copy's figures, the child's, and whose they
 * are: seat and incarnation) and then flips one word, which makes that copy the current
 * one.  Wherever it is killed, the current copy is whole.  The next undertaker finds in it
 * whose figures it holds already, and does not add them twice.  A reader reads the flip
 * word before and after, and leaves out the seat that the current copy names.
 *
 * Places.  The parent gives places to the pools of each new configuration.  A pool is known by
 * its name, its connection string without secrets, and its number among equal ones.  A place
 * is given to another pool if neither the last configuration nor the new one has its pool
 * and no living child shares its lock.  Each new tenant has a greater tenure; figures carry
 * the tenure that they belong to, so those of an earlier tenant count for nothing.
 *
 * Permits.  The other half of what stands at a seat and a place; pgp_permits.h has its model.
 * Beside a row of standings for each place there is one for each server.  A server is known by
 * the host and port of a pool's connection string, and has its row for as long as some pool's
 * place refers to it.
 *
 * Threads.  The parent's functions: its one thread.  claim(), leave(), reap(): the keeper's
 * thread.  The rest: any thread.
 */
#ifndef PGP_BOARD_H
#define PGP_BOARD_H

#include "pgp_bells.h"
#include "pgp_gate.h"
#include "pgp_locks.h"
#include "pgp_stats.h"

/* How long the permits of an ended child count. */
#define PGP_BOARD_GRACE PGP_MS(500)

/* How often the ended are looked for, by all children together. */
#define PGP_BOARD_REAP_STEP PGP_MS(50)

typedef struct pgp_board pgp_board;

/* A pool as the parent knows it.  server: the connection string without its secrets. */
typedef struct {
    const char *name, *server;
    const char *host; /* and port of the server */
    int nth;
} pgp_board_pool;

/* --- the parent ------------------------------------------------------------- */

/* How many seats to make where the MPM allows so many children: further ones for the ended
 * that still count (PGP_BOARD_GRACE), and for children of older generations that finish
 * their requests, which MPM worker does not count among those that it allows.  Three
 * such generations, but no fewer than 256 and no more than 1024 seats; one that is never
 * used costs address space only. */
int pgp_board_seats_for(int children);

/* How many locks a board needs. */
int pgp_board_locks(int seats, int places);

/* Make a board; private memory is of p, which must live as long as the process.  Returns
 * APR_SUCCESS or the system's error (no memory). */
apr_status_t pgp_board_create(pgp_board **board, apr_pool_t *p, int seats, int places,
                              const pgp_locks *locks);

/* Let the children wake each other. */
void pgp_board_hang_bells(pgp_board *board, const pgp_bells *bells);

/* A number that differs where the layout of a board does. */
apr_size_t pgp_board_layout(void);

/* Give places to the pools of a new configuration.  Returns how many have none. */
int pgp_board_configure(pgp_board *board, const pgp_board_pool *pools, int n);

/* --- a child ---------------------------------------------------------------- */

/* A pool's place in the current configuration; -1: it has none. */
int pgp_board_place(const pgp_board *board, const pgp_board_pool *pool);

/* The rows of standings of a place's pool and of its server. */
int pgp_board_pool_row(const pgp_board *board, int place);
int pgp_board_server_row(const pgp_board *board, int place);

/* What the child in a seat polls to be woken by others, or -1. */
int pgp_board_bell(const pgp_board *board, int seat);

/* A seat for this process, or -1 if none is free at the moment. */
int pgp_board_claim(pgp_board *board, apr_time_t now);

/* Give it back, after the last publish(); its permits count for the grace. */
void pgp_board_leave(pgp_board *board, int seat, apr_time_t now);

/* Fold the figures of the children that have ended; does nothing if any child did so less
 * than PGP_BOARD_REAP_STEP ago. */
void pgp_board_reap(pgp_board *board, apr_time_t now);

/* Tell the figures of a child's pool. */
void pgp_board_publish(pgp_board *board, int seat, int place, const pgp_stats *stats);

/* --- what one child says for all -------------------------------------------- */

/* Where an event is not a pool's. */
#define PGP_NO_PLACE (-1)

/* The gate (pgp_gate.h) of a place, or of PGP_NO_PLACE: the same for all children. */
pgp_gate *pgp_board_gate(pgp_board *board, int place, pgp_gate_id id);

/* --- readers ---------------------------------------------------------------- */

int pgp_board_seats(const pgp_board *board);

/* Changes whenever figures move from a seat to the totals.  What a reader has read belongs
 * together if this is the same before and after. */
unsigned pgp_board_flips(const pgp_board *board);

/* Whether the figures of a seat count beside the totals.  *pid is its child's, 0 if that has
 * ended and nobody has folded them yet. */
int pgp_board_counts(const pgp_board *board, int seat, int *pid);

/* A copy of what a seat's child has published, or of the totals of the ended (seat -1), each
 * figure in its range. */
void pgp_board_read(const pgp_board *board, int seat, int place, apr_time_t now,
                    pgp_stats *stats);

#endif
