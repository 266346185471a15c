/*
 * Locks that the kernel frees when the process that holds them ends, however it ends.
 *
 * Model.  The parent makes one empty, sealed file in memory; all its children inherit the
 * descriptor.  A lock is a POSIX record lock on one byte of that file.  The kernel, and no
 * memory that a child can write, knows who holds a lock.  So a hostile child can hold a lock
 * until it dies, but can neither forge one nor break another's.
 *
 * Processes.  A record lock belongs to a process.  A process made by fork() inherits none.
 * A process loses all of its locks as soon as it closes any descriptor of the file.  So no
 * code may open the file again, or close the inherited descriptor.
 *
 * Threads.  holder() may be called on any thread, the other functions on one thread of
 * each process.
 *
 * The board takes its locks through this struct of functions, so that unit tests can play
 * several children in one process.
 */
#ifndef PGP_LOCKS_H
#define PGP_LOCKS_H

#include <stdbool.h>
#include <apr_errno.h>
#include <apr_pools.h>

typedef struct {
    void *baton;
    /* Lock a byte for this process alone.  Returns true; or false if a process holds it
     * already, this one included, or if the system refuses. */
    bool (*take)(void *baton, int byte);
    /* Lock a byte beside other processes that share it.  Returns the same as take(). */
    bool (*share)(void *baton, int byte);
    /* Give back what take() has taken. */
    void (*drop)(void *baton, int byte);
    /* The pid of a process that holds the byte in either way; 0 if none does.  A lock that
     * this process itself shares does not count. */
    int (*holder)(void *baton, int byte);
} pgp_locks;

/* Make the file for locks on the bytes from 0 to bytes - 1.  In the parent, before fork().
 * The memory is from p; the file is never closed.  Returns APR_SUCCESS or the system's error.
 */
apr_status_t pgp_locks_create(pgp_locks *locks, apr_pool_t *p, int bytes);

#endif
