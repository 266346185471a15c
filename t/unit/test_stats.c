/* A pool's figures: histograms, the longest borrowers, sums. */
#include <string.h>

#include "stage.h"

#include "pgp_stats.h"

/* --- histograms ------------------------------------------------------------- */

static const struct {
    apr_interval_time_t time;
    int bucket;
} buckets[] = {
    {-5, 0},
    {0, 0},
    {1, 1},
    {2, 2},
    {3, 2},
    {4, 3},
    {7, 3},
    {8, 4},
    {999, 10},
    {1023, 10},
    {1024, 11},
    {1000000, 20},
    {PGP_SEC(60), 26},
    {PGP_SEC(68), 27},
    {PGP_DAY * 365, 27},
};

START_TEST(time_falls_into_its_bucket)
{
    pgp_stats stats;
    int b;

    memset(&stats, 0, sizeof stats);
    pgp_stats_time(&stats, PGP_TIME_HOLD, buckets[_i].time);
    for (b = 0; b < PGP_BUCKETS; b++)
        ck_assert_int_eq(stats.n[pgp_stats_histogram(PGP_TIME_HOLD) + b],
                         b == buckets[_i].bucket);
    if (buckets[_i].bucket < PGP_BUCKETS - 1)
        ck_assert_int_lt(buckets[_i].time, pgp_stats_bound(buckets[_i].bucket));
    if (buckets[_i].bucket > 0)
        ck_assert_int_ge(buckets[_i].time, pgp_stats_bound(buckets[_i].bucket - 1));
    ck_assert_int_eq(stats.n[pgp_stats_histogram(PGP_TIME_HOLD) - 1], 0);
}
END_TEST

START_TEST(quantiles_of_a_histogram)
{
    apr_uint64_t histogram[PGP_BUCKETS] = {0};

    ck_assert_int_eq(pgp_stats_quantile(histogram, 0.5), 0);
    histogram[3] = 90;
    histogram[10] = 9;
    histogram[20] = 1;
    ck_assert_int_eq(pgp_stats_quantile(histogram, 0.5), 8);
    ck_assert_int_eq(pgp_stats_quantile(histogram, 0.9), 8);
    ck_assert_int_eq(pgp_stats_quantile(histogram, 0.95), 1024);
    ck_assert_int_eq(pgp_stats_quantile(histogram, 0.99), 1024);
    ck_assert_int_eq(pgp_stats_quantile(histogram, 1), 1 << 20);
}
END_TEST

/* --- borrowers -------------------------------------------------------------- */

static void add_borrower(pgp_stats *stats, apr_time_t since)
{
    const pgp_borrower b = {.since = since, .backend = (int)since};

    pgp_stats_add_borrower(stats, &b);
}

START_TEST(longest_borrowers_are_kept)
{
    static const int since[] = {50, 20, 70, 10, 60, 30, 40};
    pgp_stats stats;
    int i;

    memset(&stats, 0, sizeof stats);
    for (i = 0; i < LENGTH(since); i++)
        add_borrower(&stats, since[i]);
    for (i = 0; i < PGP_BORROWERS; i++) {
        ck_assert_int_eq(stats.borrowers[i].since, 10 * (i + 1));
        ck_assert_int_eq(stats.borrowers[i].backend, 10 * (i + 1));
    }
}
END_TEST

/* --- sums ------------------------------------------------------------------- */

START_TEST(figures_are_added)
{
    pgp_stats a, b;
    int i;

    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    for (i = 0; i < PGP_COUNTERS; i++) {
        a.n[i] = i;
        b.n[i] = 1000;
    }
    a.state[PGP_IDLE] = 2;
    b.state[PGP_IDLE] = 3;
    a.waiting = b.waiting = 4;
    a.longest[PGP_TIME_WAIT] = 10;
    b.longest[PGP_TIME_WAIT] = 9;
    a.longest[PGP_TIME_HOLD] = 5;
    b.longest[PGP_TIME_HOLD] = 6;
    a.failures = 1;
    b.failures = 7;
    add_borrower(&a, 20);
    add_borrower(&b, 10);
    pgp_stats_add(&a, &b);
    for (i = 0; i < PGP_COUNTERS; i++)
        ck_assert_int_eq(a.n[i], 1000 + i);
    ck_assert_int_eq(a.state[PGP_IDLE], 5);
    ck_assert_int_eq(a.waiting, 8);
    ck_assert_int_eq(a.longest[PGP_TIME_WAIT], 10);
    ck_assert_int_eq(a.longest[PGP_TIME_HOLD], 6);
    ck_assert_int_eq(a.failures, 7);
    ck_assert_int_eq(a.borrowers[0].since, 10);
    ck_assert_int_eq(a.borrowers[1].since, 20);
    ck_assert_int_eq(a.borrowers[2].since, 0);
}
END_TEST

START_TEST(later_error_stays)
{
    pgp_stats sum, early = {.error_at = 5, .error = {.message = "early"}};
    const pgp_stats late = {.error_at = 6, .error = {.message = "late"}};

    memset(&sum, 0, sizeof sum);
    pgp_stats_add(&sum, &late);
    pgp_stats_add(&sum, &early);
    ck_assert_str_eq(sum.error.message, "late");
    pgp_stats_add(&early, &late);
    ck_assert_str_eq(early.error.message, "late");
}
END_TEST

START_TEST(tls_count_is_confined)
{
    pgp_stats stats = {.state = {[PGP_IDLE] = 1, [PGP_IN_USE] = 1, [PGP_CLEANING] = 1},
                       .tls = 4};

    pgp_stats_confine(&stats, 0);
    ck_assert_int_eq(stats.tls, 3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stats");
    TCase *t = tcase(suite, "stats");

    tcase_add_loop_test(t, time_falls_into_its_bucket, 0, LENGTH(buckets));
    tcase_add_test(t, quantiles_of_a_histogram);
    tcase_add_test(t, longest_borrowers_are_kept);
    tcase_add_test(t, figures_are_added);
    tcase_add_test(t, later_error_stays);
    tcase_add_test(t, tls_count_is_confined);
    return suite_run(suite);
}
