/* A borrower gets a live connection: check, ping, suspicion, replacement. */
#include <sys/socket.h>
#include <unistd.h>

#include "stage.h"

/* Let this time pass, then lend a connection and take it back.  Returns the connection. */
static pgp_connection *borrowed_after(stage *s, apr_interval_time_t time)
{
    pgp_slot *conn;
    pgp_connection *connection;

    keep(s, time);
    conn = acquire(s);
    connection = fake_link_of(conn);
    release(conn);
    return connection;
}

/* --- the ping --------------------------------------------------------------- */

START_TEST(no_ping_when_fresh)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);

    work(s);
    ck_assert_int_eq(borrowed_after(s, PGP_SEC(30) - 1)->pings, 0);
    ck_assert_int_eq(borrowed_after(s, PGP_SEC(30))->pings, 1);
    ck_assert_int_eq(borrowed_after(s, PGP_SEC(1))->pings, 1);
}
END_TEST

START_TEST(ping_always)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", "PgPoolPing 0", NULL);
    pgp_slot *conn;
    borrower *b;

    work(s);
    ck_assert_int_eq(borrowed_after(s, 0)->pings, 1);
    conn = acquire(s);
    ck_assert_int_eq(fake_link_of(conn)->pings, 2);
    b = queue_up(s);
    release(conn);
    ck_assert_int_eq(fake_link_of(granted(b))->pings, 3); /* handed over, too */
}
END_TEST

START_TEST(ping_never)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", "PgPoolPing off", "PgPoolMaxLifetime 0",
                         NULL);

    work(s);
    ck_assert_int_eq(borrowed_after(s, PGP_SEC(9000))->pings, 0);
}
END_TEST

START_TEST(ping_if_the_server_has_sent_something)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", "PgPoolPing off", NULL);

    work(s);
    fake_connection(s->world, 1)->idle = PGP_IDLE_HEARD;
    ck_assert_int_eq(borrowed_after(s, 0)->pings, 1);
}
END_TEST

START_TEST(ping_has_a_deadline)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", "PgPoolPing 0",
                         "PgPoolAcquireTimeout 2s", "PgPoolCheckTimeout 700ms", NULL);
    pgp_connection *connection;

    work(s);
    connection = borrowed_after(s, 0);
    ck_assert_int_eq(connection->deadline, s->world->now + PGP_MS(700));
}
END_TEST

START_TEST(ping_ends_at_the_deadline_of_the_acquire)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", "PgPoolPing 0",
                         "PgPoolAcquireTimeout 500ms", "PgPoolCheckTimeout 700ms", NULL);
    pgp_connection *connection;

    work(s);
    connection = borrowed_after(s, 0);
    ck_assert_int_eq(connection->deadline, s->world->now + PGP_MS(500));
}
END_TEST

/* A connection is handed over at the last moment.  It must not be closed because the acquire
 * has no time left to check it. */
START_TEST(last_moment_leaves_time_for_a_ping)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolPing 0", NULL);
    pgp_slot *conn;
    borrower *b;
    apr_time_t until;

    warm(s, 1);
    conn = acquire(s);
    b = queue_up(s);
    until = s->world->now + PGP_SEC(2);
    keep(s, PGP_SEC(2) - 1);
    release(conn);
    conn = granted(b);
    ck_assert_int_gt(fake_link_of(conn)->deadline, until + PGP_MS(20));
    ck_assert_int_lt(fake_link_of(conn)->deadline, until + PGP_MS(100));
}
END_TEST

START_TEST(caller_that_does_not_wait_still_checks)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", "PgPoolPing 0", "PgPoolAcquireTimeout 0",
                         "PgPoolCheckTimeout 700ms", NULL);
    pgp_connection *connection;

    work(s);
    connection = borrowed_after(s, 0);
    ck_assert_int_eq(connection->pings, 1);
    ck_assert_int_eq(connection->deadline, s->world->now + PGP_MS(700));
}
END_TEST

/* --- a pending reset --------------------------------------------------------- */

START_TEST(answer_to_a_reset_is_collected)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_connection *connection;

    work(s);
    fake_connection(s->world, 1)->idle = PGP_IDLE_RESET_PENDING;
    connection = borrowed_after(s, 0);
    ck_assert_int_eq(connection->prepared, 1);
    ck_assert_int_eq(connection->pings, 0);
    ck_assert_int_eq(borrowed_after(s, 0)->prepared, 1);
}
END_TEST

START_TEST(connection_whose_reset_failed_is_replaced)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", NULL);

    warm(s, 2);
    fake_connection(s->world, 2)->idle = PGP_IDLE_RESET_PENDING;
    fake_connection(s->world, 2)->mute = 1;
    ck_assert_int_eq(number(acquire(s)), 1);
    work(s);
    ck_assert_int_eq(fake_logged(s->world, "backend 1002: closed (unclean)"), 1);
}
END_TEST

/* The server has rejected the pending reset of the newest idle connection; then a caller
 * acquires. */
static void acquire_after_refusal(stage *s)
{
    pgp_connection *newest = fake_connection(s->world, s->world->opened);

    newest->idle = PGP_IDLE_RESET_PENDING;
    newest->unclean = 1;
    borrowed_after(s, 0);
    work(s); /* a new connection replaces it */
}

START_TEST(refused_resets_are_warned_of_once_a_minute)
{
    static const char text[] = "PGP1019: pool ";
    stage *s = stage_set("PgPoolMin 2", "PgPoolMax 2", NULL);
    int i;

    s->world->log_level = PGP_LOG_WARNING;
    work(s);
    for (i = 0; i < 3; i++)
        acquire_after_refusal(s);
    ck_assert_int_eq(fake_logged(s->world, text), 1);
    fake_pass(s->world, PGP_SEC(60));
    acquire_after_refusal(s);
    ck_assert_int_eq(fake_logged(s->world, text), 2);
    ck_assert_int_eq(fake_logged(s->world, "(3 since the last warning): the fake may not"), 1);
}
END_TEST

START_TEST(connection_that_is_lost_in_its_reset_is_replaced)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", "PgPoolPing off", NULL);

    warm(s, 2);
    keep(s, 1);
    fake_connection(s->world, 2)->idle = PGP_IDLE_RESET_PENDING;
    fake_connection(s->world, 2)->mute = fake_connection(s->world, 2)->gone = 1;
    ck_assert_int_eq(number(acquire(s)), 1);
    ck_assert_int_eq(fake_connection(s->world, 1)->pings, 1); /* suspect, too */
    work(s);
    ck_assert_int_eq(fake_logged(s->world, "backend 1002: closed (lost)"), 1);
}
END_TEST

static const char *const var_names[] = {"app.user", "app.role"};
static const char *const var_values[] = {"ann", "reader"};
static const pgp_vars two_vars = {.n = 2, .names = var_names, .values = var_values};

START_TEST(variables_are_set)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_slot *conn;
    pgp_error error;

    work(s);
    conn = acquire(s);
    ck_assert_int_eq(pgp_slot_set_vars(conn, &two_vars, PGP_NEVER, &error), PGP_SET_DONE);
    ck_assert_str_eq(error.message, "");
    ck_assert_int_eq(fake_link_of(conn)->vars, 2);
    ck_assert_int_eq(fake_link_of(conn)->deadline, s->world->now + PGP_SEC(1));
    ck_assert_int_eq(pgp_slot_set_vars(conn, &two_vars, s->world->now + PGP_MS(100), &error),
                     PGP_SET_DONE);
    ck_assert_int_eq(fake_link_of(conn)->deadline, s->world->now + PGP_MS(100));
    fake_link_of(conn)->refuses = 1;
    ck_assert_int_eq(pgp_slot_set_vars(conn, &two_vars, PGP_NEVER, &error), PGP_SET_DENIED);
    ck_assert_str_eq(error.sqlstate, "42704");
    release(conn);
}
END_TEST

/* A second acquire with the same info goes on, within the first deadline. */
START_TEST(connection_that_fails_while_variables_are_set_is_replaced)
{
    stage *s = stage_set("PgPoolMin 2", "PgPoolMax 2", NULL);
    pgp_acquire_info info = {.until = 0};
    pgp_slot *conn;
    apr_time_t until;

    work(s);
    ck_assert_int_eq(pgp_pool_acquire(s->pool, &conn, &info), PGP_GRANTED);
    until = info.until;
    fake_link_of(conn)->mute = 1;
    ck_assert_int_eq(pgp_slot_set_vars(conn, &two_vars, until, &info.error), PGP_SET_FAILED);
    pgp_pool_discard_unfit(&conn, &info.error);
    ck_assert_ptr_null(conn);
    ck_assert_int_eq(fake_logged(s->world, "given out (ping): the fake does not answer"), 1);
    ck_assert_int_eq(pgp_pool_acquire(s->pool, &conn, &info), PGP_GRANTED);
    ck_assert_int_eq(info.until, until);
    release(conn);
}
END_TEST

/* --- replacing -------------------------------------------------------------- */

START_TEST(dead_connection_is_replaced_by_an_idle_one)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", NULL);
    pgp_slot *conn;

    warm(s, 2);
    fake_connection(s->world, 2)->idle = PGP_IDLE_DEAD;
    conn = acquire(s);
    ck_assert_int_eq(number(conn), 1);
    ck_assert_int_eq(slots(s, PGP_CLOSING), 1);
    work(s);
    ck_assert(fake_connection(s->world, 2)->closed);
    ck_assert_int_eq(fake_logged(s->world, "PGP1006: pool main, backend 1002: found unfit "
                                           "before it was given out (lost): the fake was "
                                           "closed while idle"),
                     1);
    ck_assert_int_eq(fake_logged(s->world, "PGP1003: pool main, backend 1002: closed (lost)"),
                     1);
}
END_TEST

START_TEST(connection_that_fails_its_ping_is_replaced)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", "PgPoolPing 0", NULL);

    warm(s, 2);
    fake_connection(s->world, 2)->mute = 1;
    ck_assert_int_eq(number(acquire(s)), 1);
    work(s);
    ck_assert_int_eq(fake_logged(s->world, "backend 1002: found unfit before it was given out "
                                           "(ping): the fake does not answer"),
                     1);
    ck_assert_int_eq(fake_logged(s->world, "backend 1002: closed (ping)"), 1);
}
END_TEST

/* The acquire finds its first connection dead and gets another one, within its deadline. */
START_TEST(dead_connection_is_replaced_within_the_same_deadline)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    borrower *b;

    warm(s, 1);
    fake_connection(s->world, 1)->idle = PGP_IDLE_DEAD;
    s->world->plan.takes = PGP_MS(1500);
    b = queue_up(s);
    keep(s, PGP_MS(1500));
    work(s);
    ck_assert_int_eq(number(granted(b)), 2);
    ck_assert_int_eq(b->info.waited, PGP_MS(1500));
}
END_TEST

START_TEST(no_second_deadline_for_a_replacement)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_slot *conn;
    borrower *b;

    warm(s, 1);
    conn = acquire(s);
    b = queue_up(s);
    keep(s, PGP_MS(1500));
    fake_connection(s->world, 1)->idle = PGP_IDLE_DEAD;
    s->world->plan.end = FAKE_HANGS;
    release(conn);
    asleep_after(b, 1);
    keep(s, PGP_MS(500) - 1);
    ck_assert_int_eq(waiting(s), 1);
    keep(s, 1);
    answered(b, PGP_UNAVAILABLE);
    ck_assert_str_eq(b->info.error.message, "the fake was closed while idle");
}
END_TEST

START_TEST(place_in_the_queue_is_kept)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_slot *conn;
    borrower *first, *second;

    warm(s, 1);
    conn = acquire(s);
    first = queue_up(s);
    fake_pass(s->world, 1);
    second = queue_up(s);
    fake_connection(s->world, 1)->idle = PGP_IDLE_DEAD;
    release(conn);
    asleep_after(first, 1);
    work(s);
    conn = granted(first);
    ck_assert_int_eq(waiting(s), 1);
    release(conn);
    release(granted(second));
}
END_TEST

/* PgPoolMaxWaiters has let the first caller in once.  It may wait again, although another
 * caller waits by now. */
START_TEST(replacement_is_not_refused_for_waiters)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", "PgPoolMaxWaiters 1", NULL);
    pgp_slot *conn;
    borrower *first, *second;

    warm(s, 1);
    conn = acquire(s);
    first = queue_up(s);
    fake_pass(s->world, 1);
    fake_connection(s->world, 1)->stops = 1;
    fake_connection(s->world, 1)->idle = PGP_IDLE_DEAD;
    release(conn);
    second = queue_up(s); /* while the first one checks the connection */
    fake_connection(s->world, 1)->stops = 0;
    asleep_after(first, 1);
    work(s);
    release(granted(first));
    release(granted(second));
}
END_TEST

START_TEST(dead_idle_connections_fail_no_request)
{
    stage *s = stage_set("PgPoolMin 8", "PgPoolMax 8", NULL);
    borrower *b[8];
    int i;

    work(s);
    ck_assert_int_eq(idle(s), 8);
    for (i = 1; i <= 8; i++)
        fake_connection(s->world, i)->idle = PGP_IDLE_DEAD;
    b[0] = queue_up(s); /* finds them all dead */
    for (i = 1; i < 8; i++)
        b[i] = queue_up(s);
    keep(s, PGP_SEC(1));
    for (i = 0; i < 8; i++)
        granted(b[i]);
    ck_assert_int_eq(fake_logged(s->world, "closed (lost)"), 8);
    ck_assert_int_eq(fake_open(s->world), 8);
}
END_TEST

START_TEST(caller_without_time_is_refused_if_all_are_dead)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", "PgPoolAcquireTimeout 0", NULL);
    pgp_acquire_info info;

    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE);
    work(s);
    fake_connection(s->world, 1)->idle = PGP_IDLE_DEAD;
    ck_assert_int_eq(refused(s, &info), PGP_UNAVAILABLE);
    ck_assert_str_eq(info.error.message, "the fake was closed while idle");
}
END_TEST

/* --- suspicion -------------------------------------------------------------- */

/* Four idle, the newest of them dead; PgPoolPing is off. */
static stage *one_of_four_dead(void)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 4", "PgPoolPing off", NULL);

    warm(s, 4);
    keep(s, 1);
    fake_connection(s->world, 4)->idle = PGP_IDLE_DEAD;
    return s;
}

START_TEST(dead_connection_makes_older_ones_suspect)
{
    stage *s = one_of_four_dead();
    pgp_slot *conn = acquire(s);

    ck_assert_int_eq(number(conn), 3);
    ck_assert_int_eq(fake_connection(s->world, 3)->pings, 1);
    ck_assert_int_eq(number(acquire(s)), 2);
    ck_assert_int_eq(fake_connection(s->world, 2)->pings, 1);
    release(conn);
    ck_assert_int_eq(number(acquire(s)), 3); /* it was pinged since */
    ck_assert_int_eq(fake_connection(s->world, 3)->pings, 1);
    ck_assert_int_eq(number(acquire(s)), 1);
    ck_assert_int_eq(fake_connection(s->world, 1)->pings, 1);
}
END_TEST

START_TEST(dead_suspects_are_found)
{
    stage *s = one_of_four_dead();

    fake_connection(s->world, 3)->mute = 1;
    fake_connection(s->world, 2)->mute = 1;
    ck_assert_int_eq(number(acquire(s)), 1);
    work(s);
    ck_assert_int_eq(fake_logged(s->world, "closed (ping)"), 2);
}
END_TEST

/* Lend the newest of three connections and end the lease in that way.  Returns how often the
 * next one is pinged. */
static int suspected_after(pgp_return returned, pgp_reason discard)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 3", "PgPoolPing off", NULL);
    pgp_slot *conn;

    warm(s, 3);
    keep(s, 1);
    conn = acquire(s);
    fake_link_of(conn)->returned = returned;
    if (discard != PGP_REASON_NONE)
        pgp_pool_discard(&conn, discard);
    else
        pgp_pool_release(&conn);
    work(s);
    conn = acquire(s);
    return fake_link_of(conn)->pings;
}

START_TEST(broken_connection_makes_older_ones_suspect)
{
    ck_assert_int_eq(suspected_after(PGP_RETURN_BROKEN, PGP_REASON_NONE), 1);
    ck_assert_int_eq(suspected_after(PGP_RETURN_CLEAN, PGP_REASON_LOST), 1);
}
END_TEST

START_TEST(other_ends_make_none_suspect)
{
    ck_assert_int_eq(suspected_after(PGP_RETURN_CLEAN, PGP_REASON_HOOK), 0);
    ck_assert_int_eq(suspected_after(PGP_RETURN_UNKNOWN, PGP_REASON_NONE), 0);
    ck_assert_int_eq(suspected_after(PGP_RETURN_CLEAN, PGP_REASON_NONE), 0);
}
END_TEST

/* --- idle ------------------------------------------------------------------- */

/* Make three connections that share one socket, and acquire one of them.  Returns the server's
 * end of the socket. */
static int three_of_one_socket(stage *s, pgp_slot **lent)
{
    int ends[2];

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "no socketpair");
    s->world->socket = ends[0];
    work(s);
    *lent = acquire(s);
    ck_assert_int_eq(idle(s), 2);
    s->world->socket = -1; /* of later connections */
    return ends[1];
}

START_TEST(closed_idle_connections_are_replaced_in_time)
{
    stage *s = stage_set("PgPoolMin 3", "PgPoolMax 3", NULL);
    pgp_slot *conn;
    const int server = three_of_one_socket(s, &conn);

    keep(s, PGP_SEC(2));
    ck_assert_int_eq(s->world->closed, 0);
    close(server);
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(s->world->closed, 2); /* the third is in use */
    ck_assert_int_eq(fake_logged(s->world, "closed by the server while idle"), 2);
    ck_assert_int_eq(idle(s), 2);
    release(conn);
}
END_TEST

/* After a restart of the server all connections are dead.  The keeper sees that of two; the
 * third has no socket that tells. */
static void third_has_no_socket(fake *world)
{
    if (world->opened == 2)
        world->socket = -1;
}

START_TEST(closed_idle_connections_make_the_others_suspect)
{
    stage *s = stage_set("PgPoolMin 3", "PgPoolMax 3", NULL);
    pgp_slot *conn;

    s->world->on_connect = third_has_no_socket;
    close(three_of_one_socket(s, &conn));
    release(conn);
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(s->world->closed, 2);
    acquire(s);
    acquire(s);
    ck_assert_int_eq(fake_link_of(acquire(s))->number, 3);
    ck_assert_int_eq(fake_connection(s->world, 3)->pings, 1);
    ck_assert_int_eq(fake_connection(s->world, 4)->pings, 0);
}
END_TEST

static int readings(stage *s, int number)
{
    return fake_connection(s->world, number)->readings;
}

/* The server has sent something to the two idle connections.  Returns the third, in use. */
static pgp_slot *two_that_have_received(stage *s)
{
    pgp_slot *conn;
    const int server = three_of_one_socket(s, &conn);

    REQUIRE(write(server, "notice", 6) == 6, "cannot write");
    return conn;
}

START_TEST(idle_connections_are_read)
{
    stage *s = stage_set("PgPoolMin 3", "PgPoolMax 3", NULL);
    pgp_slot *conn = two_that_have_received(s);

    keep(s, PGP_SEC(3));
    ck_assert_int_gt(readings(s, 1), 0);
    ck_assert_int_gt(readings(s, 2), 0);
    ck_assert_int_eq(fake_link_of(conn)->readings, 0); /* it is in use */
    ck_assert_int_eq(idle(s), 2);
    ck_assert_int_eq(s->world->closed, 0);
}
END_TEST

/* One read takes a bounded amount, so the keeper comes back soon for the rest. */
START_TEST(rest_is_read_soon)
{
    stage *s = stage_set("PgPoolMin 3", "PgPoolMax 3", NULL);
    int so_far;

    two_that_have_received(s);
    keep(s, PGP_SEC(1));
    so_far = readings(s, 1);
    keep(s, PGP_MS(200));
    ck_assert_int_ge(readings(s, 1), so_far + 9);
}
END_TEST

START_TEST(returned_connection_is_not_read_at_once)
{
    stage *s = stage_set("PgPoolMin 3", "PgPoolMax 3", NULL);
    pgp_slot *conn = two_that_have_received(s);
    pgp_connection *connection = fake_link_of(conn);

    fake_pass(s->world, PGP_SEC(1) - 1);
    release(conn);
    keep(s, PGP_MS(600));
    ck_assert_int_gt(readings(s, 1), 0);
    ck_assert_int_eq(connection->readings, 0);
    keep(s, PGP_SEC(2));
    ck_assert_int_gt(connection->readings, 0);
}
END_TEST

START_TEST(reading_does_not_end_the_idle_time)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 3", "PgPoolIdleTimeout 5s", NULL);
    int ends[2];

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "no socketpair");
    s->world->socket = ends[0];
    warm(s, 2);
    REQUIRE(write(ends[1], "notice", 6) == 6, "cannot write");
    keep(s, PGP_SEC(4));
    ck_assert_int_gt(readings(s, 1), 0);
    ck_assert_int_eq(number(acquire(s)), 2); /* the newest still comes first */
    keep(s, PGP_SEC(2));
    ck_assert_int_eq(idle(s), 0);
    ck_assert_int_eq(fake_logged(s->world, "closed (idle)"), 1);
}
END_TEST

START_TEST(connection_that_does_not_become_quiet_is_replaced)
{
    stage *s = stage_set("PgPoolMin 3", "PgPoolMax 3", NULL);

    two_that_have_received(s);
    fake_connection(s->world, 1)->noisy = 1;
    keep(s, PGP_SEC(2));
    ck_assert_int_eq(fake_logged(s->world, "backend 1001: found unfit while idle (unclean): "
                                           "the fake is never quiet"),
                     1);
    ck_assert_int_eq(s->world->closed, 1);
    ck_assert_int_eq(idle(s), 2);
}
END_TEST

/* A borrower joins the queue while the keeper reads. */
static void acquire_meanwhile(fake *world)
{
    stage *s = world->baton;

    world->on_read_idle = NULL;
    world->baton = queue_up(s);
}

/* The borrower that came while the keeper read from the only connection. */
static borrower *came_meanwhile(stage *s, int noisy)
{
    int ends[2];

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "no socketpair");
    s->world->socket = ends[0];
    work(s);
    REQUIRE(write(ends[1], "notice", 6) == 6, "cannot write");
    fake_connection(s->world, 1)->noisy = noisy;
    s->world->baton = s;
    s->world->on_read_idle = acquire_meanwhile;
    keep(s, PGP_SEC(1));
    return s->world->baton;
}

START_TEST(caller_waits_for_a_connection_that_is_read)
{
    static const char *const timeouts[] = {"PgPoolAcquireTimeout 2s", "PgPoolAcquireTimeout 0"};
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", timeouts[_i], NULL);

    release(granted(came_meanwhile(s, 0)));
}
END_TEST

/* Time passes while the keeper reads, and then a borrower joins the queue. */
static void acquire_a_moment_later(fake *world)
{
    fake_pass(world, PGP_MS(5));
    acquire_meanwhile(world);
}

START_TEST(wait_for_the_reader_is_not_negative)
{
    stage *s = stage_posted("PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_stats stats;
    int ends[2];

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "no socketpair");
    s->world->socket = ends[0];
    work(s);
    REQUIRE(write(ends[1], "notice", 6) == 6, "cannot write");
    s->world->baton = s;
    s->world->on_read_idle = acquire_a_moment_later;
    keep(s, PGP_SEC(2));
    release(granted(s->world->baton));
    keep(s, PGP_SEC(1));
    pgp_board_read(s->board, 0, 0, s->world->now, &stats);
    ck_assert_int_eq(stats.n[PGP_N_WAITS], 1);
    ck_assert_int_le(stats.n[PGP_N_TIME_US + PGP_TIME_WAIT], PGP_SEC(1));
}
END_TEST

START_TEST(caller_is_refused_if_the_read_fails)
{
    stage *s = stage_set("PgPoolMin 1", "PgPoolMax 1", "PgPoolAcquireTimeout 0", NULL);

    answered(came_meanwhile(s, 1), PGP_UNAVAILABLE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool_health");
    TCase *t = tcase(suite, "ping");

    tcase_add_test(t, no_ping_when_fresh);
    tcase_add_test(t, ping_always);
    tcase_add_test(t, ping_never);
    tcase_add_test(t, ping_if_the_server_has_sent_something);
    tcase_add_test(t, ping_has_a_deadline);
    tcase_add_test(t, ping_ends_at_the_deadline_of_the_acquire);
    tcase_add_test(t, last_moment_leaves_time_for_a_ping);
    tcase_add_test(t, caller_that_does_not_wait_still_checks);
    t = tcase(suite, "preparing");
    tcase_add_test(t, answer_to_a_reset_is_collected);
    tcase_add_test(t, connection_whose_reset_failed_is_replaced);
    tcase_add_test(t, refused_resets_are_warned_of_once_a_minute);
    tcase_add_test(t, connection_that_is_lost_in_its_reset_is_replaced);
    tcase_add_test(t, variables_are_set);
    tcase_add_test(t, connection_that_fails_while_variables_are_set_is_replaced);
    t = tcase(suite, "replacing");
    tcase_add_test(t, dead_connection_is_replaced_by_an_idle_one);
    tcase_add_test(t, connection_that_fails_its_ping_is_replaced);
    tcase_add_test(t, dead_connection_is_replaced_within_the_same_deadline);
    tcase_add_test(t, no_second_deadline_for_a_replacement);
    tcase_add_test(t, place_in_the_queue_is_kept);
    tcase_add_test(t, replacement_is_not_refused_for_waiters);
    tcase_add_test(t, dead_idle_connections_fail_no_request);
    tcase_add_test(t, caller_without_time_is_refused_if_all_are_dead);
    t = tcase(suite, "suspicion");
    tcase_add_test(t, dead_connection_makes_older_ones_suspect);
    tcase_add_test(t, dead_suspects_are_found);
    tcase_add_test(t, broken_connection_makes_older_ones_suspect);
    tcase_add_test(t, other_ends_make_none_suspect);
    t = tcase(suite, "idle");
    tcase_add_test(t, closed_idle_connections_are_replaced_in_time);
    tcase_add_test(t, closed_idle_connections_make_the_others_suspect);
    tcase_add_test(t, idle_connections_are_read);
    tcase_add_test(t, rest_is_read_soon);
    tcase_add_test(t, returned_connection_is_not_read_at_once);
    tcase_add_test(t, reading_does_not_end_the_idle_time);
    tcase_add_test(t, connection_that_does_not_become_quiet_is_replaced);
    tcase_add_loop_test(t, caller_waits_for_a_connection_that_is_read, 0, 2);
    tcase_add_test(t, wait_for_the_reader_is_not_negative);
    tcase_add_test(t, caller_is_refused_if_the_read_fails);
    return suite_run(suite);
}
