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
#include "mod_pgpool_companion.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <ap_mpm.h>
#include <apr_general.h>
#include <apr_strings.h>
#include <http_core.h>
#include <http_protocol.h>
#include <mpm_common.h>

#include "core/pgp_conninfo.h"
#include "core/pgp_keeper.h"
#include "core/pgp_pq.h"

/* How long a child that ends waits for its keeper; httpd kills it after 10 s. */
#define KEEPER_PATIENCE PGP_SEC(3)

typedef struct {
    apr_pool_t *p; /* the core's memory */
    pgp_env env;
    pgp_keeper *keeper;
    apr_array_header_t *plans; /* of pgpool_plan: all, each once */
    apr_array_header_t *pools; /* of pgpool_child_pool: theirs */
    int threads;               /* that may ask at once, as the MPM has it */
    int cut_off;               /* see pgpool_child_cut_off() */
    pid_t pid;
    const int *here; /* see pgpool_child_is_here(); NULL: the kernel cannot do it */
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

const apr_array_header_t *pgpool_child_plans(void)
{
    return child->plans;
}

/* --- the parent's board ----------------------------------------------------- */

/* Places for pools that a later configuration may have beside those of the start. */
#define SPARE_PLACES 16

/* What outlives a graceful restart is kept with the process and found again by its key;
 * an upgrade of the module may come with the restart, so the key has the layout in it. */
typedef struct {
    pgp_board *board;
    apr_time_t start; /* when it was made */
} kept_board;

static const char *kept_key(char key[64])
{
    apr_snprintf(key, 64, "mod_pgpool board %" APR_SIZE_T_FMT " %" APR_SIZE_T_FMT,
                 pgp_board_layout(), sizeof(kept_board));
    return key;
}

static const kept_board *kept_find(void)
{
    char key[64];

    return ap_retained_data_get(kept_key(key));
}

pgp_board *pgpool_board(void)
{
    const kept_board *kept = kept_find();

    return kept ? kept->board : NULL;
}

apr_time_t pgpool_board_start(void)
{
    const kept_board *kept = kept_find();

    return kept ? kept->start : 0;
}

static pgp_board_pool board_pool_of(const pgpool_plan *plan)
{
    return (pgp_board_pool){.name = plan->name, .server = plan->server, .nth = plan->nth};
}

int pgpool_board_place(const pgpool_plan *plan)
{
    const pgp_board *board = pgpool_board();
    const pgp_board_pool pool = board_pool_of(plan);

    return board ? pgp_board_place(board, &pool) : -1;
}

/* At least 1: prefork has no threads, as it counts them. */
static int mpm_number(int query)
{
    int number = 0;

    ap_mpm_query(query, &number);
    return number > 0 ? number : 1;
}

/* Known only when it is whole: a later start would find half a one. */
static apr_status_t board_make(apr_pool_t *p, int pools)
{
    const int slots = pgp_board_slots_for(mpm_number(AP_MPMQ_HARD_LIMIT_DAEMONS));
    const int places = 2 * pools + SPARE_PLACES;
    kept_board *kept;
    pgp_board *board;
    pgp_locks locks;
    pgp_bells bells;
    char key[64];
    apr_status_t rv = pgp_locks_create(&locks, p, pgp_board_locks(slots, places));

    if (rv == APR_SUCCESS)
        rv = pgp_bells_create(&bells, p, slots);
    if (rv == APR_SUCCESS)
        rv = pgp_board_create(&board, p, slots, places, &locks);
    if (rv != APR_SUCCESS)
        return rv;
    pgp_board_hang_bells(board, &bells);
    kept = ap_retained_data_create(kept_key(key), sizeof(*kept));
    kept->board = board;
    kept->start = env_now(NULL);
    return APR_SUCCESS;
}

/* The children only look up their places: the parent gives them before it makes children.
 * Returns how many pools have none. */
static int board_configure(apr_pool_t *p, const apr_array_header_t *plans)
{
    pgp_board_pool *pools = apr_palloc(p, (plans->nelts + 1) * sizeof(*pools));
    int i;

    for (i = 0; i < plans->nelts; i++)
        pools[i] = board_pool_of(&APR_ARRAY_IDX(plans, i, pgpool_plan));
    return pgp_board_configure(pgpool_board(), pools, plans->nelts);
}

/* mpm_itk forks for each connection, and in the fork there is neither the keeper's thread nor a
 * connection that is not the parent process's as well. */
static int itk_refuse(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    if (!ap_find_linked_module("mpm_itk.c"))
        return OK;
    ap_log_error(
        APLOG_MARK, APLOG_CRIT, 0, s,
        "PGP%d: mod_pgpool does not work with mpm_itk, which forks for each connection: "
        "load mpm_event, mpm_worker or mpm_prefork alone",
        PGP_MSG_CHILD_FAILED);
    return HTTP_INTERNAL_SERVER_ERROR;
}

static int post_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    const apr_array_header_t *plans = pgpool_config_plans(ptemp, s);
    apr_status_t rv = APR_SUCCESS;
    int left;

    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG)
        return OK; /* the first of two passes at the start */
    ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, s, "PGP%d: mod_pgpool %s with libpq %d.%d",
                 PGP_MSG_VERSION, PGPOOL_VERSION, PQlibVersion() / 10000,
                 PQlibVersion() % 10000);
    if (!pgpool_board())
        rv = board_make(s->process->pool, plans->nelts);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s,
                     "PGP%d: cannot make the shared memory that PgPoolTotalMax needs",
                     PGP_MSG_BOARD);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    left = board_configure(ptemp, plans);
    if (left)
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                     "PGP%d: %d pools are new since the start and have no place in shared "
                     "memory: no PgPoolTotalMax holds for them, and no figure is shown, until "
                     "httpd is stopped and started",
                     PGP_MSG_BOARD, left);
    return OK;
}

/* --- a child's pools -------------------------------------------------------- */

static apr_status_t pool_make(pgpool_child *c, const pgpool_plan *plan)
{
    const int place = pgpool_board_place(plan);
    pgp_pool *pool;
    apr_status_t rv = pgp_pool_create(&pool, c->p, plan->name, plan->settings, &c->env,
                                      pgp_keeper_waker(c->keeper));

    if (rv != APR_SUCCESS)
        return rv;
    if (place >= 0)
        pgp_pool_post(pool, pgpool_board(), place);
    APR_ARRAY_PUSH(c->pools, pgpool_child_pool) = (pgpool_child_pool){
        .core = pool,
        .lease_note = apr_pstrcat(c->p, "pgpool-", plan->name, NULL),
        .wait_note = apr_pstrcat(c->p, "pgpool-", plan->name, "-wait", NULL)};
    pgp_keeper_add(c->keeper, pool);
    return APR_SUCCESS;
}

/* The pools are in the order of the plans. */
static void server_pools_find(pgpool_child *c, server_rec *s, const apr_array_header_t *plans)
{
    pgpool_server_conf *conf = ap_get_module_config(s->module_config, &pgpool_module);
    apr_hash_t *all = pgpool_config_complete(c->p, s);
    apr_hash_index_t *i;

    conf->pools = apr_hash_make(c->p);
    for (i = apr_hash_first(c->p, all); i; i = apr_hash_next(i)) {
        const char *name = apr_hash_this_key(i);
        const int n = pgpool_config_plan(plans, name, apr_hash_this_val(i));

        apr_hash_set(conf->pools, name, APR_HASH_KEY_STRING,
                     &APR_ARRAY_IDX(c->pools, n, pgpool_child_pool));
    }
}

/* Tell each pool of the others that go to the same server. */
static void pools_by_server(const pgpool_child *c)
{
    apr_hash_t *servers = apr_hash_make(c->p);
    int i;

    for (i = 0; i < c->pools->nelts; i++) {
        pgp_pool *pool = APR_ARRAY_IDX(c->pools, i, pgpool_child_pool).core;
        const pgpool_plan *plan = &APR_ARRAY_IDX(c->plans, i, pgpool_plan);
        const char *name = pgp_conninfo_server(c->p, plan->settings->conninfo);
        const int place = pgpool_board_place(plan);
        pgp_server *server = apr_hash_get(servers, name, APR_HASH_KEY_STRING);

        if (!server) {
            server = apr_pcalloc(c->p, sizeof(*server));
            *server = (pgp_server){.name = name, .place = place};
            apr_hash_set(servers, name, APR_HASH_KEY_STRING, server);
        }
        /* The same in all children, whatever the order of their plans. */
        if (place >= 0 && (server->place < 0 || place < server->place))
            server->place = place;
        server->pools++;
        server->most += pgp_pool_most(pool);
        pgp_pool_share_server(pool, server);
    }
}

static apr_status_t pools_make(pgpool_child *c, server_rec *s)
{
    apr_array_header_t *plans = pgpool_config_plans(c->p, s);
    apr_status_t rv = APR_SUCCESS;
    int i;

    c->plans = plans;
    for (i = 0; i < plans->nelts && rv == APR_SUCCESS; i++)
        rv = pool_make(c, &APR_ARRAY_IDX(plans, i, pgpool_plan));
    pools_by_server(c);
    for (; s && rv == APR_SUCCESS; s = s->next)
        server_pools_find(c, s, plans);
    /* More could never be used at once. */
    for (i = 0; i < plans->nelts; i++) {
        pgp_settings *settings = APR_ARRAY_IDX(plans, i, pgpool_plan).settings;

        if (settings->min > c->threads)
            settings->min = c->threads;
    }
    return rv;
}

/* A page that the kernel empties in each process that is forked from this one, by whatever
 * call. To read it costs nothing, whereas getpid() is a system call, and pthread_atfork() is
 * not told of all forks and does not go well with a module that is unloaded. */
static const int *here_make(void)
{
    const size_t size = sizeof(int); /* the kernel takes a whole page */
    int *here = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (here == MAP_FAILED)
        return NULL;
    if (madvise(here, size, MADV_WIPEONFORK) == 0) {
        *here = 1;
        return here;
    }
    munmap(here, size);
    return NULL;
}

/* The child is known only when it is whole: in prefork a signal may want to stop it at any
 * moment. */
static apr_status_t child_make(server_rec *s)
{
    apr_pool_t *p;
    pgpool_child *c;
    apr_status_t rv = apr_pool_create_unmanaged_ex(&p, NULL, NULL);

    if (rv != APR_SUCCESS)
        return rv;
    apr_pool_tag(p, "pgpool");
    c = apr_pcalloc(p, sizeof(*c));
    c->p = p;
    c->pid = getpid();
    c->here = here_make();
    c->env = (pgp_env){.baton = s,
                       .now = env_now,
                       .wait = pgp_wait_monotonic,
                       .random = env_random,
                       .log_wanted = env_log_wanted,
                       .log_write = env_log_write,
                       .driver = &pgp_pq_driver,
                       .children = mpm_number(AP_MPMQ_MAX_DAEMONS)};
    c->pools = apr_array_make(p, 4, sizeof(pgpool_child_pool));
    c->threads = mpm_number(AP_MPMQ_MAX_THREADS);
    rv = pgp_keeper_create(&c->keeper, p, &c->env);
    if (rv != APR_SUCCESS)
        return rv;
    pgp_keeper_post(c->keeper, pgpool_board());
    rv = pools_make(c, s);
    if (rv == APR_SUCCESS)
        rv = pgp_keeper_start(c->keeper);
    child = c;
    return rv;
}

/* --- a child's life --------------------------------------------------------- */

static int lent_count(void)
{
    int i, lent = 0;

    for (i = 0; i < child->pools->nelts; i++) {
        pgp_counts counts;

        pgp_pool_count(APR_ARRAY_IDX(child->pools, i, pgpool_child_pool).core, &counts);
        lent += counts.state[PGP_LENT];
    }
    return lent;
}

int pgpool_child_is_here(void)
{
    return child && (child->here ? *child->here : child->pid == getpid());
}

int pgpool_child_cut_off(void)
{
    return child->cut_off || !pgpool_child_is_here();
}

/* The last of pchild's cleanups.  After it httpd frees memory, as do libraries when the process
 * ends: in the middle of a malloc(), and with locks since there was a thread, that hangs. */
static apr_status_t exit_cut_off(void *unused)
{
    if (child && child->cut_off)
        _exit(0);
    return APR_SUCCESS;
}

static int is_threaded(void)
{
    int threaded = 0;

    ap_mpm_query(AP_MPMQ_IS_THREADED, &threaded);
    return threaded;
}

static apr_status_t child_end(void *data)
{
    server_rec *s = data;
    int cut_off = 1;

    if (!pgpool_child_is_here())
        return APR_SUCCESS;
    if (pgp_keeper_join(child->keeper, KEEPER_PATIENCE) != APR_SUCCESS)
        ap_log_error(
            APLOG_MARK, APLOG_WARNING, 0, s,
            "PGP%d: the keeper's thread did not end in time; the child ends without it",
            PGP_MSG_STOPPED);
    else if (lent_count() > 0)
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, s,
                     "PGP%d: the child ends while %d connections are still lent",
                     PGP_MSG_STOPPED, lent_count());
    else
        cut_off = 0;
    child->cut_off = cut_off && !is_threaded();
    return APR_SUCCESS;
}

static void child_init(apr_pool_t *pchild, server_rec *s)
{
    apr_status_t rv;

    apr_pool_cleanup_register(pchild, NULL, exit_cut_off, apr_pool_cleanup_null);
    rv = child_make(s);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s,
                     "PGP%d: cannot start the pools of this child", PGP_MSG_CHILD_FAILED);
        exit(APEXIT_CHILDSICK);
    }
    apr_pool_pre_cleanup_register(pchild, s, child_end);
}

static void child_stopping(apr_pool_t *pchild, int graceful)
{
    if (pgpool_child_is_here())
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
    APR_REGISTER_OPTIONAL_FN(pgpool_config_needs_pool);
    APR_REGISTER_OPTIONAL_FN(pgpool_note_error);
    APR_REGISTER_OPTIONAL_FN(pgpool_expr_value);
    pgpool_release_register();
    pgpool_identity_register();
    pgpool_status_register();
    pgpool_home_register();
    ap_hook_check_config(pgpool_config_check, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_config(itk_refuse, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_test_config(test_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(post_config, NULL, NULL, APR_HOOK_MIDDLE);
    /* Before the other modules: who comes first ends last. */
    ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_child_stopping(child_stopping, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(pgpool) = {
    STANDARD20_MODULE_STUFF, pgpool_dir_conf_make,     pgpool_dir_conf_merge,
    pgpool_server_conf_make, pgpool_server_conf_merge, pgpool_commands,
    register_hooks,
};
