/*
 * A world for the core's tests: the env and the driver that the core takes from
 * outside, both doing what the test says.
 *
 * Time    stands still until the test lets it pass, unless it is told to be real.
 * Chance  is what the test last said.
 * Log     is kept, and can be searched.
 * Links   connect and clean up as the test plans (fake_plan); how an idle or a
 *         returned one looks is written on the connection.
 *
 * The fake judges the core as well.  It ends the test when two threads are inside
 * the same connection, when a connection is used after its close or in an order that
 * pgp_driver.h rules out, and, for the pools that it watches, when an invariant of
 * pgp_pool.h does not hold.  To look at the counts of a watched pool it takes the
 * pool's lock, so a pool that calls the driver, the log or chance under its lock
 * hangs, and libcheck ends it.
 */
#ifndef FAKE_H
#define FAKE_H

#include <pthread.h>
#include <stdatomic.h>
#include <check.h>

#include "pgp_pool.h"

/* As ck_assert_msg(), but silent and cheap when it holds: for any thread, and for
 * what is asked a million times. */
#define REQUIRE(holds, ...)                                                                    \
    do {                                                                                       \
        if (!(holds))                                                                          \
            ck_abort_msg(__VA_ARGS__);                                                         \
    } while (0)

typedef enum { FAKE_DONE, FAKE_FAILS, FAKE_HANGS } fake_end;

/* How connecting or cleaning goes. */
typedef struct {
    int at_once;               /* connect() itself fails */
    int steps;                 /* answers "again" so often first, */
    apr_interval_time_t takes; /* and for so long */
    fake_end end;
    const char *sqlstate; /* if it fails; NULL: none, as when the connection is refused */
    int absent;           /* nobody listens */
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
    /* told by the test, while it or nobody owns the connection */
    pgp_idle_state idle; /* what check_idle() says */
    int gone;            /* what is_alive() denies */
    int mute;            /* does not answer prepare() and set() */
    int refuses;         /* will not have variables set */
    int busy;            /* its borrower has left a statement under way */
    int unclean;         /* its server rejects the reset whose answer is pending */
    pgp_return returned; /* what finish_lease() says */
    fake_plan cleaning;
    pgp_return cleaned; /* what finish_lease() says after the clean-up */
    int noisy;          /* what it receives has no end */
    pgp_error last_words;
    atomic_int stops; /* check_idle() stays there until this is 0 */

    /* what has been done with it */
    int prepared, pings, vars, cleanings, readings, closed;
    apr_time_t deadline; /* of the last prepare() or set() */

    /* the fake's own */
    fake *world;
    int socket;
    atomic_int ended;       /* its server's process has */
    int freed;              /* by destroy() */
    pgp_connection *before; /* the one opened before */
    int number;             /* from 1 */
    unsigned first_host;    /* as connect() was told */
    fake_phase phase;
    fake_plan plan; /* of the work under way */
    apr_time_t begun;
    int awaited;       /* step() has said what it waits for */
    atomic_int inside; /* threads */
    atomic_int held;   /* by a borrower of the test's; the test's own book-keeping */
};

#define FAKE_POOLS 4

struct fake {
    pgp_env env;
    int capacity;    /* what each connection tells */
    const char *tls; /* likewise */

    /* told by the test */
    apr_uint32_t random;
    fake_plan plan;                  /* how the next ones connect */
    int socket;                      /* theirs, or -1 */
    void (*on_connect)(fake *world); /* may change the plan */
    void (*on_close)(fake *world, pgp_connection *connection);
    void (*on_take_in)(fake *world);
    int lingers; /* the server's process outlives its connection, until fake_process_ends() */
    void (*on_sleep)(void);     /* a thread is about to sleep in env->wait(), */
    void (*on_wake)(int woken); /* and has slept: it was woken, or its time is up */
    atomic_int drowsy;          /* nobody wakes, whatever happens, until this is 0 */
    void *baton;                /* the test's own */
    pgp_log_level log_level;

    /* what has been done with it */
    atomic_int opened, closed, failed;

    /* the fake's own */
    _Atomic apr_time_t now;
    int real_time;
    int ready_fd;         /* one that poll() always finds ready */
    pthread_mutex_t lock; /* guards what follows */
    struct fake_sleeper *sleepers;
    apr_pool_t *p;
    struct fake_log *log;
    pgp_connection *last;

    /* immutable once there are threads */
    pgp_pool *watched[FAKE_POOLS];
};

/* Time stands at an arbitrary moment, chance at one half, links connect at once. */
fake *fake_make(apr_pool_t *p);

/* Hold the pool against its invariants whenever it calls.  Before any thread. */
void fake_watch(fake *world, pgp_pool *pool);

void fake_pass(fake *world, apr_interval_time_t time);

/* This thread's next look at the clock is so much too early: an ask begun then has
 * a deadline that is so much nearer. */
void fake_hasten(apr_interval_time_t time);

/* The first deadline of those who sleep in env->wait(); INT64_MAX: none. */
apr_time_t fake_alarm(fake *world);

/* When a connection whose work somebody waits for will have taken its time; INT64_MAX: none. */
apr_time_t fake_due(fake *world);

/* The number-th connection that was opened, from 1. */
pgp_connection *fake_link(fake *world, int number);

void fake_process_ends(pgp_connection *connection);

/* How many lines of the log hold the text. */
int fake_logged(fake *world, const char *text);

/* Links that are open now. */
int fake_open(fake *world);

/* The connection that a borrower got. */
pgp_connection *fake_link_of(const pgp_slot *conn);

#endif
