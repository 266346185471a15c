#include "pgp_policy.h"

#include <string.h>

/* By more than this one child is above its part and another below.  At 1 to move one from
 * the one to the other would make no difference, and demands fluctuate. */
#define CLEARLY_UNEVEN 1.5

#define LEAST(a, b) ((a) < (b) ? (a) : (b))
#define MOST(a, b) ((a) > (b) ? (a) : (b))

int pgp_policy_growth(const pgp_demand *d)
{
    /* Down, one is wanted in any case: to see when it is over. */
    const int wanted = MOST(MOST(d->min - d->live, d->waiting), d->down);
    const int at_once = d->down ? 1 : 1 + (int)LEAST(d->unmet / PGP_GROWTH_STEP, 10000);
    const int start = LEAST(wanted, at_once) - d->connecting;

    return MOST(LEAST(start, d->free), 0);
}

static int passed(apr_interval_time_t limit, apr_interval_time_t elapsed)
{
    return limit != PGP_NEVER && elapsed >= limit;
}

pgp_reason pgp_policy_retire(const pgp_conn *conn, const pgp_settings *settings, int spare,
                             apr_time_t now)
{
    if (conn->expires != PGP_NEVER && now >= conn->expires)
        return PGP_REASON_LIFETIME;
    if (spare > 0 && passed(settings->idle_timeout, now - conn->idle_since))
        return PGP_REASON_IDLE;
    return PGP_REASON_NONE;
}

int pgp_policy_ping_due(const pgp_conn *conn, const pgp_settings *settings,
                        apr_time_t suspect_since, apr_time_t now)
{
    return passed(settings->ping, now - conn->idle_since) || conn->idle_since < suspect_since;
}

int pgp_policy_spare(const pgp_standing *standing)
{
    return standing->surplus + standing->shortfall > CLEARLY_UNEVEN ||
           (standing->without && (standing->mine > 1 || standing->surplus > 0));
}

int pgp_policy_yield(const pgp_standing *standing)
{
    const int shorter = standing->shortfall > -standing->surplus;

    if (!standing->lacking)
        return 0;
    return standing->mine ? standing->without || shorter : standing->without && shorter;
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
        return PGP_FAILURE_REFUSED;
    return PGP_FAILURE_TRANSIENT;
}

apr_interval_time_t pgp_policy_backoff(const pgp_backoff *backoff, pgp_failure failure,
                                       int failures, apr_uint32_t random)
{
    apr_interval_time_t wait = backoff->first;

    if (failure == PGP_FAILURE_REFUSED)
        return backoff->most;
    if (failure == PGP_FAILURE_STARTING)
        return LEAST(wait, backoff->most);
    while (--failures > 0 && wait < backoff->most)
        wait *= 2;
    wait = LEAST(wait, backoff->most);
    return (apr_interval_time_t)(wait * (random / 4294967296.0));
}
