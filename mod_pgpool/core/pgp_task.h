/*
 * A call that blocks, on a thread of its own, that nobody has to wait for.
 *
 * Model.  Some calls cannot be given a deadline: getaddrinfo(), and PQcancel()
 * before libpq 17.  A task runs one on a detached thread.  Whoever started it polls
 * pgp_task_fd() together with the rest of what it waits for, and may leave at any
 * time; a task that was left finishes alone and disposes of its data.
 *
 * Ownership.  The data is the thread's until pgp_task_done(), then the starter's
 * until pgp_task_leave().  dispose() runs exactly once, on the thread of whoever is
 * last.
 */
#ifndef PGP_TASK_H
#define PGP_TASK_H

typedef struct pgp_task pgp_task;

/* Returns NULL, without having called anything, if there is no thread to be had. */
pgp_task *pgp_task_start(void (*run)(void *data), void (*dispose)(void *data), void *data);

/* Whether run() has returned. */
int pgp_task_done(const pgp_task *task);

/* Becomes readable when run() has returned. */
int pgp_task_fd(const pgp_task *task);

/* Be done with it, in whatever state it is; sets *task to NULL. */
void pgp_task_leave(pgp_task **task);

#endif
