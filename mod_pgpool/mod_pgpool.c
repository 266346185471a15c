/*
 * mod_pgpool: the hooks, and the life of a child's pools.
 *
 * A child makes its pools and starts the keeper in child_init.  child_stopping
 * tells the keeper early that the child goes (it may come twice, on any thread, in
 * prefork in a signal handler, so it only gives an order); a pre_cleanup of pchild
 * waits for the keeper's end, for a while.
 *
 * The core's memory is of a pool without a parent, never destroyed: a thread that
 * outlives pchild (mod_http2 has such) still finds its locks.
 */
#include "mod_pgpool_private.h"

#include <stdlib.h>
#include <time.h>
#include <ap_mpm.h>
#include <apr_general.h>
#include <apr_strings.h>
#include <http_core.h>
#include <http_protocol.h>
#include <mpm_common.h>

#include "core/pgp_keeper.h"
#include "core/pgp_libpq.h"

/* How long a child that ends waits for its keeper; httpd kills it after 10 s. */
#define KEEPER_PATIENCE PGP_SEC(3)

typedef struct {
    apr_pool_t *p; /* the core's memory */
    pgp_env env;
    pgp_keeper *keeper;
    apr_array_header_t *pools; /* of pgp_pool *: all, each once */
    int threads;               /* that may ask at once, as the MPM has it */
} pgpool_child;

/* child_stopping has no baton, and pgpool_child_env() no argument. */
static pgpool_child *child;

/* --- what the core takes from outside --------------------------------------- */

static apr_time_t env_now(void *baton)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * APR_USEC_PER_SEC + now.tv_nsec / 1000;
}

static apr_uint32_t env_random(void *baton)
{
    apr_uint32_t random = 0;

    apr_generate_random_bytes((unsigned char *)&random, sizeof random);
    return random;
}

static int log_level(pgp_log_level level)
{
    static const int levels[] = {
        [PGP_LOG_ERR] = APLOG_ERR,
        [PGP_LOG_WARNING] = APLOG_WARNING,
        [PGP_LOG_INFO] = APLOG_INFO,
        [PGP_LOG_DEBUG] = APLOG_DEBUG,
    };

    return levels[level];
}

static int env_log_wanted(void *baton, pgp_log_level level)
{
    const server_rec *s = baton;

    return APLOG_IS_LEVEL(s, log_level(level));
}

static void env_log_write(void *baton, pgp_log_level level, const char *line)
{
    ap_log_error(APLOG_MARK, log_level(level), 0, (const server_rec *)baton, "%s", line);
}

const pgp_env *pgpool_child_env(void)
{
    return child ? &child->env : NULL;
}

/* --- a child's pools -------------------------------------------------------- */

/* The pool of that name and those settings, if another server has it already. */
static pgp_pool *pool_shared(const char *name, const pgp_settings *settings)
{
    int i;

    for (i = 0; i < child->pools->nelts; i++) {
        pgp_pool *pool = APR_ARRAY_IDX(child->pools, i, pgp_pool *);

        if (!strcmp(pgp_pool_name(pool), name) &&
            pgp_settings_equal(pgp_pool_settings(pool), settings))
            return pool;
    }
    return NULL;
}

static apr_status_t pool_make(const char *name, const pgp_settings *settings, pgp_pool **pool)
{
    apr_status_t rv = pgp_pool_create(pool, child->p, name, settings, &child->env,
                                      pgp_keeper_waker(child->keeper));

    if (rv != APR_SUCCESS)
        return rv;
    APR_ARRAY_PUSH(child->pools, pgp_pool *) = *pool;
    pgp_keeper_add(child->keeper, *pool);
    return APR_SUCCESS;
}

static apr_status_t server_pools_make(server_rec *s)
{
    pgpool_server_conf *conf = ap_get_module_config(s->module_config, &pgpool_module);
    apr_hash_t *all = pgpool_config_complete(child->p, s);
    apr_hash_index_t *i;

    conf->pools = apr_hash_make(child->p);
    for (i = apr_hash_first(child->p, all); i; i = apr_hash_next(i)) {
        const char *name = apr_hash_this_key(i);
        pgp_settings *settings = apr_hash_this_val(i);
        pgp_pool *pool;
        apr_status_t rv = APR_SUCCESS;

        if (settings->min > child->threads)
            settings->min = child->threads; /* more could never be used at once */
        pool = pool_shared(name, settings);
        if (!pool)
            rv = pool_make(name, settings, &pool);
        if (rv != APR_SUCCESS)
            return rv;
        apr_hash_set(conf->pools, name, APR_HASH_KEY_STRING, pool);
    }
    return APR_SUCCESS;
}

static int child_threads(void)
{
    int threads = 0;

    ap_mpm_query(AP_MPMQ_MAX_THREADS, &threads);
    return threads > 0 ? threads : 1;
}

static apr_status_t child_make(server_rec *s)
{
    apr_pool_t *p;
    apr_status_t rv = apr_pool_create_unmanaged_ex(&p, NULL, NULL);

    if (rv != APR_SUCCESS)
        return rv;
    apr_pool_tag(p, "pgpool");
    child = apr_pcalloc(p, sizeof(*child));
    child->p = p;
    child->env = (pgp_env){.baton = s,
                           .now = env_now,
                           .random = env_random,
                           .log_wanted = env_log_wanted,
                           .log_write = env_log_write,
                           .driver = &pgp_libpq_driver};
    child->pools = apr_array_make(p, 4, sizeof(pgp_pool *));
    child->threads = child_threads();
    rv = pgp_keeper_create(&child->keeper, p, &child->env);
    for (; s && rv == APR_SUCCESS; s = s->next)
        rv = server_pools_make(s);
    return rv == APR_SUCCESS ? pgp_keeper_start(child->keeper) : rv;
}

/* --- a child's life --------------------------------------------------------- */

static int lent_count(void)
{
    int i, lent = 0;

    for (i = 0; i < child->pools->nelts; i++) {
        pgp_counts counts;

        pgp_pool_count(APR_ARRAY_IDX(child->pools, i, pgp_pool *), &counts);
        lent += counts.state[PGP_LENT];
    }
    return lent;
}

static apr_status_t child_end(void *data)
{
    server_rec *s = data;

    if (pgp_keeper_join(child->keeper, KEEPER_PATIENCE) != APR_SUCCESS)
        ap_log_error(
            APLOG_MARK, APLOG_WARNING, 0, s,
            "PGP%d: the keeper's thread did not end in time; the child ends without it",
            PGP_MSG_STOPPED);
    else if (lent_count() > 0)
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, s,
                     "PGP%d: the child ends while %d connections are still lent",
                     PGP_MSG_STOPPED, lent_count());
    return APR_SUCCESS;
}

static void child_init(apr_pool_t *pchild, server_rec *s)
{
    apr_status_t rv = child_make(s);

    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s,
                     "PGP%d: cannot start the pools of this child", PGP_MSG_CHILD_FAILED);
        exit(APEXIT_CHILDSICK);
    }
    apr_pool_pre_cleanup_register(pchild, s, child_end);
}

static void child_stopping(apr_pool_t *pchild, int graceful)
{
    if (child)
        pgp_keeper_order(child->keeper, graceful ? PGP_ORDER_DRAIN : PGP_ORDER_STOP);
}

/* --- the module ------------------------------------------------------------- */

static void test_config(apr_pool_t *pconf, server_rec *s)
{
    pgpool_config_dump(pconf, s);
}

static void register_hooks(apr_pool_t *p)
{
    APR_REGISTER_OPTIONAL_FN(pgpool_acquire);
    APR_REGISTER_OPTIONAL_FN(pgpool_release);
    APR_REGISTER_OPTIONAL_FN(pgpool_open);
    APR_REGISTER_OPTIONAL_FN(pgpool_close);
    APR_REGISTER_OPTIONAL_FN(pgpool_http_status);
    APR_REGISTER_OPTIONAL_FN(pgpool_strerror);
    pgpool_release_register();
    ap_hook_check_config(pgpool_config_check, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_test_config(test_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_stopping(child_stopping, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(pgpool) = {
    STANDARD20_MODULE_STUFF, pgpool_dir_conf_make,     pgpool_dir_conf_merge,
    pgpool_server_conf_make, pgpool_server_conf_merge, pgpool_commands,
    register_hooks,
};
