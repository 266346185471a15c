/*
 * mod_pgpool_dbd: the module record, and httpd's hooks (mod_pgpool_dbd.h).
 */
#include "mod_pgpool_dbd.h"

#include <apu_version.h>
#include <http_log.h>

APLOG_USE_MODULE(dbd);

pgpool_dbd_functions pgpool_dbd_api;

static void functions_retrieve(void)
{
    pgpool_dbd_api = (pgpool_dbd_functions){
        .acquire = APR_RETRIEVE_OPTIONAL_FN(pgpool_acquire),
        .open = APR_RETRIEVE_OPTIONAL_FN(pgpool_open),
        .strerror = APR_RETRIEVE_OPTIONAL_FN(pgpool_strerror),
        .execute = APR_RETRIEVE_OPTIONAL_FN(pgpool_execute),
        .lease_number = APR_RETRIEVE_OPTIONAL_FN(pgpool_lease_number),
        .lease_doubt = APR_RETRIEVE_OPTIONAL_FN(pgpool_lease_doubt),
        .config_value = APR_RETRIEVE_OPTIONAL_FN(pgpool_config_value),
    };
}

static int check_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    const char *wrong;

    functions_retrieve();
    if (!pgpool_dbd_api.acquire) {
        ap_log_error(APLOG_MARK, APLOG_ERR | APLOG_STARTUP, 0, s, PGPOOL_DBD_NEEDS_POOL);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    wrong = pgpool_dbd_layout_check(ptemp);
    if (!wrong)
        return OK;
    ap_log_error(APLOG_MARK, APLOG_ERR | APLOG_STARTUP, 0, s,
                 "mod_pgpool_dbd does not know this apr-util (%s): its %s calls another member "
                 "of the driver; load httpd's mod_dbd instead, and report it",
                 apu_version_string(), wrong);
    return HTTP_INTERNAL_SERVER_ERROR;
}

/* Before the consumers' hooks, which may open a connection. */
static void child_init(apr_pool_t *pchild, server_rec *s)
{
    pgpool_dbd_conf_prepare(s->process->pconf, s);
}

static void register_hooks(apr_pool_t *p)
{
    APR_REGISTER_OPTIONAL_FN(ap_dbd_open);
    APR_REGISTER_OPTIONAL_FN(ap_dbd_close);
    APR_REGISTER_OPTIONAL_FN(ap_dbd_acquire);
    APR_REGISTER_OPTIONAL_FN(ap_dbd_cacquire);
    APR_REGISTER_OPTIONAL_FN(ap_dbd_prepare);
    ap_hook_check_config(check_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_REALLY_FIRST);
}

/* httpd has to know it by the name of the module whose place it takes. */
module dbd_module = {
    .version = MODULE_MAGIC_NUMBER_MAJOR,
    .minor_version = MODULE_MAGIC_NUMBER_MINOR,
    .module_index = -1,
    .name = "mod_dbd.c",
    .magic = MODULE_MAGIC_COOKIE,
    .create_server_config = pgpool_dbd_conf_make,
    .merge_server_config = pgpool_dbd_conf_merge,
    .cmds = pgpool_dbd_directives,
    .register_hooks = register_hooks,
};
