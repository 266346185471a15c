/*
 * The policy of a pool, as pure functions: when to open, retire or ping a connection, when to
 * give way to another child, and how long to wait after a failure.
 *
 * Threads.  Any: the functions have no state, no lock and no clock.  A unit test compares them
 * with tables.
 */
#ifndef PGP_POLICY_H
#define PGP_POLICY_H

#include "pgp_slot.h"
#include "pgp_permits.h"

/* One more attempt to connect may run at the same time for each such step that requests have
 * waited. */
#define PGP_GROWTH_STEP PGP_MS(50)

typedef struct {
    int min;                        /* PgPoolMin, 0 while draining */
    int live;                       /* connections that are idle, in use or cleaning */
    int connecting;                 /* connections that are being made */
    int free;                       /* slots left */
    int waiting;                    /* requests that wait; 1 if none does but one was refused */
    apr_interval_time_t demand_age; /* how long requests have been waiting */
    bool is_outage;                 /* the last attempt failed: make one at a time */
} pgp_demand;

/* How many attempts to connect to start now. */
int pgp_policy_growth(const pgp_demand *demand);

/* The reason to close an idle connection now, or PGP_REASON_NONE.  spare: how many connections
 * there are beyond PgPoolMin. */
pgp_reason pgp_policy_retire(const pgp_slot *slot, const pgp_settings *settings, int spare,
                             apr_time_t now);

/* Whether an idle connection needs a ping before use: it was idle for PgPoolPing, or it was
 * idle already at suspect_since, when another connection was found dead. */
bool pgp_policy_ping_due(const pgp_slot *slot, const pgp_settings *settings,
                         apr_time_t suspect_since, apr_time_t now);

/* Whether a child may take a permit (pgp_permits.h, "order" and "reserve").  for_wait: a
 * request waits for it; otherwise the child wants it for PgPoolMin.  may_take_last: the child
 * has no connection, or its oldest request has waited for a turn. */
bool pgp_policy_may_take(const pgp_outlook *look, bool for_wait, bool may_take_last);

/* How fast connections are passed on (pgp_permits.h, "pace"), in microseconds. */
typedef struct {
    apr_interval_time_t step; /* between two connections */
    apr_interval_time_t turn; /* how much longer a request must have waited than another */
} pgp_pace;

/* waiting: how many children wait.  connect_time: as measured. */
pgp_pace pgp_policy_pace(int waiting, apr_interval_time_t connect_time,
                         apr_interval_time_t acquire_timeout);

/* The time of the next turn; INT64_MAX: there is none.  last_turn: the time of the last one. */
apr_time_t pgp_policy_turn(const pgp_outlook *look, const pgp_pace *pace, apr_time_t last_turn);

/* The time at which a connection made now expires, or PGP_NEVER.  It is PgPoolMaxLifetime away,
 * less 0-20 % at random, so that connections made together do not expire together. */
apr_time_t pgp_policy_expiry(const pgp_settings *settings, apr_time_t now, apr_uint32_t random);

/* The kind of a failed attempt to connect; it decides about the next one. */
typedef enum {
    PGP_FAILURE_TRANSIENT, /* it may pass: double the wait each time */
    PGP_FAILURE_STARTING,  /* 57P03, the server starts up: try again soon */
    PGP_FAILURE_REJECTED   /* wrong user, password or database: only an operator can help */
} pgp_failure;

pgp_failure pgp_policy_failure(const char *sqlstate);

/* How long to wait before the next attempt, in microseconds.
 *
 *   TRANSIENT  a random time below a bound: the first wait, doubled with each further failure,
 *              but never more than the greatest wait
 *   STARTING   the same; but exactly the first wait while a request waits (failures 0)
 *   REJECTED   the greatest wait
 *
 * failures: how many attempts of this kind have failed in a row, without those that were made
 * for a waiting request. */
apr_interval_time_t pgp_policy_backoff(const pgp_backoff *backoff, pgp_failure failure,
                                       int failures, apr_uint32_t random);

#endif
