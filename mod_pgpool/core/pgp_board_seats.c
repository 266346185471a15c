/* The children in their seats: how they come, end, and are reaped (pgp_board.h). */
#include "pgp_board_private.h"

/* Two processes may read the clock in one order and act in the other, so ended_at may lie after
 * now. */
static bool is_graced(const pgp_seat *at, apr_time_t now)
{
    const apr_int64_t ended_at = atomic_load(&at->ended_at);

    return ended_at > 0 && ended_at < now + PGP_BOARD_GRACE && now - ended_at < PGP_BOARD_GRACE;
}

bool pgp_board_is_live(const pgp_board *board, int s)
{
    return atomic_load(&board->seats[s].in_use);
}

bool pgp_board_holds_permits(const pgp_board *board, int s, apr_time_t now)
{
    return pgp_board_is_live(board, s) || is_graced(&board->seats[s], now);
}

/* A child as one word, made of seat and incarnation; never 0. */
static apr_uint64_t child_word(const pgp_board *board, int s)
{
    return (apr_uint64_t)(s + 1) << 32 | atomic_load(&board->seats[s].incarnation);
}

static bool is_folded(const pgp_board *board, int s)
{
    const unsigned current = atomic_load(&board->head->flips) & 1;

    return atomic_load(&board->head->folded[current]) == child_word(board, s);
}

static void seat_fold(pgp_board *board, int s)
{
    pgp_head *head = board->head;
    const unsigned flips = atomic_load(&head->flips);
    const unsigned current = flips & 1, idle = !current;

    pgp_board_fold(board, s, current, idle);
    atomic_store(&head->folded[idle], child_word(board, s));
    atomic_store(&head->flips, flips + 1);
}

/* The caller holds the reaper's lock and that of the seat. */
static void seat_end(pgp_board *board, int s, apr_time_t now)
{
    if (!is_folded(board, s))
        seat_fold(board, s);
    atomic_store(&board->seats[s].ended_at, now);
    atomic_store(&board->seats[s].in_use, 0);
}

static bool reaper_begin(pgp_board *board)
{
    return board->locks.take(board->locks.baton, pgp_board_reaper_byte(board));
}

static void reaper_end(pgp_board *board)
{
    board->locks.drop(board->locks.baton, pgp_board_reaper_byte(board));
}

static void seat_reap(pgp_board *board, int s, apr_time_t now)
{
    if (!atomic_load(&board->seats[s].in_use) || !board->locks.take(board->locks.baton, s))
        return;
    if (atomic_load(&board->seats[s].in_use))
        seat_end(board, s, now);
    board->locks.drop(board->locks.baton, s);
}

/* The last reaper may have died after its flip and before the end of the seat.  That seat
 * comes first, because only the current copy says that it is folded. */
static void reap_interrupted(pgp_board *board, apr_time_t now)
{
    int s;

    for (s = 0; s < board->nseats; s++)
        if (is_folded(board, s))
            seat_reap(board, s, now);
}

void pgp_board_reap(pgp_board *board, apr_time_t now)
{
    const apr_int64_t last = atomic_load(&board->head->reaped_at);
    int s;

    if ((last > 0 && last <= now && now - last < PGP_BOARD_REAP_STEP) || !reaper_begin(board))
        return;
    atomic_store(&board->head->reaped_at, now);
    reap_interrupted(board, now);
    for (s = 0; s < board->nseats; s++)
        seat_reap(board, s, now);
    reaper_end(board);
}

/* The caller holds the seat's lock, so no other process writes here. */
static void seat_begin(pgp_board *board, int s)
{
    int p, row, top = atomic_load(&board->head->top);

    for (row = 0; row < 2 * board->nplaces; row++) {
        pgp_standing *st = pgp_board_standing(board, s, row);

        if (atomic_load(&st->permits) || atomic_load(&st->closing) ||
            atomic_load(&st->connecting) || atomic_load(&st->waits_since) ||
            atomic_load(&st->idle_since) ||
            atomic_load(&st->tenure)) { /* unused memory stays untouched */
            atomic_store(&st->permits, 0);
            atomic_store(&st->closing, 0);
            atomic_store(&st->connecting, 0);
            atomic_store(&st->waits_since, 0);
            atomic_store(&st->idle_since, 0);
            atomic_store(&st->tenure, 0);
        }
    }
    for (p = 0; p < board->nplaces; p++)
        if (board->places[p].current)
            board->locks.share(board->locks.baton, pgp_board_place_byte(board, p));
    while (top <= s && !atomic_compare_exchange_weak(&board->head->top, &top, s + 1))
        ;
    atomic_store(&board->seats[s].ended_at, 0);
    atomic_fetch_add(&board->seats[s].incarnation, 1);
    atomic_store(&board->seats[s].in_use, 1);
}

int pgp_board_claim(pgp_board *board, apr_time_t now)
{
    int s;

    for (s = 0; s < board->nseats; s++) {
        if (pgp_board_holds_permits(board, s, now) || !board->locks.take(board->locks.baton, s))
            continue;
        if (!pgp_board_holds_permits(board, s, now)) {
            seat_begin(board, s);
            return s;
        }
        board->locks.drop(board->locks.baton, s); /* another child claimed it, and died */
    }
    return -1;
}

void pgp_board_leave(pgp_board *board, int s, apr_time_t now)
{
    if (reaper_begin(board)) {
        reap_interrupted(board, now);
        seat_end(board, s, now);
        reaper_end(board);
    } /* otherwise the next reaper ends the seat */
    board->locks.drop(board->locks.baton, s);
}

bool pgp_board_counts(const pgp_board *board, int s, int *pid)
{
    *pid = 0;
    if (!atomic_load(&board->seats[s].in_use) || is_folded(board, s))
        return false;
    *pid = board->locks.holder(board->locks.baton, s);
    return true;
}
