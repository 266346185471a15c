/* The children in their seats: how they come, end, and are reaped (pgp_board.h). */
#include "pgp_board_private.h"

/* Whether a seat's child has ended less than PGP_BOARD_GRACE ago.  Two processes may read the
 * clock in one order and act in the other, so ended_at may lie after now. */
static bool is_graced(const pgp_seat *at, apr_time_t now)
{
    const apr_int64_t ended_at = atomic_load(&at->ended_at);

    return ended_at > 0 && ended_at < now + PGP_BOARD_GRACE && now - ended_at < PGP_BOARD_GRACE;
}

bool pgp_board_is_live(const pgp_board *board, int seat)
{
    return atomic_load(&board->seats[seat].in_use);
}

bool pgp_board_holds_permits(const pgp_board *board, int seat, apr_time_t now)
{
    return pgp_board_is_live(board, seat) || is_graced(&board->seats[seat], now);
}

/* A child as one word, made of seat and incarnation; never 0. */
static apr_uint64_t child_word(const pgp_board *board, int seat)
{
    return (apr_uint64_t)(seat + 1) << 32 | atomic_load(&board->seats[seat].incarnation);
}

static bool is_folded(const pgp_board *board, int seat)
{
    const unsigned current = atomic_load(&board->head->flips) & 1;

    return atomic_load(&board->head->folded[current]) == child_word(board, seat);
}

static void seat_fold(pgp_board *board, int seat)
{
    pgp_head *head = board->head;
    const unsigned flips = atomic_load(&head->flips);
    const unsigned current = flips & 1, idle = !current;

    pgp_board_fold(board, seat, current, idle);
    atomic_store(&head->folded[idle], child_word(board, seat));
    atomic_store(&head->flips, flips + 1);
}

/* Count the figures of a child that has ended, and begin the seat's grace.  The caller holds
 * the locks of the reaper and of the seat. */
static void seat_end(pgp_board *board, int seat, apr_time_t now)
{
    if (!is_folded(board, seat))
        seat_fold(board, seat);
    atomic_store(&board->seats[seat].ended_at, now);
    atomic_store(&board->seats[seat].in_use, 0);
}

static bool reaper_begin(pgp_board *board)
{
    return board->locks.take(board->locks.baton, pgp_board_reaper_byte(board));
}

static void reaper_end(pgp_board *board)
{
    board->locks.drop(board->locks.baton, pgp_board_reaper_byte(board));
}

static void seat_reap(pgp_board *board, int seat, apr_time_t now)
{
    if (!atomic_load(&board->seats[seat].in_use) ||
        !board->locks.take(board->locks.baton, seat))
        return;
    if (atomic_load(&board->seats[seat].in_use))
        seat_end(board, seat, now);
    board->locks.drop(board->locks.baton, seat);
}

/* The last reaper may have died after its flip and before the end of the seat.  That seat
 * comes first, because only the current copy says that it is folded. */
static void reap_interrupted(pgp_board *board, apr_time_t now)
{
    int seat;

    for (seat = 0; seat < board->nseats; seat++)
        if (is_folded(board, seat))
            seat_reap(board, seat, now);
}

void pgp_board_reap(pgp_board *board, apr_time_t now)
{
    const apr_int64_t last = atomic_load(&board->head->reaped_at);
    int seat;

    if ((last > 0 && last <= now && now - last < PGP_BOARD_REAP_STEP) || !reaper_begin(board))
        return;
    atomic_store(&board->head->reaped_at, now);
    reap_interrupted(board, now);
    for (seat = 0; seat < board->nseats; seat++)
        seat_reap(board, seat, now);
    reaper_end(board);
}

/* Empty a seat and occupy it.  The caller holds the seat's lock, so no other process writes
 * here. */
static void seat_begin(pgp_board *board, int seat)
{
    int place, row, top = atomic_load(&board->head->top);

    for (row = 0; row < 2 * board->nplaces; row++) {
        pgp_standing *st = pgp_board_standing(board, seat, row);

        if (atomic_load(&st->permits) || atomic_load(&st->closing) ||
            atomic_load(&st->connecting) || atomic_load(&st->waits_since) ||
            atomic_load(&st->idle_since) ||
            atomic_load(&st->tenure)) { /* a page that nobody has written costs no memory */
            atomic_store(&st->permits, 0);
            atomic_store(&st->closing, 0);
            atomic_store(&st->connecting, 0);
            atomic_store(&st->waits_since, 0);
            atomic_store(&st->idle_since, 0);
            atomic_store(&st->tenure, 0);
        }
    }
    for (place = 0; place < board->nplaces; place++)
        if (board->places[place].current)
            board->locks.share(board->locks.baton, pgp_board_place_byte(board, place));
    while (top <= seat && !atomic_compare_exchange_weak(&board->head->top, &top, seat + 1))
        ;
    atomic_store(&board->seats[seat].ended_at, 0);
    atomic_fetch_add(&board->seats[seat].incarnation, 1);
    atomic_store(&board->seats[seat].in_use, 1);
}

int pgp_board_claim(pgp_board *board, apr_time_t now)
{
    int seat;

    for (seat = 0; seat < board->nseats; seat++) {
        if (pgp_board_holds_permits(board, seat, now) ||
            !board->locks.take(board->locks.baton, seat))
            continue;
        if (!pgp_board_holds_permits(board, seat, now)) {
            seat_begin(board, seat);
            return seat;
        }
        board->locks.drop(board->locks.baton, seat); /* another child claimed it, and died */
    }
    return -1;
}

void pgp_board_leave(pgp_board *board, int seat, apr_time_t now)
{
    if (reaper_begin(board)) {
        reap_interrupted(board, now);
        seat_end(board, seat, now);
        reaper_end(board);
    } /* otherwise the next reaper ends the seat */
    board->locks.drop(board->locks.baton, seat);
}

bool pgp_board_counts(const pgp_board *board, int seat, int *pid)
{
    *pid = 0;
    if (!atomic_load(&board->seats[seat].in_use) || is_folded(board, seat))
        return false;
    *pid = board->locks.holder(board->locks.baton, seat);
    return true;
}
