/* Takes, gives and orders the permits of the children of one httpd (pgp_permits.h). */
#include "pgp_permits.h"

#include "pgp_board_private.h"

/* No honest child has more permits. */
#define MOST_PERMITS 10000

/* The times that two processes read at the same moment may differ by this. */
#define CLOCKS_APART PGP_MS(100)

/* After this time the numbers of closing and connecting connections that a child has published
 * count no longer. */
#define MOVING_FOR PGP_SEC(2)

/* Steps at which no connection came back are made up for if they are not older than this. */
#define MOST_LATE PGP_MS(200)

static pgp_turn *turn_of(const pgp_quota *quota)
{
    return &quota->board->turns[quota->row];
}

static pgp_standing *own_standing(const pgp_quota *quota)
{
    return pgp_board_standing(quota->board, quota->seat, quota->row);
}

static int confined(int value)
{
    return value < 0 ? 0 : value > MOST_PERMITS ? MOST_PERMITS : value;
}

/* A time that a child has published; 0 if none is set, or if it lies in the future. */
static apr_time_t past_time(apr_int64_t time, apr_time_t now)
{
    return time > 0 && time <= now + CLOCKS_APART ? time : 0;
}

static int permits_count(const pgp_quota *quota, apr_time_t now)
{
    const int top = pgp_board_top(quota->board);
    int s, sum = 0;

    for (s = 0; s < top; s++)
        if (pgp_board_holds_permits(quota->board, s, now))
            sum += confined(
                atomic_load(&pgp_board_standing(quota->board, s, quota->row)->permits));
    return sum;
}

bool pgp_permits_take(const pgp_quota *quota, apr_time_t now)
{
    atomic_fetch_add(&own_standing(quota)->permits, 1);
    if (!quota->cap || permits_count(quota, now) <= quota->cap)
        return true;
    pgp_permits_give(quota);
    return false;
}

void pgp_permits_give(const pgp_quota *quota)
{
    atomic_fetch_sub(&own_standing(quota)->permits, 1);
}

void pgp_permits_set_wait(const pgp_quota *quota, apr_time_t since)
{
    atomic_store(&own_standing(quota)->waits_since, since);
}

void pgp_permits_set_idle(const pgp_quota *quota, apr_time_t since)
{
    atomic_store_explicit(&own_standing(quota)->idle_since, since, memory_order_relaxed);
}

void pgp_permits_set_moving(const pgp_quota *quota, int closing, int connecting, apr_time_t now)
{
    atomic_store(&own_standing(quota)->moving_at, now);
    atomic_store(&own_standing(quota)->closing, closing);
    atomic_store(&own_standing(quota)->connecting, connecting);
}

/* --- the order -------------------------------------------------------------- */

/* Set each child's entry of the board's times to the time since which the child has waited; 0:
 * the child does not wait.  Returns how many children wait. */
static int waits_read(const pgp_quota *quota, apr_time_t now, apr_interval_time_t patience)
{
    apr_time_t *waits = quota->board->times;
    const int top = pgp_board_top(quota->board);
    int s, n = 0;

    for (s = 0; s < top; s++) {
        waits[s] = 0;
        if (pgp_board_is_live(quota->board, s))
            waits[s] = past_time(
                atomic_load(&pgp_board_standing(quota->board, s, quota->row)->waits_since),
                now);
        if (waits[s] && s != quota->seat && now - waits[s] > patience)
            waits[s] = 0;
        n += waits[s] > 0;
    }
    return n;
}

static bool is_before(const apr_time_t *waits, int a, int b)
{
    return waits[a] < waits[b] || (waits[a] == waits[b] && a < b);
}

/* The child whose turn comes after that of the child in seat `after`; -1: the first of all.
 * Returns its seat, or -1 if there is none. */
static int next_in_order(const pgp_quota *quota, int after)
{
    const apr_time_t *waits = quota->board->times;
    const int top = pgp_board_top(quota->board);
    int s, first = -1;

    for (s = 0; s < top; s++)
        if (waits[s] && (after < 0 || is_before(waits, after, s)) &&
            (first < 0 || is_before(waits, s, first)))
            first = s;
    return first;
}

static void holdings_look(const pgp_quota *quota, apr_time_t now, pgp_outlook *look)
{
    const int top = pgp_board_top(quota->board);
    int s, permits;

    for (s = 0; s < top; s++) {
        const pgp_standing *st = pgp_board_standing(quota->board, s, quota->row);
        const int live = pgp_board_is_live(quota->board, s);
        apr_time_t idle_since;

        permits = pgp_board_holds_permits(quota->board, s, now)
                      ? confined(atomic_load(&st->permits))
                      : 0;
        look->used += permits;
        look->holders += permits > 0;
        if (!live)
            continue;
        if (permits && past_time(atomic_load(&st->moving_at), now) > now - MOVING_FOR) {
            look->coming += confined(atomic_load(&st->closing));
            look->connecting += confined(atomic_load(&st->connecting));
        }
        if (s == quota->seat)
            continue;
        look->without += !permits && !quota->board->times[s];
        idle_since = past_time(atomic_load_explicit(&st->idle_since, memory_order_relaxed),
                               now);
        if (permits && idle_since && (!look->idle_since || idle_since < look->idle_since)) {
            look->idle_since = idle_since;
            look->idlest = s;
        }
    }
}

void pgp_permits_look(const pgp_quota *quota, apr_time_t now, apr_interval_time_t patience,
                      pgp_outlook *look)
{
    const apr_time_t *waits = quota->board->times;
    const int top = pgp_board_top(quota->board);
    int s, n, served, first = -1;

    *look = (pgp_outlook){.idlest = -1, .turn = pgp_permits_turn(quota), .cap = quota->cap};
    look->waiting = waits_read(quota, now, patience);
    holdings_look(quota, now, look);
    look->free = look->used < quota->cap ? quota->cap - look->used : 0;
    for (s = 0; s < top; s++)
        look->ahead += waits[s] && s != quota->seat &&
                       (!waits[quota->seat] || is_before(waits, s, quota->seat));
    served = look->free + look->coming;
    if (look->waiting <= served)
        return;
    for (n = 0; n <= served; n++)
        first = next_in_order(quota, first);
    look->first_since = first < 0 ? 0 : waits[first];
}

void pgp_permits_ring(const pgp_quota *quota, apr_time_t now, apr_interval_time_t patience)
{
    int waiting, free, s = -1;

    if (!quota->cap)
        return;
    waiting = waits_read(quota, now, patience);
    if (!waiting)
        return;
    for (free = quota->cap - permits_count(quota, now); free > 0 && waiting > 0;
         free--, waiting--) {
        s = next_in_order(quota, s);
        if (s < 0)
            break;
        if (s != quota->seat)
            pgp_board_ring(quota->board, s);
    }
}

/* --- turns ------------------------------------------------------------------ */

/* A word that was never written is 0, and means no turn, too. */
apr_time_t pgp_permits_turn(const pgp_quota *quota)
{
    const apr_int64_t turn = atomic_load_explicit(&turn_of(quota)->next, memory_order_relaxed);

    return turn > 0 ? turn : INT64_MAX;
}

/* Replace the turn that the caller has seen by another one.  The caller has seen a word that
 * was never written, and is 0, as INT64_MAX.  false: the turn has changed meanwhile. */
static bool turn_swap(const pgp_quota *quota, apr_time_t seen, apr_time_t turn)
{
    _Atomic apr_int64_t *next = &turn_of(quota)->next;
    apr_int64_t before = atomic_load(next);

    if (before != seen && !(before <= 0 && seen == INT64_MAX))
        return false;
    return atomic_compare_exchange_strong(next, &before, turn);
}

bool pgp_permits_pass(const pgp_quota *quota, apr_time_t turn, apr_time_t now)
{
    const apr_time_t late = now - turn > MOST_LATE ? now - MOST_LATE : turn;

    if (!turn_swap(quota, turn, INT64_MAX))
        return false;
    atomic_store(&turn_of(quota)->last, late);
    return true;
}

apr_time_t pgp_permits_last_turn(const pgp_quota *quota, apr_time_t now)
{
    return past_time(atomic_load(&turn_of(quota)->last), now);
}

void pgp_permits_set_turn(const pgp_quota *quota, const pgp_outlook *look, apr_time_t turn)
{
    if (turn != look->turn)
        turn_swap(quota, look->turn, turn);
}

/* --- a server without places ------------------------------------------------- */

void pgp_permits_set_full(const pgp_quota *quota, int n, apr_time_t now)
{
    pgp_turn *turn = turn_of(quota);

    atomic_store(&turn->full, n);
    atomic_store(&turn->full_at, now);
}

int pgp_permits_full(const pgp_quota *quota, apr_time_t now, apr_interval_time_t age)
{
    const pgp_turn *turn = turn_of(quota);
    const apr_time_t at = past_time(atomic_load(&turn->full_at), now);

    return at && now - at < age ? confined(atomic_load(&turn->full)) : 0;
}
