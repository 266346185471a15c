/* Decides when to retry, wait or probe while attempts to connect fail (pgp_pool_outage.h). */
#include "pgp_pool_outage.h"

/* An attempt to an address where nobody listens costs the server nothing, so callers may probe
 * this many times as often. */
#define ABSENT_FACTOR 10

apr_interval_time_t pgp_outage_fail(pgp_outage *outage, const pgp_failed_attempt *attempt,
                                    const pgp_backoff *retry)
{
    const pgp_failure kind = pgp_policy_failure(attempt->error->sqlstate);
    const bool is_new_kind = !outage->failures || kind != outage->kind;
    const bool is_hastened = kind == PGP_FAILURE_STARTING && attempt->awaited;
    const bool on_demand = outage->on_demand;
    apr_interval_time_t wait;

    outage->on_demand = false;
    if (outage->failures && attempt->began < outage->last)
        return outage->retry_at > attempt->ended ? outage->retry_at - attempt->ended : 0;
    /* A server that starts up will be there soon, so waiting makes sense again. */
    if (!outage->failures || (kind == PGP_FAILURE_STARTING && is_new_kind))
        outage->futile_since = attempt->ended;
    if (is_new_kind || (is_hastened && !on_demand))
        outage->repeats = 0;
    if (!on_demand && !is_hastened)
        outage->repeats++;
    outage->failures++;
    outage->kind = kind;
    outage->error = *attempt->error;
    outage->last = attempt->ended;
    wait = pgp_policy_backoff(retry, kind, outage->repeats, attempt->random);
    outage->retry_at = attempt->ended + wait;
    return wait;
}

void pgp_outage_note_none_left(pgp_outage *outage, apr_time_t now)
{
    outage->futile_since = now;
}

bool pgp_outage_is_futile(const pgp_outage *outage, apr_time_t now,
                          apr_interval_time_t patience)
{
    return outage->failures &&
           (outage->kind == PGP_FAILURE_REJECTED || now - outage->futile_since > patience);
}

void pgp_outage_hasten(pgp_outage *outage, apr_time_t now, const pgp_backoff *retry)
{
    const apr_time_t soon = outage->last + retry->first;

    if (outage->failures && outage->kind == PGP_FAILURE_STARTING && outage->retry_at > soon)
        outage->retry_at = soon > now ? soon : now;
}

bool pgp_outage_may_probe(pgp_outage *outage, apr_time_t now, const pgp_backoff *retry,
                          bool is_under_way)
{
    const apr_interval_time_t pause = retry->first / (outage->error.absent ? ABSENT_FACTOR : 1);
    const bool has_answered = *outage->error.sqlstate;

    if (has_answered && outage->kind != PGP_FAILURE_STARTING)
        return false;
    if (is_under_way)
        return true;
    if (now - outage->last < pause)
        return false;
    outage->retry_at = now;
    outage->on_demand = true;
    return true;
}

bool pgp_outage_has_failed_since(const pgp_outage *outage, apr_time_t then)
{
    return outage->last >= then;
}
