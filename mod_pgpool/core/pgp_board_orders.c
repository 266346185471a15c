/* Facts that all children share about a pool: an operator's orders, and the gates that decide
 * what is logged (pgp_board.h). */
#include "pgp_board_private.h"

/* --- what one child logs for all -------------------------------------------- */

/* A pool that gets the place begins with closed gates. */
pgp_gate *pgp_board_gate(pgp_board *board, int p, pgp_gate_id id)
{
    pgp_shared_gates *n = &board->gates[p < 0 ? board->nplaces : p];
    const unsigned tenure = p < 0 ? 1 : board->places[p].tenure;
    int i;

    if (atomic_load(&n->tenure) != tenure) {
        for (i = 0; i < PGP_GATES; i++)
            atomic_store(&n->gates[i].since, 0);
        atomic_store(&n->tenure, tenure);
    }
    return &n->gates[id];
}

/* --- what an operator orders -------------------------------------------------- */

pgp_orders pgp_board_orders(const pgp_board *board, int p, apr_time_t now)
{
    const pgp_shared_orders *o = &board->orders[p];
    pgp_orders given = {.suspended_until = 0};

    if (atomic_load(&o->tenure) != board->places[p].tenure)
        return given;
    given.suspended_until = atomic_load(&o->suspended_until);
    given.reconnect_before = atomic_load(&o->reconnect_before);
    if (given.suspended_until <= now || given.suspended_until - PGP_SUSPENSION_MOST > now)
        given.suspended_until = 0;
    if (given.reconnect_before < 0 || given.reconnect_before > now)
        given.reconnect_before = 0;
    return given;
}

/* A pool that gets the place begins without orders. */
static pgp_shared_orders *orders_of(pgp_board *board, int p)
{
    pgp_shared_orders *o = &board->orders[p];
    const unsigned tenure = board->places[p].tenure;

    if (atomic_load(&o->tenure) != tenure) {
        atomic_store(&o->suspended_until, 0);
        atomic_store(&o->reconnect_before, 0);
        atomic_store(&o->tenure, tenure);
    }
    return o;
}

static void children_ring(pgp_board *board)
{
    int s;

    for (s = 0; s < pgp_board_top(board); s++)
        if (pgp_board_is_live(board, s))
            pgp_board_ring(board, s);
}

void pgp_board_suspend(pgp_board *board, int p, apr_time_t until)
{
    atomic_store(&orders_of(board, p)->suspended_until, until);
    children_ring(board);
}

void pgp_board_reconnect(pgp_board *board, int p, apr_time_t before)
{
    atomic_store(&orders_of(board, p)->reconnect_before, before);
    children_ring(board);
}
