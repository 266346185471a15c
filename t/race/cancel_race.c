/*
 * cancel_race CONNINFO ROUNDS THREADS CONNECTIONS [HITS]: look for a cancel that reaches the
 * next borrower's statement.
 *
 * A round: a thread borrows, starts a statement that ends soon, and returns the connection;
 * then it borrows again, from a pool with fewer connections than threads, and runs a statement
 * of its own.  The keeper cancels the statement that was left, cleans the connection up and
 * hands it over.  The thread's own statement must never fail as cancelled (57014).
 *
 * The core's calls of PQcancel() come here (ld --wrap).  They are counted, and each is delayed
 * by a random time, as on a busy machine or a slow network.
 *
 * It writes `key=value` lines: rounds; cancels (sent); hit (own statements that were
 * cancelled); failed (own statements that failed otherwise, and refused acquires); closed
 * (connections).  With HITS it ends after that many hits.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <apr_general.h>
#include <libpq-fe.h>

#include "pgp_keeper.h"
#include "pgp_pq_driver.h"
#include "pgp_pq_reset.h"

/* In microseconds: a cancel is delayed by less than LATE; a statement that is left takes less
 * than LENGTH, and is returned within LENGTH. */
#define LATE 1000
#define LENGTH 2000

static atomic_int left, rounds, cancels, hit, failed, closed;
static int hits_wanted;
static pgp_pool *pool;

int __real_PQcancel(PGcancel *cancel, char *error, int size);
int __wrap_PQcancel(PGcancel *cancel, char *error, int size);

int __wrap_PQcancel(PGcancel *cancel, char *error, int size)
{
    atomic_fetch_add(&cancels, 1);
    usleep(rand() % LATE);
    return __real_PQcancel(cancel, error, size);
}

/* --- the env ---------------------------------------------------------------- */

static apr_time_t now(void *baton)
{
    struct timespec time;

    (void)baton;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * APR_USEC_PER_SEC + time.tv_nsec / 1000;
}

static apr_uint32_t chance(void *baton)
{
    (void)baton;
    return (apr_uint32_t)rand();
}

static bool log_wanted(void *baton, pgp_log_level level)
{
    (void)baton;
    (void)level;
    return true;
}

static void log_write(void *baton, pgp_log_level level, const char *line)
{
    (void)baton;
    (void)level;
    if (strstr(line, ": closed ("))
        atomic_fetch_add(&closed, 1);
}

static const pgp_env env = {.now = now,
                            .wait = pgp_wait_monotonic,
                            .random = chance,
                            .log_wanted = log_wanted,
                            .log_write = log_write,
                            .driver = &pgp_pq_driver};

/* --- rounds ----------------------------------------------------------------- */

static pgp_slot *borrow(void)
{
    pgp_slot *conn;
    pgp_acquire_info info = {.until = 0};

    if (pgp_pool_acquire(pool, &conn, &info) == PGP_GRANTED)
        return conn;
    atomic_fetch_add(&failed, 1);
    return NULL;
}

static void leave_running(void)
{
    pgp_slot *conn = borrow();
    char sql[64];

    if (!conn)
        return;
    snprintf(sql, sizeof sql, "SELECT pg_sleep(%d / 1000000.0)", rand() % LENGTH);
    PQsendQuery(pgp_slot_handle(conn), sql);
    usleep(rand() % LENGTH);
    pgp_pool_release(&conn);
}

static void judge(const PGresult *result)
{
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

    if (sqlstate && !strcmp(sqlstate, "57014"))
        atomic_fetch_add(&hit, 1);
    else if (PQresultStatus(result) != PGRES_TUPLES_OK)
        atomic_fetch_add(&failed, 1);
}

static void run_own(void)
{
    pgp_slot *conn = borrow();
    PGresult *result;

    if (!conn)
        return;
    result = PQexec(pgp_slot_handle(conn), "SELECT pg_sleep(0.001)");
    judge(result);
    PQclear(result);
    pgp_pool_release(&conn);
}

static void *work(void *data)
{
    while (atomic_fetch_sub(&left, 1) > 0 &&
           (!hits_wanted || atomic_load(&hit) < hits_wanted)) {
        atomic_fetch_add(&rounds, 1);
        leave_running();
        run_own();
    }
    return data;
}

/* --- the pool --------------------------------------------------------------- */

static void set(pgp_settings *settings, apr_pool_t *p, pgp_option_id id, const char *value)
{
    const char *wrong = pgp_settings_set(settings, p, id, 1, &value, NULL);

    if (wrong) {
        fprintf(stderr, "%s\n", wrong);
        exit(2);
    }
}

static pgp_keeper *pool_start(apr_pool_t *p, const char *conninfo, const char *connections)
{
    pgp_settings *settings = pgp_settings_defaults(p);
    pgp_keeper *keeper;

    set(settings, p, PGP_OPTION_CONNINFO, conninfo);
    set(settings, p, PGP_OPTION_MIN, connections);
    set(settings, p, PGP_OPTION_MAX, connections);
    set(settings, p, PGP_OPTION_ACQUIRE_TIMEOUT, "60s");
    set(settings, p, PGP_OPTION_CHECK_TIMEOUT, "60s");
    set(settings, p, PGP_OPTION_RESET, "transaction");
    pgp_pq_reset_compose(settings, p);
    if (pgp_keeper_create(&keeper, p, &env) ||
        pgp_pool_create(&pool, p, "race", settings, &env, pgp_keeper_waker(keeper)))
        exit(2);
    pgp_keeper_add(keeper, pool);
    if (pgp_keeper_start(keeper))
        exit(2);
    return keeper;
}

static void race(int threads)
{
    pthread_t thread[threads];
    int i;

    for (i = 0; i < threads; i++)
        pthread_create(&thread[i], NULL, work, NULL);
    for (i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
}

int main(int argc, char **argv)
{
    pgp_keeper *keeper;
    apr_pool_t *p;
    int closed_in_race;

    if (argc < 5)
        return 2;
    apr_initialize();
    apr_pool_create(&p, NULL);
    atomic_store(&left, atoi(argv[2]));
    hits_wanted = argc > 5 ? atoi(argv[5]) : 0;
    keeper = pool_start(p, argv[1], argv[4]);
    race(atoi(argv[3]));
    closed_in_race = atomic_load(&closed);
    printf("rounds=%d\ncancels=%d\nhit=%d\nfailed=%d\nclosed=%d\n", atomic_load(&rounds),
           atomic_load(&cancels), atomic_load(&hit), atomic_load(&failed), closed_in_race);
    return pgp_keeper_join(keeper, PGP_SEC(10)) != APR_SUCCESS;
}
