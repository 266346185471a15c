/* Decides which of many equal events is worth a line in the log (pgp_gate.h). */

#include "pgp_gate.h"

#include "pgp_settings.h"

/* A time that another process has written may lie ahead of this process's clock by this much.
 */
#define SKEW PGP_MS(500)

/* No honest child counts more events. */
#define MOST_EVENTS APR_UINT64_C(1000000000000)

static bool is_past(apr_int64_t time, apr_time_t now)
{
    return time > 0 && time <= now + SKEW;
}

/* The count for a line.  Counting starts anew. */
static pgp_gate_count count_take(pgp_gate *gate, apr_int64_t since, apr_time_t now)
{
    const apr_uint64_t events = atomic_exchange(&gate->events, 0);

    return (pgp_gate_count){.events = events < MOST_EVENTS ? events : MOST_EVENTS,
                            .lasted = now > since ? now - since : 1};
}

bool pgp_gate_pass(pgp_gate *gate, apr_time_t now, apr_interval_time_t period,
                   pgp_gate_count *count)
{
    apr_int64_t since = atomic_load(&gate->since), last = atomic_load(&gate->last);

    atomic_fetch_add(&gate->events, 1);
    if (!is_past(since, now)) {
        atomic_store(&gate->last, now);
        if (!atomic_compare_exchange_strong(&gate->since, &since, now))
            return false;
        atomic_store(&gate->events, 0);
        *count = (pgp_gate_count){.events = 1};
        return true;
    }
    if (is_past(last, now) && (period == PGP_NEVER || now - last < period))
        return false;
    if (!atomic_compare_exchange_strong(&gate->last, &last, now))
        return false;
    *count = count_take(gate, since, now);
    return true;
}

bool pgp_gate_is_stale(const pgp_gate *gate, apr_time_t began, apr_time_t now)
{
    const apr_int64_t closed = atomic_load(&gate->closed);

    return is_past(closed, now) && began <= closed;
}

bool pgp_gate_close(pgp_gate *gate, apr_time_t now, apr_interval_time_t quiet,
                    pgp_gate_count *count)
{
    apr_int64_t since = atomic_load(&gate->since), last = atomic_load(&gate->last);

    if (!is_past(since, now) || (is_past(last, now) && now - last < quiet))
        return false;
    /* First the time: a late event that finds the gate closed has to know since when. */
    atomic_store(&gate->closed, now);
    if (!atomic_compare_exchange_strong(&gate->since, &since, 0))
        return false;
    *count = count_take(gate, since, now);
    return true;
}
