/* The number of a pool's connections: growth, PgPoolMin, idle time, lifetime. */
#include "stage.h"

static int connecting(stage *s)
{
    return slots(s, PGP_CONNECTING);
}

/* --- Min -------------------------------------------------------------------- */

START_TEST(min_is_made_at_the_start)
{
    stage *s = stage_set("PgPoolMin 3", "PgPoolMax 5", NULL);

    s->world->plan.takes = PGP_MS(10);
    work(s);
    ck_assert_int_eq(connecting(s), 1); /* one at a time, since nobody waits */
    keep(s, PGP_MS(30));
    ck_assert_int_eq(idle(s), 3);
    keep(s, PGP_SEC(60));
    ck_assert_int_eq(s->world->opened, 3);
    ck_assert_int_eq(fake_logged(s->world, "PGP1001: pool main, backend 1001: connected"), 1);
}
END_TEST

START_TEST(min_is_refilled)
{
    stage *s = stage_set("PgPoolMin 2", "PgPoolMax 2", NULL);
    pgp_slot *conn;

    work(s);
    conn = acquire(s);
    pgp_pool_discard(&conn, PGP_REASON_LOST);
    work(s);
    ck_assert_int_eq(idle(s), 2);
    ck_assert_int_eq(s->world->opened, 3);
}
END_TEST

START_TEST(no_connection_without_min_or_demand)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", NULL);

    keep(s, PGP_SEC(10));
    ck_assert_int_eq(s->world->opened, 0);
}
END_TEST

/* --- growth ----------------------------------------------------------------- */

/* A pool whose attempts to connect take this long, and n borrowers that wait. */
static stage *slow_with_waiters(apr_interval_time_t takes, int n, borrower **b)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 6", "PgPoolAcquireTimeout 5s",
                         "PgPoolConnectTimeout 5s", NULL);
    int i;

    s->world->plan.takes = takes;
    for (i = 0; i < n; i++)
        b[i] = queue_up(s);
    work(s);
    return s;
}

START_TEST(one_more_connect_for_each_step)
{
    borrower *b[5];
    stage *s = slow_with_waiters(PGP_SEC(3), 5, b);
    int i;

    ck_assert_int_eq(connecting(s), 1);
    for (i = 2; i <= 5; i++) {
        keep(s, PGP_MS(50) - 1);
        ck_assert_int_eq(connecting(s), i - 1);
        keep(s, 1);
        ck_assert_int_eq(connecting(s), i);
    }
    keep(s, PGP_SEC(3));
    ck_assert_int_eq(s->world->opened, 5); /* one for each waiter, no more */
    for (i = 0; i < 5; i++)
        granted(b[i]);
}
END_TEST

START_TEST(no_growth_when_the_demand_is_gone)
{
    borrower *b[2];
    stage *s = slow_with_waiters(PGP_MS(20), 2, b);
    int i;

    for (i = 0; i < 2; i++) {
        keep(s, PGP_MS(20));
        granted(b[i]);
    }
    s->world->plan.takes = PGP_SEC(3);
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(s->world->opened, 2);
}
END_TEST

/* The age of the demand counts from the first wait since the queue was last empty. */
START_TEST(growth_begins_anew)
{
    borrower *b[2];
    stage *s = slow_with_waiters(PGP_MS(300), 2, b);
    int i;

    keep(s, PGP_MS(350));
    for (i = 0; i < 2; i++)
        release(granted(b[i]));
    keep(s, PGP_SEC(10));
    acquire(s);
    acquire(s);
    for (i = 0; i < 2; i++)
        b[i] = queue_up(s);
    work(s);
    ck_assert_int_eq(connecting(s), 1);
    keep(s, PGP_MS(350));
    granted(b[0]);
    granted(b[1]);
}
END_TEST

START_TEST(never_more_than_max)
{
    stage *s = stage_set("PgPoolMin 2", "PgPoolMax 2", NULL);
    borrower *b[5];
    pgp_slot *conn;
    int i;

    for (i = 0; i < 5; i++)
        b[i] = queue_up(s);
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(s->world->opened, 2);
    ck_assert_int_eq(waiting(s), 3);
    for (i = 0; i < 3; i++) {
        conn = granted(b[i]);
        release(conn);
    }
    conn = granted(b[3]);
    release(conn);
    granted(b[4]);
    ck_assert_int_eq(s->world->opened, 2);
}
END_TEST

START_TEST(slow_connect_delays_nobody)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", "PgPoolConnectTimeout 5s", NULL);
    pgp_slot *conn;
    borrower *b;
    int i;

    warm(s, 1);
    s->world->plan.takes = PGP_SEC(3);
    conn = acquire(s);
    b = queue_up(s);
    work(s);
    ck_assert_int_eq(connecting(s), 1);
    release(conn);
    conn = granted(b);
    ck_assert_int_eq(number(conn), 1);
    for (i = 0; i < 100; i++) { /* callers that come during the connect do not wait for it */
        release(conn);
        keep(s, PGP_MS(20));
        conn = acquire(s);
    }
    ck_assert_int_eq(connecting(s), 1);
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(idle(s), 1); /* nobody waits for it any more, so it is parked */
    ck_assert_int_eq(number(acquire(s)), 2);
}
END_TEST

START_TEST(new_connection_goes_to_the_oldest_waiter)
{
    borrower *b[3];
    stage *s = slow_with_waiters(PGP_MS(30), 3, b);

    keep(s, PGP_MS(30));
    ck_assert_int_eq(waiting(s), 2);
    ck_assert_int_eq(number(granted(b[0])), 1);
    keep(s, PGP_MS(30));
    ck_assert_int_eq(number(granted(b[1])), 2);
    keep(s, PGP_MS(30));
    ck_assert_int_eq(number(granted(b[2])), 3);
}
END_TEST

/* --- callers that do not wait ----------------------------------------------- */

START_TEST(refused_demand_is_met_for_the_next_caller)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", "PgPoolAcquireTimeout 0", NULL);
    pgp_acquire_info info;

    refused(s, &info);
    refused(s, &info);
    work(s);
    ck_assert_int_eq(s->world->opened, 1);
    acquire(s);
    ck_assert_int_eq(refused(s, &info), PGP_EXHAUSTED);
    work(s);
    acquire(s);
    ck_assert_int_eq(refused(s, &info), PGP_EXHAUSTED);
    keep(s, PGP_SEC(2));
    ck_assert_int_eq(s->world->opened, 2);
}
END_TEST

START_TEST(refused_demand_wakes_the_keeper_once)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", "PgPoolAcquireTimeout 0", NULL);
    pgp_acquire_info info;

    refused(s, &info);
    ck_assert(atomic_exchange(&s->keeper->woken, 0));
    refused(s, &info);
    ck_assert(!atomic_load(&s->keeper->woken));
}
END_TEST

/* The slot of the dead connection is not free yet when the keeper looks at the demand. */
START_TEST(refused_demand_lasts_until_a_slot_is_free)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolAcquireTimeout 0", NULL);
    pgp_acquire_info info;

    refused(s, &info);
    work(s);
    fake_connection(s->world, 1)->idle = PGP_IDLE_DEAD;
    refused(s, &info);
    work(s);
    ck_assert_int_eq(number(acquire(s)), 2);
}
END_TEST

/* The deadline of the acquire has passed before it could wait.  It wakes the keeper all the
 * same. */
START_TEST(refused_demand_of_a_late_acquire)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_acquire_info info = {.until = 1}; /* long ago */
    pgp_slot *conn;

    work(s);
    ck_assert_int_eq(pgp_pool_acquire(s->pool, &conn, &info), PGP_UNAVAILABLE);
    work(s);
    ck_assert_int_eq(number(acquire(s)), 1);
}
END_TEST

/* --- idle time -------------------------------------------------------------- */

START_TEST(idle_connections_are_closed_down_to_min)
{
    stage *s = stage_set("PgPoolMin 2", "PgPoolMax 5", "PgPoolMaxLifetime 0", NULL);

    warm(s, 5);
    keep(s, PGP_SEC(299));
    ck_assert_int_eq(idle(s), 5);
    keep(s, PGP_SEC(2)); /* the keeper looks at idle connections once a second */
    ck_assert_int_eq(idle(s), 2);
    keep(s, PGP_SEC(9000));
    ck_assert_int_eq(idle(s), 2);
    ck_assert_int_eq(fake_logged(s->world, "closed (idle)"), 3);
    ck_assert_int_eq(number(acquire(s)), 5); /* those that were idle longest are closed */
    ck_assert_int_eq(number(acquire(s)), 4);
}
END_TEST

START_TEST(connection_in_use_is_not_idle)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 3", "PgPoolMaxLifetime 0", NULL);
    pgp_slot *conn;
    int i;

    warm(s, 3);
    conn = acquire(s);
    for (i = 0; i < 10; i++) {
        keep(s, PGP_SEC(60));
        release(acquire(s));
    }
    ck_assert_int_eq(idle(s), 1);
    ck_assert(fake_connection(s->world, 1)->closed);
    ck_assert_int_eq(number(conn), 3);
    release(conn);
    keep(s, PGP_SEC(299));
    ck_assert_int_eq(idle(s), 2);
}
END_TEST

START_TEST(connections_in_use_count_for_min)
{
    stage *s = stage_set("PgPoolMin 2", "PgPoolMax 4", "PgPoolMaxLifetime 0", NULL);

    warm(s, 4);
    acquire(s);
    acquire(s);
    keep(s, PGP_SEC(301));
    ck_assert_int_eq(idle(s), 0);
    ck_assert_int_eq(lent(s), 2);
}
END_TEST

START_TEST(idle_for_ever)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 3", "PgPoolIdleTimeout 0",
                         "PgPoolMaxLifetime 0", NULL);

    warm(s, 3);
    keep(s, PGP_SEC(9000));
    ck_assert_int_eq(idle(s), 3);
}
END_TEST

/* --- lifetime --------------------------------------------------------------- */

START_TEST(old_connection_is_closed_while_idle)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 2", "PgPoolMaxLifetime 100s", NULL);

    s->world->random = 0; /* no jitter */
    work(s);
    keep(s, PGP_SEC(99));
    ck_assert_int_eq(number(acquire(s)), 1);
    s = stage_set("PgPoolMin 1", "PgPoolMax 2", "PgPoolMaxLifetime 100s", NULL);
    s->world->random = 0;
    work(s);
    keep(s, PGP_SEC(102));
    ck_assert_int_eq(fake_logged(s->world, "closed (lifetime)"), 1);
    ck_assert_int_eq(number(acquire(s)), 2); /* PgPoolMin is refilled */
}
END_TEST

START_TEST(old_connection_is_closed_on_return)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", "PgPoolMaxLifetime 100s", NULL);
    pgp_slot *conn;

    s->world->random = 0;
    warm(s, 1);
    conn = acquire(s);
    keep(s, PGP_SEC(100) - 1);
    release(conn);
    ck_assert_int_eq(idle(s), 1);
    conn = acquire(s);
    keep(s, 1);
    release(conn);
    ck_assert_int_eq(slots(s, PGP_CLOSING), 1);
    work(s);
    ck_assert_int_eq(fake_logged(s->world, "closed (lifetime)"), 1);
}
END_TEST

/* The waiter gets a new connection. */
START_TEST(old_connection_is_not_handed_over)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolMaxLifetime 100s", NULL);
    pgp_slot *conn;
    borrower *b;

    s->world->random = 0;
    warm(s, 1);
    conn = acquire(s);
    keep(s, PGP_SEC(100));
    b = queue_up(s);
    release(conn);
    work(s);
    ck_assert_int_eq(number(granted(b)), 2);
}
END_TEST

START_TEST(lifetimes_differ_by_chance)
{
    stage *s = stage_set("PgPoolMin 2", "PgPoolMax 2", "PgPoolMaxLifetime 100s", NULL);
    pgp_slot *conn;

    s->world->random = 0;
    pgp_keeper_round(s->keeper->keeper); /* reserves and begins */
    work(s);
    conn = acquire(s);
    ck_assert_int_eq(conn->expires, s->world->now + PGP_SEC(100));
    s->world->random = UINT32_MAX;
    pgp_pool_discard(&conn, PGP_REASON_HOOK);
    work(s);
    conn = acquire(s);
    ck_assert_int_eq(number(conn), 3);
    ck_assert_int_lt(conn->expires, s->world->now + PGP_MS(80001));
}
END_TEST

START_TEST(no_lifetime)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 2", "PgPoolMaxLifetime 0", NULL);

    work(s);
    keep(s, PGP_SEC(9000));
    ck_assert_int_eq(number(acquire(s)), 1);
}
END_TEST

/* While no new connection can be made, an old one is better than none. */
START_TEST(old_connections_stay_while_connects_fail)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 2", "PgPoolMaxLifetime 100s", NULL);
    pgp_slot *conn, *other;
    borrower *b;

    s->world->random = 0;
    work(s);
    conn = acquire(s);
    keep(s, PGP_SEC(99));
    s->world->random = 1u << 31;
    s->world->plan.end = FAKE_FAILS;
    b = queue_up(s);
    keep(s, PGP_MS(1500));
    release(conn);
    conn = granted(b);
    keep(s, PGP_SEC(1));
    release(conn);
    ck_assert_int_eq(idle(s), 1);
    keep(s, PGP_SEC(20));
    ck_assert_int_eq(idle(s), 1);
    s->world->plan.end = FAKE_DONE;
    keep(s, PGP_SEC(20));
    ck_assert_int_eq(fake_logged(s->world, "backend 1001: closed (lifetime)"), 1);
    other = acquire(s);
    ck_assert_int_gt(number(other), 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool_size");
    TCase *t = tcase(suite, "min");

    tcase_add_test(t, min_is_made_at_the_start);
    tcase_add_test(t, min_is_refilled);
    tcase_add_test(t, no_connection_without_min_or_demand);
    t = tcase(suite, "growth");
    tcase_add_test(t, one_more_connect_for_each_step);
    tcase_add_test(t, no_growth_when_the_demand_is_gone);
    tcase_add_test(t, growth_begins_anew);
    tcase_add_test(t, never_more_than_max);
    tcase_add_test(t, slow_connect_delays_nobody);
    tcase_add_test(t, new_connection_goes_to_the_oldest_waiter);
    t = tcase(suite, "refused_demand");
    tcase_add_test(t, refused_demand_is_met_for_the_next_caller);
    tcase_add_test(t, refused_demand_wakes_the_keeper_once);
    tcase_add_test(t, refused_demand_lasts_until_a_slot_is_free);
    tcase_add_test(t, refused_demand_of_a_late_acquire);
    t = tcase(suite, "idle");
    tcase_add_test(t, idle_connections_are_closed_down_to_min);
    tcase_add_test(t, connection_in_use_is_not_idle);
    tcase_add_test(t, connections_in_use_count_for_min);
    tcase_add_test(t, idle_for_ever);
    t = tcase(suite, "lifetime");
    tcase_add_test(t, old_connection_is_closed_while_idle);
    tcase_add_test(t, old_connection_is_closed_on_return);
    tcase_add_test(t, old_connection_is_not_handed_over);
    tcase_add_test(t, lifetimes_differ_by_chance);
    tcase_add_test(t, no_lifetime);
    tcase_add_test(t, old_connections_stay_while_connects_fail);
    return suite_run(suite);
}
