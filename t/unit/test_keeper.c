/* The keeper: its phases, its end, its wake-ups, and several pools at once. */
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>

#include "stage.h"

/* A stage in real time, whose keeper has a thread of its own. */
static stage *real_stage(void)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", "PgPoolMaxLifetime 0", NULL);

    s->world->real_time = 1;
    ck_assert_int_eq(pgp_keeper_start(s->keeper->keeper), APR_SUCCESS);
    return s;
}

static apr_status_t join(stage *s)
{
    return pgp_keeper_join(s->keeper->keeper, PGP_SEC(30));
}

/* --- phases ----------------------------------------------------------------- */

START_TEST(phases_only_go_forward)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 2", NULL);
    pgp_acquire_info info;

    enter_phase(s, PGP_RUNNING);
    ck_assert_int_eq(idle(s), 1);
    enter_phase(s, PGP_DRAINING);
    enter_phase(s, PGP_RUNNING);
    ck_assert_int_eq(idle(s), 0);
    enter_phase(s, PGP_STOPPED);
    enter_phase(s, PGP_DRAINING);
    ck_assert_int_eq(refused(s, &info), PGP_STOPPING);
}
END_TEST

static void *enter_all(void *data)
{
    pgp_keeper *keeper = data;

    pgp_keeper_enter_phase(keeper, PGP_DRAINING);
    pgp_keeper_enter_phase(keeper, PGP_STOPPED);
    pgp_keeper_enter_phase(keeper, PGP_DRAINING);
    return NULL;
}

START_TEST(phases_from_many_threads)
{
    stage *s = real_stage();
    pthread_t threads[8];
    int i;

    for (i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, enter_all, s->keeper->keeper);
    for (i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(join(s), APR_SUCCESS);
}
END_TEST

/* --- the thread ------------------------------------------------------------- */

START_TEST(thread_serves_and_ends)
{
    stage *s = real_stage();
    borrower *a = ask(s), *b = ask(s);

    release(granted(a));
    release(granted(b));
    ck_assert_int_eq(join(s), APR_SUCCESS);
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

START_TEST(thread_ends_a_wait)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolAcquireTimeout 50ms", NULL);
    pgp_slot *conn;

    s->world->real_time = 1;
    ck_assert_int_eq(pgp_keeper_start(s->keeper->keeper), APR_SUCCESS);
    conn = granted(ask(s));
    answered(ask(s), PGP_EXHAUSTED);
    release(conn);
    ck_assert_int_eq(join(s), APR_SUCCESS);
}
END_TEST

static atomic_int blocked;

static void look_at_mask(fake *world)
{
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    atomic_store(&blocked, sigismember(&mask, SIGTERM) && sigismember(&mask, SIGCHLD));
}

/* The keeper's thread blocks all signals; the thread that starts it takes them as before. */
START_TEST(thread_takes_no_signal)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    sigset_t mask;

    s->world->real_time = 1;
    s->world->on_connect = look_at_mask;
    ck_assert_int_eq(pgp_keeper_start(s->keeper->keeper), APR_SUCCESS);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    ck_assert(!sigismember(&mask, SIGTERM));
    WAIT_UNTIL(idle(s) == 1);
    ck_assert(atomic_load(&blocked));
    ck_assert_int_eq(join(s), APR_SUCCESS);
}
END_TEST

START_TEST(thread_leaves_the_board)
{
    stage *s = stage_posted("PgPoolMin 1", "PgPoolMax 1", NULL);
    int pid;

    s->world->real_time = 1;
    ck_assert_int_eq(pgp_keeper_start(s->keeper->keeper), APR_SUCCESS);
    WAIT_UNTIL(idle(s) == 1);
    ck_assert_int_eq(pgp_board_counts(s->board, 0, &pid), 1);
    ck_assert_int_eq(pid, getpid());
    ck_assert_int_eq(join(s), APR_SUCCESS);
    ck_assert_int_eq(pgp_board_counts(s->board, 0, &pid), 0);
    ck_assert_int_eq(pid, 0);
}
END_TEST

/* The permit of a connection in use counts until the process ends. */
START_TEST(thread_keeps_the_seat_for_a_connection_in_use)
{
    stage *s = stage_posted("PgPoolMin 2", "PgPoolMax 2", "PgPoolTotalMax 3", NULL);
    const pgp_quota quota = {.board = s->board, .seat = 3, .row = 0, .cap = 3};
    pgp_outlook look;
    pgp_slot *conn;
    int pid;

    s->world->real_time = 1;
    ck_assert_int_eq(pgp_keeper_start(s->keeper->keeper), APR_SUCCESS);
    WAIT_UNTIL(idle(s) == 2);
    conn = acquire(s);
    ck_assert_int_eq(join(s), APR_SUCCESS);
    ck_assert_int_eq(pgp_board_counts(s->board, 0, &pid), 1);
    pgp_permits_look(&quota, s->world->now + PGP_SEC(60), PGP_SEC(3), &look);
    ck_assert_int_eq(look.used, 1);
    ck_assert_int_eq(look.coming, 0);
    release(conn);
}
END_TEST

/* --- its seat --------------------------------------------------------------- */

static bool has_seat(stage *s, int seat)
{
    int pid;

    return pgp_board_counts(s->board, seat, &pid);
}

static apr_uint64_t acquires_of_ended_children(stage *s)
{
    pgp_stats stats;

    pgp_board_read(s->board, -1, 0, s->world->now, &stats);
    return stats.n[PGP_N_ACQUIRES];
}

/* There may be many children of old generations: those without a connection need no seat. */
START_TEST(draining_child_leaves_its_seat)
{
    stage *s = stage_posted("PgPoolMin 1", "PgPoolMax 2", NULL);
    pgp_slot *conn;

    work(s);
    conn = acquire(s);
    enter_phase(s, PGP_DRAINING);
    keep(s, PGP_SEC(2));
    ck_assert(has_seat(s, 0)); /* a request has a connection */
    release(conn);
    keep(s, PGP_SEC(2));
    ck_assert(!has_seat(s, 0));
    ck_assert_int_eq(acquires_of_ended_children(s), 1);
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

START_TEST(draining_child_claims_a_seat_again)
{
    stage *s = stage_posted("PgPoolMin 1", "PgPoolMax 2", NULL);
    borrower *b;

    work(s);
    release(acquire(s));
    enter_phase(s, PGP_DRAINING);
    keep(s, PGP_SEC(2));
    ck_assert(!has_seat(s, 0));
    b = queue_up(s);
    keep(s, PGP_MS(200));
    release(granted(b));
    keep(s, PGP_SEC(2));
    ck_assert(!has_seat(s, 0));
    ck_assert_int_eq(acquires_of_ended_children(s), 2); /* each once */
}
END_TEST

START_TEST(running_child_keeps_its_seat)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 2", NULL);

    keep(s, PGP_SEC(60));
    ck_assert(has_seat(s, 0));
}
END_TEST

/* A child without a seat logs that once a minute, and its refused requests have it as their
 * cause. */
START_TEST(lack_of_seats_is_logged)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 2", NULL);
    pgp_acquire_info info;
    borrower *b;
    int i;

    s->settings->acquire_timeout = PGP_MS(500);
    while (pgp_board_claim(s->board, s->world->now) >= 0)
        ;
    work(s);
    b = queue_up(s);
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(fake_logged(s->world, "PGP1017: a child finds all 4 seats"), 1);
    answered(b, PGP_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(b->info.error.message, "PGP1017"));
    keep(s, PGP_SEC(58));
    ck_assert_int_eq(fake_logged(s->world, "PGP1017"), 1);
    keep(s, PGP_SEC(2));
    ck_assert_int_eq(fake_logged(s->world, "PGP1017"), 2);
    s->settings->acquire_timeout = 0;
    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(info.error.message, "PGP1017"));
    s->settings->acquire_timeout = PGP_SEC(2);
    for (i = 1; i < 4; i++)
        pgp_board_leave(s->board, i, s->world->now);
    b = queue_up(s);
    keep(s, PGP_SEC(1));
    granted(b);
}
END_TEST

/* In httpd pools are made with the keeper's own waker. */
START_TEST(keepers_own_waker)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    const pgp_waker waker = pgp_keeper_waker(s->keeper->keeper);
    stage own = *s;

    s->world->real_time = 1;
    pgp_pool_create(&own.pool, s->p, "own", s->settings, &s->world->env, waker);
    pgp_keeper_add(s->keeper->keeper, own.pool);
    ck_assert_int_eq(pgp_keeper_start(s->keeper->keeper), APR_SUCCESS);
    release(granted(ask(&own)));
    ck_assert_str_eq(pgp_pool_name(own.pool), "own");
    ck_assert_int_eq(join(s), APR_SUCCESS);
}
END_TEST

/* --- the join --------------------------------------------------------------- */

static atomic_int stuck;

static void get_stuck(fake *world)
{
    while (atomic_load(&stuck))
        apr_sleep(1000);
}

START_TEST(join_times_out)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);

    s->world->real_time = 1;
    s->world->on_connect = get_stuck;
    atomic_store(&stuck, 1);
    ck_assert_int_eq(pgp_keeper_start(s->keeper->keeper), APR_SUCCESS);
    WAIT_UNTIL(slots(s, PGP_CONNECTING) == 1);
    ck_assert_int_eq(pgp_keeper_join(s->keeper->keeper, PGP_MS(20)), APR_TIMEUP);
    atomic_store(&stuck, 0);
    ck_assert_int_eq(join(s), APR_SUCCESS);
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

/* A waiter ends its wait itself, so it does not matter that the keeper is stuck. */
START_TEST(wait_ends_without_the_keeper)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", "PgPoolAcquireTimeout 50ms", NULL);

    s->world->real_time = 1;
    s->world->on_connect = get_stuck;
    atomic_store(&stuck, 1);
    ck_assert_int_eq(pgp_keeper_start(s->keeper->keeper), APR_SUCCESS);
    WAIT_UNTIL(slots(s, PGP_CONNECTING) == 1);
    answered(ask(s), PGP_UNAVAILABLE);
    ck_assert_int_eq(waiting(s), 0);
    atomic_store(&stuck, 0);
    release(granted(ask(s)));
    ck_assert_int_eq(join(s), APR_SUCCESS);
}
END_TEST

/* The keeper does not wait for a connection in use; its borrower closes it. */
START_TEST(join_while_a_connection_is_in_use)
{
    stage *s = real_stage();
    pgp_slot *conn = granted(ask(s));

    ck_assert_int_eq(join(s), APR_SUCCESS);
    ck_assert_int_eq(fake_open(s->world), 1);
    release(conn);
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

START_TEST(wake_after_the_end_is_harmless)
{
    stage *s = real_stage();

    ck_assert_int_eq(join(s), APR_SUCCESS);
    pgp_keeper_wake(s->keeper->keeper);
    pgp_keeper_enter_phase(s->keeper->keeper, PGP_DRAINING);
}
END_TEST

/* --- waking ----------------------------------------------------------------- */

static pgp_keeper *signalled;
static atomic_int errno_after;

static void stop_in_handler(int signal)
{
    errno = signal;
    pgp_keeper_enter_phase(signalled, PGP_STOPPED);
    atomic_store(&errno_after, errno);
}

START_TEST(stop_in_a_signal_handler)
{
    stage *s = real_stage();
    struct sigaction action = {.sa_handler = stop_in_handler};

    signalled = s->keeper->keeper;
    sigaction(SIGUSR1, &action, NULL);
    release(granted(ask(s)));
    ck_assert_int_eq(idle(s), 1);
    raise(SIGUSR1);
    ck_assert_int_eq(atomic_load(&errno_after), SIGUSR1);
    WAIT_UNTIL(slots(s, PGP_FREE) == 2);
    ck_assert_int_eq(join(s), APR_SUCCESS);
}
END_TEST

/* However often the keeper is woken before its next round, pgp_keeper_wake() does not block. */
START_TEST(wakes_never_block)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    int i;

    for (i = 0; i < 100000; i++)
        pgp_keeper_wake(s->keeper->keeper);
}
END_TEST

/* --- several pools ---------------------------------------------------------- */

START_TEST(one_slow_pool_does_not_delay_another)
{
    stage *slow = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL), *other;
    borrower *b;

    slow->world->plan.end = FAKE_HANGS;
    work(slow);
    slow->world->plan.end = FAKE_DONE;
    other = stage_beside(slow, "PgPoolMin 0", "PgPoolMax 1", NULL);
    ck_assert_int_eq(slots(slow, PGP_CONNECTING), 1);
    b = queue_up(other);
    work(other);
    release(granted(b));
    ck_assert_int_eq(slots(slow, PGP_CONNECTING), 1);
    keep(slow, PGP_SEC(3));
    ck_assert_int_eq(slow->world->closed, 1); /* after PgPoolConnectTimeout */
}
END_TEST

START_TEST(deadlines_of_several_pools)
{
    stage *first = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    stage *second = stage_beside(first, "PgPoolMin 0", "PgPoolMax 1",
                                 "PgPoolAcquireTimeout 300ms", NULL);
    borrower *a, *b;

    first->world->plan.end = FAKE_HANGS;
    a = queue_up(first);
    b = queue_up(second);
    keep(first, PGP_MS(300));
    answered(b, PGP_UNAVAILABLE);
    ck_assert_int_eq(b->info.waited, PGP_MS(300));
    keep(first, PGP_MS(1700));
    answered(a, PGP_UNAVAILABLE);
    ck_assert_int_eq(a->info.waited, PGP_SEC(2));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("keeper");
    TCase *t = tcase(suite, "phases");

    tcase_add_test(t, phases_only_go_forward);
    tcase_add_test(t, phases_from_many_threads);
    t = tcase(suite, "thread");
    tcase_add_test(t, thread_serves_and_ends);
    tcase_add_test(t, thread_ends_a_wait);
    tcase_add_test(t, thread_takes_no_signal);
    tcase_add_test(t, thread_leaves_the_board);
    tcase_add_test(t, thread_keeps_the_seat_for_a_connection_in_use);
    tcase_add_test(t, draining_child_leaves_its_seat);
    tcase_add_test(t, draining_child_claims_a_seat_again);
    tcase_add_test(t, running_child_keeps_its_seat);
    tcase_add_test(t, lack_of_seats_is_logged);
    tcase_add_test(t, keepers_own_waker);
    t = tcase(suite, "join");
    tcase_add_test(t, join_times_out);
    tcase_add_test(t, wait_ends_without_the_keeper);
    tcase_add_test(t, join_while_a_connection_is_in_use);
    tcase_add_test(t, wake_after_the_end_is_harmless);
    t = tcase(suite, "waking");
    tcase_add_test(t, stop_in_a_signal_handler);
    tcase_add_test(t, wakes_never_block);
    t = tcase(suite, "pools");
    tcase_add_test(t, one_slow_pool_does_not_delay_another);
    tcase_add_test(t, deadlines_of_several_pools);
    return suite_run(suite);
}
