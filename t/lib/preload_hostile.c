/*
 * System and library calls that fail, for httpd's LD_PRELOAD.
 *
 *   HOSTILE_REGISTER=file   libpq registers no event procedure as long as that file exists
 *   HOSTILE_POLL=1          each second poll() of one descriptor for input, without a wait,
 *                           fails as if a signal had interrupted it
 *   HOSTILE_ROOT=1          mod_pgpool takes the process's user for root
 */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
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

/* The answer to others stays true: httpd would try to change the user. */
__attribute__((visibility("default"))) uid_t geteuid(void)
{
    typedef uid_t (*geteuid_fn)(void);
    Dl_info caller;

    if (getenv("HOSTILE_ROOT") && dladdr(__builtin_return_address(0), &caller) &&
        strstr(caller.dli_fname, "/mod_pgpool.so"))
        return 0;
    return ((geteuid_fn)dlsym(RTLD_NEXT, "geteuid"))();
}
