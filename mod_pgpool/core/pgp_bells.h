/*
 * Bells: how one child wakes another's keeper.
 *
 * Model.  The parent makes an eventfd for each of the first seats of the board, and all its
 * children inherit them.  To ring is to write to a seat's eventfd; the keeper of that seat's
 * child polls it beside its own.  A seat without a bell (there are fewer bells than seats if
 * the process may have few descriptors) has a keeper that looks for itself: every 50 ms while
 * a request waits for a permit, else every 500 ms.
 *
 * Trust.  A hostile child can ring others' bells, or silence them by reading.  That makes them
 * look more often, or as if they had none.
 *
 * Threads.  Any.  The board takes its bells through this struct of functions, so that unit
 * tests can play several children in one process.
 */
#ifndef PGP_BELLS_H
#define PGP_BELLS_H

#include <apr_errno.h>
#include <apr_pools.h>

typedef struct {
    void *baton; /* NULL: there are no bells */
    void (*ring)(void *baton, int seat);
    /* The descriptor that a seat's keeper polls, or -1. */
    int (*fd)(void *baton, int seat);
} pgp_bells;

/* Make bells for the seats 0 to seats - 1, or for as many of them as a quarter of the
 * process's descriptors; in the parent, before fork().  The memory is of p, and the
 * descriptors are never closed.  Returns APR_SUCCESS or the system's error. */
apr_status_t pgp_bells_create(pgp_bells *bells, apr_pool_t *p, int seats);

#endif
