/*
 * The pool's judgement, as pure functions: when to grow, to retire, to test, how
 * long to wait after a failure.  No state, no lock, no clock of their own; the
 * unit tests hold them against tables.
 */
#ifndef PGP_POLICY_H
#define PGP_POLICY_H

#include "pgp_slot.h"
#include "pgp_permits.h"

/* Unmet demand starts one more connect at a time for each of these. */
#define PGP_GROWTH_STEP PGP_MS(50)

typedef struct {
    int min;                        /* PgPoolMin, 0 while draining */
    int live;                       /* idle, lent and cleaning */
    int connecting;                 /* started already */
    int free;                       /* slots left */
    int waiting;                    /* borrowers that wait */
    apr_interval_time_t demand_age; /* how long somebody has been waiting */
    int down;                       /* the last attempt failed: probe, one at a time */
} pgp_demand;

/* How many connects to start now. */
int pgp_policy_growth(const pgp_demand *demand);

/* Why an idle connection ought to be closed now, or PGP_REASON_NONE.
 * spare: connections above PgPoolMin. */
pgp_reason pgp_policy_retire(const pgp_slot *conn, const pgp_settings *settings, int spare,
                             apr_time_t now);

/* Whether a connection needs a round trip before it is given out: it was idle
 * for PgPoolPing, or since before another one was found dead. */
int pgp_policy_ping_due(const pgp_slot *conn, const pgp_settings *settings,
                        apr_time_t suspect_since, apr_time_t now);

/* Whether a child may take a permit (pgp_permits.h, "order" and "reserve").  for_wait: a
 * request waits for it; else it would be for PgPoolMin.  may_take_last: the child has no
 * connection, or its oldest request has waited for a turn. */
int pgp_policy_may_take(const pgp_outlook *look, int for_wait, int may_take_last);

/* How far apart turns are.  waiting: children that wait.  connect_time: as measured. */
apr_interval_time_t pgp_policy_step(int waiting, apr_interval_time_t connect_time,
                                    apr_interval_time_t acquire_timeout);

/* When the next turn comes; INT64_MAX: there is none.  passed: when the last one was. */
apr_time_t pgp_policy_turn(const pgp_outlook *look, apr_interval_time_t step,
                           apr_time_t passed);

/* When a connection born now expires: PgPoolMaxLifetime less 0-20 % at random,
 * so that those born together do not die together; or PGP_NEVER. */
apr_time_t pgp_policy_expiry(const pgp_settings *settings, apr_time_t now, apr_uint32_t random);

/* What a failed connect says about the next. */
typedef enum {
    PGP_FAILURE_TRANSIENT, /* may pass: back off, doubling */
    PGP_FAILURE_STARTING,  /* 57P03, the server starts up: try again soon */
    PGP_FAILURE_REJECTED   /* wrong user, password or database: waiting is no use */
} pgp_failure;

pgp_failure pgp_policy_failure(const char *sqlstate);

/* How long to wait after the failures-th failure of its kind in a row (from 1), those not
 * counted that a request waited for: full jitter, i.e. any time from 0 to the first wait
 * doubled each time, capped at the greatest.  A refusal: the greatest wait.  A server that
 * starts up while a request waits (failures 0): the first wait. */
apr_interval_time_t pgp_policy_backoff(const pgp_backoff *backoff, pgp_failure failure,
                                       int failures, apr_uint32_t random);

#endif
