/*
 * A stage for the tests of the pool: a pool in a fake world, its keeper, and borrowers.
 *
 * The keeper has no thread here: the test's thread makes the keeper's rounds.  It makes a round
 * only when the keeper's own thread would: when the keeper was woken, when the fake has work
 * that is due, or at the time that the last turn returned.  So a test fails if the pool forgets
 * to wake the keeper.
 *
 * A borrower is a thread that acquires once; so the acquire may wait.  queue_up() returns when
 * the borrower sleeps.  So borrowers are in the queue in the order of these calls.
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
    apr_time_t next;              /* when it wants its next round */
    struct stage_keeper *sibling; /* the next child's */
    struct borrower *borrowers;   /* of all children, the last begun first; in the first only */
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
    struct borrower *before; /* the borrower that began before this one */
    pthread_t thread;
    apr_interval_time_t early;
    atomic_int naps;    /* how often it went to sleep */
    atomic_int overdue; /* its time was up, and it has neither slept again nor come back */
    atomic_int done;
    pgp_outcome outcome;
    pgp_acquire_info info;
    pgp_slot *conn;
} borrower;

/* Wait for something that another thread is about to do.  A test that waits in vain fails. */
#define WAIT_UNTIL(holds)                                                                      \
    do {                                                                                       \
        int naps_ = 0;                                                                         \
        while (!(holds)) {                                                                     \
            REQUIRE(naps_++ < 20000, "never came true: %s", #holds);                           \
            apr_sleep(1000);                                                                   \
        }                                                                                      \
    } while (0)

/* A stage with the default settings, except for these: "Directive arguments", and NULL. */
stage *stage_set(const char *setting, ...) __attribute__((sentinel));

/* Another pool in the same world, with the same keeper. */
stage *stage_beside(stage *first, const char *setting, ...) __attribute__((sentinel));

/* A stage on a board; and another child of the same httpd, on the same board and in the same
 * world.  Their keepers make their rounds one after the other. */
stage *stage_posted(const char *setting, ...) __attribute__((sentinel));
stage *stage_child(stage *first, const char *setting, ...) __attribute__((sentinel));

/* --- locks ------------------------------------------------------------------ */

/* Locks without a kernel, for several children in one process. */
typedef struct {
    int pid;                    /* of the process that takes and shares now */
    atomic_int *taken, *shared; /* for each byte: the pid of its owner, 0: none */
    int bytes;
} fake_locks;

fake_locks *fake_locks_make(apr_pool_t *p, int bytes);
pgp_locks fake_locks_of(fake_locks *locks);

/* Free all locks of a process, as the kernel does when it dies. */
void fake_locks_die(fake_locks *locks, int pid);

/* --- the keeper ------------------------------------------------------------- */

/* Make the keepers' rounds, where there is cause for one, until all of them want to sleep. */
void work(stage *s);

/* Let this time pass, with the rounds of the keepers.  Waits for overdue borrowers. */
void keep(stage *s, apr_interval_time_t time);

/* Let the keeper enter a phase, and make the rounds that follow. */
void enter_phase(stage *s, pgp_phase phase);

/* Enter STOPPED; then the keeper leaves the pool, as its thread does at its end. */
void stop(stage *s);

/* --- counting --------------------------------------------------------------- */

int slots(stage *s, pgp_state state);
int idle(stage *s);
int lent(stage *s);
int waiting(stage *s);

/* --- borrowing -------------------------------------------------------------- */

/* Acquire without a wait: an idle connection (acquire), or a refusal (refused). */
pgp_slot *acquire(stage *s);
pgp_slot *acquire_as(stage *s, const char *client, const char *const *what);
pgp_outcome refused(stage *s, pgp_acquire_info *info);

/* Release a slot, and forget it: the caller keeps no pointer to it. */
void release(pgp_slot *conn);

/* The number of the connection in a borrowed slot. */
int number(const pgp_slot *conn);

/* Make n connections idle; the last one opened was returned last. */
void warm(stage *s, int n);

/* Start a borrower that may be served at once; one that has to wait; and wait until a borrower
 * that has slept this often sleeps again. */
borrower *ask(stage *s);
borrower *queue_up(stage *s);
borrower *queue_up_early(stage *s, apr_interval_time_t early); /* as if begun earlier by this */
void asleep_after(borrower *b, int naps);

/* Wait for the end of a borrower's acquire, and check its outcome. */
void answered(borrower *b, pgp_outcome outcome);
pgp_slot *granted(borrower *b);

/* --- suites ----------------------------------------------------------------- */

#define LENGTH(table) ((int)(sizeof(table) / sizeof((table)[0])))

/* Add a test case to a suite, with APR initialised and a time limit for slow machines. */
TCase *tcase(Suite *suite, const char *name);

/* Run a suite.  Returns the exit status for main(). */
int suite_run(Suite *suite);

#endif
