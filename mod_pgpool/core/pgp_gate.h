/*
 * Gates: if an event repeats, the log gets a line when it begins, once in a period, and when it
 * ends.
 *
 * Model.  A gate counts events of one kind.  The first event opens the gate and is worth a
 * line; later ones are counted, and one line in a period stands for them.  The caller
 * closes the gate when the events are over, which is worth a line, too.  If several threads or
 * processes could write a line, the gate tells exactly one of them to.  An attempt that began
 * before another process closed the gate may fail after that.  Such a failure is stale and must
 * not open the gate again, so the caller asks pgp_gate_is_stale() first.
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

#include "pgp_settings.h"

/* All children together write one line in this time while events of one kind go on. */
#define PGP_LOG_PERIOD PGP_SEC(60)

/* The kinds of events.  Failed attempts to connect have one kind for each kind of cause, so
 * that a new cause is logged although another one is being logged already. */
typedef enum {
    PGP_GATE_CAPACITY,    /* the server takes fewer connections than may be asked for */
    PGP_GATE_CONNECT,     /* attempts to connect fail: the server does not answer */
    PGP_GATE_STARTING,    /* ... it starts up */
    PGP_GATE_REJECTED,    /* ... wrong user, password or database */
    PGP_GATE_FAILED,      /* ... anything else */
    PGP_GATE_EXHAUSTED,   /* requests get no connection: all are in use */
    PGP_GATE_UNAVAILABLE, /* ... none can be had from the server */
    PGP_GATE_RESET,       /* the server refuses the reset of the session */
    PGP_GATE_CLAIM,       /* a child finds no free seat on the board; concerns no pool */
    PGP_GATES
} pgp_gate_id;

/* A zeroed gate is closed. */
typedef struct {
    _Atomic apr_int64_t since;   /* when the first event came; 0: the gate is closed */
    _Atomic apr_int64_t last;    /* when the last line was written */
    _Atomic apr_int64_t closed;  /* when the gate was closed last; 0: never */
    _Atomic apr_uint64_t events; /* since the last line */
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

/* Whether an event that began at `began` began before the gate was closed last. */
bool pgp_gate_is_stale(const pgp_gate *gate, apr_time_t began, apr_time_t now);

/* The events are over: close the gate if its last line is `quiet` microseconds old.  Returns
 * true to the one caller that has closed it and shall log that, with *count. */
bool pgp_gate_close(pgp_gate *gate, apr_time_t now, apr_interval_time_t quiet,
                    pgp_gate_count *count);

#endif
