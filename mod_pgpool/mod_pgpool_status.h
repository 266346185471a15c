/*
 * The status: one snapshot of the board, many printers.
 *
 * Model.  A snapshot is made for a request, in its memory, and never changes: a view of
 * each pool over all children, one of each child, one of the children that have ended.
 * Two tables say which figures a pool has (pgpool_figures, pgpool_timings); every
 * printer goes over them, so that a figure has one name in all formats.
 *
 * Texts that come from outside (URIs, addresses, errors) are valid UTF-8 without control
 * characters in a snapshot; what else a format has to escape is its printer's affair.
 */
#ifndef MOD_PGPOOL_STATUS_H
#define MOD_PGPOOL_STATUS_H

#include <apr_tables.h>
#include <httpd.h>

#include "core/pgp_settings.h"
#include "core/pgp_stats.h"

/* The word for a pool's health, and why. */
typedef enum {
    PGPOOL_OK,
    PGPOOL_BUSY,
    PGPOOL_UNKNOWN, /* nothing can be seen of it */
    PGPOOL_EXHAUSTED,
    PGPOOL_DOWN
} pgpool_health;

/* A pool: of all children, of one, or of those that have ended. */
typedef struct {
    int place;         /* on the board; -1: it has none */
    const char *label; /* of its plan */
    const pgp_settings *settings;
    pgp_stats stats;
    pgpool_health health; /* of all children only, as all below */
    const char *why;
    int children; /* that have it now */
    int cut_off;  /* of these, those that have no connection and can make none */
    int limit;    /* connections that they may have together */
} pgpool_view;

/* A process, with its part of each pool, in the order of the snapshot's. */
typedef struct {
    int pid; /* 0: those that have ended */
    pgpool_view *pools;
} pgpool_part;

typedef struct {
    apr_time_t now, start;        /* on the board's clock: this moment, and its beginning */
    apr_array_header_t *pools;    /* of pgpool_view, by label */
    apr_array_header_t *children; /* of pgpool_part */
    pgpool_part ended;
} pgpool_snapshot;

pgpool_snapshot *pgpool_snapshot_take(apr_pool_t *p);
const char *pgpool_health_word(pgpool_health health);
/* The worst of all pools. */
pgpool_health pgpool_snapshot_health(const pgpool_snapshot *all);
/* Connections that there are, whatever their state. */
int pgpool_view_open(const pgpool_view *view);

/* --- the tables ------------------------------------------------------------- */

typedef enum {
    PGPOOL_LIMIT,  /* a setting */
    PGPOOL_GAUGE,  /* of this moment */
    PGPOOL_COUNTER /* only grows */
} pgpool_kind;

/* A figure, or a family of them that a dimension tells apart. */
typedef struct {
    const char *key, *label, *help;
    pgpool_kind kind;
    apr_int64_t (*get)(const pgpool_view *view, int member);
    const char *dimension; /* NULL: one figure, whose only member is `first` */
    int first, end;        /* members: from, up to and without */
    const char *(*member)(int member);
} pgpool_figure;

/* A distribution of times. */
typedef struct {
    const char *key, *label, *help;
    int histogram, sum; /* of pgp_stats.n */
    size_t longest;     /* offset in pgp_stats */
} pgpool_timing;

typedef struct {
    const char *key;
    double share;
} pgpool_quantile;

/* The member() of the family of connections by state. */
const char *pgpool_state_member(int state);

/* Each ends with an entry whose key is NULL. */
extern const pgpool_figure pgpool_figures[];
extern const pgpool_timing pgpool_timings[];
extern const pgpool_quantile pgpool_quantiles[];

apr_uint64_t pgpool_timing_count(const pgpool_view *view, const pgpool_timing *timing);
/* In microseconds: all together, the longest, and the
 * upper bound of a quantile; the last is APR_INT64_MAX where there is none. */
apr_interval_time_t pgpool_timing_sum(const pgpool_view *view, const pgpool_timing *timing);
apr_interval_time_t pgpool_timing_longest(const pgpool_view *view, const pgpool_timing *timing);
apr_interval_time_t pgpool_timing_quantile(const pgpool_view *view, const pgpool_timing *timing,
                                           const pgpool_quantile *quantile);

/* --- the printers ----------------------------------------------------------- */

/* What a viewer saw before, carried in the page's own links: the page's rates are over
 * the time since.  NULL: over all the time; likewise for the pools for which the link had no
 * room. */
typedef struct {
    apr_time_t at;
    int pools;                   /* the first ones */
    const apr_int64_t *counters; /* a pool after the other, each in the order of the table */
} pgpool_sample;

/* NULL if the text is not a sample of these pools, from an earlier moment. */
const pgpool_sample *pgpool_sample_read(apr_pool_t *p, const pgpool_snapshot *all,
                                        const char *text);
const char *pgpool_sample_text(apr_pool_t *p, const pgpool_snapshot *all);

/* refresh: seconds, 0: never. */
void pgpool_print_html(request_rec *r, const pgpool_snapshot *all, const pgpool_sample *before,
                       int refresh);
/* The section of another page. */
void pgpool_print_section(request_rec *r, const pgpool_snapshot *all);
void pgpool_print_json(request_rec *r, const pgpool_snapshot *all);
void pgpool_print_openmetrics(request_rec *r, const pgpool_snapshot *all);
void pgpool_print_auto(request_rec *r, const pgpool_snapshot *all);

#endif
