/*
 * What the core takes from outside: the time, chance, the log, the driver.
 *
 * In httpd they are real; in the unit tests the test owns the time and the
 * driver is a fake.  A pgp_env is made before any thread and never changed.
 * Every function in it may be called on any thread, never under a pool's lock
 * (but now(), which may).
 */
#ifndef PGP_ENV_H
#define PGP_ENV_H

#include <semaphore.h>
#include <apr.h>
#include <apr_time.h>

struct pgp_driver;

typedef enum { PGP_LOG_ERR, PGP_LOG_WARNING, PGP_LOG_INFO, PGP_LOG_DEBUG } pgp_log_level;

typedef struct pgp_env {
    void *baton;
    /* Microseconds of a clock that only goes forward; the start is arbitrary. */
    apr_time_t (*now)(void *baton);
    /* Sleep until the semaphore is posted (returns 1) or now() reaches `until` (returns 0).
     * Never under a pool's lock. */
    int (*wait)(void *baton, sem_t *sem, apr_time_t until);
    /* 32 random bits, for jitter. */
    apr_uint32_t (*random)(void *baton);
    /* Whether lines of this level are written at all: asked before formatting. */
    int (*log_wanted)(void *baton, pgp_log_level level);
    /* One line, without its end. */
    void (*log_write)(void *baton, pgp_log_level level, const char *line);
    const struct pgp_driver *driver;
    int children; /* processes like this one, at most */
} pgp_env;

/* The messages' stable numbers; each line starts with "PGP" and one of them.
 * What each means, and its remedy, stands in the README. */
typedef enum {
    PGP_MSG_VERSION = 1000,
    PGP_MSG_CONNECTED = 1001,
    PGP_MSG_CONNECT_FAILED = 1002,
    PGP_MSG_CLOSED = 1003,
    PGP_MSG_LEASED = 1004,
    PGP_MSG_RETURNED = 1005,
    PGP_MSG_UNFIT = 1006,
    PGP_MSG_CLEANING = 1007,
    PGP_MSG_RECOVERED = 1008,
    PGP_MSG_STOPPED = 1009,
    PGP_MSG_NOTICE = 1010,
    PGP_MSG_NO_CONNECTION = 1011,
    PGP_MSG_LOST = 1012,
    PGP_MSG_CHILD_FAILED = 1014,
    PGP_MSG_IDENTITY = 1015,
    PGP_MSG_HELD = 1016,
    PGP_MSG_BOARD = 1017,
    PGP_MSG_CAPACITY = 1018,
    PGP_MSG_RESET = 1019
} pgp_message;

/* Write "PGP<id>: pool <pool>[, backend <pid>]: ..." if the level is wanted;
 * pool NULL: it is about the whole child;
 * backend 0: none. */
void pgp_log(const pgp_env *env, pgp_log_level level, pgp_message id, const char *pool,
             unsigned backend, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* What httpd's env has for wait(), if its clock is CLOCK_MONOTONIC. */
int pgp_wait_monotonic(void *baton, sem_t *sem, apr_time_t until);

static inline apr_time_t pgp_now(const pgp_env *env)
{
    return env->now(env->baton);
}

#endif
