/*
 * The pools of a child process, from its start to its end (mod_pgpool_child.h).
 */
#include "mod_pgpool_child.h"

#include <sys/mman.h>
#include <unistd.h>
#include <ap_mpm.h>
#include <apr_strings.h>
#include <http_log.h>

#include "core/pgp_conninfo.h"
#include "core/pgp_keeper.h"
#include "mod_pgpool_config.h"
#include "mod_pgpool_definition.h"
#include "mod_pgpool_env.h"

APLOG_USE_MODULE(pgpool);

/* How long a child that ends waits for its keeper; httpd kills the child after 9 s. */
#define KEEPER_PATIENCE PGP_SEC(3)

typedef struct {
    apr_pool_t *p; /* the core's memory */
    pgp_env env;
    const pgpool_board *board;
    const apr_array_header_t *definitions; /* of pgpool_definition *; inherited by fork */
    pgpool_child_pool *pools;              /* one for each definition */
    pgp_keeper *keeper;
    bool aborted; /* see pgpool_child_is_aborted() */
    pid_t pid;
    const int *here; /* see here_make(); NULL: the kernel cannot do it */
} pgpool_child;

static pgpool_child *child;

/* --- make ------------------------------------------------------------------- */

static const pgpool_definition *definition_of(const pgpool_child *c, int i)
{
    return APR_ARRAY_IDX(c->definitions, i, const pgpool_definition *);
}

static apr_status_t pool_make(pgpool_child *c, const pgpool_definition *definition)
{
    pgpool_child_pool *pool = &c->pools[definition->index];
    apr_status_t rv = pgp_pool_create(&pool->core, c->p, definition->name, definition->settings,
                                      &c->env, pgp_keeper_waker(c->keeper));

    if (rv != APR_SUCCESS)
        return rv;
    pool->lease_note = apr_pstrcat(c->p, "pgpool-", definition->name, NULL);
    pool->wait_note = apr_pstrcat(c->p, "pgpool-", definition->name, "-wait", NULL);
    if (definition->place >= 0)
        pgp_pool_attach_board(pool->core, c->board->core, definition->place);
    pgp_keeper_add(c->keeper, pool->core);
    return APR_SUCCESS;
}

/* Tell each pool which other pools go to the same server. */
static void servers_share(const pgpool_child *c)
{
    apr_hash_t *servers = apr_hash_make(c->p);
    int i;

    for (i = 0; i < c->definitions->nelts; i++) {
        const pgpool_definition *definition = definition_of(c, i);
        const char *name = pgp_conninfo_server(c->p, definition->settings->conninfo);
        pgp_server *server = apr_hash_get(servers, name, APR_HASH_KEY_STRING);

        if (!server) {
            server = apr_pcalloc(c->p, sizeof(*server));
            *server = (pgp_server){.name = name, .place = definition->place};
            apr_hash_set(servers, name, APR_HASH_KEY_STRING, server);
        }
        /* The least of the places: it is the same in children of all generations. */
        if (definition->place >= 0 && (server->place < 0 || definition->place < server->place))
            server->place = definition->place;
        server->pools++;
        server->max_over_children += pgp_pool_max_over_children(c->pools[i].core);
        pgp_pool_attach_server(c->pools[i].core, server);
    }
}

/* A page that the kernel empties in each process that is forked from this one, by whatever
 * call.  To read it costs nothing.  getpid() is a system call; pthread_atfork() does not see
 * every fork, and is dangerous in a module that can be unloaded. */
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

/* The child is published only when it is whole: in prefork a signal may want to stop it at any
 * moment. */
apr_status_t pgpool_child_make(server_rec *main_server, const apr_array_header_t *definitions)
{
    apr_pool_t *p;
    pgpool_child *c;
    int i;
    apr_status_t rv = apr_pool_create_unmanaged_ex(&p, NULL, NULL);

    if (rv != APR_SUCCESS)
        return rv;
    apr_pool_tag(p, "pgpool");
    c = apr_palloc(p, sizeof(*c));
    *c = (pgpool_child){.p = p,
                        .env = pgpool_env_make(main_server),
                        .board = pgpool_board_find(),
                        .definitions = definitions,
                        .pools = apr_pcalloc(p, (definitions->nelts + 1) * sizeof(*c->pools)),
                        .pid = getpid(),
                        .here = here_make()};
    rv = pgp_keeper_create(&c->keeper, p, &c->env);
    if (rv != APR_SUCCESS)
        return rv;
    pgp_keeper_attach_board(c->keeper, c->board->core);
    for (i = 0; i < definitions->nelts && rv == APR_SUCCESS; i++)
        rv = pool_make(c, definition_of(c, i));
    if (rv != APR_SUCCESS)
        return rv;
    servers_share(c);
    rv = pgp_keeper_start(c->keeper);
    child = c;
    return rv;
}

/* --- end -------------------------------------------------------------------- */

void pgpool_child_stop(bool graceful)
{
    if (pgpool_child_is_here())
        pgp_keeper_enter_phase(child->keeper, graceful ? PGP_DRAINING : PGP_STOPPED);
}

static int count_in_use(void)
{
    int i, in_use = 0;

    for (i = 0; i < child->definitions->nelts; i++) {
        pgp_stats stats;

        pgp_pool_read_stats(child->pools[i].core, &stats);
        in_use += stats.state[PGP_IN_USE];
    }
    return in_use;
}

apr_status_t pgpool_child_end(void *main_server)
{
    const server_rec *s = main_server;
    int in_use;

    if (!pgpool_child_is_here())
        return APR_SUCCESS;
    if (pgp_keeper_join(child->keeper, KEEPER_PATIENCE) != APR_SUCCESS) {
        ap_log_error(
            APLOG_MARK, APLOG_WARNING, 0, s,
            "PGP%d: the keeper's thread did not end in time; the child ends without it",
            PGP_MSG_STOPPED);
        child->aborted = !pgpool_mpm_is_threaded();
        return APR_SUCCESS;
    }
    in_use = count_in_use();
    if (in_use > 0) {
        ap_log_error(APLOG_MARK, APLOG_INFO, 0, s,
                     "PGP%d: the child ends while %d connections are still in use",
                     PGP_MSG_STOPPED, in_use);
        child->aborted = !pgpool_mpm_is_threaded();
    }
    return APR_SUCCESS;
}

/* After the cleanups httpd frees memory, as do libraries when the process ends.  In an aborted
 * child that hangs: the signal came in the middle of a malloc(), whose lock is taken. */
apr_status_t pgpool_child_exit(void *unused)
{
    if (child && child->aborted)
        _exit(0);
    return APR_SUCCESS;
}

/* --- use -------------------------------------------------------------------- */

bool pgpool_child_is_here(void)
{
    return child && (child->here ? *child->here : child->pid == getpid());
}

bool pgpool_child_is_aborted(void)
{
    return child->aborted || !pgpool_child_is_here();
}

const pgpool_child_pool *pgpool_child_pool_find(const server_rec *s, const char *name)
{
    const pgpool_server_conf *conf = pgpool_config_of(s);
    const pgpool_definition *definition = NULL;

    if (child)
        definition = apr_hash_get(conf->pools, name, APR_HASH_KEY_STRING);
    return definition ? &child->pools[definition->index] : NULL;
}

const pgp_env *pgpool_child_env(void)
{
    return &child->env;
}

const pgpool_board *pgpool_child_board(void)
{
    return child->board;
}

const apr_array_header_t *pgpool_child_definitions(void)
{
    return child->definitions;
}
