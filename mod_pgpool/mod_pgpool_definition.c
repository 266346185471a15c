/*
 * Resolves the configuration into pool definitions (mod_pgpool_definition.h).
 */
#include "mod_pgpool_definition.h"

#include <ap_mpm.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "core/pgp_conninfo.h"
#include "mod_pgpool_config.h"
#include "mod_pgpool_env.h"

/* Returns the definition for a pool of this name and these settings: a former one if they are
 * equal, else a new one. */
static pgpool_definition *definition_find_or_add(apr_array_header_t *all, const server_rec *s,
                                                 const char *name, pgp_settings *settings)
{
    const char *server = pgp_conninfo_identity(all->pool, settings->conninfo);
    pgpool_definition *added;
    int i, nth = 0;

    for (i = 0; i < all->nelts; i++) {
        pgpool_definition *other = APR_ARRAY_IDX(all, i, pgpool_definition *);

        if (strcmp(other->name, name) != 0)
            continue;
        if (pgp_settings_equal(other->settings, settings))
            return other;
        nth += !strcmp(other->server, server);
    }
    added = apr_palloc(all->pool, sizeof(*added));
    *added = (pgpool_definition){.index = all->nelts,
                                 .name = name,
                                 .settings = settings,
                                 .server = server,
                                 .host = pgp_conninfo_server(all->pool, settings->conninfo),
                                 .nth = nth,
                                 .place = -1,
                                 .owner = s,
                                 .label = name};
    APR_ARRAY_PUSH(all, pgpool_definition *) = added;
    return added;
}

static void server_resolve(apr_array_header_t *all, server_rec *s)
{
    pgpool_server_conf *conf = pgpool_config_of(s);
    apr_hash_t *complete = pgpool_config_complete(all->pool, s);
    apr_hash_index_t *i;

    conf->pools = apr_hash_make(all->pool);
    for (i = apr_hash_first(all->pool, complete); i; i = apr_hash_next(i)) {
        const char *name = apr_hash_this_key(i);

        apr_hash_set(conf->pools, name, APR_HASH_KEY_STRING,
                     definition_find_or_add(all, s, name, apr_hash_this_val(i)));
    }
}

/* --- labels ----------------------------------------------------------------- */

/* A virtual host as a URL has it.  Characters that no host name contains become "?", so that no
 * format of the status has to escape a label. */
static const char *host_text(apr_pool_t *p, const server_rec *s)
{
    const apr_port_t port = s->port || !s->addrs ? s->port : s->addrs->host_port;
    char *host = apr_pstrdup(p, s->server_hostname ? s->server_hostname : "?"), *c;

    for (c = host; *c; c++)
        if (!apr_isalnum(*c) && !strchr("*-.:[]_", *c))
            *c = '?';
    return port ? apr_psprintf(p, "%s:%u", host, port) : host;
}

static bool name_is_shared(const apr_array_header_t *all, const char *name)
{
    int i, n = 0;

    for (i = 0; i < all->nelts; i++)
        n += !strcmp(APR_ARRAY_IDX(all, i, pgpool_definition *)->name, name);
    return n > 1;
}

static bool label_is_taken(const apr_array_header_t *all, const char *label)
{
    int i;

    for (i = 0; i < all->nelts; i++)
        if (!strcmp(APR_ARRAY_IDX(all, i, pgpool_definition *)->label, label))
            return true;
    return false;
}

/* The main server's pool keeps the bare name, however many virtual hosts have a pool of that
 * name. */
static void labels_set(apr_array_header_t *all)
{
    int i, n;

    for (i = 0; i < all->nelts; i++) {
        pgpool_definition *definition = APR_ARRAY_IDX(all, i, pgpool_definition *);
        const char *host, *label;

        if (!definition->owner->is_virtual || !name_is_shared(all, definition->name))
            continue;
        host = host_text(all->pool, definition->owner);
        label = apr_psprintf(all->pool, "%s (%s)", definition->name, host);
        for (n = 2; label_is_taken(all, label); n++)
            label = apr_psprintf(all->pool, "%s (%s)#%d", definition->name, host, n);
        definition->label = label;
    }
}

/* --- all -------------------------------------------------------------------- */

static apr_status_t definitions_end(void *data)
{
    apr_pool_destroy(data);
    return APR_SUCCESS;
}

apr_array_header_t *pgpool_definitions_resolve(apr_pool_t *pconf, server_rec *main_server)
{
    const int threads = pgpool_mpm_number(AP_MPMQ_MAX_THREADS);
    apr_array_header_t *all, *hosts = apr_array_make(pconf, 4, sizeof(server_rec *));
    apr_pool_t *p;
    server_rec *s;
    int i;

    apr_pool_create_unmanaged_ex(&p, NULL, NULL);
    apr_pool_tag(p, "pgpool definitions");
    apr_pool_cleanup_register(pconf, p, definitions_end, apr_pool_cleanup_null);
    all = apr_array_make(p, 4, sizeof(pgpool_definition *));
    /* httpd lists the virtual hosts from the last to the first.  In the order of the files, a
     * host that is added at the end leaves the numbers and labels of the others as they were.
     */
    for (s = main_server->next; s; s = s->next)
        APR_ARRAY_PUSH(hosts, server_rec *) = s;
    server_resolve(all, main_server);
    for (i = hosts->nelts - 1; i >= 0; i--)
        server_resolve(all, APR_ARRAY_IDX(hosts, i, server_rec *));
    labels_set(all);
    /* More connections than threads could never be in use at once. */
    for (i = 0; i < all->nelts; i++) {
        pgp_settings *settings = APR_ARRAY_IDX(all, i, pgpool_definition *)->settings;

        if (settings->min > threads)
            settings->min = threads;
    }
    pgpool_config_of(main_server)->definitions = all;
    return all;
}

void pgpool_definitions_keep(apr_pool_t *pconf, const apr_array_header_t *definitions)
{
    apr_pool_cleanup_kill(pconf, definitions->pool, definitions_end);
}
