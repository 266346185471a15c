/*
 * The tables of metrics and histograms, and how to read them off a view (mod_pgpool_metrics.h).
 */
#include "mod_pgpool_metrics.h"

#include <stddef.h>

/* --- the rows' getters and names -------------------------------------------- */

static apr_int64_t get_setting(const pgpool_pool_view *view, int offset)
{
    return *(const int *)((const char *)view->settings + offset);
}

static apr_int64_t get_state(const pgpool_pool_view *view, int state)
{
    return view->stats.state[state];
}

enum { ENCRYPTION_TLS, ENCRYPTION_NONE, ENCRYPTIONS };

static apr_int64_t get_open(const pgpool_pool_view *view, int encryption)
{
    const pgp_stats *stats = &view->stats;

    return encryption == ENCRYPTION_TLS ? stats->tls : pgp_stats_open(stats) - stats->tls;
}

static apr_int64_t get_waiting(const pgpool_pool_view *view, int member)
{
    return view->stats.waiting;
}

static apr_int64_t get_suspended(const pgpool_pool_view *view, int member)
{
    return view->suspended > 0;
}

static apr_int64_t get_failures(const pgpool_pool_view *view, int member)
{
    return view->stats.failures;
}

static apr_int64_t get_counter(const pgpool_pool_view *view, int counter)
{
    return view->stats.n[counter];
}

static apr_int64_t get_closes(const pgpool_pool_view *view, int reason)
{
    return view->stats.n[PGP_N_CLOSES + reason];
}

static apr_int64_t get_cancels(const pgpool_pool_view *view, int cause)
{
    return view->stats.n[PGP_N_CANCELS + cause];
}

static const char *cancel_name(int cause)
{
    return pgp_cancel_name(cause);
}

static const char *state_name(int state)
{
    return pgp_state_name(state);
}

static const char *encryption_name(int encryption)
{
    return encryption == ENCRYPTION_TLS ? "tls" : "plain";
}

static const char *reason_name(int reason)
{
    return pgp_reason_name(reason);
}

/* --- the tables ------------------------------------------------------------- */

#define LIMIT(field, text, words)                                                              \
    {                                                                                          \
        .key = #field, .label = text, .help = words, .kind = PGPOOL_LIMIT, .get = get_setting, \
        .first = offsetof(pgp_settings, field)                                                 \
    }
#define GAUGE(name, text, words, getter)                                                       \
    {                                                                                          \
        .key = name, .label = text, .help = words, .kind = PGPOOL_GAUGE, .get = getter         \
    }
#define COUNTER(name, text, words, id)                                                         \
    {                                                                                          \
        .key = name, .label = text, .help = words, .kind = PGPOOL_COUNTER, .get = get_counter, \
        .first = id                                                                            \
    }

const pgpool_metric pgpool_metrics[] = {
    LIMIT(min, "min", "PgPoolMin, connections kept open in each child"),
    LIMIT(max, "max", "PgPoolMax, connections at most in each child"),
    LIMIT(total_max, "total max",
          "PgPoolTotalMax, connections at most over all children, 0 for no such cap"),
    {.key = "connections",
     .label = "connections",
     .help = "connections by state",
     .kind = PGPOOL_GAUGE,
     .get = get_state,
     .dimension = "state",
     .first = PGP_FREE + 1,
     .end = PGP_STATES,
     .member = state_name},
    {.key = "open",
     .label = "open",
     .help = "established connections by encryption; plain over a Unix socket, too",
     .kind = PGPOOL_GAUGE,
     .get = get_open,
     .dimension = "encryption",
     .first = ENCRYPTION_TLS,
     .end = ENCRYPTIONS,
     .member = encryption_name},
    GAUGE("waiting", "waiting", "requests that wait for a connection", get_waiting),
    GAUGE("suspended", "suspended", "1 while an operator has suspended the pool",
          get_suspended),
    GAUGE("connect_failures", "failing",
          "failed attempts to connect in a row, the most of any child", get_failures),
    COUNTER("acquires", "acquires", "acquires that got a connection", PGP_N_ACQUIRES),
    COUNTER("waits", "waited", "acquires that got a connection after a wait", PGP_N_WAITS),
    COUNTER("exhausted", "exhausted", "acquires that failed: all connections stayed in use",
            PGP_N_EXHAUSTED),
    COUNTER("unavailable", "unavailable", "acquires that failed: no connection to the server",
            PGP_N_UNAVAILABLE),
    COUNTER("connects", "connects", "connections made", PGP_N_CONNECTS),
    COUNTER("unfit", "unfit", "connections found unfit before use, and replaced", PGP_N_UNFIT),
    {.key = "closes",
     .label = "closed",
     .help = "connections closed and attempts given up, by reason",
     .kind = PGPOOL_COUNTER,
     .get = get_closes,
     .dimension = "reason",
     .first = PGP_REASON_NONE + 1,
     .end = PGP_REASONS,
     .member = reason_name},
    COUNTER("statement_hits", "prepared already",
            "statements that their connection had prepared already", PGP_N_STATEMENT_HITS),
    COUNTER("statement_misses", "prepared anew",
            "statements that their connection had not, or that are never prepared",
            PGP_N_STATEMENT_MISSES),
    {.key = "cancels",
     .label = "cancelled",
     .help = "statements cancelled, by cause: PgPoolStatementTimeout, their client's hang-up, "
             "the return of their connection",
     .kind = PGPOOL_COUNTER,
     .get = get_cancels,
     .dimension = "cause",
     .first = PGP_CANCEL_NONE + 1,
     .end = PGP_CANCELS,
     .member = cancel_name},
    {.key = NULL},
};

const pgpool_histogram pgpool_histograms[] = {
    {.key = "wait",
     .label = "waited",
     .help = "how long requests waited for a connection",
     .time = PGP_TIME_WAIT},
    {.key = "hold",
     .label = "held",
     .help = "how long requests had a connection",
     .time = PGP_TIME_HOLD},
    {.key = "permit_wait",
     .label = "waited for a permit",
     .help = "how long requests waited while PgPoolTotalMax or PgPoolServerMax allowed no "
             "further connection, a part of all waits",
     .time = PGP_TIME_PERMIT},
    {.key = "connect",
     .label = "connecting took",
     .help = "how long it took to connect, name look-up and PgPoolInitSQL included",
     .time = PGP_TIME_CONNECT},
    {.key = NULL},
};

const pgpool_quantile pgpool_quantiles[] = {
    {.key = "p50", .fraction = 0.5},
    {.key = "p95", .fraction = 0.95},
    {.key = "p99", .fraction = 0.99},
    {.key = NULL},
};

/* --- reading a view --------------------------------------------------------- */

bool pgpool_metric_is_plain_counter(const pgpool_metric *metric)
{
    return metric->kind == PGPOOL_COUNTER && !metric->dimension;
}

bool pgpool_metric_is_state(const pgpool_metric *metric)
{
    return metric->member == state_name;
}

int pgpool_metric_connections(const pgpool_pool_view *view)
{
    int state, open = 0;

    for (state = PGP_FREE + 1; state < PGP_STATES; state++)
        open += view->stats.state[state];
    return open;
}

apr_uint64_t pgpool_histogram_count(const pgpool_pool_view *view,
                                    const pgpool_histogram *histogram)
{
    apr_uint64_t count = 0;
    int b;

    for (b = 0; b < PGP_BUCKETS; b++)
        count += view->stats.n[pgp_stats_histogram(histogram->time) + b];
    return count;
}

apr_interval_time_t pgpool_histogram_sum(const pgpool_pool_view *view,
                                         const pgpool_histogram *histogram)
{
    return view->stats.n[PGP_N_TIME_US + histogram->time];
}

apr_interval_time_t pgpool_histogram_longest(const pgpool_pool_view *view,
                                             const pgpool_histogram *histogram)
{
    return view->stats.longest[histogram->time];
}

apr_interval_time_t pgpool_histogram_quantile(const pgpool_pool_view *view,
                                              const pgpool_histogram *histogram,
                                              const pgpool_quantile *quantile)
{
    const apr_interval_time_t bound = pgp_stats_quantile(
        &view->stats.n[pgp_stats_histogram(histogram->time)], quantile->fraction);

    return bound < pgp_stats_bound(PGP_BUCKETS - 1) ? bound : APR_INT64_MAX;
}
