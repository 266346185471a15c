/* Makes and rings an eventfd for each seat of the board (pgp_bells.h). */
#include "pgp_bells.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <unistd.h>

typedef struct {
    int *fds;
    int n;
} bell_list;

static int bell_fd(void *baton, int seat)
{
    const bell_list *list = baton;

    return seat >= 0 && seat < list->n ? list->fds[seat] : -1;
}

static void bell_ring(void *baton, int seat)
{
    const int fd = bell_fd(baton, seat);

    if (fd >= 0)
        eventfd_write(fd, 1); /* it fails only if many rings are pending already */
}

/* Make an eventfd whose number is FD_SETSIZE or more, if the process may have such numbers.
 * select() takes only smaller ones, so they are left to modules that use it. */
static int bell_make(void)
{
    const int low = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    const int high = low < 0 ? -1 : fcntl(low, F_DUPFD_CLOEXEC, FD_SETSIZE);

    if (high < 0)
        return low;
    close(low);
    return high;
}

static int bells_affordable(int seats)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur / 4 > (rlim_t)seats)
        return seats;
    return (int)(limit.rlim_cur / 4);
}

apr_status_t pgp_bells_create(pgp_bells *bells, apr_pool_t *p, int seats)
{
    bell_list *list = apr_palloc(p, sizeof(*list));
    const int most = bells_affordable(seats);

    list->fds = apr_palloc(p, (most + 1) * sizeof(*list->fds));
    for (list->n = 0; list->n < most; list->n++) {
        list->fds[list->n] = bell_make();
        if (list->fds[list->n] < 0)
            break;
    }
    if (list->n == 0 && most > 0)
        return errno;
    *bells = (pgp_bells){.baton = list, .ring = bell_ring, .fd = bell_fd};
    return APR_SUCCESS;
}
