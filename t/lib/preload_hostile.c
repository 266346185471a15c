/*
 * System and library calls that fail, for httpd's LD_PRELOAD.
 *
 *   HOSTILE_REGISTER=file   libpq registers no event procedure as long as that file exists
 *   HOSTILE_POLL=1          each second poll() of one descriptor for input, without a wait,
 *                           fails as if a signal had interrupted it
 */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>
#include <libpq-events.h>

__attribute__((visibility("default"))) int PQregisterEventProc(PGconn *conn, PGEventProc proc,
                                                               const char *name, void *baton)
{
    typedef int (*register_fn)(PGconn *, PGEventProc, const char *, void *);
    const char *file = getenv("HOSTILE_REGISTER");

    if (file && access(file, F_OK) == 0)
        return 0;
    return ((register_fn)dlsym(RTLD_NEXT, "PQregisterEventProc"))(conn, proc, name, baton);
}

__attribute__((visibility("default"))) int poll(struct pollfd *fds, nfds_t n, int timeout)
{
    typedef int (*poll_fn)(struct pollfd *, nfds_t, int);
    static _Thread_local int interrupted;

    if (getenv("HOSTILE_POLL") && n == 1 && timeout == 0 && fds->events & POLLIN) {
        interrupted = !interrupted;
        if (interrupted) {
            errno = EINTR;
            return -1;
        }
    }
    return ((poll_fn)dlsym(RTLD_NEXT, "poll"))(fds, n, timeout);
}
