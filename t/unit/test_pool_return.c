/* A returned connection is clean, or the keeper cleans it up or closes it. */
#include "stage.h"

/* Lend the only connection of a pool.  Its return will have this result. */
static pgp_slot *lent_one(stage **s, pgp_return returned)
{
    pgp_slot *conn;

    *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    warm(*s, 1);
    conn = acquire(*s);
    fake_link_of(conn)->returned = returned;
    return conn;
}

START_TEST(clean_connection_is_idle_at_once)
{
    stage *s;
    pgp_slot *conn = lent_one(&s, PGP_RETURN_CLEAN);

    work(s);
    release(conn);
    ck_assert_int_eq(idle(s), 1);
    ck_assert(!atomic_load(&s->keeper->woken)); /* the keeper has nothing to do */
}
END_TEST

START_TEST(broken_connection_is_closed)
{
    stage *s;

    release(lent_one(&s, PGP_RETURN_BROKEN));
    ck_assert_int_eq(slots(s, PGP_CLOSING), 1);
    work(s);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
    ck_assert_int_eq(fake_logged(s->world, "closed (lost)"), 1);
}
END_TEST

START_TEST(unknown_connection_is_closed)
{
    stage *s;

    release(lent_one(&s, PGP_RETURN_UNKNOWN));
    work(s);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
    ck_assert_int_eq(fake_logged(s->world, "closed (unknown)"), 1);
}
END_TEST

START_TEST(large_connection_is_closed)
{
    stage *s;

    release(lent_one(&s, PGP_RETURN_LARGE));
    work(s);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
    ck_assert_int_eq(fake_logged(s->world, "closed (large)"), 1);
}
END_TEST

/* The results of finish_lease() after a clean-up for which a connection is closed. */
static const struct {
    pgp_return returned;
    const char *closed;
} after_cleaning[] = {
    {PGP_RETURN_LARGE, "closed (large)"},
    {PGP_RETURN_BROKEN, "closed (lost)"},
    {PGP_RETURN_UNKNOWN, "closed (unknown)"},
    {PGP_RETURN_DIRTY, "closed (unclean)"},
};

START_TEST(cleaned_connection_is_checked_again)
{
    stage *s;
    pgp_slot *conn = lent_one(&s, PGP_RETURN_DIRTY);

    fake_link_of(conn)->cleaned = after_cleaning[_i].returned;
    release(conn);
    work(s);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
    ck_assert_int_eq(fake_logged(s->world, after_cleaning[_i].closed), 1);
}
END_TEST

/* PgPoolReset close: each returned connection is closed and replaced.  A dirty one is cleaned
 * up before. */
START_TEST(reset_close_closes_at_each_return)
{
    static const pgp_return left[] = {PGP_RETURN_CLEAN, PGP_RETURN_DIRTY};
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", "PgPoolReset close", NULL);
    pgp_slot *conn;

    work(s);
    conn = acquire(s);
    fake_link_of(conn)->returned = left[_i];
    release(conn);
    work(s);
    ck_assert_int_eq(fake_connection(s->world, 1)->cleanings, _i);
    ck_assert_int_eq(fake_logged(s->world, "closed (reset)"), 1);
    ck_assert_int_eq(number(acquire(s)), 2);
}
END_TEST

START_TEST(discarded_connection_is_closed)
{
    stage *s;
    pgp_slot *conn = lent_one(&s, PGP_RETURN_CLEAN);

    pgp_pool_discard(&conn, PGP_REASON_HOOK);
    ck_assert_ptr_null(conn);
    work(s);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
    ck_assert_int_eq(fake_logged(s->world, "closed (hook)"), 1);
}
END_TEST

/* The slot is free at once; the connection stays until the caller destroys it. */
START_TEST(detached_connection_is_destroyed_later)
{
    stage *s;
    pgp_slot *conn = lent_one(&s, PGP_RETURN_CLEAN);
    pgp_connection *connection = pgp_pool_detach(&conn);

    ck_assert_ptr_null(conn);
    work(s);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
    ck_assert_int_eq(fake_open(s->world), 1);
    ck_assert_int_eq(fake_logged(s->world, "closed (lost)"), 1);
    s->world->lingers = 1;
    pgp_pool_destroy_detached(s->pool, &connection);
    ck_assert_ptr_null(connection);
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

START_TEST(detach_after_the_keeper_has_left)
{
    stage *s;
    pgp_slot *conn = lent_one(&s, PGP_RETURN_CLEAN);
    pgp_connection *connection;

    stop(s);
    connection = pgp_pool_detach(&conn);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
    pgp_pool_destroy_detached(s->pool, &connection);
    ck_assert_int_eq(fake_open(s->world), 0);
}
END_TEST

/* --- cleaning up ------------------------------------------------------------ */

START_TEST(dirty_connection_is_cleaned_by_the_keeper)
{
    stage *s;
    pgp_slot *conn = lent_one(&s, PGP_RETURN_DIRTY);
    pgp_acquire_info info;

    fake_link_of(conn)->cleaning.takes = PGP_MS(300);
    release(conn);
    ck_assert_int_eq(slots(s, PGP_CLEANING), 1);
    fake_hasten(PGP_SEC(2));
    ck_assert_int_eq(refused(s, &info), PGP_EXHAUSTED); /* not lent meanwhile */
    keep(s, PGP_MS(299));
    ck_assert_int_eq(slots(s, PGP_CLEANING), 1);
    keep(s, PGP_MS(1));
    work(s);
    ck_assert_int_eq(idle(s), 1);
    ck_assert_int_eq(fake_connection(s->world, 1)->cleanings, 1);
    ck_assert_int_eq(
        fake_logged(s->world, "PGP1007: pool main, backend 1001: came back with work open"), 1);
    release(acquire(s));
    ck_assert_int_eq(idle(s), 1);
    ck_assert_int_eq(s->world->closed, 0);
}
END_TEST

START_TEST(cleaned_connection_goes_to_a_waiter)
{
    stage *s;
    pgp_slot *conn = lent_one(&s, PGP_RETURN_DIRTY);
    borrower *b = queue_up(s);

    fake_link_of(conn)->cleaning.takes = PGP_MS(300);
    release(conn);
    ck_assert_int_eq(waiting(s), 1);
    keep(s, PGP_MS(300));
    work(s);
    release(granted(b));
}
END_TEST

START_TEST(connection_that_cannot_be_cleaned_is_closed)
{
    stage *s;
    pgp_slot *conn = lent_one(&s, PGP_RETURN_DIRTY);

    fake_link_of(conn)->cleaning.end = FAKE_FAILS;
    release(conn);
    work(s);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
    ck_assert_int_eq(fake_logged(s->world,
                                 "PGP1006: pool main, backend 1001: could not be cleaned up: "
                                 "the fake clean-up failed"),
                     1);
    ck_assert_int_eq(fake_logged(s->world, "closed (unclean)"), 1);
}
END_TEST

START_TEST(cleaning_has_a_deadline)
{
    stage *s;
    pgp_slot *conn = lent_one(&s, PGP_RETURN_DIRTY);

    fake_link_of(conn)->cleaning.end = FAKE_HANGS;
    keep(s, PGP_MS(300));
    release(conn);
    keep(s, PGP_SEC(1) - 1);
    ck_assert_int_eq(slots(s, PGP_CLEANING), 1);
    keep(s, 1);
    work(s);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
    ck_assert_int_eq(fake_logged(s->world, "could not be cleaned up: no answer from the server "
                                           "within PgPoolCheckTimeout (1000 ms)"),
                     1);
}
END_TEST

START_TEST(cleaning_delays_nobody)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", NULL);
    pgp_slot *dirty, *clean;
    borrower *b;

    warm(s, 2);
    dirty = acquire(s);
    clean = acquire(s);
    b = queue_up(s);
    fake_link_of(dirty)->returned = PGP_RETURN_DIRTY;
    fake_link_of(dirty)->cleaning.end = FAKE_HANGS;
    release(dirty);
    work(s);
    release(clean);
    release(granted(b));
    release(acquire(s));
    ck_assert_int_eq(slots(s, PGP_CLEANING), 1);
}
END_TEST

START_TEST(waiter_gets_a_new_connection_if_the_clean_up_hangs)
{
    stage *s;
    pgp_slot *conn = lent_one(&s, PGP_RETURN_DIRTY);
    borrower *b = queue_up(s);

    fake_link_of(conn)->cleaning.end = FAKE_HANGS;
    release(conn);
    keep(s, PGP_SEC(1));
    work(s);
    ck_assert_int_eq(number(granted(b)), 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool_return");
    TCase *t = tcase(suite, "return");

    tcase_add_test(t, clean_connection_is_idle_at_once);
    tcase_add_test(t, broken_connection_is_closed);
    tcase_add_test(t, unknown_connection_is_closed);
    tcase_add_test(t, large_connection_is_closed);
    tcase_add_loop_test(t, reset_close_closes_at_each_return, 0, 2);
    tcase_add_test(t, discarded_connection_is_closed);
    tcase_add_test(t, detached_connection_is_destroyed_later);
    tcase_add_test(t, detach_after_the_keeper_has_left);
    t = tcase(suite, "cleaning");
    tcase_add_test(t, dirty_connection_is_cleaned_by_the_keeper);
    tcase_add_test(t, cleaned_connection_goes_to_a_waiter);
    tcase_add_loop_test(t, cleaned_connection_is_checked_again, 0, LENGTH(after_cleaning));
    tcase_add_test(t, connection_that_cannot_be_cleaned_is_closed);
    tcase_add_test(t, cleaning_has_a_deadline);
    tcase_add_test(t, cleaning_delays_nobody);
    tcase_add_test(t, waiter_gets_a_new_connection_if_the_clean_up_hangs);
    return suite_run(suite);
}
