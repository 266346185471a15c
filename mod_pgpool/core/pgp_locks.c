/* Takes and drops record locks on a file in memory (pgp_locks.h). */
#include "pgp_locks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>
#include <sys/mman.h>

typedef struct {
    int fd;
    /* The bytes that this process has taken, since the kernel never tells a process of its own
     * locks.  The parent takes none, so fork() copies an empty list. */
    atomic_char *taken;
} lock_file;

static bool file_control(const lock_file *file, int command, int type, int byte, int *pid)
{
    struct flock request = {
        .l_type = (short)type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int rc;

    do {
        rc = fcntl(file->fd, command, &request);
    } while (rc < 0 && errno == EINTR);
    if (pid)
        *pid = rc == 0 && request.l_type != F_UNLCK ? request.l_pid : 0;
    return rc == 0;
}

static bool lock_take(void *baton, int byte)
{
    lock_file *file = baton;

    if (atomic_load(&file->taken[byte]) || !file_control(file, F_SETLK, F_WRLCK, byte, NULL))
        return false;
    atomic_store(&file->taken[byte], 1);
    return true;
}

static bool lock_share(void *baton, int byte)
{
    return file_control(baton, F_SETLK, F_RDLCK, byte, NULL);
}

static void lock_drop(void *baton, int byte)
{
    lock_file *file = baton;

    file_control(file, F_SETLK, F_UNLCK, byte, NULL);
    atomic_store(&file->taken[byte], 0);
}

static int lock_holder(void *baton, int byte)
{
    const lock_file *file = baton;
    int pid;

    if (atomic_load(&file->taken[byte]))
        return getpid();
    file_control(file, F_GETLK, F_WRLCK, byte, &pid);
    return pid;
}

apr_status_t pgp_locks_create(pgp_locks *locks, apr_pool_t *p, int bytes)
{
    /* Without the seals a child could fill the memory through the descriptor. */
    const int seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
    lock_file *file = apr_palloc(p, sizeof(*file));

    file->taken = apr_pcalloc(p, bytes * sizeof(*file->taken));
    file->fd = memfd_create("mod_pgpool-locks", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file->fd < 0)
        return errno;
    if (fcntl(file->fd, F_ADD_SEALS, seals) < 0) {
        const apr_status_t rv = errno;

        close(file->fd);
        return rv;
    }
    *locks = (pgp_locks){.baton = file,
                         .take = lock_take,
                         .share = lock_share,
                         .drop = lock_drop,
                         .holder = lock_holder};
    return APR_SUCCESS;
}
