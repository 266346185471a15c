/*
 * A stage for the tests of the pool: a pool in a fake world, its keeper, and
 * borrowers.
 *
 * The keeper has no thread here; the test is the keeper's thread.  It takes a turn
 * only when a real one would: it was woken, or a socket is ready, or the time has
 * come that it named itself.  So a wake-up that the pool forgets is one that the
 * test misses.
 *
 * A borrower is a thread that asks once, so that the ask may wait.  queue_up()
 * returns when it is asleep, which makes the order of a queue certain.
 */
#ifndef STAGE_H
#define STAGE_H

#include "fake.h"
#include "pgp_slot.h"
#include "pgp_keeper.h"
#include "pgp_pool_keeper.h"

/* The keeper's side of a stage. */
typedef struct stage_keeper {
    pgp_keeper *keeper;
    atomic_int woken;
    apr_time_t next;              /* when it wants its next turn */
    struct stage_keeper *sibling; /* the next child's */
    struct borrower *borrowers;   /* the first one's: all, the last begun first */
} stage_keeper;

typedef struct {
    apr_pool_t *p;
    fake *world;
    pgp_settings *settings;
    stage_keeper *keeper;
    pgp_pool *pool;
    pgp_board *board; /* NULL: there are no other children */
    stage_keeper *first;
} stage;

typedef struct borrower {
    stage *on;
    struct borrower *before; /* the one begun before */
    pthread_t thread;
    apr_interval_time_t early;
    atomic_int naps;    /* how often it went to sleep */
    atomic_int overdue; /* its time was up, and it has neither slept again nor come back */
    atomic_int done;
    pgp_outcome outcome;
    pgp_acquire_info info;
    pgp_slot *conn;
} borrower;

/* Wait until it holds; a test that waits in vain fails.  Only for what another
 * thread is about to do. */
#define WAIT_UNTIL(holds)                                                                      \
    do {                                                                                       \
        int naps_ = 0;                                                                         \
        while (!(holds)) {                                                                     \
            REQUIRE(naps_++ < 20000, "never came true: %s", #holds);                           \
            apr_sleep(1000);                                                                   \
        }                                                                                      \
    } while (0)

/* The settings are defaults but for what is given as "Directive arguments". */
stage *stage_set(const char *setting, ...) __attribute__((sentinel));

/* Another stage in the same world, with the same keeper. */
stage *stage_beside(stage *first, const char *setting, ...) __attribute__((sentinel));

/* A stage on a board, and a further child of the same httpd, on the same board and in
 * the same world.  Their keepers take their turns one after the other. */
stage *stage_posted(const char *setting, ...) __attribute__((sentinel));
stage *stage_child(stage *first, const char *setting, ...) __attribute__((sentinel));

/* --- locks ------------------------------------------------------------------ */

/* Locks without a kernel, for several children in one process. */
typedef struct {
    int pid;                    /* of the process that takes and shares now */
    atomic_int *taken, *shared; /* by byte: the pid of the holder, 0: none */
    int bytes;
} fake_locks;

fake_locks *fake_locks_make(apr_pool_t *p, int bytes);
pgp_locks fake_locks_of(fake_locks *locks);

/* All that a process holds is free. */
void fake_locks_die(fake_locks *locks, int pid);

/* --- the keeper ------------------------------------------------------------- */

/* Turns, if there is cause for one, until all keepers want to sleep. */
void work(stage *s);

/* Let time pass under the keeper's eyes; borrowers whose time is up come back. */
void keep(stage *s, apr_interval_time_t time);

/* An order, obeyed. */
void order(stage *s, pgp_order order);

/* STOP, and the keeper leaves the pool as its thread does at its end. */
void stop(stage *s);

/* --- counting --------------------------------------------------------------- */

int slots(stage *s, pgp_state state);
int idle(stage *s);
int lent(stage *s);
int waiting(stage *s);

/* --- borrowing -------------------------------------------------------------- */

/* Asks that do not have to wait. */
pgp_slot *acquire(stage *s);
pgp_slot *acquire_as(stage *s, const char *client, const char *const *what);
pgp_outcome refused(stage *s, pgp_acquire_info *info);

/* Give back, and be at peace. */
void release(pgp_slot *conn);

/* The number of the connection that a borrower got. */
int number(const pgp_slot *conn);

/* Have n connections idle, the last opened newest. */
void warm(stage *s, int n);

/* A borrower that may be served at once; one that has to wait; and when one that
 * has slept so often sleeps again. */
borrower *ask(stage *s);
borrower *queue_up(stage *s);
borrower *queue_up_early(stage *s, apr_interval_time_t early); /* begun before now */
void asleep_after(borrower *b, int naps);

/* Its end, which must be that outcome. */
void answered(borrower *b, pgp_outcome outcome);
pgp_slot *granted(borrower *b);

/* --- suites ----------------------------------------------------------------- */

#define LENGTH(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* A test case of a suite: APR is there, and time enough for a slow machine. */
TCase *tcase(Suite *suite, const char *name);

/* Run it; what main() returns. */
int suite_run(Suite *suite);

#endif
