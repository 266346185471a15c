/* The keeper's thread: its rounds, its sleep, its end (pgp_keeper.h). */

#include "pgp_keeper.h"
#include "pgp_slot.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <apr_tables.h>
#include <apr_thread_proc.h>

#include "pgp_pool_keeper.h"

/* A keeper without pools sleeps this long. */
#define LONGEST_SLEEP PGP_SEC(60)

#define JOIN_STEP PGP_MS(2)

/* During a clean-up the keeper looks at the connection this often even if nothing arrives: the
 * driver may have to cancel once more. */
#define CLEANING_STEP PGP_MS(50)

struct pgp_keeper {
    /* immutable once started */
    apr_pool_t *p;
    const pgp_env *env;
    apr_array_header_t *pools; /* of pgp_pool * */
    pgp_board *board;          /* NULL: alone */
    apr_thread_t *thread;
    int wake_fd;

    /* atomic */
    _Atomic pgp_phase phase;
    _Atomic bool ended;

    /* the keeper's thread only */
    pgp_slot **slots;   /* room for all slots of all pools */
    struct pollfd *fds; /* room for their sockets, the wake_fd and the bell */
    int nslots, nfds;
    int seat;             /* of this child, on the board; -1: none yet */
    int bell;             /* of that seat; -1: none */
    apr_time_t reaped_at; /* when it last visited the board */
};

apr_status_t pgp_keeper_create(pgp_keeper **created, apr_pool_t *p, const pgp_env *env)
{
    pgp_keeper *keeper = apr_pcalloc(p, sizeof(*keeper));

    keeper->p = p;
    keeper->env = env;
    keeper->seat = keeper->bell = -1;
    keeper->pools = apr_array_make(p, 4, sizeof(pgp_pool *));
    keeper->fds = apr_palloc(p, 2 * sizeof(*keeper->fds)); /* for wake_fd and bell */
    keeper->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (keeper->wake_fd < 0)
        return errno;
    *created = keeper;
    return APR_SUCCESS;
}

static void keeper_wake(void *baton)
{
    pgp_keeper_wake(baton);
}

pgp_waker pgp_keeper_waker(pgp_keeper *keeper)
{
    return (pgp_waker){.wake = keeper_wake, .baton = keeper};
}

void pgp_keeper_add(pgp_keeper *keeper, pgp_pool *pool)
{
    APR_ARRAY_PUSH(keeper->pools, pgp_pool *) = pool;
    keeper->nslots += pgp_pool_settings(pool)->max;
    keeper->slots = apr_palloc(keeper->p, keeper->nslots * sizeof(*keeper->slots));
    keeper->fds = apr_palloc(keeper->p, (keeper->nslots + 2) * sizeof(*keeper->fds));
}

void pgp_keeper_attach_board(pgp_keeper *keeper, pgp_board *board)
{
    keeper->board = board;
}

void pgp_keeper_wake(pgp_keeper *keeper)
{
    const int kept_errno = errno; /* this may run in a signal handler */
    const eventfd_t one = 1;
    ssize_t written = write(keeper->wake_fd, &one, sizeof one);

    (void)written; /* it fails only if the counter is full, and then the keeper wakes as well */
    errno = kept_errno;
}

void pgp_keeper_enter_phase(pgp_keeper *keeper, pgp_phase phase)
{
    pgp_phase before = atomic_load(&keeper->phase);

    while (before < phase && !atomic_compare_exchange_weak(&keeper->phase, &before, phase))
        ;
    pgp_keeper_wake(keeper);
}

/* --- a round ---------------------------------------------------------------- */

/* Go on with a slot in the keeper's hands.  Returns true if its state has changed; otherwise
 * the next poll() waits for the slot's event, too. */
static bool pending_step(pgp_keeper *keeper, pgp_slot *slot, apr_time_t *next)
{
    if (slot->state != PGP_CLOSING && !slot->connection) {
        pgp_pool_grow_begin(slot);
        return true;
    }
    if (slot->state == PGP_CLOSING ? pgp_slot_close(slot) : pgp_slot_step(slot))
        return true;
    keeper->fds[keeper->nfds++] = slot->await;
    if (slot->deadline < *next)
        *next = slot->deadline;
    if (slot->state == PGP_CLEANING && pgp_now(keeper->env) + CLEANING_STEP < *next)
        *next = pgp_now(keeper->env) + CLEANING_STEP;
    return false;
}

static void seat_set(pgp_keeper *keeper, int seat)
{
    int i;

    keeper->seat = seat;
    keeper->bell = seat < 0 ? -1 : pgp_board_bell(keeper->board, seat);
    pgp_pool_set_servers_seat((pgp_pool **)keeper->pools->elts, keeper->pools->nelts, seat);
    for (i = 0; i < keeper->pools->nelts; i++)
        pgp_pool_set_seat(APR_ARRAY_IDX(keeper->pools, i, pgp_pool *), seat);
}

static void seat_claim(pgp_keeper *keeper, apr_time_t now)
{
    const int seat = pgp_board_claim(keeper->board, now);
    pgp_gate_count count;

    if (seat >= 0)
        seat_set(keeper, seat);
    else if (pgp_gate_pass(pgp_board_gate(keeper->board, PGP_NO_PLACE, PGP_GATE_CLAIM), now,
                           PGP_LOG_PERIOD, &count))
        pgp_log(keeper->env, PGP_LOG_WARNING, PGP_MSG_BOARD, NULL, 0,
                "a child finds all %d seats in shared memory taken, and makes no connection "
                "until one is free: older children that finish long requests hold them; end "
                "these, or stop and start httpd",
                pgp_board_seats(keeper->board));
}

static void seat_leave(pgp_keeper *keeper, apr_time_t now)
{
    const int seat = keeper->seat;

    seat_set(keeper, -1);
    pgp_board_leave(keeper->board, seat, now);
}

/* Whether this child needs no seat on the board any more: it takes no new requests, and none of
 * its requests holds a connection or waits for one.  If a request acquires later all the same,
 * the child claims a seat again. */
static bool is_drained(pgp_keeper *keeper)
{
    int i, used = 0;

    if (atomic_load(&keeper->phase) == PGP_RUNNING)
        return false;
    for (i = 0; i < keeper->pools->nelts; i++)
        used += pgp_pool_is_used(APR_ARRAY_IDX(keeper->pools, i, pgp_pool *));
    return used == 0;
}

/* Fold the figures of ended children, and claim or leave this child's seat as needed. */
static void board_visit(pgp_keeper *keeper)
{
    const apr_time_t now = pgp_now(keeper->env);
    bool drained;

    if (!keeper->board || now < keeper->reaped_at + PGP_BOARD_REAP_STEP)
        return;
    keeper->reaped_at = now;
    pgp_board_reap(keeper->board, now);
    drained = is_drained(keeper);
    if (keeper->seat >= 0 && drained)
        seat_leave(keeper, now);
    else if (keeper->seat < 0 && !drained)
        seat_claim(keeper, now);
}

/* Tell the pools that the bell has rung.  The bell is emptied before they look at the other
 * children, so that a later ring ends the next poll(). */
static void bell_hear(pgp_keeper *keeper)
{
    eventfd_t rings;
    int i;

    if (keeper->bell < 0 || eventfd_read(keeper->bell, &rings) != 0)
        return;
    for (i = 0; i < keeper->pools->nelts; i++)
        pgp_pool_hear_bell(APR_ARRAY_IDX(keeper->pools, i, pgp_pool *));
}

apr_time_t pgp_keeper_round(pgp_keeper *keeper)
{
    const pgp_phase phase = atomic_load(&keeper->phase);
    apr_time_t next = pgp_now(keeper->env) + LONGEST_SLEEP;
    apr_time_t due;
    int i, k, changed = 0;

    keeper->nfds = 0;
    board_visit(keeper);
    bell_hear(keeper);
    for (i = 0; i < keeper->pools->nelts; i++) {
        pgp_pool *pool = APR_ARRAY_IDX(keeper->pools, i, pgp_pool *);
        int n;

        if (phase != PGP_RUNNING)
            pgp_pool_enter_phase(pool, phase);
        due = pgp_pool_maintain(pool);
        if (due < next)
            next = due;
        due = pgp_pool_watch_idle(pool, keeper->slots, keeper->fds + keeper->nfds);
        if (due < next)
            next = due;
        n = pgp_pool_list_pending(pool, keeper->slots);
        for (k = 0; k < n; k++)
            changed |= pending_step(keeper, keeper->slots[k], &next);
    }
    due = pgp_pool_settle_servers((pgp_pool **)keeper->pools->elts, keeper->pools->nelts,
                                  pgp_now(keeper->env));
    if (due != PGP_NEVER && due < next)
        next = due;
    return changed ? 0 : next;
}

/* --- the thread ------------------------------------------------------------- */

static void sleep_until(pgp_keeper *keeper, apr_time_t until)
{
    const apr_time_t left = until - pgp_now(keeper->env);
    eventfd_t wakes;
    ssize_t got;

    keeper->fds[keeper->nfds] = (struct pollfd){.fd = keeper->wake_fd, .events = POLLIN};
    keeper->fds[keeper->nfds + 1] = (struct pollfd){.fd = keeper->bell, .events = POLLIN};
    /* Rounded up: to wake up too early would cost a round for nothing. */
    poll(keeper->fds, keeper->nfds + 2, left > 0 ? (int)((left + 999) / 1000) : 0);
    got = read(keeper->wake_fd, &wakes, sizeof wakes);
    (void)got; /* a socket or the time may have ended the poll() instead */
}

static bool pools_leave(pgp_keeper *keeper)
{
    int i, left = 0;

    for (i = 0; i < keeper->pools->nelts; i++)
        left += pgp_pool_leave(APR_ARRAY_IDX(keeper->pools, i, pgp_pool *));
    return left == keeper->pools->nelts;
}

static void *APR_THREAD_FUNC keeper_run(apr_thread_t *thread, void *data)
{
    pgp_keeper *keeper = data;

    (void)thread;
    for (;;) {
        const apr_time_t next = pgp_keeper_round(keeper);

        if (next == 0)
            continue; /* the next round publishes the changes that this one has made */
        if (atomic_load(&keeper->phase) == PGP_STOPPED && pools_leave(keeper))
            break;
        sleep_until(keeper, next);
    }
    /* This child keeps its seat, and so the permit of a connection, while the connection is in
     * use.  Another child reaps the seat when this process has ended. */
    if (keeper->seat >= 0 && is_drained(keeper))
        seat_leave(keeper, pgp_now(keeper->env));
    atomic_store(&keeper->ended, true);
    return NULL;
}

apr_status_t pgp_keeper_start(pgp_keeper *keeper)
{
    sigset_t all, before;
    apr_status_t rv;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rv = apr_thread_create(&keeper->thread, NULL, keeper_run, keeper, keeper->p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rv;
}

apr_status_t pgp_keeper_join(pgp_keeper *keeper, apr_interval_time_t patience)
{
    apr_status_t rv;

    pgp_keeper_enter_phase(keeper, PGP_STOPPED);
    for (; !atomic_load(&keeper->ended) && patience > 0; patience -= JOIN_STEP)
        apr_sleep(JOIN_STEP);
    return atomic_load(&keeper->ended) ? apr_thread_join(&rv, keeper->thread) : APR_TIMEUP;
}
