/* Permits: the children of one httpd share a number of connections (pgp_permits.h). */
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>

#include "stage.h"

#include "pgp_bells.h"
#include "pgp_permits.h"

#define NOW PGP_SEC(1000)
#define PATIENCE PGP_SEC(3)
#define SEATS 5
#define TOTAL 3

static pgp_board *board;
static fake_locks *locks;
static pgp_quota child[SEATS];
static int rung[SEATS];

static void ring(void *baton, int seat)
{
    ck_assert_int_ge(seat, 0);
    ck_assert_int_lt(seat, SEATS);
    rung[seat]++;
}

static int no_fd(void *baton, int seat)
{
    return -1;
}

/* Five children of one pool, for which there are three permits. */
static void permits_begin(void)
{
    const pgp_board_pool pools[] = {{.name = "a", .server = "dbname=a", .host = "db"},
                                    {.name = "b", .server = "dbname=b", .host = "db"},
                                    {.name = "c", .server = "dbname=c", .host = "other"}};
    const pgp_bells bells = {.baton = rung, .ring = ring, .fd = no_fd};
    apr_pool_t *p;
    pgp_locks fake;
    int i;

    apr_pool_create(&p, NULL);
    locks = fake_locks_make(p, pgp_board_locks(SEATS, 3));
    fake = fake_locks_of(locks);
    REQUIRE(pgp_board_create(&board, p, SEATS, 3, &fake) == APR_SUCCESS, "no board");
    pgp_board_attach_bells(board, &bells);
    pgp_board_configure(board, pools, 3);
    for (i = 0; i < SEATS; i++)
        child[i] = (pgp_quota){.board = board,
                               .seat = pgp_board_claim(board, NOW),
                               .row = pgp_board_pool_row(board, 0),
                               .cap = TOTAL};
}

static pgp_outlook look_of(int i)
{
    pgp_outlook look;

    pgp_permits_look(&child[i], NOW, PATIENCE, &look);
    return look;
}

/* --- the quota -------------------------------------------------------------- */

START_TEST(no_more_permits_than_the_quota)
{
    pgp_quota without_cap = child[1];

    without_cap.cap = 0;
    ck_assert(pgp_permits_take(&child[0], NOW));
    ck_assert(pgp_permits_take(&child[1], NOW));
    ck_assert(pgp_permits_take(&child[0], NOW));
    ck_assert(!pgp_permits_take(&child[0], NOW));
    ck_assert(!pgp_permits_take(&child[1], NOW));
    pgp_permits_give(&child[0]);
    ck_assert(pgp_permits_take(&child[1], NOW));
    ck_assert(pgp_permits_take(&without_cap, NOW));
    ck_assert_int_eq(look_of(0).used, 4);
    ck_assert_int_eq(look_of(0).free, 0);
    ck_assert_int_eq(look_of(0).holders, 2);
}
END_TEST

START_TEST(pools_of_one_server_have_a_row_in_common)
{
    ck_assert_int_eq(pgp_board_server_row(board, 0), pgp_board_server_row(board, 1));
    ck_assert_int_ne(pgp_board_server_row(board, 0), pgp_board_server_row(board, 2));
    ck_assert_int_ne(pgp_board_pool_row(board, 0), pgp_board_pool_row(board, 1));
    ck_assert_int_ne(pgp_board_server_row(board, 0), pgp_board_pool_row(board, 2));
}
END_TEST

#define ROUNDS 20000

static atomic_int taken;

static void *take_and_give(void *data)
{
    const pgp_quota *quota = data;
    int i, mine = 0;

    for (i = 0; i < ROUNDS; i++) {
        if (mine < TOTAL && pgp_permits_take(quota, NOW)) {
            mine++;
            REQUIRE(atomic_fetch_add(&taken, 1) < TOTAL, "more than the quota");
        }
        else if (mine > 0) {
            mine--;
            atomic_fetch_sub(&taken, 1);
            pgp_permits_give(quota);
        }
    }
    for (; mine > 0; mine--) {
        atomic_fetch_sub(&taken, 1);
        pgp_permits_give(quota);
    }
    return NULL;
}

START_TEST(quota_holds_in_a_race)
{
    pthread_t threads[SEATS];
    int i;

    for (i = 0; i < SEATS; i++)
        pthread_create(&threads[i], NULL, take_and_give, &child[i]);
    for (i = 0; i < SEATS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(look_of(0).used, 0);
}
END_TEST

/* --- order ------------------------------------------------------------------ */

START_TEST(children_wait_in_order)
{
    pgp_permits_set_wait(&child[0], NOW - 20);
    pgp_permits_set_wait(&child[1], NOW - 30);
    pgp_permits_set_wait(&child[2], NOW - 20);
    ck_assert_int_eq(look_of(1).ahead, 0);
    ck_assert_int_eq(look_of(0).ahead, 1); /* of equal waits the lower seat's is first */
    ck_assert_int_eq(look_of(2).ahead, 2);
    ck_assert_int_eq(look_of(3).ahead, 3); /* child 3 would be the last */
    ck_assert_int_eq(look_of(3).waiting, 3);
    ck_assert_int_eq(look_of(3).without, 1);
    ck_assert_int_eq(look_of(3).first_since, 0); /* there is a permit for each */
}
END_TEST

START_TEST(first_without_a_permit)
{
    pgp_permits_set_wait(&child[0], NOW - 20);
    pgp_permits_set_wait(&child[1], NOW - 30);
    pgp_permits_set_wait(&child[2], NOW - 10);
    pgp_permits_take(&child[3], NOW);
    pgp_permits_take(&child[3], NOW);
    pgp_permits_take(&child[3], NOW);
    ck_assert_int_eq(look_of(3).first_since, NOW - 30);
    pgp_permits_set_moving(&child[3], 1, 0, NOW); /* one is closing; child 1 will get it */
    ck_assert_int_eq(look_of(3).first_since, NOW - 20);
    pgp_permits_set_moving(&child[3], 0, 0, NOW);
    pgp_permits_give(&child[3]); /* a free permit counts like one that is closing */
    ck_assert_int_eq(look_of(3).first_since, NOW - 20);
    pgp_permits_set_moving(&child[3], 1, 1, NOW);
    ck_assert_int_eq(look_of(3).first_since, NOW - 10);
    ck_assert_int_eq(look_of(0).connecting, 1);
}
END_TEST

START_TEST(outdated_wait_does_not_count)
{
    pgp_permits_set_wait(&child[0], NOW - PATIENCE - 1);
    pgp_permits_set_wait(&child[1], NOW + PGP_SEC(1));
    ck_assert_int_eq(look_of(2).waiting, 0);
    ck_assert_int_eq(look_of(0).waiting, 1); /* but a child's own wait does */
}
END_TEST

START_TEST(longest_idle)
{
    pgp_permits_take(&child[0], NOW);
    pgp_permits_take(&child[1], NOW);
    ck_assert_int_eq(look_of(2).idlest, -1);
    pgp_permits_set_idle(&child[0], NOW - 10);
    pgp_permits_set_idle(&child[1], NOW - 20);
    ck_assert_int_eq(look_of(2).idlest, child[1].seat);
    ck_assert_int_eq(look_of(2).idle_since, NOW - 20);
    ck_assert_int_eq(look_of(1).idlest, child[0].seat); /* its own does not count */
    pgp_permits_set_idle(&child[1], 0);
    ck_assert_int_eq(look_of(2).idlest, child[0].seat);
}
END_TEST

/* --- bells ------------------------------------------------------------------ */

START_TEST(children_that_free_permits_belong_to_are_rung)
{
    pgp_permits_set_wait(&child[0], NOW - 10);
    pgp_permits_set_wait(&child[1], NOW - 30);
    pgp_permits_set_wait(&child[2], NOW - 20);
    pgp_permits_take(&child[3], NOW);
    pgp_permits_ring(&child[3], NOW, PATIENCE); /* two permits are free */
    ck_assert_int_eq(rung[1], 1);
    ck_assert_int_eq(rung[2], 1);
    ck_assert_int_eq(rung[0], 0);
    pgp_permits_take(&child[3], NOW);
    pgp_permits_take(&child[3], NOW);
    pgp_permits_ring(&child[3], NOW, PATIENCE); /* none is free */
    ck_assert_int_eq(rung[1], 1);
}
END_TEST

/* A module in the child may use select(), which takes only descriptors below FD_SETSIZE. */
START_TEST(bells_leave_the_low_descriptors)
{
    struct rlimit limit;
    pgp_bells bells;
    apr_pool_t *p;
    eventfd_t rings;
    int s;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < 2 * FD_SETSIZE)
        return; /* all descriptors are that low */
    apr_pool_create(&p, NULL);
    ck_assert_int_eq(pgp_bells_create(&bells, p, SEATS), APR_SUCCESS);
    for (s = 0; s < SEATS; s++)
        ck_assert_int_ge(bells.fd(bells.baton, s), FD_SETSIZE);
    bells.ring(bells.baton, 3);
    ck_assert_int_eq(eventfd_read(bells.fd(bells.baton, 3), &rings), 0);
    ck_assert_int_ne(eventfd_read(bells.fd(bells.baton, 2), &rings), 0);
}
END_TEST

/* --- turns ------------------------------------------------------------------ */

START_TEST(turn_is_passed_once)
{
    pgp_outlook look = look_of(0);

    ck_assert(look.turn == INT64_MAX);
    pgp_permits_set_turn(&child[0], &look, NOW + 5);
    ck_assert_int_eq(pgp_permits_turn(&child[1]), NOW + 5);
    ck_assert(pgp_permits_pass(&child[1], NOW + 5, NOW + 7));
    ck_assert(!pgp_permits_pass(&child[2], NOW + 5, NOW + 8));
    ck_assert(pgp_permits_turn(&child[2]) == INT64_MAX);
    ck_assert_int_eq(pgp_permits_last_turn(&child[3], NOW + 9), NOW + 5);
}
END_TEST

START_TEST(turn_is_not_set_on_an_outdated_look)
{
    pgp_outlook look = look_of(0), old;

    pgp_permits_set_turn(&child[0], &look, NOW + 5);
    old = look_of(1);
    ck_assert(pgp_permits_pass(&child[2], NOW + 5, NOW + 6));
    pgp_permits_set_turn(&child[1], &old, NOW + 7);
    ck_assert(pgp_permits_turn(&child[2]) == INT64_MAX);
}
END_TEST

START_TEST(missed_turns_are_made_up_for)
{
    pgp_outlook look = look_of(0);

    pgp_permits_set_turn(&child[0], &look, NOW - PGP_MS(30));
    ck_assert(pgp_permits_pass(&child[1], NOW - PGP_MS(30), NOW));
    ck_assert_int_eq(pgp_permits_last_turn(&child[1], NOW), NOW - PGP_MS(30));
    look = look_of(0);
    pgp_permits_set_turn(&child[0], &look, NOW - PGP_SEC(3));
    ck_assert(pgp_permits_pass(&child[1], NOW - PGP_SEC(3), NOW));
    ck_assert_int_eq(pgp_permits_last_turn(&child[1], NOW), NOW - PGP_MS(200)); /* the most */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("permits");
    TCase *t = tcase(suite, "permits");

    tcase_add_checked_fixture(t, permits_begin, NULL);
    tcase_add_test(t, no_more_permits_than_the_quota);
    tcase_add_test(t, pools_of_one_server_have_a_row_in_common);
    tcase_add_test(t, quota_holds_in_a_race);
    tcase_add_test(t, children_wait_in_order);
    tcase_add_test(t, first_without_a_permit);
    tcase_add_test(t, outdated_wait_does_not_count);
    tcase_add_test(t, longest_idle);
    tcase_add_test(t, children_that_free_permits_belong_to_are_rung);
    tcase_add_test(t, bells_leave_the_low_descriptors);
    tcase_add_test(t, turn_is_passed_once);
    tcase_add_test(t, turn_is_not_set_on_an_outdated_look);
    tcase_add_test(t, missed_turns_are_made_up_for);
    return suite_run(suite);
}
