/* The pool's check of its invariants sees each invariant that the test breaks. */
#include "pgp_pool_private.h"
#include "stage.h"

/* Break an invariant, see that the check finds it, and mend it, so that the test can go on. */
#define SEEN(s, breaks, mends, as)                                                             \
    do {                                                                                       \
        pgp_pool *const pool_ = (s)->pool;                                                     \
        pgp_pool_lock(pool_);                                                                  \
        ck_assert_ptr_null(pgp_pool_broken_locked(pool_));                                     \
        breaks;                                                                                \
        ck_assert_pstr_eq(pgp_pool_broken_locked(pool_), as);                                  \
        mends;                                                                                 \
        pgp_pool_unlock(pool_);                                                                \
    } while (0)

static pgp_slot *first_idle(stage *s)
{
    return APR_RING_FIRST(&s->pool->lists[PGP_IDLE].ring);
}

static void slot_drop(pgp_pool *pool, pgp_slot *conn)
{
    APR_RING_REMOVE(conn, entry);
    pool->lists[PGP_IDLE].count--;
}

static void slot_put(pgp_pool *pool, pgp_slot *conn)
{
    APR_RING_INSERT_HEAD(&pool->lists[PGP_IDLE].ring, conn, pgp_slot, entry);
    pool->lists[PGP_IDLE].count++;
}

START_TEST(broken_slots)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 2", NULL);
    pgp_slot *conn;
    pgp_connection *connection;

    warm(s, 2);
    conn = first_idle(s);
    SEEN(s, conn->state = PGP_IN_USE, conn->state = PGP_IDLE,
         "a slot is not on the list of its state");
    SEEN(s, s->pool->lists[PGP_IDLE].count = 1, s->pool->lists[PGP_IDLE].count = 2,
         "a slot is not on the list of its state");
    SEEN(s, slot_drop(s->pool, conn), slot_put(s->pool, conn), "a slot is on no list");
    connection = conn->connection;
    SEEN(s, conn->connection = NULL, conn->connection = connection,
         "an idle slot has no connection");
}
END_TEST

static void queue_swap(pgp_pool *pool)
{
    waiter *first = APR_RING_FIRST(&pool->queue);

    APR_RING_REMOVE(first, entry);
    APR_RING_INSERT_TAIL(&pool->queue, first, waiter, entry);
}

START_TEST(broken_queue)
{
    stage *s = stage_set("PgPoolMin 0", "PgPoolMax 1", NULL);
    pgp_slot *conn;
    borrower *early, *late;
    waiter *first;

    warm(s, 1);
    conn = acquire(s);
    late = queue_up(s);
    early = queue_up_early(s, PGP_SEC(1));
    first = APR_RING_FIRST(&s->pool->queue);
    SEEN(s, queue_swap(s->pool), queue_swap(s->pool), "the queue is not sorted by deadline");
    SEEN(s, first->ended = 1, first->ended = 0, "a wait that has ended is in the queue");
    SEEN(s, s->pool->waiting++, s->pool->waiting--, "the number of waiters is wrong");
    SEEN(s, s->pool->phase = PGP_STOPPED, s->pool->phase = PGP_RUNNING,
         "a request waits for a stopped pool");
    SEEN(s, pgp_slot_move(s->pool->lists, conn, PGP_IDLE),
         pgp_slot_move(s->pool->lists, conn, PGP_IN_USE),
         "a request waits while a connection is idle");
    release(conn);
    release(granted(early));
    release(granted(late));
}
END_TEST

START_TEST(thread_knows_that_it_holds_the_lock)
{
    stage *s = stage_set("PgPoolMin 0", NULL);

    ck_assert(!pgp_pool_holds_lock(s->pool));
    pgp_pool_lock(s->pool);
    ck_assert(pgp_pool_holds_lock(s->pool));
    pgp_pool_unlock(s->pool);
    ck_assert(!pgp_pool_holds_lock(s->pool));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool_check");
    TCase *t = tcase(suite, "invariants");

    tcase_add_test(t, broken_slots);
    tcase_add_test(t, broken_queue);
    tcase_add_test(t, thread_knows_that_it_holds_the_lock);
    return suite_run(suite);
}
