/*
 * Model of the permits: three children share the permits of one pool.  It has every interleaving
 * of waiting, taking a permit, connecting, returning, passing on, closing, a time-out, a failed
 * connect and the death of a child.
 *
 * The model mirrors mod_pgpool/core/pgp_permits.c and its use in pgp_share.c.  An atomic block is
 * one look at shared memory, or one store; between two blocks any other process may run.  Time is
 * a choice: at any moment the process `clock` lets a turn come, or shows idle connections to their
 * child.  The model leaves out the looks that keepers take every 50 ms: bells have to suffice, so
 * the checker sees a missing ring as a child that sleeps for ever.
 *
 * The model checks these:
 *   - the server never has more connections than PERMITS;
 *   - one turn takes a connection from one child at most;
 *   - of one permit: each other child takes it at most once before a child that has waited longer
 *     (it had looked before that wait was published).  Of several permits, children that add theirs
 *     at the same time may turn each other away again; the older one is rung and tries again;
 *   - in the end no living child waits, and each permit has its connection.
 *
 * With -D of one of these the model has a bug, which the checker has to find:
 *   BUG_COUNT_FIRST    a child counts the permits before it adds its own: a permit is taken twice
 *   BUG_GIVE_EARLY     a permit is given back before the server's process has ended
 *   BUG_FREE_EARLY     a dead child's permits are freed before its processes have ended
 *   BUG_DEAD_WAITS     the wait of a dead child keeps its place in the order
 *   BUG_DEAD_SILENT    a dead child's permits are freed, but no bell is rung
 *   BUG_TWO_GIVERS     a turn is read and claimed in two steps
 *   BUG_LATE_WAIT      a child publishes its wait after it has looked: a bell is lost
 *   BUG_GIVE_SILENT    a permit is given back, but no bell is rung
 *   BUG_TAKE_SILENT    an attempt to take that failed gives back, but rings no bell
 *   BUG_TAKEN_SILENT   a child counts as waiting until after it has taken, and rings no bell then
 *   BUG_END_SILENT     a wait ends without a permit, but the next child is not rung
 *   BUG_OUT_OF_TURN    a child takes a free permit although another one has waited longer
 *   BUG_IDLE_KEPT      a child keeps its idle connection while another one waits
 */

#ifndef PERMITS
#define PERMITS 1
#endif
#ifndef LAST
#define LAST 1 /* requests of the third child; the others have two */
#endif
#define CHILDREN 3
#define ME (1 << me)

mtype = { NONE, CONNECTING, IN_USE, IDLE, CLOSING };

/* Shared memory: the standings. */
byte permits[CHILDREN];
byte since[CHILDREN];   /* when its oldest waiter began to wait; 0: nobody waits */
bool coming[CHILDREN];  /* it is closing a connection; its permit will be free */
/* Shared memory: of the pool. */
bool turn;              /* a turn has come; the child that clears it passes on */
/* Bells. */
bool bell[CHILDREN];

/* Of each child. */
mtype state[CHILDREN] = NONE;
bool wants[CHILDREN];   /* a request waits for a connection, */
byte came[CHILDREN];    /* and came at this place in the order */
byte left[CHILDREN] = 2;

/* The world. */
bool alive[CHILDREN] = true;
bool reaped = false;
bool open[CHILDREN];    /* at the server */
bool luck = true;       /* no time-out, failed connect or death has happened yet */

/* For the checks. */
bool turn_open;         /* no child has given in this turn yet */
byte overtaken[CHILDREN]; /* by which other children in this wait, one bit each */

#define USED (permits[0] + permits[1] + permits[2])
#define OPEN (open[0] + open[1] + open[2])
#define WAITS(i) (since[i] > 0)
#define WAITING (WAITS(0) + WAITS(1) + WAITS(2))
#define COMING (coming[0] + coming[1] + coming[2])
#define FREE (USED >= PERMITS -> 0 : PERMITS - USED)
/* More children wait than permits are free or on their way. */
#define UNCOVERED (WAITING > FREE + COMING)

/* How many children have waited longer than one that began at t. */
#define BEFORE(i, t) (since[i] > 0 && since[i] < t)
#define AHEAD(t) (BEFORE(0, t) + BEFORE(1, t) + BEFORE(2, t))

/* Ring the children that have waited longest, as many as permits are free. */
#define RING(i) if :: since[i] > 0 && AHEAD(since[i]) < FREE -> bell[i] = true :: else fi
inline ring()
{
    atomic { RING(0); RING(1); RING(2) }
}

/* No turn has to come if the free and coming permits suffice for all that wait. */
inline turn_settle()
{
    if
    :: !UNCOVERED -> turn = false
    :: else
    fi
}

inline overtake(i)
{
    if
    :: i != me && since[i] > 0 && state[i] == NONE && (mine == 0 || since[i] < mine) && AHEAD(since[i]) >= FREE ->
#if PERMITS == 1
        assert(!(overtaken[i] & ME));
#endif
        overtaken[i] = overtaken[i] | ME
    :: else
    fi
}

inline give(silent)
{
    atomic { permits[me]--; assert(permits[me] < 200) };
    if
    :: !silent -> ring()
    :: silent
    fi
}

inline wait_publish()
{
    atomic {
        if
        :: since[me] == 0 -> since[me] = came[me]; overtaken[me] = 0
        :: else
        fi
    }
}

inline wait_end(silent)
{
    atomic { since[me] = 0; overtaken[me] = 0; turn_settle() };
    if
    :: !silent -> ring()
    :: silent
    fi
}

#ifdef BUG_OUT_OF_TURN
#define IN_TURN (FREE > 0)
#else
#define IN_TURN (since[me] == 0 && WAITING < FREE || since[me] > 0 && AHEAD(since[me]) < FREE)
#endif

/* The keeper of a child whose request waits tries to take a permit. */
inline take()
{
#ifndef BUG_LATE_WAIT
    wait_publish();
#endif
    atomic { got = IN_TURN; mine = since[me] };
#ifdef BUG_LATE_WAIT
    wait_publish();
#endif
    if
    :: atomic { got ->
#ifdef BUG_COUNT_FIRST
        got = USED < PERMITS };
        permits[me]++;
#else
        permits[me]++ };
        got = USED <= PERMITS;
#endif
        if
        :: got ->
            atomic { overtake(0); overtake(1); overtake(2); state[me] = CONNECTING };
#ifdef BUG_TAKEN_SILENT
            wait_end(true)
#else
            wait_end(false)
#endif
        :: !got ->
#ifdef BUG_TAKE_SILENT
            give(true)
#else
            give(false)
#endif
        fi
    :: !got
    fi;
    atomic { got = false; mine = 0 }
}

/* Each child has room for one connection. */
proctype child(byte me) provided (alive[me])
{
    bool got, due;
    byte mine;

end:
    do
    /* A request comes. */
    :: atomic { left[me] > 0 && !wants[me] && state[me] == IDLE -> left[me]--; state[me] = IN_USE }
    :: atomic { left[me] > 0 && !wants[me] && (state[me] == NONE || state[me] == CLOSING) ->
        left[me]--; wants[me] = true; bell[me] = true;
        came[me] = 1 + (came[0] > came[1] -> (came[0] > came[2] -> came[0] : came[2])
                                          : (came[1] > came[2] -> came[1] : came[2])) }

    /* It returns its connection. */
#ifdef BUG_TWO_GIVERS
    :: atomic { state[me] == IN_USE -> due = turn };
        atomic {
            if
            :: due -> assert(turn_open); turn_open = false; turn = false; state[me] = CLOSING
            :: !due -> state[me] = IDLE
            fi;
            due = false
        }
#else
    :: atomic { state[me] == IN_USE ->
            if
            :: turn -> assert(turn_open); turn_open = false; turn = false; state[me] = CLOSING
            :: !turn -> state[me] = IDLE
            fi
        }
#endif

    /* Its time is up. */
    :: atomic { wants[me] && since[me] > 0 && luck && state[me] == NONE ->
        luck = false; wants[me] = false; came[me] = 0 };
#ifdef BUG_END_SILENT
        wait_end(true)
#else
        wait_end(false)
#endif

    /* The keeper is woken. */
    :: atomic { bell[me] && wants[me] && state[me] == NONE -> bell[me] = false }; take()
#ifndef BUG_IDLE_KEPT
    :: atomic { bell[me] && state[me] == IDLE ->
            bell[me] = false;
            if
            :: UNCOVERED -> state[me] = CLOSING
            :: else
            fi
        }
#endif
    :: atomic { bell[me] && !(wants[me] && state[me] == NONE) && state[me] != IDLE && !(wants[me] && state[me] == CLOSING)
        -> bell[me] = false }

    /* The keeper connects. */
    :: atomic { state[me] == CONNECTING ->
            if
            :: assert(OPEN < PERMITS); open[me] = true; state[me] = (wants[me] -> IN_USE : IDLE); wants[me] = false; came[me] = 0
            :: luck -> luck = false; state[me] = CLOSING
            fi
        }

    /* The keeper closes. */
    :: atomic { state[me] == CLOSING && !coming[me] -> coming[me] = true; turn_settle() }
#ifdef BUG_GIVE_EARLY
    :: atomic { state[me] == CLOSING && coming[me] -> coming[me] = false }; give(false);
        atomic { open[me] = false; state[me] = NONE; if :: wants[me] -> bell[me] = true :: else fi }
#else
    :: atomic { state[me] == CLOSING && coming[me] -> open[me] = false; coming[me] = false };
#ifdef BUG_GIVE_SILENT
        give(true);
#else
        give(false);
#endif
        atomic { state[me] = NONE; if :: wants[me] -> bell[me] = true :: else fi }
#endif
    od
}

/* A child may die at any moment; then another one reaps it. */
proctype death()
{
    byte d;

    if
    :: atomic { luck -> luck = false; d = 0 }
    :: atomic { luck -> luck = false; d = 1 }
    :: atomic { luck -> luck = false; d = 2 }
    :: goto none
    fi;
    alive[d] = false;
#ifdef BUG_FREE_EARLY
    atomic { permits[d] = 0; coming[d] = false };
    open[d] = false;
#else
    open[d] = false;
    atomic { permits[d] = 0; coming[d] = false };
#endif
#ifndef BUG_DEAD_WAITS
    atomic { since[d] = 0; turn_settle() };
#endif
#ifndef BUG_DEAD_SILENT
    ring();
#endif
none:
    reaped = true
}

#define SHOW(i) state[i] == IDLE && alive[i] && !bell[i]

/* Time: idle connections are looked at, and turns come.  If nothing else goes on any more, the end
 * state is checked. */
proctype clock()
{
    do
    :: atomic { UNCOVERED && SHOW(0) -> bell[0] = true }
    :: atomic { UNCOVERED && SHOW(1) -> bell[1] = true }
    :: atomic { UNCOVERED && SHOW(2) -> bell[2] = true }
    :: atomic { UNCOVERED && !turn && (state[0] == IN_USE || state[1] == IN_USE || state[2] == IN_USE) ->
        turn = true; turn_open = true }
    :: timeout ->
        assert(reaped);
        assert(!(alive[0] && wants[0]) && !(alive[1] && wants[1]) && !(alive[2] && wants[2]));
        assert(USED == OPEN && WAITING == 0);
        break
    od
}

init
{
    atomic {
        left[2] = LAST;
        run child(0);
        run child(1);
        run child(2);
        run death();
        run clock()
    }
}
