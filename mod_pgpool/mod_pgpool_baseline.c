/*
 * Writes and reads the baseline of the page's rates (mod_pgpool_baseline.h).
 */
#include "mod_pgpool_baseline.h"

#include <apr_lib.h>
#include <apr_strings.h>

#include "mod_pgpool_metrics.h"

int pgpool_baseline_counters(void)
{
    const pgpool_metric *metric;
    int n = 0;

    for (metric = pgpool_metrics; metric->key; metric++)
        n += pgpool_metric_is_plain_counter(metric);
    return n;
}

static apr_int64_t *counters_of(apr_pool_t *p, const pgpool_snapshot *all)
{
    apr_int64_t *counters = apr_palloc(p, (all->pools->nelts * pgpool_baseline_counters() + 1) *
                                              sizeof(*counters));
    const pgpool_metric *metric;
    int i, n = 0;

    for (i = 0; i < all->pools->nelts; i++)
        for (metric = pgpool_metrics; metric->key; metric++)
            if (pgpool_metric_is_plain_counter(metric))
                counters[n++] = metric->get(&APR_ARRAY_IDX(all->pools, i, pgpool_pool_view),
                                            metric->first);
    return counters;
}

/* A request line carries the baseline, and httpd accepts up to LimitRequestLine (8190). */
#define BASELINE_LENGTH_MAX 4000

/* "_1,2,0,3", without the zeros at its end. */
static const char *pool_baseline_text(apr_pool_t *p, const apr_int64_t *counters)
{
    const char *text = "_";
    int n = pgpool_baseline_counters(), i;

    while (n > 0 && !counters[n - 1])
        n--;
    for (i = 0; i < n; i++)
        text = apr_pstrcat(p, text, i ? "," : "", apr_off_t_toa(p, counters[i]), NULL);
    return text;
}

const char *pgpool_baseline_text(apr_pool_t *p, const pgpool_snapshot *all)
{
    const apr_int64_t *counters = counters_of(p, all);
    const int pools = all->pools->nelts;
    apr_array_header_t *parts = apr_array_make(p, pools + 1, sizeof(const char *));
    const char *part = apr_psprintf(p, "%" APR_TIME_T_FMT ",%d", all->now, pools);
    apr_size_t length = strlen(part);
    int i;

    APR_ARRAY_PUSH(parts, const char *) = part;
    for (i = 0; i < pools; i++) {
        part = pool_baseline_text(p, counters + i * pgpool_baseline_counters());
        length += strlen(part);
        if (length > BASELINE_LENGTH_MAX)
            break;
        APR_ARRAY_PUSH(parts, const char *) = part;
    }
    return apr_array_pstrcat(p, parts, 0);
}

/* Read the counters of one pool, from behind its "_".  Returns the end. */
static const char *pool_baseline_read(const char *text, apr_int64_t *counters)
{
    const int n = pgpool_baseline_counters();
    char *end = (char *)text;
    int i;

    for (i = 0; i < n && apr_isdigit(*end); i++) {
        counters[i] = apr_strtoi64(end, &end, 10);
        if (*end == ',')
            end++;
    }
    return end;
}

const pgpool_baseline *pgpool_baseline_read(apr_pool_t *p, const pgpool_snapshot *all,
                                            const char *text)
{
    const apr_int64_t *now = counters_of(p, all);
    const int n = pgpool_baseline_counters(), pools = all->pools->nelts;
    apr_int64_t *then = apr_pcalloc(p, (pools * n + 1) * sizeof(*then));
    pgpool_baseline *baseline = apr_palloc(p, sizeof(*baseline));
    const char *at;
    char *end;
    int i;

    *baseline = (pgpool_baseline){.at = apr_strtoi64(text, &end, 10), .counters = then};
    if (baseline->at < all->start || baseline->at >= all->now || *end != ',' ||
        apr_strtoi64(end + 1, &end, 10) != pools)
        return NULL;
    for (at = end; baseline->pools < pools && *at == '_'; baseline->pools++)
        at = pool_baseline_read(at + 1, then + baseline->pools * n);
    if (*at)
        return NULL;
    for (i = 0; i < baseline->pools * n; i++)
        if (then[i] > now[i])
            return NULL;
    return baseline;
}
