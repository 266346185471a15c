/*
 * A pool's figures: counters that only grow, gauges, and what is worth telling.
 *
 * Model.  All counters of a pool are one array of 64-bit numbers, so that figures of
 * several children are added by one loop, and printers name what they want by index.
 * Times are counted in buckets: bucket b holds those of less than 2^b microseconds
 * (and not less than half of that), the last one everything longer.
 *
 * Ownership.  A pgp_stats is plain data.  A pool keeps its own under its lock; copies
 * go to the board (pgp_board.h).
 */
#ifndef PGP_STATS_H
#define PGP_STATS_H

#include "pgp_driver.h"
#include "pgp_types.h"

#define PGP_BUCKETS 28 /* the last: 67 s and more */
#define PGP_BORROWERS 5

enum {
    PGP_N_ACQUIRES,                          /* succeeded */
    PGP_N_UNFIT,                             /* connections found unfit, and replaced */
    PGP_N_WAITS,                             /* of the acquires, those that waited */
    PGP_N_EXHAUSTED,                         /* refused */
    PGP_N_UNAVAILABLE,                       /* refused */
    PGP_N_CONNECTS,                          /* succeeded */
    PGP_N_WAIT_US,                           /* sum of the acquires' waits */
    PGP_N_HOLD_US,                           /* sum of the times held */
    PGP_N_PERMIT_US,                         /* of the waits, while a permit was lacking */
    PGP_N_CLOSES,                            /* by pgp_reason */
    PGP_N_WAIT = PGP_N_CLOSES + PGP_REASONS, /* histogram */
    PGP_N_HOLD = PGP_N_WAIT + PGP_BUCKETS,   /* histogram */
    PGP_N_PERMIT = PGP_N_HOLD + PGP_BUCKETS, /* histogram */
    PGP_COUNTERS = PGP_N_PERMIT + PGP_BUCKETS
};

typedef struct {
    apr_uint64_t n[PGP_COUNTERS];
    apr_interval_time_t longest_wait, longest_hold, longest_permit;

    /* gauges */
    int state[PGP_STATES];
    int tls; /* of those that are idle, lent or cleaning */
    int waiting;
    int down;                            /* attempts to connect failed, in a row */
    apr_time_t error_at;                 /* of the last failed one; 0: none yet */
    pgp_error error;                     /* of the last failed one */
    pgp_borrower holders[PGP_BORROWERS]; /* longest first; since 0: no more */
} pgp_stats;

/* Connections that stand.  Those that were made are these and those that were closed, but for
 * PGP_REASON_CONNECT: these were never made. */
static inline int pgp_stats_open(const pgp_stats *stats)
{
    return stats->state[PGP_IDLE] + stats->state[PGP_IN_USE] + stats->state[PGP_CLEANING];
}

/* Count a time in the histogram that starts at `first`. */
void pgp_stats_time(pgp_stats *stats, int first, apr_interval_time_t time);

/* The upper bound of a bucket, in microseconds. */
apr_interval_time_t pgp_stats_bound(int bucket);

/* The time below which a share (0 to 1) of a histogram's entries lies, as the bound of
 * their bucket; 0 if there are none. */
apr_interval_time_t pgp_stats_quantile(const apr_uint64_t histogram[PGP_BUCKETS], double share);

/* Put a holder in its place, if it is one of the longest. */
void pgp_stats_add_borrower(pgp_stats *stats, const pgp_borrower *holder);

/* Add the figures of another child or pool; of the errors the later one stays, of the
 * holders the longest. */
void pgp_stats_add(pgp_stats *sum, const pgp_stats *more);

/* Bring figures that anybody may have written into their ranges, at the time `now`: no
 * negative number, none that sums of many such figures could overflow, no part that is more
 * than its whole, no time to come, no text without an end. */
void pgp_stats_confine(pgp_stats *stats, apr_time_t now);

#endif
