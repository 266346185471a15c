/*
 * Views: what the status shows of pools and children.
 *
 * Model.  A snapshot has a view of each pool over all children, a view of each child, and one
 * of the children that have ended.  It is made for a request, in its memory, and never changes
 * (mod_pgpool_snapshot.h).
 *
 * Texts that come from outside (URIs, addresses, errors) are valid UTF-8 without control
 * characters in a view.  The printer of a format escapes whatever else that format needs.
 */
#ifndef MOD_PGPOOL_VIEW_H
#define MOD_PGPOOL_VIEW_H

#include <apr_tables.h>

#include "core/pgp_settings.h"
#include "core/pgp_stats.h"

/* From good to bad. */
typedef enum {
    PGPOOL_OK,
    PGPOOL_BUSY,
    PGPOOL_UNKNOWN,   /* nothing can be seen of it */
    PGPOOL_SUSPENDED, /* by an operator */
    PGPOOL_EXHAUSTED,
    PGPOOL_DOWN
} pgpool_health;

/* A pool: over all children, in one child, or in those that have ended. */
typedef struct {
    int place;         /* on the board; -1: it has none */
    const char *label; /* of its definition */
    const pgp_settings *settings;
    pgp_stats stats;
    apr_interval_time_t suspended; /* for so long from now; 0: it is not */

    /* over all children only */
    pgpool_health health;
    const char *why; /* the health in a sentence */
    int children;    /* that have it now */
    int starved;     /* of these, the ones that have no connection and can make none */
    int limit;       /* connections that they may have together */
} pgpool_pool_view;

typedef struct {
    int pid;                 /* 0: those that have ended */
    pgpool_pool_view *pools; /* in the order of the snapshot's pools */
} pgpool_child_view;

typedef struct {
    apr_time_t now, start;        /* this moment, and when the board was made */
    apr_array_header_t *pools;    /* of pgpool_pool_view, by label */
    apr_array_header_t *children; /* of pgpool_child_view */
    pgpool_child_view ended;
} pgpool_snapshot;

#endif
