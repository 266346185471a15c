/* The end of a pool: draining, stopping, and borrowers that come late. */
#include "stage.h"

/* --- draining --------------------------------------------------------------- */

START_TEST(drained_pool_keeps_nothing_idle)
{
    stage *s = stage_set("PgPoolMin 2", "PgPoolMax 4", NULL);
    pgp_slot *conn;

    warm(s, 4);
    conn = acquire(s);
    enter_phase(s, PGP_DRAINING);
    ck_assert_int_eq(idle(s), 0);
    ck_assert_int_eq(fake_open(s->world), 1);
    release(conn);
    work(s);
    ck_assert_int_eq(fake_open(s->world), 0);
    ck_assert_int_eq(fake_logged(s->world, "closed (stop)"), 4);
    keep(s, PGP_SEC(60));
    ck_assert_int_eq(s->world->opened, 4); /* Min does not count any more */
}
END_TEST

START_TEST(drained_pool_serves_on)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    borrower *a, *b;
    pgp_slot *conn;

    enter_phase(s, PGP_DRAINING);
    a = queue_up(s);
    work(s);
    conn = granted(a);
    b = queue_up(s);
    release(conn);
    conn = granted(b); /* the same connection, handed over */
    ck_assert_int_eq(number(conn), 1);
    release(conn);
    work(s);
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

START_TEST(drained_pool_parks_nothing)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", NULL);
    pgp_slot *conn;
    borrower *b;

    warm(s, 1);
    s->world->plan.takes = PGP_SEC(1);
    conn = acquire(s);
    b = queue_up(s);
    work(s);
    enter_phase(s, PGP_DRAINING);
    release(conn);
    conn = granted(b);
    fake_link_of(conn)->returned = PGP_RETURN_DIRTY;
    release(conn);
    keep(s, PGP_SEC(2));
    ck_assert_int_eq(s->world->opened, 2);
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

/* --- stopping --------------------------------------------------------------- */

START_TEST(stop_ends_all_waits)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    borrower *a, *b;
    pgp_slot *conn;
    pgp_acquire_info info;

    warm(s, 1);
    conn = acquire(s);
    a = queue_up(s);
    b = queue_up(s);
    enter_phase(s, PGP_STOPPED);
    answered(a, PGP_STOPPING);
    answered(b, PGP_STOPPING);
    ck_assert_str_eq(a->info.error.message, "this child is stopping");
    ck_assert_int_eq(refused(s, &info), PGP_STOPPING);
    ck_assert_str_eq(info.error.message, "this child is stopping");
    release(conn);
}
END_TEST

/* The outage is not given as the cause. */
START_TEST(stop_is_the_cause_that_callers_get)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    borrower *b;

    s->world->plan = (fake_plan){.end = FAKE_FAILS, .sqlstate = "53300"};
    work(s);
    b = queue_up(s);
    enter_phase(s, PGP_STOPPED);
    answered(b, PGP_STOPPING);
    ck_assert_str_eq(b->info.error.message, "this child is stopping");
    ck_assert_str_eq(b->info.error.sqlstate, "");
}
END_TEST

START_TEST(stop_closes_all_that_is_not_in_use)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 4", NULL);
    pgp_slot *dirty, *lent_one;
    borrower *b;

    warm(s, 3);
    dirty = acquire(s);
    lent_one = acquire(s);
    fake_link_of(dirty)->returned = PGP_RETURN_DIRTY;
    fake_link_of(dirty)->cleaning.end = FAKE_HANGS;
    release(dirty);
    release(acquire(s));
    s->world->plan.end = FAKE_HANGS;
    acquire(s);
    b = queue_up(s);
    work(s);
    ck_assert_int_eq(slots(s, PGP_CONNECTING), 1);
    ck_assert_int_eq(slots(s, PGP_CLEANING), 1);
    ck_assert_int_eq(lent(s), 2);
    enter_phase(s, PGP_STOPPED);
    answered(b, PGP_STOPPING);
    ck_assert_int_eq(fake_open(s->world), 2);
    ck_assert_int_eq(slots(s, PGP_FREE), 2);
    release(lent_one);
    work(s);
    ck_assert_int_eq(fake_open(s->world), 1);
}
END_TEST

START_TEST(keeper_cannot_leave_before_all_is_closed)
{
    stage *s = stage_set("PgPoolMin 2", "PgPoolMax 2", NULL);
    pgp_slot *conn;

    work(s);
    conn = acquire(s);
    ck_assert(!pgp_pool_leave(s->pool)); /* it is not even stopped */
    pgp_pool_enter_phase(s->pool, PGP_STOPPED);
    ck_assert(!pgp_pool_leave(s->pool)); /* a slot is CLOSING */
    work(s);
    enter_phase(s, PGP_STOPPED);
    fake_link_of(conn)->returned = PGP_RETURN_DIRTY;
    release(conn);
    ck_assert(!pgp_pool_leave(s->pool)); /* a slot is CLEANING */
    work(s);
    ck_assert(pgp_pool_leave(s->pool));
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

/* A dirty connection comes back after the stop, but before the keeper leaves the pool. */
START_TEST(return_between_stop_and_leave)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_slot *conn, *in_hand[1];

    work(s);
    conn = acquire(s);
    fake_link_of(conn)->returned = PGP_RETURN_DIRTY;
    pgp_pool_enter_phase(s->pool, PGP_STOPPED);
    release(conn);
    ck_assert_int_eq(pgp_pool_list_pending(s->pool, in_hand), 1);
    ck_assert_int_eq(pgp_slot_step(in_hand[0]), 1);
    ck_assert_int_eq(slots(s, PGP_CLOSING), 1);
    ck_assert_int_eq(idle(s), 0);
}
END_TEST

/* --- late ------------------------------------------------------------------- */

/* After the keeper has left the pool, a borrower closes the connection that it returns. */
static void closed_by_its_borrower(pgp_return returned)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_slot *conn;

    work(s);
    conn = acquire(s);
    fake_link_of(conn)->returned = returned;
    stop(s);
    ck_assert_int_eq(fake_open(s->world), 1);
    release(conn);
    ck_assert_int_eq(fake_open(s->world), 0);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
}

START_TEST(late_return)
{
    closed_by_its_borrower(PGP_RETURN_CLEAN);
    closed_by_its_borrower(PGP_RETURN_DIRTY);
    closed_by_its_borrower(PGP_RETURN_BROKEN);
    closed_by_its_borrower(PGP_RETURN_UNKNOWN);
}
END_TEST

START_TEST(late_discard)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_slot *conn;

    work(s);
    conn = acquire(s);
    stop(s);
    pgp_pool_discard(&conn, PGP_REASON_HOOK);
    ck_assert_int_eq(fake_open(s->world), 0);
    ck_assert_int_eq(fake_logged(s->world, "closed (hook)"), 1);
}
END_TEST

START_TEST(late_acquire)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_acquire_info info;

    work(s);
    stop(s);
    ck_assert_int_eq(refused(s, &info), PGP_STOPPING);
}
END_TEST

/* The keeper may go on with its other pools while a late borrower closes. */
static void keeper_looks(fake *world, pgp_connection *connection)
{
    pgp_slot *in_hand[1];

    ck_assert_int_eq(pgp_pool_list_pending(world->baton, in_hand), 0);
}

START_TEST(keeper_does_not_touch_a_pool_that_it_has_left)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_slot *conn;

    work(s);
    conn = acquire(s);
    stop(s);
    s->world->baton = s->pool;
    s->world->on_close = keeper_looks;
    release(conn);
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

START_TEST(no_phase_comes_twice)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_acquire_info info;

    work(s);
    stop(s);
    pgp_pool_enter_phase(s->pool, PGP_DRAINING);
    ck_assert_int_eq(refused(s, &info), PGP_STOPPING);
    work(s);
    ck_assert_int_eq(s->world->opened, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool_stop");
    TCase *t = tcase(suite, "drain");

    tcase_add_test(t, drained_pool_keeps_nothing_idle);
    tcase_add_test(t, drained_pool_serves_on);
    tcase_add_test(t, drained_pool_parks_nothing);
    t = tcase(suite, "stop");
    tcase_add_test(t, stop_ends_all_waits);
    tcase_add_test(t, stop_is_the_cause_that_callers_get);
    tcase_add_test(t, stop_closes_all_that_is_not_in_use);
    tcase_add_test(t, keeper_cannot_leave_before_all_is_closed);
    tcase_add_test(t, return_between_stop_and_leave);
    t = tcase(suite, "late");
    tcase_add_test(t, late_return);
    tcase_add_test(t, late_discard);
    tcase_add_test(t, late_acquire);
    tcase_add_test(t, keeper_does_not_touch_a_pool_that_it_has_left);
    tcase_add_test(t, no_phase_comes_twice);
    return suite_run(suite);
}
