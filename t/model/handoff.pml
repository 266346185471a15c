/*
 * Model of the hand-off: the order in which borrowers get connections, and the end of a wait.
 * It is small enough for a search through every interleaving of three borrowers of one slot (or
 * two of two), the keeper and a stop.
 *
 * The model mirrors functions of mod_pgpool/core, by their names without pgp_ and _locked (the
 * test looks them up):
 *   pgp_pool.c          request_take
 *   pgp_pool_queue.c    slot_hand_off, waiter_sleep, waiter_end, queue_end_all
 *   pgp_pool_return.c   slot_give_back, slot_clean_up, slot_retire
 *   pgp_pool_grow.c     slot_admit
 *   pgp_pool_maint.c    pool_maintain, with pgp_pool_watch_idle()
 *   pgp_pool_pending.c  pool_enter_phase; and slot_step, with pgp_slot_close(); pgp_pool_leave() is
 *                       the end of each round in keeper()
 * The states and edges are those of pgp_slot.h.  An atomic block is the code between
 * pgp_pool_lock() and pgp_pool_unlock(); between two blocks any other process may run.  Time and
 * chance are choices: at any moment a deadline may pass, a connection die or a connect fail.  The
 * model leaves out the keeper's sleep: the keeper makes a round once a second in any case, so a
 * missed wake-up makes it late, and no more.
 *
 * A thread ends a wait once, under the lock; the waiter is woken at some moment after that.
 *
 * The model checks these:
 *   - no slot takes an edge that pgp_slot.h does not have;
 *   - while a borrower waits, no connection is idle, and the pool is not stopped;
 *   - a borrower that was granted a connection has it, and no other borrower has it;
 *   - a waiter that is woken is still there;
 *   - all borrowers come back;
 *   - in the end every slot is free: each connection that was opened has been closed.
 *
 * With -D of one of these the model has a bug, which the checker has to find:
 *   BUG_LOST_WAKEUP    a waiter that is handed a connection is not woken
 *   BUG_OWN_TIMEOUT    a waiter whose deadline passes ignores a connection that it was handed
 *   BUG_EARLY_LEAVE    a waiter whose wait was ended does not await the wake-up
 *   BUG_STOP_FORGETS   a stop does not end the waits
 *   BUG_DOUBLE_HANDOFF a waiter that was handed a connection stays in the queue
 *   BUG_NO_HANDOFF     a returned connection is parked although a borrower waits
 *   BUG_UNFIT_LOST     an unfit connection is not retired
 *   BUG_LATE_RETURN    a connection that is retired after the keeper has left is not closed
 *   BUG_LATE_LOOK      slot_retire() looks outside of the lock whether the keeper has left
 *   BUG_LATE_CLEAN     slot_clean_up() does not look whether the keeper has left
 */

#ifndef BORROWERS
#define BORROWERS 3
#endif
#ifndef SLOTS
#define SLOTS 1
#endif
#define NOBODY 255

mtype = { FREE, CONNECTING, IDLE, IN_USE, CLEANING, CLOSING };
mtype = { GRANTED, REFUSED, STOPPING };

typedef slot_t { mtype state = FREE; byte owner = NOBODY };
typedef waiter_t { bool here, ended, owed, woken; mtype outcome; byte conn };

slot_t slot[SLOTS];
waiter_t wait[BORROWERS];
chan queue = [BORROWERS] of { byte };
bool stopped, kept = true;
byte back; /* how many borrowers have come back */

#if SLOTS == 1
#define SOME(st) (slot[0].state == st)
#define ONE_OF(st) 0
#define ALL(st) (slot[0].state == st)
#else
#define SOME(st) (slot[0].state == st || slot[1].state == st)
#define ONE_OF(st) (slot[0].state == st -> 0 : 1)
#define ALL(st) (slot[0].state == st && slot[1].state == st)
#endif

#define EDGE(from, to) (from == FREE && to == CONNECTING || \
    from == CONNECTING && (to == IDLE || to == IN_USE || to == CLOSING) || \
    from == IDLE && (to == IN_USE || to == CLEANING || to == CLOSING) || \
    from == IN_USE && (to == IDLE || to == IN_USE || to == CLEANING || to == CLOSING) || \
    from == CLEANING && (to == IDLE || to == IN_USE || to == CLOSING) || \
    from == CLOSING && to == FREE)

inline move(s, to, who)
{
    assert(EDGE(slot[s].state, to));
    slot[s].state = to;
    slot[s].owner = who
}

/* --- under the lock ---------------------------------------------------------- */

inline waiter_end(w, how, s)
{
    assert(!wait[w].ended);
    wait[w].outcome = how;
    wait[w].conn = s;
    wait[w].ended = true
}

inline slot_hand_off(s)
{
    if
#ifndef BUG_NO_HANDOFF
    :: nempty(queue) ->
#ifdef BUG_DOUBLE_HANDOFF
        queue ? <w>;
#else
        queue ? w;
#endif
        move(s, IN_USE, w);
        waiter_end(w, GRANTED, s);
#ifndef BUG_LOST_WAKEUP
        wait[w].owed = true;
#endif
        w = 0
    :: empty(queue) ->
#else
    :: true ->
#endif
        move(s, IDLE, NOBODY)
    fi
}

inline queue_end_all(how)
{
    do
    :: queue ? w -> waiter_end(w, how, NOBODY); wait[w].owed = true
    :: empty(queue) -> break
    od;
    w = 0
}

/* --- a borrower -------------------------------------------------------------- */

/* `how` stays 0 if the caller has to wait. */
inline request_take(me, how, s)
{
    if
    :: stopped -> how = STOPPING
    :: !stopped && SOME(IDLE) ->
        s = ONE_OF(IDLE);
        move(s, IN_USE, me);
        how = GRANTED
    :: !stopped && !SOME(IDLE) -> how = REFUSED /* too late, futile, or too many wait */
    :: !stopped && !SOME(IDLE) -> skip
    fi
}

/* The waiter sleeps until it is woken or its deadline passes, which may be at any moment.  Then it
 * looks under the lock whether another thread has ended the wait.  If not, it leaves the queue; if
 * so, it awaits the wake-up, which is on its way. */
inline waiter_sleep(me)
{
    if
#ifdef BUG_OWN_TIMEOUT
    :: atomic { wait[me].ended -> wait[me].outcome = REFUSED }; wait[me].woken
#endif
#ifdef BUG_EARLY_LEAVE
    :: wait[me].ended
#endif
    :: wait[me].woken
    :: atomic {
        !wait[me].ended ->
        queue ?? eval(me);
        waiter_end(me, REFUSED, NOBODY)
    }
    fi
}

/* The keeper closes the connection; if it has left the pool, this thread closes it at once. */
inline slot_retire(s)
{
#ifdef BUG_LATE_LOOK
    there = kept;
    atomic { move(s, CLOSING, NOBODY) };
#else
    atomic {
        move(s, CLOSING, NOBODY);
        there = kept
    };
#endif
#ifndef BUG_LATE_RETURN
    if
    :: atomic { !there -> move(s, FREE, NOBODY) }
    :: atomic { there -> there = false }
    fi
#endif
}

inline slot_give_back(s)
{
    atomic {
        if
        :: stopped -> late = true
        :: true -> late = true /* its lifetime is over, or another child's turn has come */
        :: !stopped -> slot_hand_off(s)
        fi
    };
    if
    :: atomic { late -> late = false }; slot_retire(s)
    :: !late
    fi
}

inline slot_clean_up(s)
{
    atomic {
#ifdef BUG_LATE_CLEAN
        there = true;
#else
        there = kept;
#endif
        if
        :: there -> move(s, CLEANING, NOBODY)
        :: !there
        fi
    };
    if
    :: !there -> slot_retire(s)
    :: atomic { there -> there = false }
    fi
}

proctype borrower(byte me)
{
    byte s, w;
    mtype how;
    bool there, late;

again:
    atomic {
        request_take(me, how, s);
        if
        :: how == 0 -> queue ! me; wait[me].here = true
        :: how != 0 -> goto settled
        fi
    };
    waiter_sleep(me);
    atomic {
        assert(wait[me].ended);
        how = wait[me].outcome;
        s = wait[me].conn;
        wait[me].here = false;
        wait[me].woken = false;
        wait[me].ended = false;
        wait[me].outcome = 0;
        wait[me].conn = 0
    };
settled:
    atomic {
        if
        :: how != GRANTED -> goto through
        :: how == GRANTED ->
            how = 0;
            assert(slot[s].state == IN_USE && slot[s].owner == me)
        fi
    };
    if
    :: true -> /* the connection is unfit: the same acquire goes on */
#ifndef BUG_UNFIT_LOST
        slot_retire(s);
#endif
        s = 0;
        goto again
    :: true -> slot_give_back(s)
    :: true -> slot_clean_up(s)
    :: true -> slot_retire(s)
    fi;
through:
    atomic {
        s = 0;
        how = 0;
        back++
    }
}

/* --- waking ------------------------------------------------------------------ */

inline wake(w)
{
    assert(wait[w].here);
    wait[w].owed = false;
    wait[w].woken = true
}

/* pgp_pool_unlock() wakes the waiters whose wait this thread has ended.  It has released the lock
 * before, so that happens at some later moment. */
proctype waker()
{
    do
    :: atomic { wait[0].owed -> wake(0) }
    :: atomic { wait[1].owed -> wake(1) }
#if BORROWERS == 3
    :: atomic { wait[2].owed -> wake(2) }
#endif
    :: back == BORROWERS -> break
    od
}

/* --- the keeper -------------------------------------------------------------- */

inline pool_maintain()
{
    if /* retire */
    :: SOME(IDLE) -> s = ONE_OF(IDLE); move(s, CLOSING, NOBODY)
    :: true
    fi;
    if /* read from an idle one */
    :: SOME(IDLE) -> s = ONE_OF(IDLE); move(s, CLEANING, NOBODY)
    :: true
    fi;
    if /* reserve for a waiter, or for PgPoolMin */
    :: SOME(FREE) && !stopped -> s = ONE_OF(FREE); move(s, CONNECTING, NOBODY)
    :: true
    fi;
    s = 0
}

inline slot_admit(s)
{
    if
    :: stopped -> move(s, CLOSING, NOBODY)
    :: !stopped -> slot_hand_off(s)
    fi
}

inline slot_step(s)
{
    if
    :: slot[s].state == CLOSING -> atomic { move(s, FREE, NOBODY) }
    :: slot[s].state == CONNECTING || slot[s].state == CLEANING ->
        if
        :: true -> atomic { slot_admit(s) }
        :: true -> atomic {
            move(s, CLOSING, NOBODY); /* failed */
            if
            :: queue_end_all(REFUSED) /* waiting is futile from now on */
            :: true
            fi
        }
        :: true /* waits for the network */
        fi
    :: else
    fi
}

inline pool_enter_phase()
{
    stopped = true;
#ifndef BUG_STOP_FORGETS
    queue_end_all(STOPPING);
#endif
    s = 0;
    do
    :: s == SLOTS -> break
    :: s < SLOTS ->
        if
        :: slot[s].state == IDLE || slot[s].state == CONNECTING || slot[s].state == CLEANING ->
            move(s, CLOSING, NOBODY)
        :: else
        fi;
        s++
    od;
    s = 0
}

proctype keeper()
{
    byte s, w;

    do
    :: true ->
        if
        :: atomic { true -> pool_enter_phase() }
        :: !stopped
        fi;
        atomic { pool_maintain() };
        slot_step(0);
#if SLOTS == 2
        slot_step(1);
#endif
        atomic {
            if
            :: stopped && !SOME(CLOSING) && !SOME(CLEANING) -> kept = false; break
            :: else
            fi
        }
    od
}

/* --- invariants -------------------------------------------------------------- */

active proctype watch()
{
end:
    atomic {
        if
        :: nempty(queue) && SOME(IDLE) -> assert(false)
        :: nempty(queue) && stopped -> assert(false)
        :: back == BORROWERS && !kept ->
            assert(ALL(FREE));
            assert(empty(queue))
        fi
    }
}

init
{
    byte i;

    atomic {
        do
        :: i == BORROWERS -> break
        :: i < BORROWERS -> run borrower(i); i++
        od;
        run keeper();
        run waker()
    }
}
