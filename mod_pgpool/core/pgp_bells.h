/*
 * Bells: how one child wakes another's keeper.
 *
 * Model.  The parent makes an eventfd for each of the first seats of the board, and all its
 * children inherit them.  A child rings a seat by writing to the seat's eventfd, which the
 * keeper in that seat polls.  If the process may have only few descriptors, there are fewer
 * bells than seats.  A keeper without a bell looks at the board by itself: every 50 ms or more
 * often while a request waits for a permit, otherwise every 500 ms.
 *
 * Trust.  A hostile child can ring the bells of other children, or silence them by reading.
 * Then those children look too often, or only as often as without a bell.
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

/* Make bells for the seats from 0 to seats - 1, but for no more of them than a quarter of the
 * descriptors that the process may have.  In the parent, before fork().  The memory is from p;
 * the descriptors are never closed.  Returns APR_SUCCESS or the system's error. */
apr_status_t pgp_bells_create(pgp_bells *bells, apr_pool_t *p, int seats);

#endif
