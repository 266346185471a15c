/* PgPoolTotalMax and PgPoolServerMax: children and pools share the server's connections.  And
 * the figures that a child publishes. */
#include "stage.h"

#include <sys/socket.h>
#include <unistd.h>

#include "pgp_permits.h"

#define FOREVER "PgPoolIdleTimeout 0", "PgPoolMaxLifetime 0"

static borrower *queue_up_and_work(stage *s)
{
    borrower *b = queue_up(s);

    work(s);
    return b;
}

/* The quota of another child, which the test plays. */
static pgp_quota foreign(stage *s)
{
    return (pgp_quota){.board = s->board,
                       .seat = pgp_board_claim(s->board, s->world->now),
                       .row = pgp_board_pool_row(s->board, 0),
                       .cap = 3};
}

/* A child with three idle connections, which is the cap, and another child without any. */
static stage *full_child(stage **other)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER, NULL);

    warm(s, 3);
    *other = stage_child(s, "PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER, NULL);
    return s;
}

START_TEST(one_child_keeps_to_the_cap)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 5", "PgPoolTotalMax 3", NULL);
    borrower *b[4];
    int i;

    for (i = 0; i < 4; i++)
        b[i] = queue_up(s);
    keep(s, PGP_SEC(2));
    for (i = 0; i < 3; i++)
        granted(b[i]);
    answered(b[3], PGP_EXHAUSTED);
    ck_assert_str_eq(
        b[3]->info.error.message,
        "all 3 connections that PgPoolTotalMax allows are taken: 3 by this "
        "child, 3 of them in use, and 0 by 0 other children; 0 more requests wait here");
    ck_assert_int_eq(s->world->opened, 3);
}
END_TEST

START_TEST(no_cap)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 5", "PgPoolTotalMax 0", NULL);

    warm(s, 5);
}
END_TEST

START_TEST(min_keeps_to_the_cap)
{
    stage *s = stage_posted("PgPoolMin 3", "PgPoolMax 4", "PgPoolTotalMax 4", FOREVER, NULL);
    stage *other = stage_child(s, "PgPoolMin 3", "PgPoolMax 4", "PgPoolTotalMax 4", FOREVER,
                               NULL);

    keep(s, PGP_SEC(5));
    ck_assert_int_eq(fake_open(s->world), 4);
    ck_assert_int_gt(idle(s), 0);
    ck_assert_int_gt(idle(other), 0);
}
END_TEST

START_TEST(idle_connection_gives_way_to_a_child_that_waits)
{
    stage *other, *s = full_child(&other);
    borrower *b = queue_up(other);

    keep(s, PGP_SEC(1));
    granted(b);
    ck_assert_int_eq(idle(s), 2);                    /* one was needed, one was closed */
    ck_assert(fake_connection(s->world, 1)->closed); /* it was idle longest */
    ck_assert_int_eq(fake_open(s->world), 3);
    ck_assert_int_eq(fake_logged(s->world, "closed (shared)"), 1);
}
END_TEST

/* No bell rings, and permits were free when the keeper last looked. */
START_TEST(idle_connection_gives_way_within_a_second)
{
    stage *s = stage_posted("PgPoolMin 2", "PgPoolMax 3", "PgPoolTotalMax 3", NULL);
    const pgp_quota other = foreign(s);

    keep(s, PGP_MS(10));
    ck_assert(pgp_permits_take(&other, s->world->now));
    pgp_permits_set_wait(&other, s->world->now);
    keep(s, PGP_MS(900));
    ck_assert_int_eq(fake_logged(s->world, "closed (shared)"), 1);
}
END_TEST

/* The keeper reads from an idle connection.  Others still see since when it was idle. */
START_TEST(reading_does_not_end_the_idle_time_for_others)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 3", "PgPoolTotalMax 3", FOREVER, NULL);
    const pgp_quota other = foreign(s);
    pgp_outlook before, after;
    int ends[2];

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "no socketpair");
    s->world->socket = ends[0];
    warm(s, 1);
    pgp_permits_look(&other, s->world->now, PGP_SEC(2), &before);
    ck_assert_int_gt(before.idle_since, 0);
    REQUIRE(write(ends[1], "notice", 6) == 6, "cannot write");
    while (!fake_connection(s->world, 1)->readings)
        keep(s, PGP_MS(1));
    pgp_permits_look(&other, s->world->now, PGP_SEC(2), &after);
    ck_assert_int_eq(after.idle_since, before.idle_since);
}
END_TEST

/* While nobody waits, one permit stays free for the child that has none.  After that nothing is
 * made or closed any more. */
START_TEST(one_permit_is_kept_free_for_a_child_without)
{
    stage *other, *s = full_child(&other);

    keep(s, PGP_SEC(1));
    ck_assert_int_eq(idle(s), 2);
    ck_assert(fake_connection(s->world, 1)->closed);
    keep(s, PGP_SEC(60));
    ck_assert_int_eq(idle(s), 2);
    ck_assert_int_eq(idle(other), 0);
    ck_assert_int_eq(s->world->opened, 3);
    granted(queue_up_and_work(other));
}
END_TEST

START_TEST(another_permit_is_freed_when_it_is_taken)
{
    stage *other, *s = full_child(&other);
    stage *third = stage_child(s, "PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER,
                               NULL);

    keep(s, PGP_SEC(1));
    granted(queue_up_and_work(other));
    keep(s, PGP_MS(20));
    granted(queue_up_and_work(third));
    ck_assert_int_eq(idle(s), 1);
}
END_TEST

START_TEST(nothing_gives_way_if_each_child_has_a_connection)
{
    stage *other, *s = full_child(&other);

    keep(s, PGP_SEC(1));
    release(granted(queue_up_and_work(other)));
    keep(s, PGP_SEC(60));
    ck_assert_int_eq(idle(s), 2);
    ck_assert_int_eq(idle(other), 1);
    ck_assert_int_eq(fake_logged(s->world, "closed (shared)"), 1);
}
END_TEST

/* The last permit is for children that have none, until a request has waited for a turn. */
START_TEST(last_permit_may_be_taken_after_a_turn)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 2", FOREVER, NULL);
    borrower *b;

    warm(s, 1);
    stage_child(s, "PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 2", FOREVER, NULL);
    keep(s, PGP_SEC(1));
    acquire(s);
    b = queue_up(s);
    keep(s, PGP_MS(8));
    ck_assert_int_eq(waiting(s), 1);
    keep(s, PGP_MS(4));
    granted(b);
}
END_TEST

/* Keep n connections in use for this time, each of them for 20 ms at a time. */
static void be_busy(stage *s, int n, apr_interval_time_t time)
{
    const apr_time_t end = s->world->now + time;
    pgp_slot *conn[4] = {NULL};
    int i;

    for (i = 0; s->world->now < end; i = (i + 1) % n) {
        if (conn[i])
            release(conn[i]);
        conn[i] = idle(s) > 0 ? acquire(s) : NULL;
        keep(s, PGP_MS(20) / n);
    }
    for (i = 0; i < n; i++)
        if (conn[i])
            release(conn[i]);
}

/* A busy child passes a returned connection on, although it could use it itself: another child
 * has none and waits. */
START_TEST(connection_in_use_gives_way)
{
    stage *other, *s = full_child(&other);
    borrower *b = queue_up(other);

    be_busy(s, 3, PGP_SEC(1));
    granted(b);
    ck_assert_int_eq(fake_open(s->world), 3);
    ck_assert_int_eq(fake_logged(s->world, "closed (shared)"), 1);
}
END_TEST

/* A child keeps its connection for a request of its own unless another child's request has
 * waited longer by one turn. */
START_TEST(own_request_comes_first_unless_younger_by_a_turn)
{
    stage *other, *s = full_child(&other);
    pgp_slot *conn = acquire(s);
    borrower *ours, *theirs;

    acquire(s);
    acquire(s);
    theirs = queue_up(other);
    keep(s, PGP_MS(10));
    ours = queue_up(s);
    keep(s, PGP_MS(500));
    release(conn);
    granted(ours);
    ck_assert(!atomic_load(&theirs->done));
}
END_TEST

START_TEST(permit_that_was_passed_on_is_not_taken_back)
{
    stage *other, *s = full_child(&other);
    pgp_slot *conn = acquire(s);
    borrower *theirs;

    acquire(s);
    acquire(s);
    theirs = queue_up(other);
    keep(s, PGP_MS(50));
    queue_up(s);
    keep(s, PGP_MS(500));
    release(conn);
    keep(s, PGP_MS(100));
    granted(theirs);
    ck_assert_int_eq(waiting(s), 1);
}
END_TEST

/* Three connections come back at one turn. */
START_TEST(one_connection_is_passed_on_in_a_turn)
{
    stage *other, *s = full_child(&other);
    pgp_slot *conn[3] = {acquire(s), acquire(s), acquire(s)};
    borrower *theirs = queue_up(other);
    int i;

    keep(s, PGP_MS(100));
    for (i = 0; i < 3; i++)
        release(conn[i]);
    ck_assert_int_eq(slots(s, PGP_CLOSING), 1);
    ck_assert_int_eq(idle(s), 2);
    keep(s, PGP_MS(100));
    granted(theirs);
    ck_assert_int_eq(idle(s), 2);
}
END_TEST

/* The child that waits longest has died, or has been stopped, and does not fetch its permit. */
START_TEST(outdated_wait_does_not_keep_a_permit)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 3", "PgPoolTotalMax 1", NULL);
    const pgp_quota frozen = foreign(s);
    borrower *b;

    work(s);
    pgp_permits_set_wait(&frozen, s->world->now);
    keep(s, PGP_MS(2500));
    b = queue_up(s);
    keep(s, PGP_MS(400));
    ck_assert_int_eq(waiting(s), 1);
    keep(s, PGP_MS(200));
    granted(b);
}
END_TEST

/* The connection that a stopped child was closing will not be free soon. */
START_TEST(nobody_waits_for_a_stopped_child_that_closes)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 3", "PgPoolTotalMax 3", FOREVER, NULL);
    pgp_quota stopped;
    stage *other;
    borrower *b;

    warm(s, 2);
    stopped = foreign(s);
    ck_assert(pgp_permits_take(&stopped, s->world->now));
    pgp_permits_set_moving(&stopped, 1, 0, s->world->now);
    other = stage_child(s, "PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER, NULL);
    keep(s, PGP_SEC(2));
    b = queue_up(other);
    keep(s, PGP_SEC(1));
    granted(b);
}
END_TEST

START_TEST(min_is_made_at_once_if_permits_are_free)
{
    stage *s = stage_posted("PgPoolMin 3", "PgPoolMax 4", "PgPoolTotalMax 9", NULL);

    stage_child(s, "PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 9", NULL);
    keep(s, PGP_MS(20));
    ck_assert_int_eq(idle(s), 3);
}
END_TEST

/* The child has no connection, and its last attempt found the server starting up.  It gets a
 * permit for PgPoolMin, although none of its requests waits. */
START_TEST(child_without_connections_gets_a_permit_for_min)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER, NULL);
    stage *other;

    warm(s, 3);
    other = stage_child(s, "PgPoolMin 1", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER, NULL);
    s->world->plan = (fake_plan){.end = FAKE_FAILS, .sqlstate = "57P03"};
    keep(s, PGP_MS(20));
    s->world->plan = (fake_plan){.end = FAKE_DONE};
    keep(s, PGP_SEC(5));
    release(acquire(other));
}
END_TEST

/* The child that needs a second connection gets it at once: it rings the other child itself. */
START_TEST(idle_connection_gives_way_at_once)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER, NULL);
    stage *other;
    borrower *b;

    warm(s, 3);
    other = stage_child(s, "PgPoolMin 2", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER, NULL);
    keep(s, PGP_SEC(5));
    acquire(other);
    b = queue_up(other);
    keep(s, PGP_MS(10));
    granted(b);
    ck_assert_int_eq(idle(s), 1);
}
END_TEST

/* A closed connection keeps its slot and its permit until the server's process has ended. */
START_TEST(permit_is_free_when_the_process_has_ended)
{
    stage *other, *s = full_child(&other);
    borrower *b;

    s->world->lingers = 1;
    b = queue_up(other);
    keep(s, PGP_MS(500));
    ck_assert_int_eq(fake_open(s->world), 2);
    ck_assert_int_eq(slots(s, PGP_CLOSING), 1);
    ck_assert_int_eq(waiting(other), 1);
    fake_process_ends(fake_connection(s->world, 1));
    keep(s, PGP_SEC(1));
    ck_assert_int_eq(slots(s, PGP_CLOSING), 0);
    granted(b);
}
END_TEST

START_TEST(permit_is_free_after_a_second_at_most)
{
    stage *other, *s = full_child(&other);
    borrower *b;

    s->world->lingers = 1;
    b = queue_up(other);
    keep(s, PGP_MS(1900));
    granted(b);
    ck_assert_int_eq(slots(s, PGP_CLOSING), 0);
}
END_TEST

/* Without a cap nobody needs the permit, so the slot is free at once. */
START_TEST(without_a_cap_the_slot_is_free_at_once)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_slot *conn;

    s->world->lingers = 1;
    warm(s, 1);
    conn = acquire(s);
    pgp_pool_discard(&conn, PGP_REASON_HOOK);
    work(s);
    ck_assert_int_eq(slots(s, PGP_FREE), 1);
}
END_TEST

/* A caller that does not wait is refused.  Another child gives way, so the next caller is
 * served. */
START_TEST(refused_demand_makes_another_child_give_way)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER, NULL);
    stage *other;
    pgp_acquire_info info;

    warm(s, 3);
    other = stage_child(s, "PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER,
                        "PgPoolAcquireTimeout 0", NULL);
    ck_assert_int_eq(refused(other, &info), PGP_UNAVAILABLE);
    keep(s, PGP_SEC(3));
    ck_assert_int_eq(idle(s), 2);
    acquire(other);
    keep(s, PGP_SEC(60));
    ck_assert_int_eq(idle(s), 2);
}
END_TEST

/* --- the pools of one server ------------------------------------------------- */

/* Another pool beside the stage's, which connects to the same server.  If `beside` has no
 * board, the new pool has no place on it. */
static stage *server_shared(stage *s, stage *beside, const char *timeout)
{
    pgp_server *server = apr_pcalloc(s->p, sizeof(*server));
    stage *other = stage_beside(beside, "PgPoolMin 0", "PgPoolMax 4", "PgPoolServerMax 2",
                                timeout, FOREVER, NULL);

    pgp_pool_attach_server(s->pool, server);
    pgp_pool_attach_server(other->pool, server);
    return other;
}

START_TEST(pool_without_a_place_gives_its_permits_back)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 4", FOREVER, NULL), bare = *s, *other;
    pgp_slot *conn;
    int i;

    bare.board = NULL;
    other = server_shared(s, &bare, "PgPoolAcquireTimeout 2s");
    for (i = 0; i < 5; i++) {
        borrower *b = queue_up(other);

        keep(s, PGP_SEC(3));
        conn = granted(b);
        pgp_pool_discard(&conn, PGP_REASON_HOOK);
        work(s);
    }
}
END_TEST

/* A caller that does not wait is refused.  The server's other pool gives way, so the next
 * caller is served. */
START_TEST(refused_demand_makes_another_pool_give_way)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 4", FOREVER, NULL);
    stage *other = server_shared(s, s, "PgPoolAcquireTimeout 0");
    pgp_acquire_info info;

    warm(s, 2);
    keep(s, PGP_SEC(1));
    refused(other, &info);
    keep(s, PGP_SEC(3));
    ck_assert_int_eq(idle(s), 1);
    acquire(other);
}
END_TEST

/* There is a permit of the pool's quota, but none of the server's.  The published wait begins
 * when the request came, and it counts as a wait for a permit. */
START_TEST(wait_for_the_servers_permit_is_published)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 4", FOREVER, NULL);
    stage *other = server_shared(s, s, "PgPoolAcquireTimeout 60s");
    pgp_quota theirs = foreign(s);
    pgp_outlook look;
    pgp_slot *lent[2];
    apr_time_t began;
    pgp_stats stats;
    borrower *b;

    warm(s, 2);
    lent[0] = acquire(s);
    lent[1] = acquire(s);
    began = s->world->now;
    b = queue_up(other);
    keep(s, PGP_MS(500));
    theirs.row = pgp_board_pool_row(s->board, 1);
    theirs.cap = 0; /* then first_since is the oldest wait */
    pgp_permits_look(&theirs, s->world->now, PGP_SEC(10), &look);
    ck_assert_int_eq(look.first_since, began);
    release(lent[0]);
    release(lent[1]);
    keep(s, PGP_SEC(3));
    release(granted(b));
    pgp_pool_read_stats(other->pool, &stats);
    ck_assert_int_ge(stats.n[PGP_N_TIME_US + PGP_TIME_PERMIT], PGP_MS(500));
}
END_TEST

/* The server is slow to answer the attempts that requests of one pool wait for.  Until these
 * have ended, the other pool does not connect for its PgPoolMin. */
START_TEST(min_waits_for_the_attempts_of_requests)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 8", "PgPoolAcquireTimeout 60s", NULL);
    stage *other = stage_beside(s, "PgPoolMin 1", "PgPoolMax 1", NULL);
    pgp_server *server = apr_pcalloc(s->p, sizeof(*server));
    borrower *waits[6];
    pgp_slot *conn;
    int i;

    server->pools = 2;
    pgp_pool_attach_server(s->pool, server);
    pgp_pool_attach_server(other->pool, server);
    keep(s, PGP_SEC(1));
    conn = acquire(other);
    s->world->plan = (fake_plan){.takes = PGP_SEC(2), .end = FAKE_DONE};
    for (i = 0; i < 6; i++)
        waits[i] = queue_up(s);
    keep(s, PGP_MS(500));
    ck_assert_int_eq(slots(s, PGP_CONNECTING), 6);
    pgp_pool_discard(&conn, PGP_REASON_HOOK);
    keep(s, PGP_MS(500));
    ck_assert_int_eq(slots(other, PGP_CONNECTING), 0);
    keep(s, PGP_SEC(10));
    ck_assert_int_eq(idle(other), 1);
    for (i = 0; i < 6; i++)
        release(granted(waits[i]));
}
END_TEST

/* Another child has the longest idle connection, but it is stopped and does not close it. */
START_TEST(nobody_waits_for_a_stopped_child_with_an_idle_connection)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 4", FOREVER, NULL);
    stage *other = server_shared(s, s, "PgPoolAcquireTimeout 2s");
    pgp_quota stopped;
    borrower *b;

    warm(s, 1);
    stopped = foreign(s);
    stopped.row = pgp_board_server_row(s->board, 0);
    ck_assert(pgp_permits_take(&stopped, s->world->now));
    pgp_permits_set_idle(&stopped, s->world->now - PGP_SEC(1));
    keep(s, PGP_SEC(1));
    b = queue_up(other);
    keep(s, PGP_SEC(1));
    granted(b);
}
END_TEST

/* --- the server's capacity -------------------------------------------------- */

START_TEST(more_than_the_server_takes_is_logged_once)
{
    stage *s = stage_posted("PgPoolMin 1", "PgPoolMax 4", "PgPoolTotalMax 0", NULL);
    stage *other = stage_child(s, "PgPoolMin 2", "PgPoolMax 4", "PgPoolTotalMax 0", NULL);

    s->world->env.children = 3;
    s->world->capacity = 11;
    work(s);
    ck_assert_int_eq(idle(other), 2);
    ck_assert_int_eq(fake_logged(s->world,
                                 "pool main: may ask for 12 connections (3 children x "
                                 "PgPoolMax 4, PgPoolTotalMax 0), but the server "
                                 "takes only 11 "),
                     1);
}
END_TEST

/* How often the warning PGP1018 is logged, with this PgPoolTotalMax, number of children and
 * capacity of the server. */
static int warnings_with(const char *total, int children, int capacity)
{
    stage *s = stage_posted("PgPoolMin 1", "PgPoolMax 4", total, NULL);

    s->world->env.children = children;
    s->world->capacity = capacity;
    work(s);
    return fake_logged(s->world, "PGP1018");
}

START_TEST(warning_about_the_capacity)
{
    ck_assert_int_eq(warnings_with("PgPoolTotalMax 0", 3, 11), 1);
    ck_assert_int_eq(warnings_with("PgPoolTotalMax 0", 3, 12), 0);
    ck_assert_int_eq(warnings_with("PgPoolTotalMax 0", 3, 0), 0); /* 0: not known */
    ck_assert_int_eq(warnings_with("PgPoolTotalMax 11", 3, 11), 0);
    ck_assert_int_eq(warnings_with("PgPoolTotalMax 11", 3, 10), 1);
    ck_assert_int_eq(warnings_with("PgPoolTotalMax 80", 3, 11), 1);
}
END_TEST

/* --- the figures ------------------------------------------------------------ */

static pgp_stats figures(stage *s)
{
    pgp_stats stats;

    s->keeper->next = 0;
    work(s);
    pgp_board_read(s->board, 0, 0, s->world->now, &stats);
    return stats;
}

START_TEST(figures_are_published)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 2", "PgPoolAcquireTimeout 100ms", NULL);
    pgp_slot *a, *b;
    borrower *waiter;
    pgp_stats stats;

    warm(s, 2);
    a = acquire_as(s, "192.0.2.7", (const char *const[]){"GET ", "/slow", NULL});
    keep(s, PGP_MS(1));
    b = acquire(s);
    keep(s, PGP_MS(3));
    waiter = queue_up(s);
    keep(s, PGP_MS(100));
    answered(waiter, PGP_EXHAUSTED);
    stats = figures(s);
    ck_assert_int_eq(stats.n[PGP_N_CONNECTS], 2);
    ck_assert_int_eq(stats.n[PGP_N_ACQUIRES], 4);
    ck_assert_int_eq(stats.n[PGP_N_EXHAUSTED], 1);
    ck_assert_int_eq(stats.state[PGP_IN_USE], 2);
    ck_assert_int_eq(stats.waiting, 0);
    ck_assert_str_eq(stats.borrowers[0].client, "192.0.2.7");
    ck_assert_str_eq(stats.borrowers[0].what, "GET /slow");
    ck_assert_int_eq(stats.borrowers[0].backend, pgp_slot_backend(a));
    pgp_pool_discard(&a, PGP_REASON_HOOK);
    release(b);
    stats = figures(s);
    ck_assert_int_eq(stats.n[PGP_N_CLOSES + PGP_REASON_HOOK], 1);
    ck_assert_int_eq(stats.n[PGP_N_TIME_US + PGP_TIME_HOLD], PGP_MS(104 + 103));
    ck_assert_int_eq(stats.longest[PGP_TIME_HOLD], PGP_MS(104));
    ck_assert_int_eq(stats.state[PGP_IDLE], 1);
    ck_assert_int_eq(stats.borrowers[0].since, 0);
}
END_TEST

START_TEST(long_description_is_cut)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 1", NULL);
    char uri[200];
    pgp_slot *conn;
    pgp_stats stats;

    warm(s, 1);
    memset(uri, 'x', sizeof uri - 1);
    uri[sizeof uri - 1] = '\0';
    conn = acquire_as(s, uri, (const char *const[]){"GET ", uri, " (", uri, NULL});
    stats = figures(s);
    ck_assert_uint_eq(strlen(stats.borrowers[0].client), sizeof stats.borrowers[0].client - 1);
    ck_assert_uint_eq(strlen(stats.borrowers[0].what), sizeof stats.borrowers[0].what - 1);
    ck_assert(!strncmp(stats.borrowers[0].what, "GET xxx", 7));
    release(conn);
}
END_TEST

/* The keeper leaves the pool as soon as it can, as its thread does. */
START_TEST(last_figures_are_published)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 2", NULL);
    pgp_stats stats;

    warm(s, 2);
    pgp_keeper_enter_phase(s->keeper->keeper, PGP_STOPPED);
    while (!pgp_pool_leave(s->pool))
        pgp_keeper_round(s->keeper->keeper);
    pgp_board_read(s->board, 0, 0, s->world->now, &stats);
    ck_assert_int_eq(stats.n[PGP_N_CLOSES + PGP_REASON_STOP], 2);
    ck_assert_int_eq(stats.state[PGP_IDLE], 0);
}
END_TEST

/* After the keeper has left, the seat may be another child's. */
START_TEST(late_return_gives_no_permit_back)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 1", "PgPoolTotalMax 3", NULL);
    const pgp_quota quota = {.board = s->board, .row = 0, .cap = 3};
    pgp_outlook look;
    pgp_slot *conn;

    warm(s, 1);
    conn = acquire(s);
    stop(s);
    release(conn);
    ck_assert_int_eq(fake_open(s->world), 0);
    pgp_permits_look(&quota, s->world->now, PGP_SEC(3), &look);
    ck_assert_int_eq(look.used, 1);
}
END_TEST

START_TEST(waits_are_counted)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_slot *conn;
    borrower *b;
    pgp_stats stats;

    warm(s, 1);
    conn = acquire(s);
    b = queue_up(s);
    keep(s, PGP_MS(30));
    release(conn);
    release(granted(b));
    stats = figures(s);
    ck_assert_int_eq(stats.n[PGP_N_WAITS], 2); /* the first waited for the connect */
    ck_assert_int_eq(stats.n[PGP_N_TIME_US + PGP_TIME_WAIT], PGP_MS(30));
    ck_assert_int_eq(stats.longest[PGP_TIME_WAIT], PGP_MS(30));
}
END_TEST

/* The time that requests wait for a permit has a histogram of its own. */
START_TEST(waits_for_a_permit_are_counted)
{
    stage *other, *s = full_child(&other);
    pgp_slot *conn = acquire(s);
    borrower *b;
    pgp_stats stats;

    acquire(s);
    acquire(s);
    b = queue_up(s); /* it waits for a connection, and the cap is reached */
    keep(s, PGP_MS(30));
    release(conn);
    release(granted(b));
    stats = figures(s);
    ck_assert_int_eq(stats.n[PGP_N_TIME_US + PGP_TIME_PERMIT], PGP_MS(30));
    ck_assert_int_eq(stats.longest[PGP_TIME_PERMIT], PGP_MS(30));
    ck_assert_int_eq(stats.n[PGP_N_WAITS], 4); /* three of them waited for a connect */
}
END_TEST

/* As many connections are open or were closed as were made. */
static void counts_add_up(stage *s)
{
    const pgp_stats stats = figures(s);
    apr_int64_t closed = 0;
    int reason;

    for (reason = 0; reason < PGP_REASONS; reason++)
        if (reason != PGP_REASON_CONNECT)
            closed += stats.n[PGP_N_CLOSES + reason];
    ck_assert_int_eq(stats.n[PGP_N_CONNECTS], closed + pgp_stats_open(&stats));
}

START_TEST(counts_add_up_at_any_time)
{
    stage *s = stage_posted("PgPoolMin 0", "PgPoolMax 4", "PgPoolTotalMax 3", FOREVER, NULL);
    pgp_slot *conn;

    s->world->lingers = 1;
    warm(s, 3);
    counts_add_up(s);
    conn = acquire(s);
    counts_add_up(s);
    pgp_pool_discard(&conn, PGP_REASON_HOOK);
    counts_add_up(s); /* the server's process has not ended */
    s->world->plan = (fake_plan){.end = FAKE_FAILS, .sqlstate = "57P03"};
    conn = acquire(s);
    acquire(s);
    queue_up(s);
    keep(s, PGP_MS(1200));
    counts_add_up(s);
    s->world->plan = (fake_plan){.end = FAKE_HANGS};
    keep(s, PGP_MS(300));
    counts_add_up(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("share");
    TCase *t = tcase(suite, "cap");

    tcase_add_test(t, one_child_keeps_to_the_cap);
    tcase_add_test(t, no_cap);
    tcase_add_test(t, min_keeps_to_the_cap);
    tcase_add_test(t, idle_connection_gives_way_to_a_child_that_waits);
    tcase_add_test(t, idle_connection_gives_way_within_a_second);
    tcase_add_test(t, reading_does_not_end_the_idle_time_for_others);
    tcase_add_test(t, one_permit_is_kept_free_for_a_child_without);
    tcase_add_test(t, another_permit_is_freed_when_it_is_taken);
    tcase_add_test(t, nothing_gives_way_if_each_child_has_a_connection);
    tcase_add_test(t, last_permit_may_be_taken_after_a_turn);
    tcase_add_test(t, own_request_comes_first_unless_younger_by_a_turn);
    tcase_add_test(t, one_connection_is_passed_on_in_a_turn);
    tcase_add_test(t, connection_in_use_gives_way);
    tcase_add_test(t, min_is_made_at_once_if_permits_are_free);
    tcase_add_test(t, permit_that_was_passed_on_is_not_taken_back);
    tcase_add_test(t, outdated_wait_does_not_keep_a_permit);
    tcase_add_test(t, nobody_waits_for_a_stopped_child_that_closes);
    tcase_add_test(t, refused_demand_makes_another_child_give_way);
    tcase_add_test(t, child_without_connections_gets_a_permit_for_min);
    tcase_add_test(t, idle_connection_gives_way_at_once);
    t = tcase(suite, "closing");
    tcase_add_test(t, permit_is_free_when_the_process_has_ended);
    tcase_add_test(t, permit_is_free_after_a_second_at_most);
    tcase_add_test(t, without_a_cap_the_slot_is_free_at_once);
    t = tcase(suite, "server");
    tcase_add_test(t, pool_without_a_place_gives_its_permits_back);
    tcase_add_test(t, refused_demand_makes_another_pool_give_way);
    tcase_add_test(t, wait_for_the_servers_permit_is_published);
    tcase_add_test(t, min_waits_for_the_attempts_of_requests);
    tcase_add_test(t, nobody_waits_for_a_stopped_child_with_an_idle_connection);
    t = tcase(suite, "capacity");
    tcase_add_test(t, more_than_the_server_takes_is_logged_once);
    tcase_add_test(t, warning_about_the_capacity);
    t = tcase(suite, "figures");
    tcase_add_test(t, figures_are_published);
    tcase_add_test(t, waits_are_counted);
    tcase_add_test(t, waits_for_a_permit_are_counted);
    tcase_add_test(t, counts_add_up_at_any_time);
    tcase_add_test(t, long_description_is_cut);
    tcase_add_test(t, last_figures_are_published);
    tcase_add_test(t, late_return_gives_no_permit_back);
    return suite_run(suite);
}
