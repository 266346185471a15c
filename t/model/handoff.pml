/*
 * Who gets which connection, and how a wait ends: the pool's hand-off, small enough
 * to look at every interleaving of three borrowers of one slot (or two of two), the
 * keeper and a stop.
 *
 * What it mirrors, name by name: mod_pgpool/core's pool (take, wait, place, doom,
 * give_back, send_to_cleaning) and keeper (tend, step, close, stop, leave).  An atomic
 * block is what happens under the pool's lock; between two of them anybody may run.
 * Time and chance are choices: a deadline may pass, a connection die, a connect fail at
 * any moment.  That the keeper sleeps is left out: it looks at a pool once a second
 * whatever happens, so a call that it missed makes it late, not absent.
 *
 * A wait is ended once, under the lock; the waiter is woken at some moment after that.
 * Checked are:
 *   - no slot goes where pgp_slot.h has no edge;
 *   - somebody waits => nothing is idle, and the pool is not stopped;
 *   - who was granted a connection has it, and nobody else has;
 *   - who is woken still waits for it;
 *   - all borrowers come back;
 *   - when all is over every slot is free: what was opened has been closed.
 *
 * With -D of one of these the model has a bug, which the checker has to find:
 *   BUG_LOST_WAKEUP    who is handed a connection is not woken
 *   BUG_OWN_TIMEOUT    a waiter whose deadline passes gives up, whatever it was handed meanwhile
 *   BUG_EARLY_LEAVE    a waiter whose deadline passes goes before it is woken
 *   BUG_STOP_FORGETS   stopping does not end the waits
 *   BUG_DOUBLE_HANDOFF who was handed a connection stays in the queue
 *   BUG_NO_HANDOFF     what comes back is idle, whoever waits
 *   BUG_UNFIT_LOST     an unfit connection is dropped, not given to the keeper
 *   BUG_LATE_RETURN    what comes back after the keeper has gone is left to it
 *   BUG_LATE_LOOK      whether the keeper is there is looked up after the lock
 *   BUG_LATE_CLEAN     what comes back dirty is left to a keeper that has gone
 */

#ifndef BORROWERS
#define BORROWERS 3
#endif
#ifndef SLOTS
#define SLOTS 1
#endif
#define NOBODY 255

mtype = { FREE, CONNECTING, IDLE, LENT, CLEANING, CLOSING };
mtype = { GRANTED, REFUSED, STOPPING };

typedef slot_t { mtype state = FREE; byte holder = NOBODY };
typedef waiter_t { bool here, ended, owed, woken; mtype outcome; byte conn };

slot_t slot[SLOTS];
waiter_t wait[BORROWERS];
chan queue = [BORROWERS] of { byte };
bool stopped, kept = true;
byte back; /* borrowers that are through */

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
    from == CONNECTING && (to == IDLE || to == LENT || to == CLOSING) || \
    from == IDLE && (to == LENT || to == CLEANING || to == CLOSING) || \
    from == LENT && (to == IDLE || to == LENT || to == CLEANING || to == CLOSING) || \
    from == CLEANING && (to == IDLE || to == LENT || to == CLOSING) || \
    from == CLOSING && to == FREE)

inline move(s, to, who)
{
    assert(EDGE(slot[s].state, to));
    slot[s].state = to;
    slot[s].holder = who
}

/* --- under the lock ---------------------------------------------------------- */

inline waiter_end(w, how, s)
{
    assert(!wait[w].ended);
    wait[w].outcome = how;
    wait[w].conn = s;
    wait[w].ended = true
}

inline place(s)
{
    if
#ifndef BUG_NO_HANDOFF
    :: nempty(queue) ->
#ifdef BUG_DOUBLE_HANDOFF
        queue ? <w>;
#else
        queue ? w;
#endif
        move(s, LENT, w);
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

inline end_all(how)
{
    do
    :: queue ? w -> waiter_end(w, how, NOBODY); wait[w].owed = true
    :: empty(queue) -> break
    od;
    w = 0
}

/* --- a borrower -------------------------------------------------------------- */

/* take_locked; `how` stays 0 if it has to wait. */
inline take(me, how, s)
{
    if
    :: stopped -> how = STOPPING
    :: !stopped && SOME(IDLE) ->
        s = ONE_OF(IDLE);
        move(s, LENT, me);
        how = GRANTED
    :: !stopped && !SOME(IDLE) -> how = REFUSED /* too late, hopeless, too many wait */
    :: !stopped && !SOME(IDLE) -> skip
    fi
}

/* Until it is woken or its deadline passes, which may be at any moment.  Then it looks under the
 * lock whether the wait has been ended, and ends it if not.  If it has, the wake-up is on its way,
 * and the waiter stays for it. */
inline sleep(me)
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

/* To the keeper; without a keeper here and now. */
inline doom(s)
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

inline give_back(s)
{
    atomic {
        if
        :: stopped -> late = true
        :: true -> late = true /* its life is over, or another child's turn has come */
        :: !stopped -> place(s)
        fi
    };
    if
    :: atomic { late -> late = false }; doom(s)
    :: !late
    fi
}

inline send_to_cleaning(s)
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
    :: !there -> doom(s)
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
        take(me, how, s);
        if
        :: how == 0 -> queue ! me; wait[me].here = true
        :: how != 0 -> goto settled
        fi
    };
    sleep(me);
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
            assert(slot[s].state == LENT && slot[s].holder == me)
        fi
    };
    if
    :: true -> /* found unfit: the same ask goes on */
#ifndef BUG_UNFIT_LOST
        doom(s);
#endif
        s = 0;
        goto again
    :: true -> give_back(s)
    :: true -> send_to_cleaning(s)
    :: true -> doom(s)
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

/* Whoever has ended a wait, some time after it has let go of the lock. */
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

inline tend()
{
    if /* retire */
    :: SOME(IDLE) -> s = ONE_OF(IDLE); move(s, CLOSING, NOBODY)
    :: true
    fi;
    if /* read from an idle one */
    :: SOME(IDLE) -> s = ONE_OF(IDLE); move(s, CLEANING, NOBODY)
    :: true
    fi;
    if /* reserve: for who waits, or for PgPoolMin */
    :: SOME(FREE) && !stopped -> s = ONE_OF(FREE); move(s, CONNECTING, NOBODY)
    :: true
    fi;
    s = 0
}

inline admit(s)
{
    if
    :: stopped -> move(s, CLOSING, NOBODY)
    :: !stopped -> place(s)
    fi
}

inline work(s)
{
    if
    :: slot[s].state == CLOSING -> atomic { move(s, FREE, NOBODY) }
    :: slot[s].state == CONNECTING || slot[s].state == CLEANING ->
        if
        :: true -> atomic { admit(s) }
        :: true -> atomic {
            move(s, CLOSING, NOBODY); /* failed */
            if
            :: end_all(REFUSED) /* the server will not have us */
            :: true
            fi
        }
        :: true /* waits for the network */
        fi
    :: else
    fi
}

inline stop()
{
    stopped = true;
#ifndef BUG_STOP_FORGETS
    end_all(STOPPING);
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
        :: atomic { true -> stop() }
        :: !stopped
        fi;
        atomic { tend() };
        work(0);
#if SLOTS == 2
        work(1);
#endif
        atomic {
            if
            :: stopped && !SOME(CLOSING) && !SOME(CLEANING) -> kept = false; break
            :: else
            fi
        }
    od
}

/* --- what must hold ---------------------------------------------------------- */

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
