/* The server cannot be reached, or rejects us: which callers wait, which are refused, and when
 * the pool tries again. */
#include "stage.h"

/* Attempts to connect fail with this SQLSTATE from now on. */
static void go_down(stage *s, const char *sqlstate)
{
    s->world->plan = (fake_plan){.end = FAKE_FAILS, .sqlstate = sqlstate};
}

static void come_up(stage *s)
{
    s->world->plan = (fake_plan){.end = FAKE_DONE};
}

/* The server is down for longer than any caller may wait, and says why (a SQLSTATE). */
static stage *down_for_long(void)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", NULL);

    go_down(s, "53300");
    keep(s, PGP_SEC(8));
    return s;
}

/* Nothing listens for so long that the next attempt is far away.  No request came meanwhile. */
static stage *long_absent(void)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", "PgPoolRetry 100ms 1h", NULL);

    s->world->random = 0xffffffff;
    s->world->plan = (fake_plan){.end = FAKE_FAILS, .absent = 1};
    keep(s, PGP_SEC(60));
    return s;
}

/* --- short outages: callers wait -------------------------------------------- */

START_TEST(short_outage_fails_nobody)
{
    stage *s = stage_set("PgPoolMin 2", "PgPoolMax 2", NULL);
    borrower *b[3];
    int i;

    work(s);
    go_down(s, "");
    fake_connection(s->world, 1)->idle = fake_connection(s->world, 2)->idle = PGP_IDLE_DEAD;
    for (i = 0; i < 3; i++)
        b[i] = queue_up(s);
    keep(s, PGP_MS(1500));
    ck_assert_int_gt(s->world->failed, 2);
    ck_assert_int_eq(waiting(s), 3);
    come_up(s);
    keep(s, PGP_MS(499));
    release(granted(b[0]));
    release(granted(b[1]));
    release(granted(b[2]));
    ck_assert_int_eq(fake_logged(s->world, "PGP1008: pool main: the server answers again "), 1);
}
END_TEST

START_TEST(wait_in_an_outage_ends_with_its_cause)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", NULL);
    borrower *b;

    go_down(s, "53300");
    b = queue_up(s);
    keep(s, PGP_SEC(2));
    answered(b, PGP_UNAVAILABLE);
    ck_assert_int_eq(b->info.waited, PGP_SEC(2));
    ck_assert_str_eq(b->info.error.sqlstate, "53300");
    ck_assert_str_eq(b->info.error.message, "the fake connect failed");
}
END_TEST

/* One connection is in use, the server makes no other, and a borrower waits. */
static borrower *wait_for_one_lent(stage *s, pgp_slot **conn, const char *sqlstate)
{
    warm(s, 1);
    *conn = acquire(s);
    go_down(s, sqlstate);
    return queue_up(s);
}

/* Waiting is futile only when PgPoolAcquireTimeout has passed since the last usable connection
 * was lost, however long the outage has lasted. */
START_TEST(wait_begins_anew_when_the_last_connection_is_lost)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", NULL);
    pgp_slot *conn;
    borrower *b = wait_for_one_lent(s, &conn, "53300");

    keep(s, PGP_SEC(9));
    answered(b, PGP_EXHAUSTED);
    pgp_pool_discard(&conn, PGP_REASON_LOST);
    work(s);
    b = queue_up(s);
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(waiting(s), 1);
    keep(s, PGP_SEC(1));
    answered(b, PGP_UNAVAILABLE);
}
END_TEST

/* A connection in use may come back in time. */
START_TEST(waiting_is_not_futile_while_a_connection_is_in_use)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", NULL);
    pgp_slot *conn;
    borrower *b = wait_for_one_lent(s, &conn, "28P01");

    keep(s, PGP_SEC(1));
    ck_assert_int_eq(waiting(s), 1);
    release(conn);
    conn = granted(b);
    keep(s, PGP_SEC(9));
    b = queue_up(s);
    keep(s, PGP_SEC(2));
    answered(b, PGP_EXHAUSTED);
    ck_assert_str_eq(b->info.error.sqlstate, "28P01"); /* why there are no more */
}
END_TEST

/* --- long outages: callers are refused at once ------------------------------ */

START_TEST(refused_at_once_when_waiting_is_futile)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", "PgPoolRetry 100ms 200ms", NULL);
    pgp_acquire_info info;
    borrower *b;

    go_down(s, "53300");
    keep(s, PGP_SEC(1));
    b = queue_up(s);
    keep(s, PGP_MS(1200)); /* with the second before, longer than PgPoolAcquireTimeout */
    answered(b, PGP_UNAVAILABLE);
    ck_assert_int_lt(b->info.waited, PGP_SEC(2));
    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE);
    ck_assert_int_eq(info.waited, 0);
    ck_assert_str_eq(info.error.sqlstate, "53300");
    ck_assert_str_eq(info.error.message, "the fake connect failed");
}
END_TEST

START_TEST(first_success_serves_all_callers)
{
    stage *s = down_for_long();
    pgp_acquire_info info;
    borrower *b;

    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE);
    come_up(s);
    keep(s, PGP_SEC(5)); /* the greatest wait between two attempts */
    ck_assert_int_eq(idle(s), 1);
    release(acquire(s));
    ck_assert_int_eq(number(acquire(s)), s->world->opened);
    b = queue_up(s); /* callers wait again */
    work(s);
    release(granted(b));
}
END_TEST

START_TEST(recovery_is_logged_once)
{
    stage *s = down_for_long();

    come_up(s);
    keep(s, PGP_SEC(60));
    ck_assert_int_eq(fake_logged(s->world, "PGP1008"), 1);
    ck_assert_int_eq(fake_logged(s->world, "PGP1002: pool main: cannot connect: the fake "
                                           "connect failed; trying again in "),
                     s->world->failed);
}
END_TEST

/* An old failure must not make a new outage look like a long one. */
START_TEST(each_outage_has_its_own_beginning)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 4", NULL);
    pgp_slot *conn;
    borrower *b;

    warm(s, 1);
    conn = acquire(s);
    go_down(s, "53300");
    b = queue_up(s);
    work(s);
    release(conn);
    release(granted(b));
    come_up(s);
    keep(s, PGP_SEC(10)); /* the pool tries again although no caller waits */
    ck_assert_int_eq(fake_logged(s->world, "PGP1008"), 1);
    while (idle(s) > 0) {
        conn = acquire(s);
        pgp_pool_discard(&conn, PGP_REASON_LOST);
    }
    go_down(s, "");
    b = queue_up(s);
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(waiting(s), 1);
    come_up(s);
    keep(s, PGP_MS(999));
    release(granted(b));
}
END_TEST

/* --- rejections ------------------------------------------------------------- */

static const char *const rejections[] = {"28P01", "28000", "3D000"};

START_TEST(rejection_ends_all_waits)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 4", NULL);
    borrower *a, *b;
    pgp_acquire_info info;

    go_down(s, rejections[_i]);
    a = queue_up(s);
    b = queue_up(s);
    work(s);
    answered(a, PGP_UNAVAILABLE);
    answered(b, PGP_UNAVAILABLE);
    ck_assert_str_eq(a->info.error.sqlstate, rejections[_i]);
    ck_assert_int_eq(a->info.waited, 0);
    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE);
    ck_assert_str_eq(info.error.sqlstate, rejections[_i]);
}
END_TEST

START_TEST(next_attempt_after_a_rejection)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", "PgPoolRetry 100ms 7s", NULL);

    go_down(s, "28P01");
    work(s);
    ck_assert_int_eq(s->world->failed, 1);
    keep(s, PGP_SEC(7) - 1);
    ck_assert_int_eq(s->world->failed, 1);
    keep(s, 1);
    ck_assert_int_eq(s->world->failed, 2);
    come_up(s); /* an operator has corrected the password */
    keep(s, PGP_SEC(7));
    release(acquire(s));
}
END_TEST

START_TEST(starting_server_is_tried_often_while_a_request_waits)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 4", "PgPoolAcquireTimeout 1s", NULL);
    borrower *b;
    int failed;

    go_down(s, "57P03");
    b = queue_up(s);
    keep(s, PGP_MS(950));
    ck_assert_int_eq(s->world->failed, 10); /* at once, and every 100 ms */
    keep(s, PGP_MS(100));
    answered(b, PGP_UNAVAILABLE);
    failed = s->world->failed;
    keep(s, PGP_SEC(60)); /* with chance at one half: 50, 100, 200, ... 2500 ms apart */
    ck_assert_int_ge(s->world->failed, failed + 20);
    ck_assert_int_le(s->world->failed, failed + 30);
}
END_TEST

/* While nobody waits, the next attempt is up to 5 s away.  A request makes it due at once. */
START_TEST(request_hastens_the_next_attempt_at_a_starting_server)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", "PgPoolAcquireTimeout 1min", NULL);
    borrower *b;
    int failed;

    go_down(s, "57P03");
    keep(s, PGP_SEC(20));
    failed = s->world->failed;
    b = queue_up(s);
    work(s);
    keep(s, PGP_MS(110));
    ck_assert_int_ge(s->world->failed, failed + 1);
    come_up(s);
    keep(s, PGP_MS(100));
    release(granted(b));
}
END_TEST

/* The outage has lasted too long for requests to wait for its end. */
START_TEST(one_caller_probes_a_starting_server)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", "PgPoolAcquireTimeout 1s", NULL);
    borrower *b;

    go_down(s, "57P03");
    keep(s, PGP_SEC(30));
    come_up(s);
    fake_pass(s->world, PGP_MS(100));
    b = queue_up(s);
    work(s);
    release(granted(b));
}
END_TEST

/* All children together log an outage when it begins, once a minute with a count, and when it
 * ends. */
START_TEST(outage_is_logged_once_for_all_children)
{
    stage *s = stage_posted("PgPoolMin 1", "PgPoolMax 4", NULL);

    stage_child(s, "PgPoolMin 1", "PgPoolMax 4", NULL);
    s->world->log_level = PGP_LOG_WARNING;
    go_down(s, "57P03");
    keep(s, PGP_SEC(50));
    ck_assert_int_ge(s->world->failed, 20);
    ck_assert_int_eq(fake_logged(s->world, "PGP1002"), 1);
    keep(s, PGP_SEC(15));
    ck_assert_int_eq(fake_logged(s->world, "PGP1002"), 2);
    ck_assert_int_eq(fake_logged(s->world, "attempts failed like this one"), 1);
    go_down(s, "28P01"); /* another cause is another line */
    keep(s, PGP_SEC(10));
    ck_assert_int_eq(fake_logged(s->world, "PGP1002"), 3);
    come_up(s);
    keep(s, PGP_SEC(10));
    ck_assert_int_eq(fake_logged(s->world, "PGP1008: pool main: the server answers again"), 1);
    ck_assert_int_eq(fake_logged(s->world, "PGP1002"), 3);
}
END_TEST

/* The first of two attempts fails, but late, and with the SQLSTATE that is the baton. */
static void first_fails_late(fake *world)
{
    world->plan = (fake_plan){.end = FAKE_DONE};
    if (world->baton)
        world->plan = (fake_plan){
            .end = FAKE_FAILS, .sqlstate = world->baton, .takes = PGP_SEC(1)};
    world->baton = NULL;
}

static char *const late_cause[] = {"57P03", "53300", ""};

/* Both children try while the server comes up.  The attempt that came too early fails after the
 * other child has logged the end of the outage, with the cause that was logged or another. */
START_TEST(late_failure_is_no_new_outage)
{
    stage *s = stage_posted("PgPoolMin 1", "PgPoolMax 4", NULL);
    int failed;

    stage_child(s, "PgPoolMin 1", "PgPoolMax 4", NULL);
    s->world->log_level = PGP_LOG_WARNING;
    go_down(s, "57P03");
    keep(s, PGP_SEC(20));
    failed = s->world->failed;
    s->world->baton = late_cause[_i];
    s->world->on_connect = first_fails_late;
    keep(s, PGP_SEC(20));
    ck_assert_int_eq(s->world->failed, failed + 1);
    ck_assert_int_eq(s->world->opened - s->world->failed, 2);
    ck_assert_int_eq(fake_logged(s->world, "PGP1002"), 1);
    ck_assert_int_eq(fake_logged(s->world, "PGP1008: pool main: the server answers again"), 1);
}
END_TEST

/* Attempts at a server that starts up do not count when it fails in another way afterwards. */
START_TEST(starting_up_does_not_lengthen_later_waits)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", NULL);

    int failed;

    go_down(s, "57P03");
    keep(s, PGP_SEC(60));
    go_down(s, "");
    failed = s->world->failed;
    while (s->world->failed == failed)
        keep(s, PGP_MS(1));
    keep(s, PGP_MS(49)); /* with chance at one half */
    ck_assert_int_eq(s->world->failed, failed + 1);
    keep(s, PGP_MS(1));
    ck_assert_int_eq(s->world->failed, failed + 2);
}
END_TEST

/* --- attempts --------------------------------------------------------------- */

/* With chance at one half the attempts are 50, 100, 200, ... and at most 2500 ms apart. */
START_TEST(back_off_doubles)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", NULL);
    apr_interval_time_t wait = PGP_MS(50);
    int n;

    go_down(s, "");
    work(s);
    for (n = 1; n < 12; n++) {
        ck_assert_int_eq(s->world->failed, n);
        keep(s, wait - 1);
        ck_assert_int_eq(s->world->failed, n);
        keep(s, 1);
        wait = wait * 2 < PGP_MS(2500) ? wait * 2 : PGP_MS(2500);
    }
}
END_TEST

START_TEST(caller_is_served_when_the_server_is_back)
{
    stage *s = long_absent();
    borrower *b;

    come_up(s);
    work(s);
    ck_assert_int_eq(idle(s), 0);
    b = queue_up(s);
    work(s);
    release(granted(b));
}
END_TEST

START_TEST(one_caller_probes)
{
    stage *s = long_absent();
    const int failed = s->world->failed;
    borrower *b = queue_up(s);
    pgp_acquire_info info;
    int told;

    s->world->log_level = PGP_LOG_INFO;                   /* no line for a failed probe */
    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE); /* one caller probes at a time */
    work(s);
    answered(b, PGP_UNAVAILABLE);
    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE); /* too soon for another probe */
    ck_assert_int_eq(s->world->failed, failed + 1);
    told = fake_logged(s->world, "PGP1002");
    fake_pass(s->world, PGP_MS(10));
    b = queue_up(s);
    work(s);
    answered(b, PGP_UNAVAILABLE);
    ck_assert_int_eq(fake_logged(s->world, "PGP1002"), told);
}
END_TEST

START_TEST(probes_are_rarer_if_a_server_listens)
{
    stage *s = long_absent();
    borrower *b;
    pgp_acquire_info info;

    s->world->plan.absent = 0;
    b = queue_up(s);
    work(s);
    answered(b, PGP_UNAVAILABLE);
    fake_pass(s->world, PGP_MS(100) - 1);
    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE);
    fake_pass(s->world, 1);
    queue_up(s);
}
END_TEST

START_TEST(no_probe_if_the_server_says_why)
{
    stage *s = long_absent();
    borrower *b;
    pgp_acquire_info info;

    s->world->plan.sqlstate = "53300";
    b = queue_up(s);
    work(s);
    answered(b, PGP_UNAVAILABLE);
    fake_pass(s->world, PGP_SEC(60));
    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE);
}
END_TEST

/* A probe finds that the server starts up: its caller goes on waiting. */
START_TEST(caller_waits_on_if_the_server_starts_up)
{
    stage *s = long_absent();
    borrower *b = queue_up(s);

    s->world->plan = (fake_plan){.end = FAKE_FAILS, .sqlstate = "57P03"};
    work(s);
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(waiting(s), 1);
    come_up(s);
    keep(s, PGP_MS(100));
    release(granted(b));
    ck_assert_int_eq(fake_logged(s->world, "answers again after 61"), 1); /* seconds, in all */
}
END_TEST

START_TEST(one_attempt_at_a_time)
{
    stage *s = stage_set("PgPoolMin 3", "PgPoolMax 4", NULL);
    borrower *b[4];
    int i;

    s->world->plan = (fake_plan){.end = FAKE_FAILS, .takes = PGP_MS(400)};
    for (i = 0; i < 4; i++)
        b[i] = queue_up(s);
    work(s);
    keep(s, PGP_MS(30)); /* until the first attempt has failed, several may be under way */
    for (i = 0; i < 30; i++) {
        keep(s, PGP_MS(50));
        if (s->world->failed)
            ck_assert_int_le(slots(s, PGP_CONNECTING), 3);
    }
    keep(s, PGP_SEC(2));
    for (i = 0; i < 4; i++)
        answered(b[i], PGP_UNAVAILABLE);
    for (i = 0; i < 100; i++) {
        keep(s, PGP_MS(50));
        ck_assert_int_le(slots(s, PGP_CONNECTING), 1);
    }
}
END_TEST

/* The entry of the hosts with which the newest attempt began. */
static unsigned newest_host(stage *s)
{
    return fake_connection(s->world, s->world->opened)->first_host;
}

static pgp_slot *newly_made(stage *s)
{
    borrower *b = queue_up(s);

    keep(s, PGP_MS(100));
    return granted(b);
}

START_TEST(each_failure_moves_to_the_next_host)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", NULL);

    go_down(s, "");
    keep(s, PGP_MS(300));
    ck_assert_int_eq(fake_connection(s->world, 1)->first_host, 0);
    ck_assert_int_eq(fake_connection(s->world, 2)->first_host, 1);
    ck_assert_int_eq(fake_connection(s->world, 3)->first_host, 2);
}
END_TEST

/* Attempts that were under way together fail for one cause.  They count as one: one step to the
 * next host, and one step of the back-off. */
START_TEST(failures_together_are_one)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 8", "PgPoolRetry 100ms 1min", NULL);
    borrower *b[8];
    int i, together;

    s->world->plan = (fake_plan){.end = FAKE_FAILS, .takes = PGP_MS(500)};
    for (i = 0; i < 8; i++)
        b[i] = queue_up(s);
    keep(s, PGP_MS(499));
    together = s->world->opened;
    ck_assert_int_ge(together, 6);
    ck_assert_int_eq(newest_host(s), 0);
    keep(s, PGP_MS(600));
    ck_assert_int_eq(s->world->failed, together);
    ck_assert_int_eq(s->world->opened, together + 1);
    ck_assert_int_eq(newest_host(s), 1);
    keep(s, PGP_SEC(2));
    for (i = 0; i < 8; i++)
        answered(b[i], PGP_UNAVAILABLE);
}
END_TEST

START_TEST(host_that_answers_is_kept_for_a_minute)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 8", NULL);
    borrower *b = queue_up(s);
    pgp_slot *conn[3];
    unsigned host;
    int i;

    go_down(s, "");
    keep(s, PGP_MS(300));
    come_up(s);
    keep(s, PGP_SEC(1));
    conn[0] = granted(b);
    host = newest_host(s);
    ck_assert_int_gt(host, 0);
    conn[1] = newly_made(s);
    ck_assert_int_eq(newest_host(s), host);
    keep(s, PGP_SEC(60));
    conn[2] = newly_made(s);
    ck_assert_int_eq(newest_host(s), 0);
    for (i = 0; i < 3; i++)
        release(conn[i]);
}
END_TEST

START_TEST(connect_that_fails_at_once)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", NULL);

    s->world->plan.at_once = 1;
    keep(s, PGP_MS(300));
    ck_assert_int_eq(s->world->failed, 3);
    ck_assert_int_eq(s->world->opened, 0);
    ck_assert_int_eq(slots(s, PGP_FREE), 4);
    ck_assert_int_eq(fake_logged(s->world, "PGP1002: pool main: cannot connect: the fake start "
                                           "failed; trying again in "),
                     3);
    come_up(s);
    keep(s, PGP_SEC(1));
    release(acquire(s));
}
END_TEST

START_TEST(connect_has_a_deadline)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 4", NULL);

    s->world->plan.end = FAKE_HANGS;
    keep(s, PGP_SEC(3) - 1);
    ck_assert_int_eq(s->world->closed, 0);
    keep(s, 1);
    ck_assert_int_eq(s->world->closed, 1);
    ck_assert_int_eq(fake_logged(s->world, "cannot connect: no answer from the server within "
                                           "PgPoolConnectTimeout (3000 ms); trying again in "),
                     1);
    ck_assert_int_eq(fake_logged(s->world, "PGP1003: pool main: closed (connect)"), 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool_outage");
    TCase *t = tcase(suite, "short");

    tcase_add_test(t, short_outage_fails_nobody);
    tcase_add_test(t, wait_in_an_outage_ends_with_its_cause);
    tcase_add_test(t, wait_begins_anew_when_the_last_connection_is_lost);
    tcase_add_test(t, waiting_is_not_futile_while_a_connection_is_in_use);
    t = tcase(suite, "long");
    tcase_add_test(t, refused_at_once_when_waiting_is_futile);
    tcase_add_test(t, first_success_serves_all_callers);
    tcase_add_test(t, recovery_is_logged_once);
    tcase_add_test(t, each_outage_has_its_own_beginning);
    t = tcase(suite, "rejections");
    tcase_add_loop_test(t, rejection_ends_all_waits, 0, LENGTH(rejections));
    tcase_add_test(t, next_attempt_after_a_rejection);
    tcase_add_test(t, starting_server_is_tried_often_while_a_request_waits);
    tcase_add_test(t, request_hastens_the_next_attempt_at_a_starting_server);
    tcase_add_test(t, one_caller_probes_a_starting_server);
    tcase_add_test(t, outage_is_logged_once_for_all_children);
    tcase_add_loop_test(t, late_failure_is_no_new_outage, 0, LENGTH(late_cause));
    tcase_add_test(t, starting_up_does_not_lengthen_later_waits);
    t = tcase(suite, "attempts");
    tcase_add_test(t, back_off_doubles);
    tcase_add_test(t, caller_is_served_when_the_server_is_back);
    tcase_add_test(t, one_caller_probes);
    tcase_add_test(t, probes_are_rarer_if_a_server_listens);
    tcase_add_test(t, no_probe_if_the_server_says_why);
    tcase_add_test(t, caller_waits_on_if_the_server_starts_up);
    tcase_add_test(t, one_attempt_at_a_time);
    tcase_add_test(t, each_failure_moves_to_the_next_host);
    tcase_add_test(t, failures_together_are_one);
    tcase_add_test(t, host_that_answers_is_kept_for_a_minute);
    tcase_add_test(t, connect_that_fails_at_once);
    tcase_add_test(t, connect_has_a_deadline);
    return suite_run(suite);
}
