/* Parses, overlays, compares and prints the settings of a pool (pgp_settings.h). */

#include "pgp_settings.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <apr_cstr.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "pgp_conninfo.h"
#include "pgp_password.h"

#define PGP_OPTION_ROW(id, field, name, kind, initial, low, high, help)                        \
    {name,                                                                                     \
     kind,                                                                                     \
     offsetof(pgp_settings, field),                                                            \
     sizeof(((pgp_settings *)0)->field),                                                       \
     initial,                                                                                  \
     low,                                                                                      \
     high,                                                                                     \
     help},
const pgp_option pgp_options[PGP_OPTION_COUNT] = {PGP_OPTIONS(PGP_OPTION_ROW)};
#undef PGP_OPTION_ROW

static const struct {
    const char *suffix;
    apr_int64_t microseconds;
} time_units[] = {{"ms", 1000}, {"s", PGP_SEC(1)}, {"min", PGP_SEC(60)}, {"h", PGP_SEC(3600)}};

#define TIME_UNITS (sizeof(time_units) / sizeof(time_units[0]))

static void *field_of(const pgp_settings *settings, const pgp_option *option)
{
    return (char *)settings + option->offset;
}

/* --- reading ---------------------------------------------------------------- */

/* Read a whole number; *rest is the text behind it.  Returns false if the text begins with
 * none. */
static bool number_read(const char *text, apr_int64_t *value, char **rest)
{
    if (!apr_isdigit(*text))
        return false;
    errno = 0;
    *value = apr_strtoi64(text, rest, 10);
    return errno == 0;
}

/* Read a time as httpd writes it: a number and a unit; seconds without a unit. */
static bool time_read(const char *text, apr_int64_t *value)
{
    char *unit;
    size_t i;

    if (!number_read(text, value, &unit))
        return false;
    for (i = 0; i < TIME_UNITS; i++) {
        apr_int64_t factor = time_units[i].microseconds;

        if (strcmp(*unit ? unit : "s", time_units[i].suffix))
            continue;
        if (*value > APR_INT64_MAX / factor)
            return false;
        *value *= factor;
        return true;
    }
    return false;
}

static const char *time_text(apr_pool_t *p, apr_interval_time_t value)
{
    size_t i = TIME_UNITS - 1;

    while (i > 0 && (value == 0 || value % time_units[i].microseconds))
        i--;
    if (value == 0)
        return "0";
    return apr_psprintf(p, "%" APR_INT64_T_FMT "%s", value / time_units[i].microseconds,
                        time_units[i].suffix);
}

static const char *number_set(const pgp_option *o, apr_pool_t *p, const char *text, int *field)
{
    apr_int64_t value;
    char *rest;

    if (!number_read(text, &value, &rest) || *rest || value < o->low || value > o->high)
        return apr_psprintf(p,
                            "%s takes a whole number from %" APR_INT64_T_FMT
                            " to %" APR_INT64_T_FMT ", not \"%s\"",
                            o->name, o->low, o->high, text);
    *field = (int)value;
    return NULL;
}

static const char *time_set(const pgp_option *o, apr_pool_t *p, const char *text,
                            apr_interval_time_t *field)
{
    apr_int64_t value;

    if (o->kind == PGP_KIND_TIME_OR_OFF && !apr_cstr_casecmp(text, "off")) {
        *field = PGP_NEVER;
        return NULL;
    }
    if (!time_read(text, &value) || value < o->low || value > o->high)
        return apr_psprintf(p,
                            "%s takes a time from %s to %s such as 500ms, 2s, 5min or 1h%s, "
                            "not \"%s\"",
                            o->name, time_text(p, o->low), time_text(p, o->high),
                            o->kind == PGP_KIND_TIME_OR_OFF ? ", or off" : "", text);
    *field = value == 0 && o->kind == PGP_KIND_TIME_NEVER ? PGP_NEVER : value;
    return NULL;
}

static const char *backoff_set(const pgp_option *o, apr_pool_t *p, const char *const *argv,
                               pgp_backoff *field)
{
    pgp_backoff read;
    const char *wrong = time_set(o, p, argv[0], &read.first);

    if (!wrong)
        wrong = time_set(o, p, argv[1], &read.most);
    if (!wrong)
        *field = read;
    return wrong;
}

static const char *conninfo_set(const pgp_option *o, apr_pool_t *p, const char *text,
                                const char **field)
{
    const char *wrong = pgp_conninfo_check(p, text);

    if (wrong)
        return apr_psprintf(p,
                            "%s takes a libpq connection string such as \"host=db dbname=app\" "
                            "or a postgresql:// URI; %s",
                            o->name, wrong);
    *field = apr_pstrdup(p, text);
    return NULL;
}

static const char *password_set(const pgp_option *o, apr_pool_t *p, int argc,
                                const char *const *argv, apr_array_header_t **field)
{
    const char *wrong = pgp_password_check(argc, argv);
    int i;

    if (wrong)
        return apr_pstrcat(p, o->name, " ", wrong, NULL);
    *field = apr_array_make(p, argc, sizeof(const char *));
    for (i = 0; i < argc; i++)
        APR_ARRAY_PUSH(*field, const char *) = apr_pstrdup(p, argv[i]);
    return NULL;
}

static const char *sql_add(const pgp_option *o, apr_pool_t *p, const char *text, bool first,
                           apr_array_header_t **field)
{
    if (!text[strspn(text, " \t\r\n;")])
        return apr_psprintf(p, "%s takes an SQL statement, not an empty string", o->name);
    if (first)
        *field = apr_array_make(p, 2, sizeof(const char *));
    APR_ARRAY_PUSH(*field, const char *) = apr_pstrdup(p, text);
    return NULL;
}

static const char *const reset_words[] = {
    [PGP_RESET_SESSION] = "session", [PGP_RESET_ALL] = "all",
    [PGP_RESET_AUTO] = "auto",       [PGP_RESET_TRANSACTION] = "transaction",
    [PGP_RESET_CLOSE] = "close",
};

static const char *reset_set(const pgp_option *o, apr_pool_t *p, const char *text,
                             pgp_reset *field)
{
    size_t i;

    for (i = 0; i < sizeof(reset_words) / sizeof(reset_words[0]); i++)
        if (!apr_cstr_casecmp(text, reset_words[i])) {
            *field = i;
            return NULL;
        }
    return apr_psprintf(p, "%s takes session, all, auto, transaction or close, not \"%s\"",
                        o->name, text);
}

static const char *option_read(pgp_settings *settings, apr_pool_t *p, const pgp_option *o,
                               bool first, int argc, const char *const *argv)
{
    void *field = field_of(settings, o);

    switch (o->kind) {
    case PGP_KIND_CONNINFO:
        return conninfo_set(o, p, argv[0], field);
    case PGP_KIND_PASSWORD:
        return password_set(o, p, argc, argv, field);
    case PGP_KIND_NUMBER:
        return number_set(o, p, argv[0], field);
    case PGP_KIND_TIME:
    case PGP_KIND_TIME_NEVER:
    case PGP_KIND_TIME_OR_OFF:
        return time_set(o, p, argv[0], field);
    case PGP_KIND_BACKOFF:
        return backoff_set(o, p, argv, field);
    case PGP_KIND_RESET:
        return reset_set(o, p, argv[0], field);
    case PGP_KIND_SQL_LIST:
        return sql_add(o, p, argv[0], first, field);
    }
    return "unknown kind of option";
}

const char *pgp_settings_set(pgp_settings *settings, apr_pool_t *p, pgp_option_id id, int argc,
                             const char *const *argv, const char *origin)
{
    const pgp_option *o = &pgp_options[id];
    const unsigned bit = 1u << id;
    const int wanted = o->kind == PGP_KIND_BACKOFF ? 2 : 1;
    const char *wrong;

    if (o->kind != PGP_KIND_PASSWORD && argc != wanted)
        return apr_psprintf(p, "%s takes %s (%s)", o->name,
                            wanted == 2 ? "two arguments" : "one argument", o->help);
    wrong = option_read(settings, p, o, !(settings->set & bit), argc, argv);
    if (!wrong) {
        settings->set |= bit;
        settings->origin[id] = origin;
    }
    return wrong;
}

/* --- layers ----------------------------------------------------------------- */

pgp_settings *pgp_settings_make(apr_pool_t *p)
{
    return apr_pcalloc(p, sizeof(pgp_settings));
}

pgp_settings *pgp_settings_defaults(apr_pool_t *p)
{
    pgp_settings *settings = pgp_settings_make(p);
    int id;

    for (id = 0; id < PGP_OPTION_COUNT; id++) {
        char **argv;

        if (!pgp_options[id].initial)
            continue;
        apr_tokenize_to_argv(pgp_options[id].initial, &argv, p);
        option_read(settings, p, &pgp_options[id], true, 0, (const char *const *)argv);
    }
    return settings;
}

void pgp_settings_overlay(pgp_settings *base, const pgp_settings *over)
{
    int id;

    for (id = 0; id < PGP_OPTION_COUNT; id++) {
        const pgp_option *o = &pgp_options[id];

        if (!(over->set & (1u << id)))
            continue;
        memcpy(field_of(base, o), field_of(over, o), o->size);
        base->set |= 1u << id;
        base->origin[id] = over->origin[id];
    }
}

static bool text_equal(const char *a, const char *b)
{
    return a == b || (a && b && !strcmp(a, b));
}

static bool list_equal(const apr_array_header_t *a, const apr_array_header_t *b)
{
    int i;

    if (a == b)
        return true;
    if (!a || !b || a->nelts != b->nelts)
        return false;
    for (i = 0; i < a->nelts; i++)
        if (strcmp(APR_ARRAY_IDX(a, i, const char *), APR_ARRAY_IDX(b, i, const char *)))
            return false;
    return true;
}

bool pgp_settings_equal(const pgp_settings *a, const pgp_settings *b)
{
    bool equal = true;
    int id;

    for (id = 0; id < PGP_OPTION_COUNT && equal; id++) {
        const pgp_option *o = &pgp_options[id];

        switch (o->kind) {
        case PGP_KIND_CONNINFO:
            equal = text_equal(a->conninfo, b->conninfo);
            break;
        case PGP_KIND_PASSWORD:
            equal = list_equal(a->password, b->password);
            break;
        case PGP_KIND_SQL_LIST:
            equal = list_equal(a->init_sql, b->init_sql);
            break;
        default:
            equal = !memcmp(field_of(a, o), field_of(b, o), o->size);
        }
    }
    return equal;
}

const char *pgp_settings_check(const pgp_settings *settings, apr_pool_t *p,
                               pgp_option_id *culprit)
{
    if (settings->min > settings->max) {
        *culprit = settings->set & (1u << PGP_OPTION_MIN) ? PGP_OPTION_MIN : PGP_OPTION_MAX;
        return apr_psprintf(p, "PgPoolMin (%d) is more than PgPoolMax (%d)", settings->min,
                            settings->max);
    }
    if (settings->retry.first > settings->retry.most) {
        *culprit = PGP_OPTION_RETRY;
        return apr_psprintf(p, "PgPoolRetry's first wait (%s) is longer than its greatest (%s)",
                            time_text(p, settings->retry.first),
                            time_text(p, settings->retry.most));
    }
    return NULL;
}

/* --- showing ---------------------------------------------------------------- */

static const char *list_text(apr_pool_t *p, const apr_array_header_t *list)
{
    const char *text = NULL;
    int i;

    for (i = 0; list && i < list->nelts; i++)
        text = apr_pstrcat(p, text ? text : "", text ? " " : "", "\"",
                           APR_ARRAY_IDX(list, i, const char *), "\"", NULL);
    return text;
}

const char *pgp_option_text(const pgp_settings *settings, apr_pool_t *p, pgp_option_id id)
{
    const pgp_option *o = &pgp_options[id];
    const void *field = field_of(settings, o);

    switch (o->kind) {
    case PGP_KIND_CONNINFO:
        return settings->conninfo ? pgp_conninfo_masked(p, settings->conninfo) : NULL;
    case PGP_KIND_PASSWORD:
        return list_text(p, settings->password);
    case PGP_KIND_NUMBER:
        return apr_itoa(p, *(const int *)field);
    case PGP_KIND_BACKOFF:
        return apr_pstrcat(p, time_text(p, settings->retry.first), " ",
                           time_text(p, settings->retry.most), NULL);
    case PGP_KIND_RESET:
        return reset_words[settings->reset];
    case PGP_KIND_SQL_LIST:
        return list_text(p, settings->init_sql);
    case PGP_KIND_TIME:
    case PGP_KIND_TIME_NEVER:
    case PGP_KIND_TIME_OR_OFF:
        break;
    }
    if (*(const apr_interval_time_t *)field != PGP_NEVER)
        return time_text(p, *(const apr_interval_time_t *)field);
    return o->kind == PGP_KIND_TIME_OR_OFF ? "off" : "0";
}
