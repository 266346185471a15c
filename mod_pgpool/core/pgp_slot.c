/* Moves slots between states, and names states, reasons and causes (pgp_slot.h). */

#include "pgp_slot.h"

#include <assert.h>

#define TO(state) (1u << PGP_##state)

/* The table of pgp_slot.h. */
static const unsigned edges[PGP_STATES] = {
    [PGP_FREE] = TO(CONNECTING),
    [PGP_CONNECTING] = TO(IDLE) | TO(IN_USE) | TO(CLOSING),
    [PGP_IDLE] = TO(IN_USE) | TO(CLEANING) | TO(CLOSING),
    [PGP_IN_USE] = TO(IDLE) | TO(IN_USE) | TO(CLEANING) | TO(CLOSING),
    [PGP_CLEANING] = TO(IDLE) | TO(IN_USE) | TO(CLOSING),
    [PGP_CLOSING] = TO(FREE),
};

static const char *const state_names[PGP_STATES] = {
    [PGP_FREE] = "free",   [PGP_CONNECTING] = "connecting", [PGP_IDLE] = "idle",
    [PGP_IN_USE] = "lent", [PGP_CLEANING] = "cleaning",     [PGP_CLOSING] = "closing",
};

static const char *const reason_names[PGP_REASONS] = {
    [PGP_REASON_NONE] = "none",       [PGP_REASON_CONNECT] = "connect",
    [PGP_REASON_IDLE] = "idle",       [PGP_REASON_LIFETIME] = "lifetime",
    [PGP_REASON_LOST] = "lost",       [PGP_REASON_PING] = "ping",
    [PGP_REASON_UNCLEAN] = "unclean", [PGP_REASON_UNKNOWN] = "unknown",
    [PGP_REASON_RESET] = "reset",     [PGP_REASON_LARGE] = "large",
    [PGP_REASON_HOOK] = "hook",       [PGP_REASON_SHARED] = "shared",
    [PGP_REASON_ORDER] = "order",     [PGP_REASON_STOP] = "stop",
    [PGP_REASON_KILLED] = "killed",
};

static const char *const cancel_names[PGP_CANCELS] = {
    [PGP_CANCEL_NONE] = "none",
    [PGP_CANCEL_RETURN] = "return",
    [PGP_CANCEL_DEADLINE] = "deadline",
    [PGP_CANCEL_HANG_UP] = "hang-up",
};

void pgp_slot_move(pgp_slot_list *lists, pgp_slot *slot, pgp_state to)
{
    assert(edges[slot->state] & (1u << to));
    APR_RING_REMOVE(slot, entry);
    lists[slot->state].count--;
    slot->state = to;
    APR_RING_INSERT_HEAD(&lists[to].ring, slot, pgp_slot, entry);
    lists[to].count++;
}

const char *pgp_state_name(pgp_state state)
{
    return state_names[state];
}

const char *pgp_reason_name(pgp_reason reason)
{
    return reason_names[reason];
}

const char *pgp_cancel_name(pgp_cancel cause)
{
    return cancel_names[cause];
}
