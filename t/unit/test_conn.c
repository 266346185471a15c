/* The states of a slot: the edges that pgp_slot.h allows, and no others. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <apr_ring.h>

#include "stage.h"

/* The table of pgp_slot.h, in its order. */
static const char *const goes_to[PGP_STATES] = {
    [PGP_FREE] = "connecting",
    [PGP_CONNECTING] = "idle lent closing",
    [PGP_IDLE] = "lent cleaning closing",
    [PGP_IN_USE] = "idle lent cleaning closing",
    [PGP_CLEANING] = "idle lent closing",
    [PGP_CLOSING] = "free",
};

typedef struct {
    pgp_state from, to;
} edge;

static edge allowed[PGP_STATES * PGP_STATES], forbidden[PGP_STATES * PGP_STATES];
static int allowed_count, forbidden_count;

static void edges_sort(void)
{
    int from, to;

    for (from = 0; from < PGP_STATES; from++)
        for (to = 0; to < PGP_STATES; to++) {
            const edge e = {from, to};

            if (strstr(goes_to[from], pgp_state_name(to)))
                allowed[allowed_count++] = e;
            else
                forbidden[forbidden_count++] = e;
        }
}

static void lists_make(pgp_slot_list *lists)
{
    int i;

    for (i = 0; i < PGP_STATES; i++) {
        APR_RING_INIT(&lists[i].ring, pgp_slot, entry);
        lists[i].count = 0;
    }
}

static void put(pgp_slot_list *lists, pgp_slot *conn, pgp_state state)
{
    *conn = (pgp_slot){.state = state};
    APR_RING_INSERT_TAIL(&lists[state].ring, conn, pgp_slot, entry);
    lists[state].count++;
}

START_TEST(allowed_edge_moves)
{
    const edge e = allowed[_i];
    pgp_slot_list lists[PGP_STATES];
    pgp_slot moved, stays;
    int i;

    lists_make(lists);
    put(lists, &stays, e.to);
    put(lists, &moved, e.from);
    pgp_slot_move(lists, &moved, e.to);
    ck_assert_int_eq(moved.state, e.to);
    for (i = 0; i < PGP_STATES; i++)
        ck_assert_int_eq(lists[i].count, i == (int)e.to ? 2 : 0);
    ck_assert_ptr_eq(APR_RING_FIRST(&lists[e.to].ring), &moved);
    ck_assert_ptr_eq(APR_RING_LAST(&lists[e.to].ring), &stays);
}
END_TEST

START_TEST(forbidden_edge_aborts)
{
    const edge e = forbidden[_i];
    pgp_slot_list lists[PGP_STATES];
    pgp_slot conn;

    ck_assert(freopen("/dev/null", "w", stderr) != NULL); /* assert() writes there */
    lists_make(lists);
    put(lists, &conn, e.from);
    pgp_slot_move(lists, &conn, e.to);
}
END_TEST

START_TEST(every_edge_is_allowed_or_forbidden)
{
    ck_assert_int_eq(allowed_count, 15);
    ck_assert_int_eq(allowed_count + forbidden_count, PGP_STATES * PGP_STATES);
}
END_TEST

START_TEST(names_differ)
{
    int i, k;

    for (i = 0; i < PGP_STATES; i++)
        for (k = 0; k < i; k++)
            ck_assert_str_ne(pgp_state_name(i), pgp_state_name(k));
    for (i = 0; i < PGP_REASONS; i++)
        for (k = 0; k < i; k++)
            ck_assert_str_ne(pgp_reason_name(i), pgp_reason_name(k));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("conn");
    TCase *t = tcase(suite, "states");

    edges_sort();
    tcase_add_test(t, every_edge_is_allowed_or_forbidden);
    tcase_add_test(t, names_differ);
    tcase_add_loop_test(t, allowed_edge_moves, 0, allowed_count);
    tcase_add_loop_test_raise_signal(t, forbidden_edge_aborts, SIGABRT, 0, forbidden_count);
    return suite_run(suite);
}
