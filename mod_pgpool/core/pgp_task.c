/* Runs a call that blocks on a thread of its own. */

#include "pgp_task.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "pgp_alloc.h"

struct pgp_task {
    /* immutable */
    void (*run)(void *data);
    void (*dispose)(void *data);
    void *data;
    int fd;

    _Atomic bool is_done;
    _Atomic int users; /* the starter and the thread */
};

static void task_unref(pgp_task *task)
{
    if (atomic_fetch_sub(&task->users, 1) > 1)
        return;
    task->dispose(task->data);
    close(task->fd);
    free(task);
}

static void *task_main(void *arg)
{
    pgp_task *task = arg;

    task->run(task->data);
    atomic_store(&task->is_done, true);
    eventfd_write(task->fd, 1);
    task_unref(task);
    return NULL;
}

/* The thread is detached and takes none of the process's signals. */
static bool thread_start(pgp_task *task)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    int failed;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&thread, &attr, task_main, task);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return !failed;
}

pgp_task *pgp_task_start(void (*run)(void *data), void (*dispose)(void *data), void *data)
{
    pgp_task *task = pgp_alloc(sizeof(*task));

    *task = (pgp_task){.run = run,
                       .dispose = dispose,
                       .data = data,
                       .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
                       .users = 2};
    if (task->fd >= 0 && thread_start(task))
        return task;
    if (task->fd >= 0)
        close(task->fd);
    free(task);
    return NULL;
}

bool pgp_task_is_done(const pgp_task *task)
{
    return atomic_load(&task->is_done);
}

int pgp_task_fd(const pgp_task *task)
{
    return task->fd;
}

void pgp_task_leave(pgp_task **task)
{
    task_unref(*task);
    *task = NULL;
}
