/*
 * Settings of pools that come from the directives of other modules (mod_pgpool_companion.h).
 *
 * httpd makes no configuration for a virtual host without a directive of ours; these functions
 * make it where they are the first to need it.
 */
#include "mod_pgpool_config.h"

#include <apr_strings.h>

#include "mod_pgpool_module.h"

static pgpool_server_conf *conf_of(cmd_parms *cmd)
{
    pgpool_server_conf *conf = pgpool_config_of(cmd->server);

    if (!conf) {
        conf = pgpool_server_conf_make(cmd->pool, cmd->server);
        ap_set_module_config(cmd->server->module_config, &pgpool_module, conf);
    }
    return conf;
}

void pgpool_config_needs_pool(cmd_parms *cmd)
{
    APR_ARRAY_PUSH(conf_of(cmd)->needs, const char *) = pgpool_config_origin(cmd);
}

void pgpool_config_uses_pool(cmd_parms *cmd, const char *pool)
{
    APR_ARRAY_PUSH(conf_of(cmd)->uses, pgpool_use) = (pgpool_use){
        .directive = cmd->cmd->name, .pool = pool, .origin = pgpool_config_origin(cmd)};
}

static pgp_settings *offered_settings(cmd_parms *cmd, const char *pool)
{
    apr_hash_t *offered = conf_of(cmd)->offered;
    pgp_settings *settings = apr_hash_get(offered, pool, APR_HASH_KEY_STRING);

    if (!settings) {
        settings = pgp_settings_make(cmd->pool);
        apr_hash_set(offered, pool, APR_HASH_KEY_STRING, settings);
    }
    return settings;
}

const char *pgpool_config_offer(cmd_parms *cmd, const char *pool, const char *directive,
                                const char *value)
{
    const pgp_option_id id = pgpool_config_option(directive);
    const char *wrong = pgp_settings_set(offered_settings(cmd, pool), cmd->pool, id, 1, &value,
                                         pgpool_config_origin(cmd));

    if (wrong)
        return apr_psprintf(cmd->pool, "%s sets %s of <PgPool %s>: %s", cmd->cmd->name,
                            directive, pool, wrong);
    if (id == PGP_OPTION_CONNINFO)
        pgpool_config_hide_secret(cmd, value);
    return NULL;
}

const char *pgpool_config_value(apr_pool_t *p, const server_rec *s, const char *pool,
                                const char *directive)
{
    const pgp_settings *settings = apr_hash_get(pgpool_config_complete(p, s), pool,
                                                APR_HASH_KEY_STRING);

    return settings ? pgp_option_text(settings, p, pgpool_config_option(directive)) : NULL;
}
