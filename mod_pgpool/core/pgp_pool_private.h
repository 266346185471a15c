/*
 * The inside of a pool, for the files that implement it:
 *
 *   pgp_pool.c          acquire
 *   pgp_pool_return.c   release: lend again, clean up, close
 *   pgp_pool_queue.c    the queue, and the hand-off of connections to it
 *   pgp_pool_refusal.c  callers that get no connection
 *   pgp_pool_slot.c     a slot, for its borrower; how it is retired
 *   pgp_pool_stats.c    figures
 *   pgp_pool_grow.c     new connections
 *   pgp_pool_maint.c    maintenance: retirement, warnings, a look at idle connections
 *   pgp_pool_pending.c  slots in the keeper's hands, step by step; the phases
 *   pgp_pool_outage.c   when attempts to connect fail: retry, wait, probe
 *   pgp_pool_check.c    the invariants
 *   pgp_share.c         permits, shared with the other children
 *   pgp_share_server.c  permits, shared with the other pools of a server
 *
 * The model, the invariants and the lock rules stand in pgp_pool.h.  A function that ends in
 * _locked is called with the pool's lock held, and asserts that (PGP_LOCKED).
 */
#ifndef PGP_POOL_PRIVATE_H
#define PGP_POOL_PRIVATE_H

#include <pthread.h>
#include <semaphore.h>
#include <apr_thread_mutex.h>

#include "pgp_board.h"
#include "pgp_check.h"
#include "pgp_slot.h"
#include "pgp_policy.h"
#include "pgp_pool.h"
#include "pgp_pool_outage.h"

/* A borrower that waits: on its stack, in the queue from queue_insert_locked() until
 * waiter_leave_locked(). */
typedef struct waiter {
    APR_RING_ENTRY(waiter) entry;
    apr_time_t until;
    bool ended;
    pgp_outcome outcome;
    pgp_slot *slot;            /* if PGP_GRANTED */
    struct waiter *next_ended; /* the next one that pgp_pool_unlock() wakes */
    sem_t woken;
} waiter;

/* This pool's part in the quota that it shares with the other children (pgp_permits.h). */
typedef struct {
    pgp_quota quota;

    /* as published; 0: there is none */
    apr_time_t waits_since, idle_since;
    int closing, connecting;

    /* as the keeper has last seen it */
    pgp_outlook look;
    bool looked;                      /* in this round of the keeper's */
    bool is_waiting;                  /* a request waits for a permit */
    bool lacks_server;                /* there was no permit of the server's for a request */
    bool at_cap;                      /* there was no permit for this child */
    apr_time_t gained_at;             /* when this child last took a permit for a request */
    apr_time_t last_short_at;         /* when a request last waited for a permit; 0: never */
    apr_interval_time_t connect_time; /* smoothed; 0: not measured yet */

    /* due in this round or a later one */
    bool rung;          /* another child has rung: look at the others */
    apr_time_t look_at; /* look at the others then in any case */
    bool ring;          /* ring the children that the free permits belong to */
    int ring_one;       /* ring the child in this seat, too; -1: none */
} pgp_pool_share;

struct pgp_pool {
    /* immutable once the keeper runs */
    pgp_board *board;   /* NULL: alone */
    int place;          /* on it */
    pgp_server *server; /* NULL: no other pool uses the same server */
    const char *name;
    const pgp_settings *settings;
    const pgp_env *env;
    pgp_context context; /* these three, for the driver */
    pgp_waker waker;
    apr_thread_mutex_t *lock;

    /* atomic */
    pgp_gate gates[PGP_GATES]; /* for a pool without a place on a board */

    /* guarded by lock */
    pthread_t locked_by; /* 0: nobody */
    pgp_slot_list lists[PGP_STATES];
    APR_RING_HEAD(waiter_ring, waiter) queue;
    int waiting;
    waiter *ended;            /* pgp_pool_unlock() wakes these, the last one first */
    apr_time_t demand_since;  /* since when the queue has not been empty */
    apr_time_t suspect_since; /* connections that were idle before this may be dead as well */
    apr_uint64_t leases;
    pgp_outage outage;
    pgp_orders orders;   /* an operator's, as the keeper has last seen them */
    bool refused_demand; /* a caller that could not wait got none: grow for the next */
    pgp_pool_share share;
    pgp_stats stats; /* without its gauges */
    bool reading;    /* the keeper reads from an idle connection, then parks or retires it */
    bool has_keeper; /* the keeper still looks after this pool */
    pgp_phase phase;

    /* the keeper's thread only */
    apr_time_t watch_at;   /* when the idle connections are to be looked at */
    bool surveyed;         /* a connection was asked for the server's capacity */
    unsigned first_host;   /* the entry of the hosts with which the next attempt begins */
    apr_time_t first_left; /* when first_host last changed because an attempt failed */
};

/* Each _locked function asserts this first. */
#define PGP_LOCKED(pool) PGP_CHECK((pool)->locked_by == pthread_self())

static inline void pgp_pool_lock(pgp_pool *pool)
{
    apr_thread_mutex_lock(pool->lock);
    pool->locked_by = pthread_self();
}

/* Whether this thread holds the lock. */
static inline bool pgp_pool_holds_lock(const pgp_pool *pool)
{
    return pool->locked_by == pthread_self();
}

/* Which invariant of pgp_pool.h does not hold; NULL: all hold. */
const char *pgp_pool_broken_locked(const pgp_pool *pool);

/* Unlock, then wake the waiters whose wait this thread has ended.  If it woke them first, they
 * would only sleep again, for the lock.  A waiter's memory is gone as soon as it is woken. */
static inline void pgp_pool_unlock(pgp_pool *pool)
{
    waiter *w = pool->ended, *next;

    PGP_CHECK(!pgp_pool_broken_locked(pool));
    pool->ended = NULL;
    pool->locked_by = 0;
    apr_thread_mutex_unlock(pool->lock);
    for (; w; w = next) {
        next = w->next_ended;
        sem_post(&w->woken);
    }
}

static inline apr_time_t pgp_pool_now(const pgp_pool *pool)
{
    return pgp_now(pool->env);
}

static inline int pgp_pool_count(const pgp_pool *pool, pgp_state state)
{
    return pool->lists[state].count;
}

/* The first waiter, or NULL. */
static inline waiter *pgp_queue_first_locked(const pgp_pool *pool)
{
    PGP_LOCKED(pool);
    return pool->waiting ? APR_RING_FIRST(&pool->queue) : NULL;
}

/* Since when the longest idle connection has been idle; 0: none is idle. */
static inline apr_time_t pgp_pool_idle_since_locked(const pgp_pool *pool)
{
    PGP_LOCKED(pool);
    return pgp_pool_count(pool, PGP_IDLE)
               ? APR_RING_LAST(&pool->lists[PGP_IDLE].ring)->idle_since
               : 0;
}

/* Usable connections: idle, in use, or being cleaned up. */
static inline int pgp_pool_live_locked(const pgp_pool *pool)
{
    PGP_LOCKED(pool);
    return pgp_pool_count(pool, PGP_IDLE) + pgp_pool_count(pool, PGP_IN_USE) +
           pgp_pool_count(pool, PGP_CLEANING);
}

/* --- pgp_pool_slot.c -------------------------------------------------------- */

/* Retire a connection: to CLOSING, for the keeper. */
void pgp_slot_retire_locked(pgp_slot *slot, pgp_reason reason);
/* Retire each connection whose slot is in this state. */
void pgp_pool_retire_all_locked(pgp_pool *pool, pgp_state state, pgp_reason reason);
/* Whether an operator has suspended the pool: it lends nothing, and callers wait. */
bool pgp_pool_is_suspended_locked(const pgp_pool *pool, apr_time_t now);
/* Whether an operator wants a connection closed that nobody uses. */
bool pgp_slot_is_ordered_away_locked(const pgp_slot *slot, apr_time_t now);

/* --- pgp_pool_stats.c ------------------------------------------------------- */

/* Count a lease that ends: its acquire, its statements, its time. */
void pgp_slot_count_lease_locked(pgp_slot *slot, apr_time_t now);
/* Copy the figures of this moment. */
void pgp_pool_take_stats_locked(pgp_pool *pool, pgp_stats *stats);

/* --- pgp_pool_queue.c ------------------------------------------------------- */

/* Join the queue and sleep until the wait ends; the lock is free meanwhile.  Sets *slot if it
 * was granted. */
pgp_outcome pgp_queue_wait_locked(pgp_pool *pool, apr_time_t until, apr_time_t now,
                                  pgp_slot **slot);
/* End a wait: the waiter leaves the queue now, and is woken by pgp_pool_unlock(). */
void pgp_waiter_end_locked(pgp_pool *pool, waiter *w, pgp_outcome outcome, pgp_slot *slot);
void pgp_queue_end_all_locked(pgp_pool *pool, pgp_outcome outcome);
/* Begin a lease. */
void pgp_slot_lend_locked(pgp_pool *pool, pgp_slot *slot, apr_time_t now);
/* Hand a clean connection to the first waiter, or park it. */
void pgp_slot_hand_off_locked(pgp_pool *pool, pgp_slot *slot, apr_time_t idle_since,
                              apr_time_t now);

/* --- pgp_pool_refusal.c ----------------------------------------------------- */

/* The outcome for a caller that gets no connection. */
pgp_outcome pgp_pool_shortage_locked(const pgp_pool *pool);
/* Whether a caller would wait in vain: no connection is usable, and the outage goes on. */
bool pgp_pool_is_futile_locked(const pgp_pool *pool, apr_time_t now);
/* Count an acquire that ends without a connection, and explain it to its caller. */
void pgp_pool_count_refusal_locked(pgp_pool *pool, pgp_outcome outcome, pgp_error *error);
/* Callers get connections again, if no refusal was logged for more than a minute: log how many
 * callers were refused since the last line. */
void pgp_pool_end_refusals(pgp_pool *pool, apr_time_t now);

/* --- pgp_pool_return.c ------------------------------------------------------ */

/* Retire a connection.  Without a keeper it is closed here and now. */
void pgp_slot_retire(pgp_slot *slot, pgp_reason reason);
/* Close the connection of a CLOSING slot: tell the server, then free connection and slot. */
void pgp_slot_close_begin(pgp_slot *slot);
void pgp_slot_close_end(pgp_slot *slot);
/* End a lease, or a clean-up: hand the connection off, park it, clean it up, or retire it. */
void pgp_slot_finish(pgp_slot *slot);
/* A reset has failed: warn, once a minute, if the server has rejected it. */
void pgp_slot_log_reset_failure(pgp_slot *slot, const pgp_error *error);

/* --- pgp_pool_grow.c -------------------------------------------------------- */

/* Reserve slots for demand; they are CONNECTING from now on. */
void pgp_pool_grow_locked(pgp_pool *pool, apr_time_t now);
/* An attempt to connect has succeeded, or has failed. */
void pgp_pool_grow_done(pgp_slot *slot);
void pgp_pool_grow_failed(pgp_slot *slot, const pgp_error *error);

/* --- pgp_pool_pending.c ----------------------------------------------------- */

/* The slots in a state; room for PgPoolMax of them.  Returns their number. */
int pgp_pool_list_locked(const pgp_pool *pool, pgp_state state, pgp_slot **slots);

/* --- pgp_share.c ------------------------------------------------------------ */

/* Whether PgPoolTotalMax limits the pool. */
bool pgp_share_has_own_cap(const pgp_pool *pool);
/* In microseconds: time of a connect, greatest age of a wait; and the pace of turns. */
apr_interval_time_t pgp_share_connect_time(const pgp_pool *pool);
apr_interval_time_t pgp_share_patience(const pgp_pool *pool);
pgp_pace pgp_share_pace(const pgp_pool *pool, const pgp_outlook *look);
/* The keeper calls these in this order.  look: publish whether a request wants a permit, and
 * look at the other children.  take_own: take a permit of the pool's own quota; returns false
 * if there is none.  gained: the permits of a new connection are complete.  settle: publish
 * whether a request still lacks a permit, close idle connections in favour of other children,
 * and set the next turn. */
void pgp_share_look_locked(pgp_pool *pool, bool wants, apr_time_t now);
bool pgp_share_take_own_locked(pgp_pool *pool, bool for_wait, apr_time_t now);
void pgp_share_gained_locked(pgp_pool *pool, bool for_wait, apr_time_t now);
void pgp_share_settle_locked(pgp_pool *pool, bool lacks, apr_time_t now);
void pgp_share_give_own_locked(pgp_pool *pool);
/* The longest idle connection, if it has been idle for at least that time; otherwise NULL. */
pgp_slot *pgp_share_long_idle_locked(const pgp_pool *pool, apr_time_t now,
                                     apr_interval_time_t time);
/* Ring the children that the steps above chose.  The lock is not held. */
void pgp_share_ring(pgp_pool *pool);
/* Record how long a connect took. */
void pgp_share_connected_locked(pgp_pool *pool, apr_interval_time_t took);
/* Whether a connection in use may have to give way to another child.  The lock is not held. */
bool pgp_share_is_turn(const pgp_pool *pool);
/* Whether a connection that comes back must be closed, to pass its permits to another child. */
bool pgp_share_pass_locked(pgp_pool *pool, apr_time_t now);
/* Whether a request has waited for a permit since then. */
bool pgp_share_was_short_locked(const pgp_pool *pool, apr_time_t since);
/* Publish the oldest wait, or the longest idle time, again if it has changed. */
void pgp_share_queue_changed_locked(pgp_pool *pool);
void pgp_share_idle_changed_locked(pgp_pool *pool);
/* The gate, common to all children, that decides whether an event of the pool is logged. */
pgp_gate *pgp_share_gate(pgp_pool *pool, pgp_gate_id id);
void pgp_share_publish(pgp_pool *pool, const pgp_stats *stats);

/* --- pgp_share_server.c ----------------------------------------------------- */

/* Whether PgPoolTotalMax or the server limits the pool, so that another pool or child may wait
 * for a connection's permits. */
bool pgp_share_has_cap(const pgp_pool *pool);
/* Take the permits of a connection, of the pool's quota and of the server's: both, or none and
 * return false.  Give them back, once its backend has ended. */
bool pgp_share_take_locked(pgp_pool *pool, bool for_wait, apr_time_t now);
void pgp_share_give_locked(pgp_pool *pool);
/* The server has refused a connection (53300): publish how many it takes.  Returns false if
 * this httpd has none of them. */
bool pgp_server_found_full(pgp_pool *pool, apr_time_t now);

#endif
