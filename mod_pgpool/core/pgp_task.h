/*
 * A call that blocks, on a thread of its own, for which nobody has to wait.
 *
 * Model.  Some calls cannot be given a deadline: getaddrinfo(), and PQcancel() before libpq 17.
 * A task runs one of them on a detached thread.  The starter polls pgp_task_fd() together with
 * its other descriptors, and may leave the task at any time; a task that was left finishes
 * alone and disposes of its data.
 *
 * Ownership.  The data belong to the thread until pgp_task_is_done(), then to the starter until
 * pgp_task_leave().  dispose() runs exactly once: on the task's thread or on the starter's,
 * whichever is done last.
 *
 * Threads.  The starter's functions are for one thread at a time.
 */
#ifndef PGP_TASK_H
#define PGP_TASK_H

#include <stdbool.h>

typedef struct pgp_task pgp_task;

/* Returns NULL, without having called anything, if no thread can be started. */
pgp_task *pgp_task_start(void (*run)(void *data), void (*dispose)(void *data), void *data);

/* Define `static pgp_task *name(type *data)`, which starts a task on data of that type: run and
 * dispose take a `type *`, too. */
#define PGP_TASK_DEFINE(name, type, run, dispose)                                              \
    static void name##_run(void *data)                                                         \
    {                                                                                          \
        run(data);                                                                             \
    }                                                                                          \
    static void name##_dispose(void *data)                                                     \
    {                                                                                          \
        dispose(data);                                                                         \
    }                                                                                          \
    static pgp_task *name(type *data)                                                          \
    {                                                                                          \
        return pgp_task_start(name##_run, name##_dispose, data);                               \
    }

/* Whether run() has returned. */
bool pgp_task_is_done(const pgp_task *task);

/* Becomes readable when run() has returned. */
int pgp_task_fd(const pgp_task *task);

/* Give the task up, whether it is done or not; sets *task to NULL. */
void pgp_task_leave(pgp_task **task);

#endif
