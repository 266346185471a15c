/*
 * The core's environment, made from httpd (mod_pgpool_env.h).
 */
#include "mod_pgpool_env.h"

#include <time.h>
#include <ap_mpm.h>
#include <apr_general.h>
#include <http_log.h>

#include "core/pgp_pq_driver.h"

APLOG_USE_MODULE(pgpool);

static apr_time_t env_now(void *baton)
{
    return pgpool_env_now();
}

static apr_uint32_t env_random(void *baton)
{
    apr_uint32_t random = 0;

    apr_generate_random_bytes((unsigned char *)&random, sizeof random);
    return random;
}

static int env_log_level(pgp_log_level level)
{
    static const int levels[] = {
        [PGP_LOG_ERR] = APLOG_ERR,
        [PGP_LOG_WARNING] = APLOG_WARNING,
        [PGP_LOG_INFO] = APLOG_INFO,
        [PGP_LOG_DEBUG] = APLOG_DEBUG,
    };

    return levels[level];
}

static bool env_log_wanted(void *baton, pgp_log_level level)
{
    const server_rec *main_server = baton;

    return APLOG_IS_LEVEL(main_server, env_log_level(level));
}

static void env_log_write(void *baton, pgp_log_level level, const char *line)
{
    const server_rec *main_server = baton;

    ap_log_error(APLOG_MARK, env_log_level(level), 0, main_server, "%s", line);
}

pgp_env pgpool_env_make(server_rec *main_server)
{
    return (pgp_env){.baton = main_server,
                     .now = env_now,
                     .wait = pgp_wait_monotonic,
                     .random = env_random,
                     .log_wanted = env_log_wanted,
                     .log_write = env_log_write,
                     .driver = &pgp_pq_driver,
                     .children = pgpool_mpm_number(AP_MPMQ_MAX_DAEMONS)};
}

apr_time_t pgpool_env_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * APR_USEC_PER_SEC + now.tv_nsec / 1000;
}

int pgpool_mpm_number(int query)
{
    int number = 0;

    ap_mpm_query(query, &number);
    return number > 0 ? number : 1;
}

bool pgpool_mpm_is_threaded(void)
{
    int threaded = 0;

    ap_mpm_query(AP_MPMQ_IS_THREADED, &threaded);
    return threaded;
}
