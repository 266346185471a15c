/*
 * Stress: many threads, few connections, the real clock and the keeper's own thread.
 *
 * PGPOOL_STRESS_SECONDS (default 3) is the time of all these tests together.  The tests measure
 * time only as a sign of life: if an acquire has not ended 20 s after its deadline, no thread
 * will ever wake it.
 */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <apr_strings.h>

#include "stage.h"

#define THREADS 64
#define CONNECTIONS "PgPoolMax 4"

/* A machine may be slow; but what has not happened after this time will never happen. */
#define ALIVE PGP_SEC(20)

typedef struct {
    stage *s;
    pthread_t thread;
    unsigned seed;
    long granted, exhausted, unavailable;
} worker;

static apr_time_t end_at;
static atomic_int stopping;
static atomic_long granted_to_all;

/* A test needs this many leases to prove something, even on a slow machine. */
#define ENOUGH 100

static apr_time_t now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return PGP_SEC(ts.tv_sec) + ts.tv_nsec / 1000;
}

/* Returns 1 in one of n calls, at random. */
static int one_in(unsigned *seed, int n)
{
    return rand_r(seed) % n == 0;
}

/* Begin a test that takes this fraction of the time. */
static void begin(double part)
{
    const char *seconds = getenv("PGPOOL_STRESS_SECONDS");

    end_at = now() + (apr_time_t)(PGP_SEC(1) * part * (seconds ? atof(seconds) : 3));
}

static void start(stage *s)
{
    s->world->real_time = 1;
    s->world->log_level = PGP_LOG_ERR;
    REQUIRE(pgp_keeper_start(s->keeper->keeper) == APR_SUCCESS, "no keeper");
}

static void finish(stage *s)
{
    REQUIRE(pgp_keeper_join(s->keeper->keeper, ALIVE) == APR_SUCCESS, "the keeper stays");
    ck_assert_int_eq(fake_open(s->world), 0);
}

/* --- working ---------------------------------------------------------------- */

static void hold(pgp_connection *connection, unsigned *seed)
{
    REQUIRE(atomic_fetch_add(&connection->held, 1) == 0, "%d is lent twice",
            connection->number);
    if (one_in(seed, 4))
        sched_yield();
    if (one_in(seed, 16))
        usleep(rand_r(seed) % 300);
    atomic_fetch_sub(&connection->held, 1);
}

/* The borrower, the network or the server does something to a connection, in some leases. */
static void spoil(pgp_connection *connection, unsigned *seed)
{
    static const pgp_return ends[] = {PGP_RETURN_DIRTY, PGP_RETURN_BROKEN, PGP_RETURN_UNKNOWN};

    switch (rand_r(seed) % 40) {
    case 0:
        connection->idle = PGP_IDLE_DEAD;
        break;
    case 1:
        connection->mute = 1;
        connection->idle = PGP_IDLE_HEARD;
        break;
    case 2:
        connection->idle = PGP_IDLE_RESET_PENDING;
        break;
    case 3:
    case 4:
        connection->returned = ends[rand_r(seed) % 3];
        connection->cleaning = (fake_plan){.steps = rand_r(seed) % 3,
                                           .end = one_in(seed, 4) ? FAKE_FAILS : FAKE_DONE};
        break;
    }
}

static void end_lease(pgp_slot *conn, unsigned *seed)
{
    spoil(fake_link_of(conn), seed);
    if (one_in(seed, 100))
        pgp_pool_discard(&conn, PGP_REASON_HOOK);
    else
        pgp_pool_release(&conn);
    REQUIRE(!conn, "the borrower still has it");
}

/* Whether a worker goes on.  A busy machine gets more time, until it has seen ENOUGH leases. */
static int goes_on(void)
{
    return now() < end_at || (atomic_load(&granted_to_all) <= ENOUGH && now() < end_at + ALIVE);
}

static void count_grant(worker *w)
{
    w->granted++;
    atomic_fetch_add(&granted_to_all, 1);
}

static pgp_outcome borrow_once(worker *w)
{
    const apr_time_t began = now();
    pgp_slot *conn = NULL;
    pgp_acquire_info info = {.until = 0};
    pgp_outcome outcome;

    if (one_in(&w->seed, 3)) /* some acquires have hardly any time left */
        fake_hasten(w->s->settings->acquire_timeout - rand_r(&w->seed) % 400);
    outcome = pgp_pool_acquire(w->s->pool, &conn, &info);
    fake_hasten(0);
    REQUIRE(now() - began < w->s->settings->acquire_timeout + ALIVE, "nobody woke it");
    REQUIRE(!conn == (outcome != PGP_GRANTED), "outcome %d", outcome);
    if (conn) {
        hold(fake_link_of(conn), &w->seed);
        end_lease(conn, &w->seed);
    }
    return outcome;
}

static void *storm(void *data)
{
    worker *w = data;

    while (goes_on()) {
        switch (borrow_once(w)) {
        case PGP_GRANTED:
            count_grant(w);
            break;
        case PGP_EXHAUSTED:
            w->exhausted++;
            break;
        case PGP_UNAVAILABLE:
            w->unavailable++;
            break;
        case PGP_STOPPING:
            REQUIRE(atomic_load(&stopping), "refused for a stop that nobody ordered");
            return NULL;
        }
    }
    return NULL;
}

static void workers_start(worker *w, stage *s, void *(*work)(void *))
{
    int i;

    for (i = 0; i < THREADS; i++) {
        w[i] = (worker){.s = s, .seed = i + 1};
        pthread_create(&w[i].thread, NULL, work, &w[i]);
    }
}

static void workers_join(worker *w, worker *sum)
{
    int i;

    *sum = (worker){.seed = 0};
    for (i = 0; i < THREADS; i++) {
        pthread_join(w[i].thread, NULL);
        sum->granted += w[i].granted;
        sum->exhausted += w[i].exhausted;
        sum->unavailable += w[i].unavailable;
    }
}

/* Attempts to connect take up to three rounds, and some fail.  Runs in the keeper's thread. */
static void vary(fake *world)
{
    static unsigned seed = 4711;

    world->random = (apr_uint32_t)rand_r(&seed) * 2u;
    world->plan = (fake_plan){.at_once = one_in(&seed, 30),
                              .steps = rand_r(&seed) % 4,
                              .end = one_in(&seed, 15) ? FAKE_FAILS : FAKE_DONE};
}

/* --- the tests -------------------------------------------------------------- */

/* Hand-offs race with deadlines, dead and dirty connections, and failed attempts to connect. */
START_TEST(storm_leaves_nothing_behind)
{
    stage *s = stage_set("PgPoolMin 1", CONNECTIONS, "PgPoolAcquireTimeout 50ms",
                         "PgPoolRetry 1ms 5ms", "PgPoolCheckTimeout 2s", NULL);
    worker w[THREADS], sum;

    begin(0.5);
    s->world->on_connect = vary;
    start(s);
    workers_start(w, s, storm);
    workers_join(w, &sum);
    WAIT_UNTIL(idle(s) + slots(s, PGP_FREE) == 4 && fake_open(s->world) == idle(s));
    ck_assert_int_eq(waiting(s), 0);
    ck_assert_int_eq(lent(s), 0);
    ck_assert_int_gt(sum.granted, ENOUGH);
    ck_assert_int_gt(sum.exhausted + sum.unavailable, 0);
    finish(s);
}
END_TEST

static void *polite(void *data)
{
    worker *w = data;

    while (goes_on()) {
        pgp_slot *conn = NULL;
        pgp_acquire_info info = {.until = 0};

        if (pgp_pool_acquire(w->s->pool, &conn, &info) == PGP_GRANTED) {
            hold(fake_link_of(conn), &w->seed);
            pgp_pool_release(&conn);
            count_grant(w);
        }
        else
            w->exhausted++;
    }
    return NULL;
}

/* The deadline is about the time that a waiter spends in the queue.  A connection that is
 * handed over at the moment of a time-out goes to that waiter or to the next one; it is never
 * lost. */
START_TEST(time_out_and_hand_off_lose_nothing)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", "PgPoolAcquireTimeout 2ms",
                         "PgPoolMaxLifetime 0", NULL);
    worker w[THREADS], sum;

    begin(0.15);
    start(s);
    workers_start(w, s, polite);
    workers_join(w, &sum);
    ck_assert_int_eq(idle(s), 1);
    ck_assert_int_eq(waiting(s), 0);
    ck_assert_int_eq(s->world->opened, 1); /* never lost, never closed */
    ck_assert_int_eq(s->world->closed, 0);
    ck_assert_int_gt(sum.granted, ENOUGH);
    finish(s);
}
END_TEST

/* There is always a queue, but the time to wait is ample: all callers are served. */
START_TEST(no_wake_up_is_lost)
{
    stage *s = stage_set("PgPoolMin 0", CONNECTIONS, "PgPoolAcquireTimeout 20s", NULL);
    worker w[THREADS], sum;

    begin(0.15);
    start(s);
    workers_start(w, s, polite);
    workers_join(w, &sum);
    ck_assert_int_eq(sum.exhausted, 0);
    ck_assert_int_eq(idle(s), fake_open(s->world));
    finish(s);
}
END_TEST

#define QUEUE 16

/* All borrowers are known to be in the queue; each is served in its order. */
START_TEST(served_in_order)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolAcquireTimeout 20s", NULL);
    borrower *queue[QUEUE];
    pgp_slot *conn;
    int i, served;

    begin(0.1);
    start(s);
    conn = granted(ask(s));
    do {
        for (i = 0; i < QUEUE; i++)
            queue[i] = queue_up(s);
        for (i = 0; i < QUEUE; i++) {
            release(conn);
            conn = granted(queue[i]);
            served = QUEUE - waiting(s);
            ck_assert_int_eq(served, i + 1);
        }
    } while (now() < end_at);
    release(conn);
    finish(s);
}
END_TEST

/* The child stops while many threads borrow. */
START_TEST(stop_in_the_storm)
{
    stage *s = stage_set("PgPoolMin 1", CONNECTIONS, "PgPoolAcquireTimeout 50ms",
                         "PgPoolRetry 1ms 5ms", NULL);
    worker w[THREADS], sum;
    apr_time_t stop_at;

    begin(0.1);
    stop_at = end_at;
    end_at += ALIVE; /* the workers end because of the stop */
    s->world->on_connect = vary;
    start(s);
    workers_start(w, s, storm);
    while (now() < stop_at)
        usleep(1000);
    atomic_store(&stopping, 1);
    pgp_keeper_enter_phase(s->keeper->keeper, PGP_DRAINING);
    usleep(1000);
    REQUIRE(pgp_keeper_join(s->keeper->keeper, ALIVE) == APR_SUCCESS, "the keeper stays");
    workers_join(w, &sum);
    ck_assert_int_lt(now(), end_at);
    ck_assert_int_eq(fake_open(s->world), 0);
    ck_assert_int_eq(slots(s, PGP_FREE), 4);
}
END_TEST

/* The same with a second pool, which keeps the keeper busy after it has left the first one. */
START_TEST(stop_with_two_pools)
{
    stage *s = stage_set("PgPoolMin 1", CONNECTIONS, "PgPoolAcquireTimeout 50ms",
                         "PgPoolRetry 1ms 5ms", NULL);
    stage *other = stage_beside(s, "PgPoolMin 4", CONNECTIONS, "PgPoolAcquireTimeout 50ms",
                                "PgPoolRetry 1ms 5ms", NULL);
    worker a[THREADS], b[THREADS], sum;

    begin(0);
    s->world->on_connect = vary;
    start(s);
    end_at += ALIVE;
    workers_start(a, s, storm);
    workers_start(b, other, storm);
    usleep(20000);
    atomic_store(&stopping, 1);
    REQUIRE(pgp_keeper_join(s->keeper->keeper, ALIVE) == APR_SUCCESS, "the keeper stays");
    workers_join(a, &sum);
    workers_join(b, &sum);
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stress");
    TCase *t = tcase(suite, "stress");
    const char *seconds = getenv("PGPOOL_STRESS_SECONDS");

    tcase_set_timeout(t, 120 + (seconds ? atof(seconds) : 0));
    tcase_add_test(t, storm_leaves_nothing_behind);
    tcase_add_test(t, time_out_and_hand_off_lose_nothing);
    tcase_add_test(t, no_wake_up_is_lost);
    tcase_add_test(t, served_in_order);
    tcase_add_test(t, stop_in_the_storm);
    tcase_add_loop_test(t, stop_with_two_pools, 0, 10);
    return suite_run(suite);
}
