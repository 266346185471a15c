/*
 * A fake env and a fake driver for the tests of the core.  Both do what the test says.
 *
 * Time         stands still until the test lets it pass (fake_pass), unless real_time is set.
 * Chance       is the number that the test has set last.
 * Log          is kept in memory; the test counts its lines (fake_logged).
 * Connections  connect and clean up as the test plans (fake_plan).  The test writes into a
 *              connection's fields what the driver says of it when it is idle or returned.
 *
 * The fake also checks the core.  It ends the test when two threads are inside the same
 * connection, and when a connection is used after its close or in an order that
 * pgp_driver.h forbids.  It watches pools (fake_watch): at each call it compares the counts of
 * a watched pool with the invariants of pgp_pool.h.  To read the counts it takes the pool's
 * lock.  So a pool that calls the driver, the log or chance under its lock hangs, and libcheck
 * ends the test.
 */
#ifndef FAKE_H
#define FAKE_H

#include <pthread.h>
#include <stdatomic.h>
#include <check.h>

#include "pgp_pool.h"

/* Like ck_assert_msg(), but it records nothing while the condition holds.  So any thread may
 * use it, and a loop of a million rounds, too. */
#define REQUIRE(holds, ...)                                                                    \
    do {                                                                                       \
        if (!(holds))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                         \
    } while (0)

typedef enum { FAKE_DONE, FAKE_FAILS, FAKE_HANGS } fake_end;

/* How an attempt to connect, or a clean-up, will go. */
typedef struct {
    int at_once;               /* connect() itself fails */
    int steps;                 /* step() says AGAIN this often first, */
    apr_interval_time_t takes; /* and then until this time has passed */
    fake_end end;
    const char *sqlstate; /* if it fails; NULL: none, as when the connection is refused */
    int absent;           /* no server listens */
} fake_plan;

typedef enum {
    FAKE_CONNECTING,
    FAKE_READY,
    FAKE_DIRTY,
    FAKE_CLEANING,
    FAKE_BAD,
    FAKE_CLOSING
} fake_phase;

typedef struct fake fake;

struct pgp_connection {
    /* set by the test, while it owns the connection or nobody does */
    pgp_idle_state idle; /* the result of check_idle() */
    int gone;            /* is_alive() says false */
    int mute;            /* does not answer prepare() and set_vars() */
    int refuses;         /* set_vars() is denied */
    int busy;            /* its borrower has left a statement under way */
    int unclean;         /* its server rejects the reset whose answer is pending */
    pgp_return returned; /* the result of finish_lease() */
    fake_plan cleaning;
    pgp_return cleaned; /* the result of finish_lease() after the clean-up */
    int noisy;          /* read_idle() fails: the server never stops sending */
    pgp_error last_words;
    atomic_int stops; /* check_idle() does not return until this is 0 */

    /* counted by the fake */
    int prepared, pings, vars, cleanings, readings, closed;
    apr_time_t deadline; /* of the last prepare() or set_vars() */

    /* the fake's own */
    fake *world;
    int socket;
    atomic_int ended;       /* its server's process has ended */
    int freed;              /* by destroy() */
    pgp_connection *before; /* the one opened before */
    int number;             /* from 1 */
    unsigned first_host;    /* as connect() was told */
    fake_phase phase;
    fake_plan plan; /* of the work under way */
    apr_time_t begun;
    int awaited;       /* step() has said AGAIN */
    atomic_int inside; /* how many threads are inside a call of the driver */
    atomic_int held;   /* by how many borrowers; test_stress.c counts them */
};

#define FAKE_POOLS 4

struct fake {
    pgp_env env;
    int capacity;    /* of the server, as each connection tells it */
    const char *tls; /* of each connection */

    /* set by the test */
    apr_uint32_t random;
    fake_plan plan;                  /* how the next attempts to connect go */
    int socket;                      /* of the next connections, or -1 */
    void (*on_connect)(fake *world); /* may change the plan */
    void (*on_close)(fake *world, pgp_connection *connection);
    void (*on_read_idle)(fake *world);
    int lingers; /* the server's process outlives its connection, until fake_process_ends() */
    void (*on_sleep)(void);     /* a thread is about to sleep in env->wait(), */
    void (*on_wake)(int woken); /* and has slept: it was woken, or its time is up */
    atomic_int drowsy;          /* no sleeper wakes up until this is 0 */
    void *baton;                /* for the test's own use */
    pgp_log_level log_level;

    /* counted by the fake */
    atomic_int opened, closed, failed;

    /* the fake's own */
    _Atomic apr_time_t now;
    int real_time;
    int ready_fd;         /* a descriptor that poll() always finds ready */
    pthread_mutex_t lock; /* guards the next four */
    struct fake_sleeper *sleepers;
    apr_pool_t *p;
    struct fake_log *log;
    pgp_connection *last;

    /* immutable once there are threads */
    pgp_pool *watched[FAKE_POOLS];
};

/* Time stands at an arbitrary moment, chance is one half, and connections are made at once. */
fake *fake_make(apr_pool_t *p);

/* Check the pool's invariants at each call from now on.  Call this before any thread starts. */
void fake_watch(fake *world, pgp_pool *pool);

void fake_pass(fake *world, apr_interval_time_t time);

/* Let this thread's next look at the clock show a time that is earlier by this.  An acquire
 * that begins with that look has a deadline that is nearer by as much. */
void fake_hasten(apr_interval_time_t time);

/* The first deadline of the threads that sleep in env->wait(); INT64_MAX: none sleeps. */
apr_time_t fake_alarm(fake *world);

/* When the next connection that is connecting or cleaning up will be done; INT64_MAX: none. */
apr_time_t fake_due(fake *world);

/* The connection with this number; they count from 1 in the order in which they were opened. */
pgp_connection *fake_connection(fake *world, int number);

/* Let the server's process of a closed connection end (see lingers). */
void fake_process_ends(pgp_connection *connection);

/* How many lines of the log contain the text. */
int fake_logged(fake *world, const char *text);

/* How many connections are open now. */
int fake_open(fake *world);

/* The connection of a borrowed slot. */
pgp_connection *fake_link_of(const pgp_slot *conn);

#endif
