/* The policy of a pool, as pure functions (pgp_policy.h). */

#include "pgp_policy.h"

#include <string.h>

/* A turn lasts one step for each child that waits.  At each step a connection is passed on,
 * which costs a connect: steps of 10 ms cost a hundred connects a second. */
#define LONGEST_STEP PGP_MS(10)
#define SHORTEST_STEP PGP_MS(2)
#define CONNECTS_A_STEP 3
#define TURNS_A_TIMEOUT 4

/* At most one in so many permits, and two more, are on the way from child to child. */
#define PERMITS_A_MOVE 4

#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define MOST(a, b) ((a) > (b) ? (a) : (b))

int pgp_policy_growth(const pgp_demand *d)
{
    /* During an outage one attempt is wanted in any case, to notice its end. */
    const int wanted = MOST(MOST(d->min - d->live, d->waiting), (int)d->is_outage);
    const int at_once = d->is_outage ? 1
                                     : 1 + (int)LEAST(d->demand_age / PGP_GROWTH_STEP, 10000);
    const int start = LEAST(wanted, at_once) - d->connecting;

    return MOST(LEAST(start, d->free), 0);
}

static bool has_elapsed(apr_interval_time_t limit, apr_interval_time_t elapsed)
{
    return limit != PGP_NEVER && elapsed >= limit;
}

pgp_reason pgp_policy_retire(const pgp_slot *slot, const pgp_settings *settings, int spare,
                             apr_time_t now)
{
    if (slot->expires != PGP_NEVER && now >= slot->expires)
        return PGP_REASON_LIFETIME;
    if (spare > 0 && has_elapsed(settings->idle_timeout, now - slot->idle_since))
        return PGP_REASON_IDLE;
    return PGP_REASON_NONE;
}

bool pgp_policy_ping_due(const pgp_slot *slot, const pgp_settings *settings,
                         apr_time_t suspect_since, apr_time_t now)
{
    return has_elapsed(settings->ping, now - slot->idle_since) ||
           slot->idle_since < suspect_since;
}

bool pgp_policy_may_take(const pgp_outlook *look, bool for_wait, bool may_take_last)
{
    const int kept = look->without > 0 ? 1 : 0;

    if (!for_wait)
        return look->free - look->waiting > kept;
    return look->free - look->ahead > (may_take_last ? 0 : kept);
}

pgp_pace pgp_policy_pace(int waiting, apr_interval_time_t connect_time,
                         apr_interval_time_t acquire_timeout)
{
    const apr_interval_time_t longest_turn = acquire_timeout / TURNS_A_TIMEOUT;
    apr_interval_time_t step = LEAST(LONGEST_STEP, CONNECTS_A_STEP * connect_time);

    if (waiting > 0)
        step = LEAST(step, longest_turn / waiting);
    step = MOST(step, SHORTEST_STEP);
    return (pgp_pace){.step = step, .turn = LEAST(waiting * step, longest_turn)};
}

apr_time_t pgp_policy_turn(const pgp_outlook *look, const pgp_pace *pace, apr_time_t last_turn)
{
    if (!look->first_since || look->coming + look->connecting >= 2 + look->cap / PERMITS_A_MOVE)
        return INT64_MAX;
    return MOST(look->first_since + pace->turn, last_turn + pace->step);
}

apr_time_t pgp_policy_expiry(const pgp_settings *settings, apr_time_t now, apr_uint32_t random)
{
    apr_interval_time_t life = settings->max_lifetime;

    if (life == PGP_NEVER)
        return PGP_NEVER;
    return now + life - (apr_interval_time_t)(life * 0.2 * (random / 4294967296.0));
}

pgp_failure pgp_policy_failure(const char *sqlstate)
{
    if (!strcmp(sqlstate, "57P03"))
        return PGP_FAILURE_STARTING;
    if (!strncmp(sqlstate, "28", 2) || !strcmp(sqlstate, "3D000"))
        return PGP_FAILURE_REJECTED;
    return PGP_FAILURE_TRANSIENT;
}

apr_interval_time_t pgp_policy_backoff(const pgp_backoff *backoff, pgp_failure failure,
                                       int failures, apr_uint32_t random)
{
    apr_interval_time_t wait = backoff->first;

    if (failure == PGP_FAILURE_REJECTED)
        return backoff->most;
    if (failure == PGP_FAILURE_STARTING && failures == 0)
        return LEAST(wait, backoff->most);
    while (--failures > 0 && wait < backoff->most)
        wait *= 2;
    wait = LEAST(wait, backoff->most);
    return (apr_interval_time_t)(wait * (random / 4294967296.0));
}
