/*
 * Gates: an event that repeats is logged when it begins, once in a period, and when it ends.
 *
 * Model.  A gate counts events of one kind.  The first event opens it and is worth a line;
 * later ones are counted, and one line in a period stands for them.  Closing the gate is worth
 * a line again.  If several threads or processes could write a line, exactly one is told to.
 * An attempt that was under way when another process closed the gate may still fail: such late
 * news is no new beginning, and pgp_gate_is_stale() finds it out.
 *
 * A gate is a few atomic words without addresses, so it may lie in memory that all children of
 * an httpd share.  A hostile child can suppress or provoke lines with it, and no more: each
 * word is brought into its range when it is read.
 *
 * Threads.  Any.
 */
#ifndef PGP_GATE_H
#define PGP_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <apr_time.h>

/* The kinds of events.  Failed attempts to connect have one kind for each kind of cause, so
 * that a new cause is logged although another one is being logged already. */
typedef enum {
    PGP_GATE_CAPACITY,    /* the server takes fewer connections than may be asked for */
    PGP_GATE_CONNECT,     /* attempts to connect fail: the server says nothing */
    PGP_GATE_STARTING,    /* ... it starts up */
    PGP_GATE_REJECTED,    /* ... wrong user, password or database */
    PGP_GATE_FAILED,      /* ... anything else */
    PGP_GATE_EXHAUSTED,   /* requests get no connection: all are in use */
    PGP_GATE_UNAVAILABLE, /* ... none can be had from the server */
    PGP_GATE_RESET,       /* the server refuses the reset of the session */
    PGP_GATE_CLAIM,       /* not of a pool: a child finds no free seat on the board */
    PGP_GATES
} pgp_gate_id;

/* A zeroed gate is closed. */
typedef struct {
    _Atomic apr_int64_t since, last; /* of the first event, of the last line; since 0: closed */
    _Atomic apr_int64_t closed;      /* when it was closed last; 0: never */
    _Atomic apr_uint64_t events;     /* since the last line */
} pgp_gate;

typedef struct {
    apr_uint64_t events;        /* since the last line, the caller's event included */
    apr_interval_time_t lasted; /* since the first event; 0: this is the first */
} pgp_gate_count;

/* Count an event.  Returns true if the caller shall log it: if it is the first, or the last
 * line is `period` microseconds old (PGP_NEVER: only the first).  *count then tells how many
 * events the line stands for. */
bool pgp_gate_pass(pgp_gate *gate, apr_time_t now, apr_interval_time_t period,
                   pgp_gate_count *count);

/* Whether an event that began at `began` is of the time before the gate was closed last. */
bool pgp_gate_is_stale(const pgp_gate *gate, apr_time_t began, apr_time_t now);

/* The events are over: close the gate if its last line is `quiet` microseconds old.  Returns
 * true to the one caller that has closed it and shall log that, with *count. */
bool pgp_gate_close(pgp_gate *gate, apr_time_t now, apr_interval_time_t quiet,
                    pgp_gate_count *count);

#endif
