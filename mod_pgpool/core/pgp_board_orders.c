/* Facts that all children share about a pool: an operator's orders, and the gates that decide
 * what is logged (pgp_board.h). */
#include "pgp_board_private.h"

/* --- what one child logs for all -------------------------------------------- */

/* Close the gates that an earlier pool has left open.  Another child may do so at the same
 * time, and open one again at once: what it has written since `left` was read stays. */
static void gates_close(pgp_shared_gates *gates, unsigned tenure)
{
    apr_int64_t left[PGP_GATES];
    int i;

    for (i = 0; i < PGP_GATES; i++)
        left[i] = atomic_load(&gates->gates[i].since);
    if (atomic_load(&gates->tenure) == tenure)
        return;
    for (i = 0; i < PGP_GATES; i++)
        atomic_compare_exchange_strong(&gates->gates[i].since, &left[i], 0);
    atomic_store(&gates->tenure, tenure);
}

/* A pool that gets the place begins with closed gates. */
pgp_gate *pgp_board_gate(pgp_board *board, int place, pgp_gate_id id)
{
    pgp_shared_gates *gates = &board->gates[place < 0 ? board->nplaces : place];
    const unsigned tenure = place < 0 ? 1 : board->places[place].tenure;

    if (atomic_load(&gates->tenure) != tenure)
        gates_close(gates, tenure);
    return &gates->gates[id];
}

/* --- what an operator orders -------------------------------------------------- */

/* 0: there is no such order.  A pool that gets the place begins without orders. */
static apr_time_t order_read(const pgp_board *board, int place, const pgp_shared_order *order)
{
    return atomic_load(&order->tenure) == board->places[place].tenure
               ? atomic_load(&order->time)
               : 0;
}

pgp_orders pgp_board_orders(const pgp_board *board, int place, apr_time_t now)
{
    const pgp_shared_orders *o = &board->orders[place];
    pgp_orders given = {.suspended_until = order_read(board, place, &o->suspended_until),
                        .reconnect_before = order_read(board, place, &o->reconnect_before)};

    if (given.suspended_until <= now || given.suspended_until - PGP_SUSPENSION_MOST > now)
        given.suspended_until = 0;
    if (given.reconnect_before < 0 || given.reconnect_before > now)
        given.reconnect_before = 0;
    return given;
}

/* The time first: nobody may read the time of an earlier pool's order with the new tenure. */
static void order_give(pgp_board *board, int place, pgp_shared_order *order, apr_time_t time)
{
    atomic_store(&order->time, time);
    atomic_store(&order->tenure, board->places[place].tenure);
}

static void children_ring(pgp_board *board)
{
    int seat;

    for (seat = 0; seat < pgp_board_top(board); seat++)
        if (pgp_board_is_live(board, seat))
            pgp_board_ring(board, seat);
}

void pgp_board_suspend(pgp_board *board, int place, apr_time_t until)
{
    order_give(board, place, &board->orders[place].suspended_until, until);
    children_ring(board);
}

void pgp_board_reconnect(pgp_board *board, int place, apr_time_t before)
{
    order_give(board, place, &board->orders[place].reconnect_before, before);
    children_ring(board);
}
