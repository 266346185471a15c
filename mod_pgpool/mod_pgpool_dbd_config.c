/*
 * mod_dbd's directives, as settings of a pool (mod_pgpool_dbd.h).
 */
#include "mod_pgpool_dbd_driver.h"

#include <stdlib.h>
#include <apr_strings.h>

#define POOL_OF_DBD "dbd"

/* --- layers ----------------------------------------------------------------- */

void *pgpool_dbd_conf_make(apr_pool_t *p, server_rec *s)
{
    pgpool_dbd_conf *conf = apr_pcalloc(p, sizeof(*conf));

    conf->persist = conf->keep = -1;
    conf->queries = apr_hash_make(p);
    return conf;
}

void *pgpool_dbd_conf_merge(apr_pool_t *p, void *base_conf, void *over_conf)
{
    const pgpool_dbd_conf *base = base_conf, *over = over_conf;
    pgpool_dbd_conf *conf = apr_pcalloc(p, sizeof(*conf));

    conf->pool = over->pool ? over->pool : base->pool;
    conf->params = over->params ? over->params : base->params;
    conf->persist = over->persist >= 0 ? over->persist : base->persist;
    conf->keep = over->keep >= 0 ? over->keep : base->keep;
    conf->queries = apr_hash_overlay(p, over->queries, base->queries);
    return conf;
}

pgpool_dbd_conf *pgpool_dbd_conf_of(server_rec *s)
{
    pgpool_dbd_conf *conf = ap_get_module_config(s->module_config, &dbd_module);

    if (!conf) {
        conf = pgpool_dbd_conf_make(s->process->pconf, s);
        ap_set_module_config(s->module_config, &dbd_module, conf);
    }
    return conf;
}

const char *pgpool_dbd_pool_name(const pgpool_dbd_conf *conf)
{
    return conf->pool ? conf->pool : POOL_OF_DBD;
}

/* --- directives ------------------------------------------------------------- */

static const char *setting_offer(cmd_parms *cmd, const char *directive, const char *value)
{
    APR_OPTIONAL_FN_TYPE(pgpool_config_offer) *offer = APR_RETRIEVE_OPTIONAL_FN(
        pgpool_config_offer);

    return offer ? offer(cmd, POOL_OF_DBD, directive, value) : PGPOOL_DBD_NEEDS_POOL;
}

static const char *set_driver(cmd_parms *cmd, void *dir, const char *name)
{
    if (!strcmp(name, "pgsql"))
        return NULL;
    return apr_psprintf(cmd->pool,
                        "DBDriver %s: mod_pgpool_dbd gives out PostgreSQL connections and "
                        "takes only \"DBDriver pgsql\"; for another database load httpd's "
                        "mod_dbd in its place",
                        name);
}

/* Consumers of mod_dbd run plain statements and expect no reset.  With "auto" they pay for one
 * only after a statement that may have changed the session. */
static const char *reset_offer(cmd_parms *cmd, bool is_kept)
{
    return setting_offer(cmd, "PgPoolReset", is_kept ? "auto" : "close");
}

static const char *set_params(cmd_parms *cmd, void *dir, const char *params)
{
    pgpool_dbd_conf *conf = pgpool_dbd_conf_of(cmd->server);
    const char *wrong = setting_offer(cmd, "PgPoolConninfo", params);

    conf->params = params;
    return wrong ? wrong : reset_offer(cmd, conf->persist != 0);
}

/* cmd->info: the pool's directive that it stands for. */
static const char *set_pool_setting(cmd_parms *cmd, void *dir, const char *value)
{
    return setting_offer(cmd, cmd->info, value);
}

static const char *set_exptime(cmd_parms *cmd, void *dir, const char *seconds)
{
    if (!*seconds || seconds[strspn(seconds, "0123456789")])
        return apr_psprintf(cmd->pool, "DBDExptime takes a number of seconds, not \"%s\"",
                            seconds);
    return setting_offer(cmd, "PgPoolIdleTimeout", apr_pstrcat(cmd->pool, seconds, "s", NULL));
}

/* The pool closes idle connections above PgPoolMin after PgPoolIdleTimeout, so DBDKeep has no
 * effect; post_connect hooks see it. */
static const char *set_keep(cmd_parms *cmd, void *dir, const char *number)
{
    if (!*number || number[strspn(number, "0123456789")] || strlen(number) > 9)
        return apr_psprintf(cmd->pool, "DBDKeep takes a number of connections, not \"%s\"",
                            number);
    pgpool_dbd_conf_of(cmd->server)->keep = atoi(number);
    return NULL;
}

static const char *set_persist(cmd_parms *cmd, void *dir, int is_on)
{
    pgpool_dbd_conf_of(cmd->server)->persist = is_on;
    return reset_offer(cmd, is_on);
}

static const char *set_pool(cmd_parms *cmd, void *dir, const char *name)
{
    APR_OPTIONAL_FN_TYPE(pgpool_config_uses_pool) *uses = APR_RETRIEVE_OPTIONAL_FN(
        pgpool_config_uses_pool);

    if (!uses)
        return PGPOOL_DBD_NEEDS_POOL;
    pgpool_dbd_conf_of(cmd->server)->pool = name;
    uses(cmd, name);
    return NULL;
}

static void query_put(server_rec *s, apr_pool_t *p, const char *label, const char *sql,
                      const char *origin)
{
    pgpool_dbd_query *query = apr_palloc(p, sizeof(*query));

    *query = (pgpool_dbd_query){.sql = apr_pstrdup(p, sql), .origin = origin};
    apr_hash_set(pgpool_dbd_conf_of(s)->queries, apr_pstrdup(p, label), APR_HASH_KEY_STRING,
                 query);
}

/* With a label alone: this server has no statement of that label, though it would inherit one.
 */
static const char *set_query(cmd_parms *cmd, void *dir, const char *sql, const char *label)
{
    query_put(
        cmd->server, cmd->pool, label ? label : sql, label ? sql : "",
        apr_psprintf(cmd->pool, "%s:%d", cmd->directive->filename, cmd->directive->line_num));
    return NULL;
}

void ap_dbd_prepare(server_rec *s, const char *sql, const char *label)
{
    query_put(s, s->process->pconf, label, sql, NULL);
}

const command_rec pgpool_dbd_directives[] = {
    AP_INIT_TAKE1("DBDriver", set_driver, NULL, RSRC_CONF, "pgsql"),
    AP_INIT_TAKE1("DBDParams", set_params, NULL, RSRC_CONF,
                  "a libpq connection string or URI: PgPoolConninfo of <PgPool dbd>"),
    AP_INIT_FLAG("DBDPersist", set_persist, NULL, RSRC_CONF,
                 "Off: PgPoolReset close of <PgPool dbd>; else auto"),
    AP_INIT_TAKE1("DBDMin", set_pool_setting, "PgPoolMin", RSRC_CONF,
                  "PgPoolMin of <PgPool dbd>"),
    AP_INIT_TAKE1("DBDKeep", set_keep, NULL, RSRC_CONF,
                  "accepted; idle connections are closed after DBDExptime"),
    AP_INIT_TAKE1("DBDMax", set_pool_setting, "PgPoolMax", RSRC_CONF,
                  "PgPoolMax of <PgPool dbd>"),
    AP_INIT_TAKE1("DBDExptime", set_exptime, NULL, RSRC_CONF,
                  "seconds: PgPoolIdleTimeout of <PgPool dbd>"),
    AP_INIT_TAKE12("DBDPrepareSQL", set_query, NULL, RSRC_CONF,
                   "a statement with apr_dbd's marks, and its label"),
    AP_INIT_TAKE1("DBDInitSQL", set_pool_setting, "PgPoolInitSQL", RSRC_CONF,
                  "PgPoolInitSQL of <PgPool dbd>"),
    AP_INIT_TAKE1("DBDPool", set_pool, NULL, RSRC_CONF,
                  "the pool that this server's consumers use instead of \"dbd\""),
    {NULL},
};

/* --- a child ---------------------------------------------------------------- */

static apr_hash_t *prepared_make(apr_pool_t *p, const pgpool_dbd_conf *conf)
{
    apr_hash_t *all = apr_hash_make(p);
    apr_hash_index_t *i;

    for (i = apr_hash_first(p, conf->queries); i; i = apr_hash_next(i)) {
        const pgpool_dbd_query *query = apr_hash_this_val(i);
        const char *label = apr_hash_this_key(i);
        apr_dbd_prepared_t *prepared = NULL;

        if (!*query->sql)
            continue;
        apr_dbd_prepare(&pgpool_dbd_driver, p, NULL, query->sql, label, &prepared);
        prepared->origin = query->origin;
        apr_hash_set(all, label, APR_HASH_KEY_STRING, prepared);
    }
    return all;
}

static int setting_number(apr_pool_t *p, server_rec *s, const pgpool_dbd_conf *conf,
                          const char *directive)
{
    const char *text = pgpool_dbd_api.config_value(p, s, pgpool_dbd_pool_name(conf), directive);

    return text ? atoi(text) : 0;
}

static apr_hash_t *queries_shown(apr_pool_t *p, const pgpool_dbd_conf *conf)
{
    apr_hash_t *shown = apr_hash_make(p);
    apr_hash_index_t *i;

    for (i = apr_hash_first(p, conf->queries); i; i = apr_hash_next(i)) {
        const pgpool_dbd_query *query = apr_hash_this_val(i);

        apr_hash_set(shown, apr_hash_this_key(i), APR_HASH_KEY_STRING, query->sql);
    }
    return shown;
}

static dbd_cfg_t conf_shown(apr_pool_t *p, server_rec *s, const pgpool_dbd_conf *conf)
{
    const char *idle = pgpool_dbd_api.config_value(p, s, pgpool_dbd_pool_name(conf),
                                                   "PgPoolIdleTimeout");
    apr_interval_time_t exptime = 0;

    if (idle)
        ap_timeout_parameter_parse(idle, &exptime, "s");
    return (dbd_cfg_t){
        .server = s,
        .name = pgpool_dbd_driver.name,
        .params = conf->params ? conf->params : "",
        .persist = conf->persist != 0,
        .nmin = setting_number(p, s, conf, "PgPoolMin"),
        .nkeep = conf->keep >= 0 ? conf->keep : setting_number(p, s, conf, "PgPoolMax"),
        .nmax = setting_number(p, s, conf, "PgPoolMax"),
        .exptime = (int)apr_time_sec(exptime),
        .queries = queries_shown(p, conf),
        .init_queries = apr_array_make(p, 1, sizeof(const char *)),
    };
}

/* Virtual hosts without directives of ours share the main server's configuration. */
void pgpool_dbd_conf_prepare(apr_pool_t *p, server_rec *s)
{
    for (; s; s = s->next) {
        pgpool_dbd_conf *conf = pgpool_dbd_conf_of(s);

        if (conf->prepared)
            continue;
        conf->prepared = prepared_make(p, conf);
        conf->shown = conf_shown(p, s, conf);
    }
}
