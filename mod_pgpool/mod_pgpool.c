/*
 * mod_pgpool: the module record, and httpd's hooks.
 *
 *   check_config    checks the configuration         mod_pgpool_config.c
 *   post_config     makes the board, resolves the    mod_pgpool_board.c
 *                   configuration to definitions     mod_pgpool_definition.c
 *   child_init      makes the pools of a child       mod_pgpool_child.c
 *   child_stopping  tells their keeper to stop
 *
 * The hooks that work on requests are registered by the files that have them.
 */
#include "mod_pgpool.h"

#include <stdlib.h>
#include <ap_mpm.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <mpm_common.h>

#include "mod_pgpool_api.h"
#include "mod_pgpool_board.h"
#include "mod_pgpool_child.h"
#include "mod_pgpool_companion.h"
#include "mod_pgpool_config.h"
#include "mod_pgpool_definition.h"
#include "mod_pgpool_execute.h"
#include "mod_pgpool_identity.h"
#include "mod_pgpool_module.h"
#include "mod_pgpool_outcome.h"
#include "mod_pgpool_register.h"
#include "mod_pgpool_sqlstate.h"
#include "mod_pgpool_statement.h"

/* --- the parent ------------------------------------------------------------- */

/* mpm_itk forks for each connection.  The fork has no keeper, and it shares its connections to
 * the server with the process that it comes from. */
static int itk_reject(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
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
    const apr_array_header_t *definitions;
    apr_status_t rv = APR_SUCCESS;
    int without;

    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG)
        return OK; /* the first of two passes at the start */
    ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, s, "PGP%d: mod_pgpool %s with libpq %d.%d",
                 PGP_MSG_VERSION, PGPOOL_VERSION, PQlibVersion() / 10000,
                 PQlibVersion() % 10000);
    definitions = pgpool_definitions_resolve(pconf, s);
    if (!pgpool_board_find())
        rv = pgpool_board_make(s->process->pool, definitions->nelts);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s,
                     "PGP%d: cannot make the shared memory that PgPoolTotalMax needs",
                     PGP_MSG_BOARD);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    without = pgpool_board_configure(pgpool_board_find(), definitions);
    if (without)
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, s,
                     "PGP%d: %d pools are new since the start and have no place in shared "
                     "memory: no PgPoolTotalMax holds for them, and no metric is shown, until "
                     "a graceful restart finds a free place, or httpd is stopped and started",
                     PGP_MSG_BOARD, without);
    return OK;
}

/* --- a child ---------------------------------------------------------------- */

/* Cleanups run in the reverse order of their registration, so pgpool_child_exit() is the last
 * one of pchild: this hook runs before those of the other modules. */
static void child_init(apr_pool_t *pchild, server_rec *s)
{
    apr_array_header_t *definitions = pgpool_config_of(s)->definitions;
    apr_status_t rv;

    apr_pool_cleanup_register(pchild, NULL, pgpool_child_exit, apr_pool_cleanup_null);
    pgpool_definitions_keep(s->process->pconf, definitions);
    rv = pgpool_child_make(s, definitions);
    if (rv != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, rv, s,
                     "PGP%d: cannot start the pools of this child", PGP_MSG_CHILD_FAILED);
        exit(APEXIT_CHILDSICK);
    }
    apr_pool_pre_cleanup_register(pchild, s, pgpool_child_end);
}

static void child_stopping(apr_pool_t *pchild, int graceful)
{
    pgpool_child_stop(graceful);
}

/* --- the module ------------------------------------------------------------- */

static void register_hooks(apr_pool_t *p)
{
    APR_REGISTER_OPTIONAL_FN(pgpool_acquire);
    APR_REGISTER_OPTIONAL_FN(pgpool_release);
    APR_REGISTER_OPTIONAL_FN(pgpool_open);
    APR_REGISTER_OPTIONAL_FN(pgpool_close);
    APR_REGISTER_OPTIONAL_FN(pgpool_query);
    APR_REGISTER_OPTIONAL_FN(pgpool_query_rows);
    APR_REGISTER_OPTIONAL_FN(pgpool_statement_sqlstate);
    APR_REGISTER_OPTIONAL_FN(pgpool_http_status);
    APR_REGISTER_OPTIONAL_FN(pgpool_strerror);
    APR_REGISTER_OPTIONAL_FN(pgpool_config_needs_pool);
    APR_REGISTER_OPTIONAL_FN(pgpool_config_uses_pool);
    APR_REGISTER_OPTIONAL_FN(pgpool_config_offer);
    APR_REGISTER_OPTIONAL_FN(pgpool_config_value);
    APR_REGISTER_OPTIONAL_FN(pgpool_execute);
    APR_REGISTER_OPTIONAL_FN(pgpool_lease_number);
    APR_REGISTER_OPTIONAL_FN(pgpool_lease_doubt);
    APR_REGISTER_OPTIONAL_FN(pgpool_note_error);
    APR_REGISTER_OPTIONAL_FN(pgpool_expr_value);
    APR_REGISTER_OPTIONAL_FN(pgpool_is_personal);
    APR_REGISTER_OPTIONAL_FN(pgpool_sqlstate_http);
    pgpool_bracket_register();
    pgpool_control_register();
    pgpool_home_register();
    pgpool_identity_register();
    pgpool_ready_register();
    pgpool_release_register();
    pgpool_status_register();
    ap_hook_check_config(pgpool_config_check, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_config(itk_reject, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_test_config(pgpool_config_dump, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(post_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_child_stopping(child_stopping, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(pgpool) = {
    STANDARD20_MODULE_STUFF, pgpool_dir_conf_make,     pgpool_dir_conf_merge,
    pgpool_server_conf_make, pgpool_server_conf_merge, pgpool_commands,
    register_hooks,
};
