/*
 * The figures of a pool: counters, which only grow; gauges of the moment; the last error; and
 * the borrowers that have held a connection longest.
 *
 * Model.  All counters of a pool are one array of 64-bit numbers: one loop adds the figures of
 * several children, and a printer names a counter by its index.  A histogram counts times in
 * buckets.  Bucket b counts the times from 2^(b-1) up to, but not including, 2^b microseconds;
 * the last bucket counts all longer times as well.
 *
 * Ownership.  A pgp_stats is plain data.  A pool's lock guards the pool's own; the keeper
 * publishes copies on the board (pgp_board.h).
 */
#ifndef PGP_STATS_H
#define PGP_STATS_H

#include "pgp_driver.h"
#include "pgp_types.h"

#define PGP_BUCKETS 28 /* the last: 67 s and more */
#define PGP_BORROWERS 5

/* Each of these times is summed up and counted in a histogram; the longest one is kept. */
typedef enum {
    PGP_TIME_WAIT,    /* of successful acquires */
    PGP_TIME_HOLD,    /* in use */
    PGP_TIME_PERMIT,  /* of the waits: without a permit */
    PGP_TIME_CONNECT, /* from the look-up of names to a ready session */
    PGP_TIMES
} pgp_time;

enum {
    PGP_N_ACQUIRES,                               /* succeeded */
    PGP_N_UNFIT,                                  /* connections found unfit, and replaced */
    PGP_N_WAITS,                                  /* successful acquires that had to wait */
    PGP_N_EXHAUSTED,                              /* acquires that ended so */
    PGP_N_UNAVAILABLE,                            /* acquires that ended so */
    PGP_N_CONNECTS,                               /* succeeded */
    PGP_N_STATEMENT_HITS,                         /* statements that were prepared already */
    PGP_N_STATEMENT_MISSES,                       /* others */
    PGP_N_CLOSES,                                 /* by pgp_reason */
    PGP_N_CANCELS = PGP_N_CLOSES + PGP_REASONS,   /* by pgp_cancel */
    PGP_N_TIME_US = PGP_N_CANCELS + PGP_CANCELS,  /* sums, by pgp_time */
    PGP_N_HISTOGRAMS = PGP_N_TIME_US + PGP_TIMES, /* PGP_BUCKETS of them for each pgp_time */
    PGP_COUNTERS = PGP_N_HISTOGRAMS + PGP_TIMES * PGP_BUCKETS
};

typedef struct {
    apr_uint64_t n[PGP_COUNTERS];
    apr_interval_time_t longest[PGP_TIMES];

    /* gauges */
    int state[PGP_STATES];
    int tls; /* of those that are idle, in use or cleaning */
    int waiting;
    int failures;                          /* failed attempts to connect, in a row */
    apr_time_t error_at;                   /* of the last failed one; 0: none yet */
    pgp_error error;                       /* of the last failed one */
    pgp_borrower borrowers[PGP_BORROWERS]; /* longest first; since 0: the list ends */
} pgp_stats;

/* The connections that are open.  (Connections made = open + closed, without those closed with
 * PGP_REASON_CONNECT, which never came to be open.) */
static inline int pgp_stats_open(const pgp_stats *stats)
{
    return stats->state[PGP_IDLE] + stats->state[PGP_IN_USE] + stats->state[PGP_CLEANING];
}

/* Count a time: in its sum, in its histogram, and as the longest one if it is. */
void pgp_stats_time(pgp_stats *stats, pgp_time which, apr_interval_time_t time);

/* The first bucket of a histogram, as an index of n. */
static inline int pgp_stats_histogram(pgp_time which)
{
    return PGP_N_HISTOGRAMS + which * PGP_BUCKETS;
}

/* The upper bound of a bucket, in microseconds. */
apr_interval_time_t pgp_stats_bound(int bucket);

/* A quantile of a histogram, as the upper bound of its bucket in microseconds; 0 if the
 * histogram is empty.  fraction: from 0 to 1. */
apr_interval_time_t pgp_stats_quantile(const apr_uint64_t histogram[PGP_BUCKETS],
                                       double fraction);

/* Insert a borrower into the list of the longest ones, if it is one of them. */
void pgp_stats_add_borrower(pgp_stats *stats, const pgp_borrower *borrower);

/* Add the figures of another child or pool.  The sum keeps the later error and the borrowers
 * that have held longest. */
void pgp_stats_add(pgp_stats *sum, const pgp_stats *more);

/* Bring figures from untrusted memory into their ranges: afterwards no number is negative or so
 * great that a sum of many could overflow, no part exceeds its whole, no time lies after `now`,
 * and each text has an end. */
void pgp_stats_confine(pgp_stats *stats, apr_time_t now);

#endif
