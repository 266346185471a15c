/* The board: slots and their dead, permits, figures. */
#include <stdlib.h>
#include <string.h>

#include "stage.h"

#define SLOTS 4
#define POOLS 2
#define NOW PGP_SEC(100)

static pgp_board *board;

static void board_begin(void)
{
    /* Never freed: the board stays for as long as the test does. */
    static void *mem;

    mem = calloc(1, pgp_board_size(SLOTS, POOLS));
    REQUIRE(pgp_board_init(&board, mem, SLOTS, POOLS) == APR_SUCCESS, "no board");
    pgp_board_pool(board, "main", "dbname=a", 0);
}

static int used(apr_time_t now)
{
    pgp_standing standing;

    pgp_board_standing(board, 0, 0, 10, now, &standing);
    return standing.used;
}

/* --- pools ------------------------------------------------------------------ */

START_TEST(pools_are_told_apart)
{
    ck_assert_int_eq(pgp_board_pool(board, "main", "dbname=a", 0), 0);
    ck_assert_int_eq(pgp_board_pool(board, "main", "dbname=b", 0), 1);
    ck_assert_int_eq(pgp_board_pool(board, "main", "dbname=b", 0), 1);
    ck_assert_int_eq(pgp_board_pool(board, "more", "dbname=a", 0), -1); /* no room */
    ck_assert_int_eq(pgp_board_pools(board), 2);
    ck_assert_str_eq(pgp_board_pool_name(board, 1), "main");
}
END_TEST

START_TEST(equal_ones_are_numbered)
{
    ck_assert_int_eq(pgp_board_pool(board, "main", "dbname=a", 1), 1);
    ck_assert_int_eq(pgp_board_pool(board, "main", "dbname=a", 0), 0);
}
END_TEST

START_TEST(one_is_the_first)
{
    ck_assert_int_eq(pgp_board_first(board, 0), 1);
    ck_assert_int_eq(pgp_board_first(board, 0), 0);
    ck_assert_int_eq(pgp_board_first(board, 1), 1);
}
END_TEST

/* --- slots ------------------------------------------------------------------ */

START_TEST(each_child_has_a_slot)
{
    int i;

    for (i = 0; i < SLOTS; i++)
        ck_assert_int_eq(pgp_board_claim(board, 100 + i, NOW), i);
    ck_assert_int_eq(pgp_board_claim(board, 999, NOW), -1);
    ck_assert_int_eq(pgp_board_pid(board, 2, NOW), 102);
    pgp_board_leave(board, 2, NOW);
    ck_assert_int_eq(pgp_board_pid(board, 2, NOW), 0);
    /* What it had counts for a while, so its slot is not given away yet. */
    ck_assert_int_eq(pgp_board_claim(board, 999, NOW), -1);
    ck_assert_int_eq(pgp_board_claim(board, 999, NOW + PGP_BOARD_GRACE), 2);
    ck_assert_int_eq(pgp_board_pid(board, 2, NOW + PGP_BOARD_GRACE), 999);
}
END_TEST

/* A child that dies without a word: its keeper's thread ends with the slot's mutex. */
static void *die(void *unused)
{
    static pgp_stats stats;
    const int slot = pgp_board_claim(board, 555, NOW);

    stats.n[PGP_N_LENT] = 7;
    stats.longest_wait = 30;
    stats.longest_hold = 40;
    REQUIRE(slot >= 0, "no slot");
    REQUIRE(pgp_board_take(board, slot, 0, 10, NOW), "no permit");
    REQUIRE(pgp_board_take(board, slot, 0, 10, NOW), "no permit");
    pgp_board_want(board, slot, 0, 3, 30);
    pgp_board_publish(board, slot, 0, &stats);
    return NULL;
}

static void child_that_died(void)
{
    pthread_t thread;

    pthread_create(&thread, NULL, die, NULL);
    pthread_join(thread, NULL);
}

START_TEST(dead_one_is_buried)
{
    pgp_stats dead;
    const unsigned burials = pgp_board_burials_ended(board);

    child_that_died();
    ck_assert_int_eq(pgp_board_pid(board, 0, NOW), 555); /* nobody knows yet */
    ck_assert_int_eq(used(NOW), 2);
    pgp_board_reap(board, NOW + 1);
    ck_assert_int_eq(pgp_board_pid(board, 0, NOW + 1), 0);
    ck_assert_int_eq(used(NOW + PGP_BOARD_GRACE), 2); /* perhaps the server knows not */
    ck_assert_int_eq(used(NOW + PGP_BOARD_GRACE + 1), 0);
    pgp_board_read(board, -1, 0, &dead);
    ck_assert_int_eq(dead.n[PGP_N_LENT], 7);
    ck_assert_uint_eq(pgp_board_burials_begun(board), burials + 1);
    ck_assert_uint_eq(pgp_board_burials_ended(board), burials + 1);
}
END_TEST

START_TEST(dead_are_added_up)
{
    pgp_stats dead;

    child_that_died();
    child_that_died();
    pgp_board_reap(board, NOW);
    pgp_board_read(board, -1, 0, &dead);
    ck_assert_int_eq(dead.n[PGP_N_LENT], 14);
    ck_assert_int_eq(dead.longest_wait, 30);
    ck_assert_int_eq(dead.longest_hold, 40);
}
END_TEST

START_TEST(dead_one_is_buried_once)
{
    pgp_stats stats;

    child_that_died();
    pgp_board_reap(board, NOW);
    pgp_board_reap(board, NOW);
    ck_assert_int_eq(pgp_board_claim(board, 556, NOW + PGP_BOARD_GRACE), 0);
    pgp_board_read(board, -1, 0, &stats);
    ck_assert_int_eq(stats.n[PGP_N_LENT], 7);
    pgp_board_read(board, 0, 0, &stats);
    ck_assert_int_eq(stats.n[PGP_N_LENT], 0);
    ck_assert_int_eq(used(NOW + PGP_BOARD_GRACE), 0);
}
END_TEST

START_TEST(next_child_buries_who_had_its_slot)
{
    pgp_stats dead;

    child_that_died();
    ck_assert_int_eq(pgp_board_claim(board, 556, NOW), 1); /* the grace */
    pgp_board_read(board, -1, 0, &dead);
    ck_assert_int_eq(dead.n[PGP_N_LENT], 7);
}
END_TEST

/* What it lacked is nobody's to give up; its permits count for a while. */
START_TEST(dead_one_lacks_nothing)
{
    pgp_standing standing;

    child_that_died();
    pgp_board_standing(board, 1, 0, 10, NOW, &standing);
    ck_assert_int_eq(standing.lacking, 3);
    ck_assert(standing.shortfall == 8.0);
    pgp_board_reap(board, NOW);
    pgp_board_standing(board, 1, 0, 10, NOW, &standing);
    ck_assert_int_eq(standing.lacking, 0);
    ck_assert(standing.shortfall == 0.0);
    ck_assert_int_eq(standing.used, 2);
}
END_TEST

/* --- permits ---------------------------------------------------------------- */

START_TEST(no_more_permits_than_the_total)
{
    pgp_board_claim(board, 1, NOW);
    pgp_board_claim(board, 2, NOW);
    ck_assert(pgp_board_take(board, 0, 0, 3, NOW));
    ck_assert(pgp_board_take(board, 1, 0, 3, NOW));
    ck_assert(pgp_board_take(board, 0, 0, 3, NOW));
    ck_assert(!pgp_board_take(board, 0, 0, 3, NOW));
    ck_assert(!pgp_board_take(board, 1, 0, 3, NOW));
    ck_assert(pgp_board_take(board, 1, 1, 3, NOW)); /* of another pool */
    pgp_board_give(board, 0, 0);
    ck_assert(pgp_board_take(board, 1, 0, 3, NOW));
    ck_assert(pgp_board_take(board, 1, 0, 0, NOW)); /* no cap */
    ck_assert_int_eq(used(NOW), 4);
}
END_TEST

START_TEST(standing_of_a_child)
{
    pgp_standing standing;

    pgp_board_claim(board, 1, NOW);
    pgp_board_claim(board, 2, NOW);
    pgp_board_claim(board, 3, NOW);
    pgp_board_take(board, 0, 0, 8, NOW);
    pgp_board_take(board, 0, 0, 8, NOW);
    pgp_board_take(board, 1, 0, 8, NOW);
    pgp_board_want(board, 0, 0, 1, 30);
    pgp_board_want(board, 1, 0, 2, 10);
    pgp_board_want(board, 2, 0, 4, 0);
    pgp_board_standing(board, 0, 0, 8, NOW, &standing);
    ck_assert_int_eq(standing.used, 3);
    ck_assert_int_eq(standing.mine, 2);
    ck_assert_int_eq(standing.lacking, 6); /* its own does not count */
    ck_assert_int_eq(standing.without, 1);
    ck_assert(standing.surplus == -4.0);
    ck_assert(standing.shortfall == 1.0);
    pgp_board_standing(board, 2, 0, 8, NOW, &standing);
    ck_assert_int_eq(standing.without, 0);
    ck_assert(standing.surplus == 0.0);
    ck_assert(standing.shortfall == 4.0);
    pgp_board_want(board, 0, 0, 0, 30);
    pgp_board_want(board, 1, 0, 1, 0);
    pgp_board_standing(board, 2, 0, 8, NOW, &standing);
    ck_assert(standing.shortfall == -1.0);
}
END_TEST

#define ROUNDS 20000
#define TOTAL 5

static atomic_int taken;

static void *take_and_give(void *data)
{
    const int slot = *(int *)data;
    int i, mine = 0;

    for (i = 0; i < ROUNDS; i++) {
        if (mine < TOTAL && pgp_board_take(board, slot, 0, TOTAL, NOW)) {
            mine++;
            REQUIRE(atomic_fetch_add(&taken, 1) < TOTAL, "more than the total");
        }
        else if (mine > 0) {
            mine--;
            atomic_fetch_sub(&taken, 1);
            pgp_board_give(board, slot, 0);
        }
    }
    for (; mine > 0; mine--) {
        atomic_fetch_sub(&taken, 1);
        pgp_board_give(board, slot, 0);
    }
    return NULL;
}

START_TEST(total_holds_in_a_race)
{
    pthread_t threads[SLOTS];
    int slots[SLOTS], i;

    for (i = 0; i < SLOTS; i++)
        slots[i] = pgp_board_claim(board, 100 + i, NOW);
    for (i = 0; i < SLOTS; i++)
        pthread_create(&threads[i], NULL, take_and_give, &slots[i]);
    for (i = 0; i < SLOTS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(used(NOW), 0);
}
END_TEST

/* --- figures ---------------------------------------------------------------- */

#define PUBLISHED 2000

static atomic_int published_all;

static void *publish(void *unused)
{
    pgp_stats stats;
    int i, k;

    memset(&stats, 0, sizeof stats);
    for (i = 1; i <= PUBLISHED; i++) {
        for (k = 0; k < PGP_COUNTERS; k++)
            stats.n[k] = i;
        pgp_board_publish(board, 0, 0, &stats);
        apr_sleep(10);
    }
    atomic_store(&published_all, 1);
    return NULL;
}

/* Should the writer lose its processor in the middle, some are of a later moment; but
 * none goes backwards. */
static void figures_read(pgp_stats *last)
{
    const pgp_stats before = *last;
    int k;

    pgp_board_read(board, 0, 0, last);
    for (k = 0; k < PGP_COUNTERS; k++)
        REQUIRE(last->n[k] >= before.n[k], "it goes backwards");
}

START_TEST(figures_are_read_while_they_are_published)
{
    pthread_t writer;
    pgp_stats last;
    int k;

    memset(&last, 0, sizeof last);
    pgp_board_claim(board, 1, NOW);
    pthread_create(&writer, NULL, publish, NULL);
    while (!atomic_load(&published_all))
        figures_read(&last);
    pthread_join(writer, NULL);
    figures_read(&last);
    for (k = 0; k < PGP_COUNTERS; k++)
        ck_assert_int_eq(last.n[k], PUBLISHED);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("board");
    TCase *t = tcase(suite, "board");

    tcase_add_checked_fixture(t, board_begin, NULL);
    tcase_add_test(t, pools_are_told_apart);
    tcase_add_test(t, equal_ones_are_numbered);
    tcase_add_test(t, one_is_the_first);
    tcase_add_test(t, each_child_has_a_slot);
    tcase_add_test(t, dead_one_is_buried);
    tcase_add_test(t, dead_are_added_up);
    tcase_add_test(t, dead_one_is_buried_once);
    tcase_add_test(t, next_child_buries_who_had_its_slot);
    tcase_add_test(t, dead_one_lacks_nothing);
    tcase_add_test(t, no_more_permits_than_the_total);
    tcase_add_test(t, standing_of_a_child);
    tcase_add_test(t, total_holds_in_a_race);
    tcase_add_test(t, figures_are_read_while_they_are_published);
    return suite_run(suite);
}
