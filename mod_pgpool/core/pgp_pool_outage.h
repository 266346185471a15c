/*
 * An outage: when and why attempts to connect fail, and when a caller may wait or probe.
 *
 * Model.  An outage begins with the first attempt to connect that fails, and ends with the
 * first one that succeeds.
 *
 *   retry     The keeper makes the next attempt after a wait (pgp_policy_backoff).  Attempts
 *             that were made for a caller do not lengthen that wait.
 *   futile    An outage may be short, so callers wait.  Waiting is futile if the server has
 *             rejected us (wrong user, password or database), or if there has been no usable
 *             connection for longer than a caller may wait.  Then callers fail at once.
 *   probe     If the server gives no answer, or says that it starts up, only an attempt tells
 *             whether it is back.  So although waiting is futile, one caller at a time may
 *             await an attempt: the one under way, or one that is made for it.
 *
 * Ownership.  A pgp_outage is plain data; a zeroed one means no outage.  It has no clock and
 * no lock of its own: a pool's mutex guards it.
 */
#ifndef PGP_POOL_OUTAGE_H
#define PGP_POOL_OUTAGE_H

#include <stdbool.h>

#include "pgp_policy.h"

typedef struct {
    int failures; /* in a row; attempts that ran at the same time count as one; 0: no outage */
    int repeats;  /* how many of the last failures were of one kind, and not of attempts that
                   * were made for a caller */
    pgp_failure kind;        /* of the last failure */
    pgp_error error;         /* of the last failure */
    apr_time_t last;         /* when the last failure was */
    apr_time_t retry_at;     /* when the keeper makes the next attempt */
    apr_time_t futile_since; /* since when callers wait without a usable connection */
    bool on_demand;          /* the next attempt is made for a caller */
} pgp_outage;

/* An attempt to connect that has failed. */
typedef struct {
    const pgp_error *error;
    apr_time_t began, ended;
    bool awaited;        /* a caller waits for a connection */
    apr_uint32_t random; /* for the jitter of the wait */
} pgp_failed_attempt;

/* Record a failure, unless the attempt began before another one failed: then it tells nothing
 * new.  Returns how long the keeper waits before the next attempt. */
apr_interval_time_t pgp_outage_fail(pgp_outage *outage, const pgp_failed_attempt *attempt,
                                    const pgp_backoff *retry);

/* The last usable connection has gone: callers have none from now on. */
void pgp_outage_note_none_left(pgp_outage *outage, apr_time_t now);

/* Whether a caller without a usable connection waits in vain.  patience: how long a caller may
 * wait. */
bool pgp_outage_is_futile(const pgp_outage *outage, apr_time_t now,
                          apr_interval_time_t patience);

/* A caller begins to wait: if the server starts up, make the next attempt soon. */
void pgp_outage_hasten(pgp_outage *outage, apr_time_t now, const pgp_backoff *retry);

/* Whether a caller may await an attempt although waiting is futile.  If so, and none is under
 * way, one is due now. */
bool pgp_outage_may_probe(pgp_outage *outage, apr_time_t now, const pgp_backoff *retry,
                          bool is_under_way);

/* Whether an attempt has failed since then. */
bool pgp_outage_has_failed_since(const pgp_outage *outage, apr_time_t then);

#endif
