/* Log lines, and the wait on CLOCK_MONOTONIC (pgp_env.h). */

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
void __tsan_acquire(void *addr);
#endif

int pgp_wait_monotonic(void *baton, sem_t *sem, apr_time_t until)
{
    const struct timespec end = {.tv_sec = until / APR_USEC_PER_SEC,
                                 .tv_nsec = until % APR_USEC_PER_SEC * 1000};
    int failed;

    (void)baton;
    do
        failed = sem_clockwait(sem, CLOCK_MONOTONIC, &end);
    while (failed && errno == EINTR);
#ifdef __SANITIZE_THREAD__
    if (!failed)
        __tsan_acquire(sem); /* gcc 12's sanitizer does not know sem_clockwait() */
#endif
    return !failed;
}
