/* Adds, bounds and summarises the statistics of a pool (pgp_stats.h). */

#include "pgp_stats.h"

static int bucket_of(apr_interval_time_t time)
{
    int bucket = time > 0 ? 64 - __builtin_clzll((unsigned long long)time) : 0;

    return bucket < PGP_BUCKETS ? bucket : PGP_BUCKETS - 1;
}

void pgp_stats_time(pgp_stats *stats, pgp_time which, apr_interval_time_t time)
{
    stats->n[PGP_N_TIME_US + which] += time;
    stats->n[pgp_stats_histogram(which) + bucket_of(time)]++;
    if (time > stats->longest[which])
        stats->longest[which] = time;
}

apr_interval_time_t pgp_stats_bound(int bucket)
{
    return APR_INT64_C(1) << bucket;
}

apr_interval_time_t pgp_stats_quantile(const apr_uint64_t histogram[PGP_BUCKETS],
                                       double fraction)
{
    apr_uint64_t all = 0, below = 0;
    int b;

    for (b = 0; b < PGP_BUCKETS; b++)
        all += histogram[b];
    for (b = 0; b < PGP_BUCKETS; b++) {
        below += histogram[b];
        if (all && below >= fraction * all)
            return pgp_stats_bound(b);
    }
    return 0;
}

void pgp_stats_add_borrower(pgp_stats *sum, const pgp_borrower *more)
{
    int i, k;

    for (i = 0; i < PGP_BORROWERS; i++)
        if (!sum->borrowers[i].since || more->since < sum->borrowers[i].since)
            break;
    if (i == PGP_BORROWERS)
        return;
    for (k = PGP_BORROWERS - 1; k > i; k--)
        sum->borrowers[k] = sum->borrowers[k - 1];
    sum->borrowers[i] = *more;
}

void pgp_stats_add(pgp_stats *sum, const pgp_stats *more)
{
    int i;

    for (i = 0; i < PGP_COUNTERS; i++)
        sum->n[i] += more->n[i];
    for (i = 0; i < PGP_STATES; i++)
        sum->state[i] += more->state[i];
    sum->tls += more->tls;
    sum->waiting += more->waiting;
    for (i = 0; i < PGP_TIMES; i++)
        if (more->longest[i] > sum->longest[i])
            sum->longest[i] = more->longest[i];
    if (more->failures > sum->failures)
        sum->failures = more->failures;
    if (more->error_at > sum->error_at) {
        sum->error_at = more->error_at;
        sum->error = more->error;
    }
    for (i = 0; i < PGP_BORROWERS && more->borrowers[i].since; i++)
        pgp_stats_add_borrower(sum, &more->borrowers[i]);
}

/* As microseconds, nine years.  The sum of a histogram's buckets is still a whole number in
 * JSON, which ends at 2^53. */
#define MOST_COUNTED (APR_INT64_C(1) << 48)
#define MOST_AT_ONCE 100000

static apr_int64_t confined(apr_int64_t value, apr_int64_t most)
{
    return value < 0 ? 0 : value > most ? most : value;
}

static void borrower_confine(pgp_borrower *borrower, apr_time_t now)
{
    borrower->since = confined(borrower->since, now);
    borrower->client[sizeof borrower->client - 1] = '\0';
    borrower->what[sizeof borrower->what - 1] = '\0';
}

void pgp_stats_confine(pgp_stats *stats, apr_time_t now)
{
    int i;

    for (i = 0; i < PGP_COUNTERS; i++)
        if (stats->n[i] > MOST_COUNTED)
            stats->n[i] = MOST_COUNTED;
    for (i = 0; i < PGP_TIMES; i++)
        stats->longest[i] = confined(stats->longest[i], MOST_COUNTED);
    for (i = 0; i < PGP_STATES; i++)
        stats->state[i] = confined(stats->state[i], MOST_AT_ONCE);
    stats->tls = confined(stats->tls, pgp_stats_open(stats));
    stats->waiting = confined(stats->waiting, MOST_AT_ONCE);
    stats->failures = confined(stats->failures, APR_INT32_MAX);
    stats->error_at = confined(stats->error_at, now);
    stats->error.sqlstate[sizeof stats->error.sqlstate - 1] = '\0';
    stats->error.message[sizeof stats->error.message - 1] = '\0';
    for (i = 0; i < PGP_BORROWERS; i++)
        borrower_confine(&stats->borrowers[i], now);
}
