/* The order in which callers get connections, and how long an acquire waits. */
#include "stage.h"

/* --- order ------------------------------------------------------------------ */

START_TEST(newest_idle_first)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 3", NULL);
    pgp_slot *a, *b;

    warm(s, 3);
    a = acquire(s);
    b = acquire(s);
    ck_assert_int_eq(number(a), 3);
    ck_assert_int_eq(number(b), 2);
    release(b);
    release(a);
    ck_assert_int_eq(number(acquire(s)), 3);
    ck_assert_int_eq(number(acquire(s)), 2);
    ck_assert_int_eq(number(acquire(s)), 1);
}
END_TEST

#define QUEUE 8

START_TEST(oldest_waiter_first)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    borrower *queue[QUEUE];
    pgp_slot *conn;
    int i, k;

    warm(s, 1);
    conn = acquire(s);
    for (i = 0; i < QUEUE; i++)
        queue[i] = queue_up(s);
    for (i = 0; i < QUEUE; i++) {
        release(conn);
        conn = granted(queue[i]);
        ck_assert_int_eq(waiting(s), QUEUE - 1 - i);
        for (k = i + 1; k < QUEUE; k++)
            ck_assert(!atomic_load(&queue[k]->done));
    }
    release(conn);
    ck_assert_int_eq(idle(s), 1);
    ck_assert_int_eq(s->world->opened, 1);
}
END_TEST

START_TEST(newcomer_does_not_overtake)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_slot *conn;
    borrower *b;
    pgp_acquire_info info;

    warm(s, 1);
    conn = acquire(s);
    b = queue_up(s);
    release(conn);
    /* The connection is handed over already, even if the other thread has not run since. */
    ck_assert_int_eq(waiting(s), 0);
    ck_assert_int_eq(lent(s), 1);
    fake_hasten(PGP_SEC(2)); /* the next acquire has no time to wait */
    ck_assert_int_eq(refused(s, &info), PGP_EXHAUSTED);
    release(granted(b));
}
END_TEST

/* A waiter that comes back to the queue, because its connection was dead, has an earlier
 * deadline than those that came after it. */
START_TEST(nearest_deadline_first)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_slot *conn;
    borrower *early, *middle, *late;

    warm(s, 1);
    conn = acquire(s);
    late = queue_up(s);
    early = queue_up_early(s, PGP_SEC(1));
    middle = queue_up_early(s, PGP_MS(500));
    release(conn);
    release(granted(early));
    release(granted(middle));
    release(granted(late));
}
END_TEST

/* --- deadlines -------------------------------------------------------------- */

START_TEST(wait_ends_at_its_deadline)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_slot *conn;
    borrower *b;

    warm(s, 1);
    conn = acquire(s);
    b = queue_up(s);
    keep(s, PGP_SEC(2) - 1);
    ck_assert_int_eq(waiting(s), 1);
    keep(s, 1);
    ck_assert_int_eq(waiting(s), 0);
    answered(b, PGP_EXHAUSTED);
    ck_assert_int_eq(b->info.waited, PGP_SEC(2));
    ck_assert_str_eq(b->info.error.message,
                     "all 1 connections are in use (PgPoolMax 1), 0 more are waiting");
    ck_assert_str_eq(b->info.error.sqlstate, "");
    release(conn);
    ck_assert_int_eq(idle(s), 1);
}
END_TEST

START_TEST(only_overdue_waits_end)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_slot *conn;
    borrower *first, *second, *third;

    warm(s, 1);
    conn = acquire(s);
    first = queue_up(s);
    second = queue_up(s);
    keep(s, PGP_SEC(1));
    third = queue_up(s);
    keep(s, PGP_SEC(1));
    answered(first, PGP_EXHAUSTED);
    answered(second, PGP_EXHAUSTED);
    ck_assert_int_eq(waiting(s), 1);
    release(conn);
    release(granted(third));
}
END_TEST

START_TEST(wait_ends_without_the_keeper)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolAcquireTimeout 300ms", NULL);
    pgp_slot *conn;
    borrower *b;

    warm(s, 1);
    conn = acquire(s);
    b = queue_up(s);
    fake_pass(s->world, PGP_MS(300));
    answered(b, PGP_EXHAUSTED);
    ck_assert_int_eq(b->info.waited, PGP_MS(300));
    ck_assert_int_eq(waiting(s), 0);
    release(conn);
}
END_TEST

/* The waiter's deadline has passed, but the waiter has not left the queue yet. */
START_TEST(waiter_may_be_served_after_its_deadline)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_slot *conn;
    borrower *b;

    warm(s, 1);
    conn = acquire(s);
    b = queue_up(s);
    s->world->drowsy = 1;
    fake_pass(s->world, PGP_SEC(3));
    release(conn);
    ck_assert_int_eq(waiting(s), 0);
    s->world->drowsy = 0;
    release(granted(b));
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(idle(s), 1);
    ck_assert_int_eq(s->world->closed, 0);
}
END_TEST

START_TEST(no_wait_with_timeout_0)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolAcquireTimeout 0", NULL);
    pgp_slot *conn;
    pgp_acquire_info info;

    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE);
    ck_assert_str_eq(info.error.message, "no connection could be made in time");
    work(s);
    conn = acquire(s);
    ck_assert_int_eq(refused(s, &info), PGP_EXHAUSTED);
    ck_assert_int_eq(info.waited, 0);
    release(conn);
    release(acquire(s));
}
END_TEST

START_TEST(unavailable_if_there_is_no_connection)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    borrower *b;

    s->world->plan.end = FAKE_HANGS;
    b = queue_up(s);
    keep(s, PGP_SEC(2));
    answered(b, PGP_UNAVAILABLE);
    ck_assert_str_eq(b->info.error.message, "no connection could be made in time");
}
END_TEST

START_TEST(wall_clock_does_not_matter)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolAcquireTimeout 1ms", NULL);
    pgp_slot *conn;
    borrower *b;
    int i;

    warm(s, 1);
    conn = acquire(s);
    b = queue_up(s);
    for (i = 0; i < 20; i++) { /* the wall clock goes on, the world's time stands still */
        apr_sleep(1000);
        work(s);
    }
    ck_assert_int_eq(waiting(s), 1);
    keep(s, PGP_MS(1));
    answered(b, PGP_EXHAUSTED);
    release(conn);
}
END_TEST

/* --- PgPoolMaxWaiters ------------------------------------------------------- */

START_TEST(no_more_waiters_than_allowed)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolMaxWaiters 2", NULL);
    pgp_slot *conn;
    borrower *a, *b;
    pgp_acquire_info info;

    warm(s, 1);
    conn = acquire(s);
    a = queue_up(s);
    b = queue_up(s);
    ck_assert_int_eq(refused(s, &info), PGP_EXHAUSTED);
    ck_assert_int_eq(info.waited, 0);
    ck_assert_str_eq(info.error.message,
                     "all 1 connections are in use (PgPoolMax 1), 2 more are waiting");
    release(conn);
    release(granted(a));
    release(granted(b));
    release(acquire(s));
}
END_TEST

/* --- log and figures -------------------------------------------------------- */

START_TEST(leases_are_numbered)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", NULL);
    pgp_slot *a, *b;

    warm(s, 2);
    a = acquire(s);
    b = acquire(s);
    ck_assert_int_eq(b->lease, a->lease + 1);
    ck_assert_int_eq(pgp_slot_backend(a), 1000 + number(a));
    release(a);
    a = acquire(s);
    ck_assert_int_eq(a->lease, b->lease + 1);
    ck_assert_int_eq(fake_logged(s->world, "PGP1004: pool main, backend 1002: lent, lease "),
                     3);
    ck_assert_int_eq(fake_logged(s->world, "PGP1005: pool main, backend 1002: returned, "), 2);
}
END_TEST

/* The borrower sets the flag when the hooks have run; it stays with the connection. */
START_TEST(hooks_have_run_for_the_connection)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_slot *conn;

    work(s);
    conn = acquire(s);
    ck_assert(!pgp_slot_has_run_hooks(conn));
    ck_assert_ptr_null(pgp_slot_baton(conn));
    pgp_slot_set_hooks_run(conn);
    release(conn);
    conn = acquire(s);
    ck_assert(pgp_slot_has_run_hooks(conn));
    pgp_pool_discard(&conn, PGP_REASON_HOOK);
    work(s);
    conn = acquire(s);
    ck_assert(!pgp_slot_has_run_hooks(conn));
}
END_TEST

START_TEST(driver_says_whether_a_connection_is_alive)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_slot *conn;

    work(s);
    conn = acquire(s);
    ck_assert(pgp_slot_is_alive(conn));
    fake_link_of(conn)->gone = 1;
    ck_assert(!pgp_slot_is_alive(conn));
}
END_TEST

START_TEST(long_lease_is_logged_once)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", "PgPoolHoldWarning 10s", NULL);
    pgp_slot *a, *b;

    warm(s, 2);
    a = acquire_as(s, "192.0.2.7", (const char *const[]){"GET ", "/slow", NULL});
    b = acquire(s);
    keep(s, PGP_SEC(9));
    release(b);
    ck_assert_int_eq(fake_logged(s->world, "PGP1016"), 0);
    keep(s, PGP_SEC(20));
    ck_assert_int_eq(fake_logged(s->world, "PGP1016"), 1);
    ck_assert_int_eq(fake_logged(s->world,
                                 "PGP1016: pool main, backend 1002: has been held for "
                                 "10 s by GET /slow for 192.0.2.7"),
                     1);
    release(a);
    a = acquire(s); /* another lease, without a description of its borrower */
    keep(s, PGP_SEC(11));
    ck_assert_int_eq(fake_logged(s->world, "backend 1002: has been held for 10 s by a module, "
                                           "without a request"),
                     1);
}
END_TEST

START_TEST(no_hold_warning)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolHoldWarning 0", NULL);

    warm(s, 1);
    acquire(s);
    keep(s, PGP_SEC(3600));
    ck_assert_int_eq(fake_logged(s->world, "PGP1016"), 0);
}
END_TEST

START_TEST(refusals_are_logged_once_a_minute)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 1", NULL);
    stage *other = stage_child(s, "PgPoolMin 0", "PgPoolMax 1", NULL);
    apr_uint64_t unlogged;
    int i;

    ck_assert(pgp_pool_may_log(s->pool, PGP_EXHAUSTED, &unlogged));
    ck_assert_int_eq(unlogged, 0);
    for (i = 0; i < 25; i++) {
        ck_assert(!pgp_pool_may_log(s->pool, PGP_EXHAUSTED, &unlogged));
        ck_assert(!pgp_pool_may_log(other->pool, PGP_EXHAUSTED, &unlogged));
    }
    ck_assert(pgp_pool_may_log(other->pool, PGP_UNAVAILABLE, &unlogged));
    fake_pass(s->world, PGP_SEC(60));
    ck_assert(pgp_pool_may_log(other->pool, PGP_EXHAUSTED, &unlogged));
    ck_assert_int_eq(unlogged, 50);
    ck_assert(!pgp_pool_may_log(s->pool, PGP_EXHAUSTED, &unlogged));
    keep(s, PGP_SEC(69));
    ck_assert_int_eq(fake_logged(s->world, "PGP1011"), 0);
    keep(s, PGP_SEC(2));
    ck_assert_int_eq(fake_logged(s->world, "PGP1011: pool main: 1 more requests got no "
                                           "connection (exhausted)"),
                     1);
    ck_assert(pgp_pool_may_log(s->pool, PGP_EXHAUSTED, &unlogged));
    ck_assert_int_eq(unlogged, 0);
}
END_TEST

START_TEST(nothing_is_logged_at_a_low_level)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);

    s->world->log_level = PGP_LOG_WARNING;
    warm(s, 1);
    release(acquire(s));
    ck_assert_int_eq(fake_logged(s->world, ""), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool_lend");
    TCase *t = tcase(suite, "order");

    tcase_add_test(t, newest_idle_first);
    tcase_add_test(t, oldest_waiter_first);
    tcase_add_test(t, newcomer_does_not_overtake);
    tcase_add_test(t, nearest_deadline_first);
    t = tcase(suite, "deadlines");
    tcase_add_test(t, wait_ends_at_its_deadline);
    tcase_add_test(t, only_overdue_waits_end);
    tcase_add_test(t, wait_ends_without_the_keeper);
    tcase_add_test(t, waiter_may_be_served_after_its_deadline);
    tcase_add_test(t, no_wait_with_timeout_0);
    tcase_add_test(t, unavailable_if_there_is_no_connection);
    tcase_add_test(t, wall_clock_does_not_matter);
    t = tcase(suite, "waiters");
    tcase_add_test(t, no_more_waiters_than_allowed);
    t = tcase(suite, "telling");
    tcase_add_test(t, leases_are_numbered);
    tcase_add_test(t, hooks_have_run_for_the_connection);
    tcase_add_test(t, driver_says_whether_a_connection_is_alive);
    tcase_add_test(t, long_lease_is_logged_once);
    tcase_add_test(t, no_hold_warning);
    tcase_add_test(t, refusals_are_logged_once_a_minute);
    tcase_add_test(t, nothing_is_logged_at_a_low_level);
    return suite_run(suite);
}
