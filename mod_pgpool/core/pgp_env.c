/* Writes log lines, and waits on CLOCK_MONOTONIC (pgp_env.h). */

#include "pgp_env.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <apr_strings.h>

#define LINE_MAX_LENGTH 1024

void pgp_log(const pgp_env *env, pgp_log_level level, pgp_message id, const char *pool,
             unsigned backend, const char *format, ...)
{
    char line[LINE_MAX_LENGTH];
    int length;
    va_list args;

    if (!env->log_wanted(env->baton, level))
        return;
    if (!pool)
        length = apr_snprintf(line, sizeof line, "PGP%d: ", id);
    else if (backend)
        length = apr_snprintf(line, sizeof line, "PGP%d: pool %s, backend %u: ", id, pool,
                              backend);
    else
        length = apr_snprintf(line, sizeof line, "PGP%d: pool %s: ", id, pool);
    va_start(args, format);
    apr_vsnprintf(line + length, sizeof line - length, format, args);
    va_end(args);
    env->log_write(env->baton, level, line);
}

#ifdef __SANITIZE_THREAD__

/* gcc's thread sanitizer does not know sem_clockwait(): it would not see that a post comes
 * before the end of the wait, and it would delay signals until then.  It knows sem_timedwait(),
 * whose clock may jump; therefore this function sleeps in short pieces. */
bool pgp_wait_monotonic(void *baton, sem_t *sem, apr_time_t until)
{
    struct timespec now, piece;

    (void)baton;
    do {
        clock_gettime(CLOCK_REALTIME, &piece);
        piece.tv_nsec += 10 * 1000 * 1000;
        piece.tv_sec += piece.tv_nsec / (1000 * 1000 * 1000);
        piece.tv_nsec %= 1000 * 1000 * 1000;
        if (sem_timedwait(sem, &piece) == 0)
            return true;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec * APR_USEC_PER_SEC + now.tv_nsec / 1000 < until);
    return false;
}

#else

bool pgp_wait_monotonic(void *baton, sem_t *sem, apr_time_t until)
{
    const struct timespec end = {.tv_sec = until / APR_USEC_PER_SEC,
                                 .tv_nsec = until % APR_USEC_PER_SEC * 1000};
    int failed;

    (void)baton;
    do
        failed = sem_clockwait(sem, CLOCK_MONOTONIC, &end);
    while (failed && errno == EINTR);
    return !failed;
}

#endif
