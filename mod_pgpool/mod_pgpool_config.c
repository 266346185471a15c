/*
 * Reads, inherits, checks and prints the directives (mod_pgpool_config.h).
 *
 * Pool directives all come from the core's option table (core/pgp_settings.h).  A directive's
 * function checks its value, so that httpd itself names file and line.  The check_config hook
 * checks rules that involve several directives, and names their lines from the settings'
 * origins.
 */
#include "mod_pgpool_config.h"

#include <apr_cstr.h>
#include <apr_file_io.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>

#include "core/pgp_conninfo.h"
#include "core/pgp_pq_reset.h"
#include "mod_pgpool_module.h"

APLOG_USE_MODULE(pgpool);

/* The default of PgPoolStatementTimeout. */
#define STATEMENT_TIMEOUT PGP_SEC(30)

pgpool_server_conf *pgpool_config_of(const server_rec *s)
{
    return ap_get_module_config(s->module_config, &pgpool_module);
}

const char *pgpool_config_origin(const cmd_parms *cmd)
{
    return apr_psprintf(cmd->pool, "%s:%d", cmd->directive->filename, cmd->directive->line_num);
}

/* --- layers ----------------------------------------------------------------- */

void *pgpool_server_conf_make(apr_pool_t *p, server_rec *s)
{
    pgpool_server_conf *conf = apr_pcalloc(p, sizeof(*conf));

    conf->bare = pgp_settings_make(p);
    conf->named = apr_hash_make(p);
    conf->offered = apr_hash_make(p);
    conf->origins = apr_hash_make(p);
    conf->uses = apr_array_make(p, 4, sizeof(pgpool_use));
    conf->needs = apr_array_make(p, 4, sizeof(const char *));
    return conf;
}

/* base or over: NULL if there are none. */
static pgp_settings *settings_overlaid(apr_pool_t *p, const pgp_settings *base,
                                       const pgp_settings *over)
{
    pgp_settings *settings = pgp_settings_make(p);

    if (base)
        pgp_settings_overlay(settings, base);
    if (over)
        pgp_settings_overlay(settings, over);
    return settings;
}

static void *named_overlaid(apr_pool_t *p, const void *key, apr_ssize_t length,
                            const void *over, const void *base, const void *data)
{
    return settings_overlaid(p, base, over);
}

void *pgpool_server_conf_merge(apr_pool_t *p, void *base_conf, void *over_conf)
{
    const pgpool_server_conf *base = base_conf, *over = over_conf;
    pgpool_server_conf *conf = apr_pcalloc(p, sizeof(*conf));

    conf->bare = settings_overlaid(p, base->bare, over->bare);
    conf->named = apr_hash_merge(p, over->named, base->named, named_overlaid, NULL);
    conf->offered = apr_hash_merge(p, over->offered, base->offered, named_overlaid, NULL);
    conf->origins = over->origins;
    conf->uses = over->uses; /* the base server checks its own */
    conf->needs = over->needs;
    return conf;
}

void *pgpool_dir_conf_make(apr_pool_t *p, char *dir)
{
    return apr_pcalloc(p, sizeof(pgpool_dir_conf));
}

/* A PgPoolSet replaces one of the same name. */
static apr_array_header_t *sets_put(apr_pool_t *p, apr_array_header_t *sets, pgpool_set set)
{
    int i;

    if (!sets)
        sets = apr_array_make(p, 2, sizeof(pgpool_set));
    for (i = 0; i < sets->nelts; i++)
        if (!strcasecmp(APR_ARRAY_IDX(sets, i, pgpool_set).name, set.name)) {
            APR_ARRAY_IDX(sets, i, pgpool_set) = set;
            return sets;
        }
    APR_ARRAY_PUSH(sets, pgpool_set) = set;
    return sets;
}

static apr_array_header_t *sets_overlaid(apr_pool_t *p, const apr_array_header_t *base,
                                         apr_array_header_t *over)
{
    apr_array_header_t *sets;
    int i;

    if (!base || !over)
        return base ? apr_array_copy(p, base) : over;
    sets = apr_array_copy(p, base);
    for (i = 0; i < over->nelts; i++)
        sets = sets_put(p, sets, APR_ARRAY_IDX(over, i, pgpool_set));
    return sets;
}

void *pgpool_dir_conf_merge(apr_pool_t *p, void *base_conf, void *over_conf)
{
    const pgpool_dir_conf *base = base_conf, *over = over_conf;
    pgpool_dir_conf *conf = apr_palloc(p, sizeof(*conf));

    conf->use = over->use ? over->use : base->use;
    conf->when = over->when ? over->when : base->when;
    conf->abort = over->abort ? over->abort : base->abort;
    conf->statement_timeout = over->statement_timeout ? over->statement_timeout
                                                      : base->statement_timeout;
    conf->sets = sets_overlaid(p, base->sets, over->sets);
    return conf;
}

static bool option_is_set(const pgp_settings *settings, pgp_option_id id)
{
    return settings->set & (1u << id);
}

/* Whether a statement may still be prepared when the connection is lent again: a return may
 * drop them all, and behind a proxy another session may do the work. */
static bool keeps_statements(pgp_reset reset)
{
    return reset == PGP_RESET_SESSION || reset == PGP_RESET_AUTO;
}

/* A PgPoolMax below the default PgPoolMin lowers the latter: the operator need not write both.
 */
static void pool_complete(apr_pool_t *p, apr_hash_t *all, const char *name,
                          const pgpool_server_conf *conf)
{
    const pgp_settings *offered = apr_hash_get(conf->offered, name, APR_HASH_KEY_STRING);
    const pgp_settings *own = apr_hash_get(conf->named, name, APR_HASH_KEY_STRING);
    pgp_settings *settings = pgp_settings_defaults(p);

    pgp_settings_overlay(settings, conf->bare);
    if (offered)
        pgp_settings_overlay(settings, offered);
    if (own)
        pgp_settings_overlay(settings, own);
    if (!option_is_set(settings, PGP_OPTION_MIN) && settings->min > settings->max)
        settings->min = settings->max;
    if (!option_is_set(settings, PGP_OPTION_STATEMENTS) && !keeps_statements(settings->reset))
        settings->statements = 0;
    pgp_pq_reset_compose(settings, p);
    apr_hash_set(all, name, APR_HASH_KEY_STRING, settings);
}

apr_hash_t *pgpool_config_complete(apr_pool_t *p, const server_rec *s)
{
    const pgpool_server_conf *conf = pgpool_config_of(s);
    apr_hash_t *all = apr_hash_make(p);
    apr_hash_index_t *i;

    if (conf->bare->conninfo)
        pool_complete(p, all, PGPOOL_DEFAULT_NAME, conf);
    for (i = apr_hash_first(p, conf->offered); i; i = apr_hash_next(i))
        pool_complete(p, all, apr_hash_this_key(i), conf);
    for (i = apr_hash_first(p, conf->named); i; i = apr_hash_next(i))
        pool_complete(p, all, apr_hash_this_key(i), conf);
    return all;
}

/* --- directives ------------------------------------------------------------- */

/* Each directive that may stand in a directory calls this first: AllowOverrideList would let it
 * into .htaccess, and inside <Limit> it would apply to every method.  Returns NULL, or why the
 * directive is rejected. */
static const char *context_check(cmd_parms *cmd)
{
    return ap_check_cmd_context(cmd, NOT_IN_HTACCESS | NOT_IN_LIMIT);
}

/* mod_info prints the configuration as it was written. */
void pgpool_config_hide_secret(cmd_parms *cmd, const char *conninfo)
{
    cmd->directive->args = apr_pstrcat(cmd->pool, "\"",
                                       pgp_conninfo_masked(cmd->pool, conninfo), "\"", NULL);
}

static const char *set_option(cmd_parms *cmd, void *dir, int argc, char *const argv[])
{
    const pgp_option *option = cmd->info;
    const pgp_option_id id = option - pgp_options;
    pgpool_server_conf *conf = pgpool_config_of(cmd->server);
    const char *wrong = pgp_settings_set(conf->section ? conf->section : conf->bare, cmd->pool,
                                         id, argc, (const char *const *)argv,
                                         pgpool_config_origin(cmd));

    if (!wrong && id == PGP_OPTION_CONNINFO)
        pgpool_config_hide_secret(cmd, argv[0]);
    return wrong;
}

/* A pool's name becomes a part of the names of notes, of log lines and of labels. */
static bool pool_name_is_good(const char *name)
{
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "0123456789_-");

    return length > 0 && length <= 63 && !name[length];
}

pgp_option_id pgpool_config_option(const char *directive)
{
    int id = 0;

    while (id < PGP_OPTION_COUNT && strcasecmp(directive, pgp_options[id].name))
        id++;
    return id;
}

static const char *section_read(cmd_parms *cmd)
{
    const ap_directive_t *line;

    for (line = cmd->directive->first_child; line; line = line->next)
        if (pgpool_config_option(line->directive) == PGP_OPTION_COUNT) {
            cmd->err_directive = line; /* httpd names this line */
            return apr_psprintf(cmd->pool, "%s has no place inside <PgPool>", line->directive);
        }
    return ap_walk_config(cmd->directive->first_child, cmd, cmd->context);
}

static const char *open_section(cmd_parms *cmd, void *dir, const char *args)
{
    pgpool_server_conf *conf = pgpool_config_of(cmd->server);
    const char *end = ap_strrchr_c(args, '>'), *name, *wrong, *before;
    const char *text = end ? apr_pstrmemdup(cmd->pool, args, end - args) : "";
    pgp_settings *settings = pgp_settings_make(cmd->pool);

    name = ap_getword_conf(cmd->pool, &text);
    if (!end || *text || !pool_name_is_good(name))
        return "<PgPool name> takes one name of 1 to 63 letters, digits, \"_\" and \"-\"";
    before = apr_hash_get(conf->origins, name, APR_HASH_KEY_STRING);
    if (before)
        return apr_psprintf(cmd->pool, "<PgPool %s> is already defined at %s", name, before);
    apr_hash_set(conf->origins, name, APR_HASH_KEY_STRING, pgpool_config_origin(cmd));
    apr_hash_set(conf->named, name, APR_HASH_KEY_STRING, settings);
    conf->section = settings;
    wrong = section_read(cmd);
    conf->section = NULL;
    return wrong;
}

static const char *set_use(cmd_parms *cmd, void *dir, const char *name)
{
    pgpool_dir_conf *here = dir;
    const char *wrong = context_check(cmd);

    if (wrong)
        return wrong;
    here->use = name;
    pgpool_config_uses_pool(cmd, name);
    return NULL;
}

static const char *set_release(cmd_parms *cmd, void *dir, const char *when)
{
    pgpool_dir_conf *here = dir;
    const char *wrong = context_check(cmd);

    if (wrong)
        return wrong;
    if (!strcasecmp(when, "request"))
        here->when = PGPOOL_RELEASE_REQUEST;
    else if (!strcasecmp(when, "response"))
        here->when = PGPOOL_RELEASE_RESPONSE;
    else if (!strcasecmp(when, "auth"))
        here->when = PGPOOL_RELEASE_AUTH;
    else
        return apr_psprintf(cmd->pool,
                            "PgPoolRelease takes request, response or auth, not \"%s\"", when);
    return NULL;
}

static const char *set_abort(cmd_parms *cmd, void *dir, const char *what)
{
    pgpool_dir_conf *here = dir;
    const char *wrong = context_check(cmd);

    if (wrong)
        return wrong;
    if (!strcasecmp(what, "cancel"))
        here->abort = PGPOOL_ABORT_CANCEL;
    else if (!strcasecmp(what, "ignore"))
        here->abort = PGPOOL_ABORT_IGNORE;
    else
        return apr_psprintf(cmd->pool, "PgPoolAbort takes cancel or ignore, not \"%s\"", what);
    return NULL;
}

static const char *set_statement_timeout(cmd_parms *cmd, void *dir, const char *time)
{
    pgpool_dir_conf *here = dir;
    apr_interval_time_t *timeout = apr_palloc(cmd->pool, sizeof(*timeout));
    const char *wrong = context_check(cmd);

    if (wrong)
        return wrong;
    if (!apr_isdigit(*time) || ap_timeout_parameter_parse(time, timeout, "s") != APR_SUCCESS ||
        *timeout > PGP_DAY)
        return apr_psprintf(cmd->pool,
                            "PgPoolStatementTimeout takes a time from 0 to 24h such as 500ms, "
                            "2s, 5min or 1h, not \"%s\"",
                            time);
    here->statement_timeout = timeout;
    return NULL;
}

apr_interval_time_t pgpool_config_statement_timeout(const pgpool_dir_conf *dir)
{
    if (!dir->statement_timeout)
        return STATEMENT_TIMEOUT;
    return *dir->statement_timeout ? *dir->statement_timeout : PGP_NEVER;
}

/* The name becomes a part of the statement that undoes the setting, so it may contain nothing
 * that SQL has to quote. */
static bool variable_name_is_good(const char *name)
{
    return apr_isalpha(*name) && !name[strspn(name, "abcdefghijklmnopqrstuvwxyz"
                                                    "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                                    "0123456789_.")];
}

static const char *set_session_variable(cmd_parms *cmd, void *dir, const char *name,
                                        const char *value)
{
    pgpool_dir_conf *here = dir;
    pgpool_set set = {.name = name, .constant = !strpbrk(value, "%$")};
    const char *wrong = context_check(cmd);

    if (wrong)
        return wrong;
    if (!variable_name_is_good(name))
        return apr_psprintf(
            cmd->pool, "PgPoolSet takes the name of a setting such as app.user, not \"%s\"",
            name);
    if (!apr_cstr_casecmp(name, "client_encoding"))
        return "PgPoolSet cannot set client_encoding: the text of requests is UTF-8, and the "
               "server converts it to the database's encoding";
    set.value = ap_expr_parse_cmd(cmd, value, AP_EXPR_FLAG_STRING_RESULT, &wrong, NULL);
    if (wrong)
        return apr_psprintf(cmd->pool, "PgPoolSet %s: cannot parse the expression \"%s\": %s",
                            name, value, wrong);
    here->sets = sets_put(cmd->pool, here->sets, set);
    return NULL;
}

#define PGPOOL_COMMAND(id, field, name, kind, initial, low, high, help)                        \
    AP_INIT_TAKE_ARGV(name, set_option, (void *)&pgp_options[PGP_OPTION_##id], RSRC_CONF, help),

const command_rec pgpool_commands[] = {
    PGP_OPTIONS(PGPOOL_COMMAND)
        AP_INIT_RAW_ARGS("<PgPool", open_section, NULL, RSRC_CONF,
                         "a named pool; directives outside of it are its defaults"),
    AP_INIT_TAKE1("PgPoolUse", set_use, NULL, RSRC_CONF | ACCESS_CONF,
                  "the pool that handlers here use"),
    AP_INIT_TAKE1(
        "PgPoolRelease", set_release, NULL, RSRC_CONF | ACCESS_CONF,
        "when a connection goes back: at the end of the request, of the response or of "
        "authentication"),
    AP_INIT_TAKE1("PgPoolAbort", set_abort, NULL, RSRC_CONF | ACCESS_CONF,
                  "what to do when the client of a statement hangs up: cancel or ignore"),
    AP_INIT_TAKE1("PgPoolStatementTimeout", set_statement_timeout, NULL,
                  RSRC_CONF | ACCESS_CONF, "how long a statement may take; 0 = no limit"),
    AP_INIT_TAKE2("PgPoolSet", set_session_variable, NULL, RSRC_CONF | ACCESS_CONF,
                  "a setting of the session for a request, and an expression for its value"),
    {NULL},
};

/* --- checks ----------------------------------------------------------------- */

/* wrong: why the configuration is rejected; origin: the line, or NULL. */
static int config_reject(server_rec *s, const char *origin, const char *wrong)
{
    ap_log_error(APLOG_MARK, APLOG_ERR | APLOG_STARTUP, 0, s, "%s: %s",
                 origin ? origin : "configuration", wrong);
    return HTTP_INTERNAL_SERVER_ERROR;
}

static int pools_check(apr_pool_t *p, server_rec *s, apr_hash_t *pools)
{
    const pgpool_server_conf *conf = pgpool_config_of(s);
    apr_hash_index_t *i;

    for (i = apr_hash_first(p, pools); i; i = apr_hash_next(i)) {
        const char *name = apr_hash_this_key(i), *wrong;
        const pgp_settings *settings = apr_hash_this_val(i);
        pgp_option_id culprit;

        if (!settings->conninfo)
            return config_reject(s, apr_hash_get(conf->origins, name, APR_HASH_KEY_STRING),
                                 apr_psprintf(p,
                                              "pool %s has no PgPoolConninfo, and none stands "
                                              "outside of its <PgPool> either",
                                              name));
        wrong = pgp_settings_check(settings, p, &culprit);
        if (wrong)
            return config_reject(s, settings->origin[culprit],
                                 apr_psprintf(p, "pool %s: %s", name, wrong));
    }
    return OK;
}

static int uses_check(apr_pool_t *p, server_rec *s, apr_hash_t *pools)
{
    const apr_array_header_t *uses = pgpool_config_of(s)->uses;
    int i;

    for (i = 0; i < uses->nelts; i++) {
        const pgpool_use *use = &APR_ARRAY_IDX(uses, i, pgpool_use);

        if (!apr_hash_get(pools, use->pool, APR_HASH_KEY_STRING))
            return config_reject(s, use->origin,
                                 apr_psprintf(p,
                                              "%s %s: there is no <PgPool %s> in this server",
                                              use->directive, use->pool, use->pool));
    }
    return OK;
}

static bool has_pool_use(const server_rec *s)
{
    const apr_array_header_t *uses = pgpool_config_of(s)->uses;
    int i;

    for (i = 0; i < uses->nelts; i++)
        if (!strcmp(APR_ARRAY_IDX(uses, i, pgpool_use).directive, "PgPoolUse"))
            return true;
    return false;
}

/* Whether pool NULL can mean a pool somewhere in this server: the default one, or that of a
 * PgPoolUse.  A PgPoolUse in the main server holds in every virtual host. */
static bool has_default_pool(apr_pool_t *p, server_rec *s, const server_rec *main_server)
{
    return apr_hash_get(pgpool_config_complete(p, s), PGPOOL_DEFAULT_NAME,
                        APR_HASH_KEY_STRING) ||
           has_pool_use(s) || has_pool_use(main_server);
}

/* A handler that is configured in the main server serves the virtual hosts as well, so a pool
 * in one of them is enough.  A virtual host without directives of ours shares the main server's
 * configuration, which was checked already. */
static int needs_check(apr_pool_t *p, server_rec *s, server_rec *main_server)
{
    const apr_array_header_t *needs = pgpool_config_of(s)->needs;
    server_rec *giver = s;

    if (!needs->nelts ||
        (s != main_server && pgpool_config_of(s) == pgpool_config_of(main_server)))
        return OK;
    while (giver && !has_default_pool(p, giver, main_server))
        giver = s == main_server ? giver->next : NULL;
    return giver ? OK
                 : config_reject(s, APR_ARRAY_IDX(needs, 0, const char *),
                                 "there is no pool for this handler: write PgPoolConninfo, or "
                                 "PgPoolUse with the name of a pool");
}

int pgpool_config_check(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp,
                        server_rec *main_server)
{
    server_rec *s;

    for (s = main_server; s; s = s->next) {
        apr_hash_t *pools = pgpool_config_complete(ptemp, s);
        int rv = pools_check(ptemp, s, pools);

        if (rv == OK)
            rv = uses_check(ptemp, s, pools);
        if (rv == OK)
            rv = needs_check(ptemp, s, main_server);
        if (rv != OK)
            return rv;
    }
    return OK;
}

/* --- -t -D DUMP_PGPOOL ------------------------------------------------------ */

static void dump_pool(apr_pool_t *p, apr_file_t *out, const char *name,
                      const pgp_settings *settings)
{
    int id;

    apr_file_printf(out, "  <PgPool %s>\n", name);
    for (id = 0; id < PGP_OPTION_COUNT; id++) {
        const char *text = pgp_option_text(settings, p, id);

        if (text)
            apr_file_printf(out, "    %-22s %s  # %s\n", pgp_options[id].name, text,
                            settings->origin[id] ? settings->origin[id] : "default");
    }
    apr_file_printf(out, "  </PgPool>\n");
}

void pgpool_config_dump(apr_pool_t *p, server_rec *s)
{
    apr_file_t *out;

    if (!ap_exists_config_define("DUMP_PGPOOL") || apr_file_open_stdout(&out, p) != APR_SUCCESS)
        return;
    for (; s; s = s->next) {
        apr_hash_t *pools = pgpool_config_complete(p, s);
        apr_hash_index_t *i;

        apr_file_printf(out, "PgPool configuration of %s (%s:%u):\n",
                        s->server_hostname ? s->server_hostname : "the main server",
                        s->defn_name ? s->defn_name : "main configuration",
                        s->defn_line_number);
        for (i = apr_hash_first(p, pools); i; i = apr_hash_next(i))
            dump_pool(p, out, apr_hash_this_key(i), apr_hash_this_val(i));
    }
}
