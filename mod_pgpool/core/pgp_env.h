/*
 * The environment of the core: clock, wait, random numbers, log and driver.
 *
 * Model.  The glue fills a pgp_env with httpd's; a unit test fills it with a clock that the
 * test moves and with a fake driver.
 *
 * Threads.  A pgp_env is made before any thread starts, and never changed.  Each of its
 * functions may be called on any thread.  Only now() may be called under a pool's lock.
 */
#ifndef PGP_ENV_H
#define PGP_ENV_H

#include <semaphore.h>
#include <stdbool.h>
#include <apr.h>
#include <apr_time.h>

struct pgp_driver;

typedef enum { PGP_LOG_ERR, PGP_LOG_WARNING, PGP_LOG_INFO, PGP_LOG_DEBUG } pgp_log_level;

typedef struct pgp_env {
    void *baton;
    /* The time in microseconds, on a clock that never goes back and starts anywhere. */
    apr_time_t (*now)(void *baton);
    /* Sleep until the semaphore is posted (returns true) or now() reaches `until` (false). */
    bool (*wait)(void *baton, sem_t *sem, apr_time_t until);
    /* 32 random bits, for jitter. */
    apr_uint32_t (*random)(void *baton);
    /* Whether lines of this level are written.  pgp_log() asks before it formats a line. */
    bool (*log_wanted)(void *baton, pgp_log_level level);
    /* Write one line; it comes without a line end. */
    void (*log_write)(void *baton, pgp_log_level level, const char *line);
    const struct pgp_driver *driver;
    int children; /* how many children httpd may run at the same time */
} pgp_env;

/* The stable numbers of the log messages.  Each line starts with "PGP" and a number; the README
 * tells the meaning of each, and its remedy. */
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
    PGP_MSG_RESET = 1019,
    PGP_MSG_STATEMENT = 1020,
    PGP_MSG_ORDER = 1021
} pgp_message;

/* Write "PGP<id>: pool <pool>, backend <pid>: ..." if the level is wanted.  pool NULL: the line
 * concerns the whole child.  backend 0: the line concerns no connection.  Longer lines than
 * 1023 bytes are cut. */
void pgp_log(const pgp_env *env, pgp_log_level level, pgp_message id, const char *pool,
             unsigned backend, const char *format, ...) __attribute__((format(printf, 6, 7)));

/* A wait() for an environment whose now() is CLOCK_MONOTONIC. */
bool pgp_wait_monotonic(void *baton, sem_t *sem, apr_time_t until);

static inline apr_time_t pgp_now(const pgp_env *env)
{
    return env->now(env->baton);
}

#endif
