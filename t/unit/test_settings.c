/* The option table: reading, layers, comparing, showing. */
#include <stddef.h>
#include <string.h>
#include <apr_strings.h>

#include "stage.h"

static apr_pool_t *p;

static void pool_begin(void)
{
    apr_pool_create(&p, NULL);
}

/* Set an option from its arguments in one string.  Returns NULL, or the complaint. */
static const char *set(pgp_settings *settings, pgp_option_id id, const char *text)
{
    char **argv;
    int argc = 0;

    apr_tokenize_to_argv(text, &argv, p);
    while (argv[argc])
        argc++;
    return pgp_settings_set(settings, p, id, argc, (const char *const *)argv, "test.conf:7");
}

static const char *text_of(const pgp_settings *settings, pgp_option_id id)
{
    return pgp_option_text(settings, p, id);
}

/* --- defaults --------------------------------------------------------------- */

/* The documented defaults; "": there is none. */
static const struct {
    const char *name, *text;
} defaults[] = {
    {"PgPoolConninfo", ""},
    {"PgPoolPassword", ""},
    {"PgPoolMin", "2"},
    {"PgPoolMax", "32"},
    {"PgPoolTotalMax", "80"},
    {"PgPoolServerMax", "0"},
    {"PgPoolAcquireTimeout", "2s"},
    {"PgPoolMaxWaiters", "0"},
    {"PgPoolConnectTimeout", "3s"},
    {"PgPoolRetry", "100ms 5s"},
    {"PgPoolPing", "30s"},
    {"PgPoolCheckTimeout", "1s"},
    {"PgPoolIdleTimeout", "5min"},
    {"PgPoolMaxLifetime", "30min"},
    {"PgPoolReset", "session"},
    {"PgPoolStatements", "100"},
    {"PgPoolHoldWarning", "30s"},
    {"PgPoolInitSQL", ""},
};

START_TEST(defaults_are_as_documented)
{
    const pgp_settings *settings = pgp_settings_defaults(p);
    int id;

    ck_assert_int_eq(PGP_OPTION_COUNT, LENGTH(defaults));
    for (id = 0; id < PGP_OPTION_COUNT; id++) {
        const char *text = text_of(settings, id);

        ck_assert_str_eq(pgp_options[id].name, defaults[id].name);
        ck_assert_str_eq(text ? text : "", defaults[id].text);
        ck_assert_ptr_null(settings->origin[id]);
    }
    ck_assert_uint_eq(settings->set, 0);
}
END_TEST

START_TEST(options_do_not_overlap)
{
    int a, b;

    for (a = 0; a < PGP_OPTION_COUNT; a++) {
        ck_assert_str_ne(pgp_options[a].help, "");
        for (b = 0; b < a; b++) {
            ck_assert_str_ne(pgp_options[a].name, pgp_options[b].name);
            ck_assert(pgp_options[a].offset >= pgp_options[b].offset + pgp_options[b].size ||
                      pgp_options[b].offset >= pgp_options[a].offset + pgp_options[a].size);
        }
    }
}
END_TEST

/* --- reading ---------------------------------------------------------------- */

static const struct {
    pgp_option_id id;
    const char *argument, *text;
} good[] = {
    {PGP_OPTION_CONNINFO, "dbname=app", "dbname=app"},
    {PGP_OPTION_CONNINFO, "'host=db dbname=app'", "dbname=app host=db"},
    {PGP_OPTION_CONNINFO, "postgresql://db:5433/app", "dbname=app host=db port=5433"},
    {PGP_OPTION_PASSWORD, "file:/etc/secret", "\"file:/etc/secret\""},
    {PGP_OPTION_PASSWORD, "exec:/bin/fetch 'a b' c", "\"exec:/bin/fetch\" \"a b\" \"c\""},
    {PGP_OPTION_MIN, "0", "0"},
    {PGP_OPTION_MIN, "007", "7"},
    {PGP_OPTION_MAX, "1", "1"},
    {PGP_OPTION_MAX, "10000", "10000"},
    {PGP_OPTION_TOTAL_MAX, "0", "0"},
    {PGP_OPTION_MAX_WAITERS, "50", "50"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "0", "0"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "0ms", "0"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "500ms", "500ms"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "1500ms", "1500ms"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "5", "5s"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "5s", "5s"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "90s", "90s"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "120s", "2min"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "3min", "3min"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "24h", "24h"},
    {PGP_OPTION_CONNECT_TIMEOUT, "10ms", "10ms"},
    {PGP_OPTION_RETRY, "1ms 1h", "1ms 1h"},
    {PGP_OPTION_RETRY, "2s 2s", "2s 2s"},
    {PGP_OPTION_PING, "0", "0"},
    {PGP_OPTION_PING, "off", "off"},
    {PGP_OPTION_PING, "Off", "off"},
    {PGP_OPTION_CHECK_TIMEOUT, "250ms", "250ms"},
    {PGP_OPTION_IDLE_TIMEOUT, "0", "0"},
    {PGP_OPTION_IDLE_TIMEOUT, "1h", "1h"},
    {PGP_OPTION_MAX_LIFETIME, "0", "0"},
    {PGP_OPTION_MAX_LIFETIME, "8760h", "8760h"},
    {PGP_OPTION_RESET, "all", "all"},
    {PGP_OPTION_RESET, "Auto", "auto"},
    {PGP_OPTION_RESET, "transaction", "transaction"},
    {PGP_OPTION_HOLD_WARNING, "0", "0"},
    {PGP_OPTION_INIT_SQL, "'SET work_mem = 1'", "\"SET work_mem = 1\""},
};

START_TEST(good_value_is_taken)
{
    pgp_settings *settings = pgp_settings_make(p);
    const pgp_option_id id = good[_i].id;
    const char *wrong = set(settings, id, good[_i].argument);

    ck_assert_msg(!wrong, "%s %s: %s", pgp_options[id].name, good[_i].argument, wrong);
    ck_assert_str_eq(text_of(settings, id), good[_i].text);
    ck_assert_uint_eq(settings->set, 1u << id);
    ck_assert_str_eq(settings->origin[id], "test.conf:7");
}
END_TEST

/* The text of an option, as the dump shows it, is a valid argument that means the same. */
START_TEST(text_is_a_value)
{
    pgp_settings *a = pgp_settings_defaults(p), *b = pgp_settings_defaults(p);
    const pgp_option_id id = good[_i].id;

    if (id == PGP_OPTION_CONNINFO || id == PGP_OPTION_INIT_SQL)
        return; /* one argument of several words */
    ck_assert_ptr_null(set(a, id, good[_i].argument));
    ck_assert_ptr_null(set(b, id, text_of(a, id)));
    ck_assert(pgp_settings_equal(a, b));
}
END_TEST

START_TEST(never_is_never)
{
    pgp_settings *settings = pgp_settings_defaults(p);

    ck_assert_ptr_null(set(settings, PGP_OPTION_PING, "off"));
    ck_assert_ptr_null(set(settings, PGP_OPTION_IDLE_TIMEOUT, "0"));
    ck_assert_ptr_null(set(settings, PGP_OPTION_MAX_LIFETIME, "0"));
    ck_assert_ptr_null(set(settings, PGP_OPTION_HOLD_WARNING, "0"));
    ck_assert_int_eq(settings->ping, PGP_NEVER);
    ck_assert_int_eq(settings->idle_timeout, PGP_NEVER);
    ck_assert_int_eq(settings->max_lifetime, PGP_NEVER);
    ck_assert_int_eq(settings->hold_warning, PGP_NEVER);
    ck_assert_ptr_null(set(settings, PGP_OPTION_PING, "0"));
    ck_assert_int_eq(settings->ping, 0); /* always */
}
END_TEST

#define NUMBER_0_10000 " takes a whole number from 0 to 10000, not "
#define TIME_TEXT " such as 500ms, 2s, 5min or 1h"

static const struct {
    pgp_option_id id;
    const char *argument, *complaint;
} bad[] = {
    {PGP_OPTION_MIN, "-1", "PgPoolMin" NUMBER_0_10000 "\"-1\""},
    {PGP_OPTION_MIN, "+1", "PgPoolMin" NUMBER_0_10000 "\"+1\""},
    {PGP_OPTION_MIN, "ten", "PgPoolMin" NUMBER_0_10000 "\"ten\""},
    {PGP_OPTION_MIN, "''", "PgPoolMin" NUMBER_0_10000 "\"\""},
    {PGP_OPTION_MIN, "1x", "PgPoolMin" NUMBER_0_10000 "\"1x\""},
    {PGP_OPTION_MIN, "1.5", "PgPoolMin" NUMBER_0_10000 "\"1.5\""},
    {PGP_OPTION_MIN, "' 1'", "PgPoolMin" NUMBER_0_10000 "\" 1\""},
    {PGP_OPTION_MIN, "0x10", "PgPoolMin" NUMBER_0_10000 "\"0x10\""},
    {PGP_OPTION_MIN, "10001", "PgPoolMin" NUMBER_0_10000 "\"10001\""},
    {PGP_OPTION_MIN, "4294967296", "PgPoolMin" NUMBER_0_10000 "\"4294967296\""},
    {PGP_OPTION_MIN, "99999999999999999999",
     "PgPoolMin" NUMBER_0_10000 "\"99999999999999999999\""},
    {PGP_OPTION_MAX, "0", "PgPoolMax takes a whole number from 1 to 10000, not \"0\""},
    {PGP_OPTION_TOTAL_MAX, "all",
     "PgPoolTotalMax takes a whole number from 0 to 1000000, not \"all\""},
    {PGP_OPTION_MAX_WAITERS, "100001",
     "PgPoolMaxWaiters takes a whole number from 0 to 100000, not \"100001\""},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "2m",
     "PgPoolAcquireTimeout takes a time from 0 to 24h" TIME_TEXT ", not \"2m\""},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "2 s",
     "PgPoolAcquireTimeout takes one argument (how long an acquire may take in all; 0 = fail "
     "at once)"},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "2seconds",
     "PgPoolAcquireTimeout takes a time from 0 to 24h" TIME_TEXT ", not \"2seconds\""},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "1.5s",
     "PgPoolAcquireTimeout takes a time from 0 to 24h" TIME_TEXT ", not \"1.5s\""},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "s",
     "PgPoolAcquireTimeout takes a time from 0 to 24h" TIME_TEXT ", not \"s\""},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "off",
     "PgPoolAcquireTimeout takes a time from 0 to 24h" TIME_TEXT ", not \"off\""},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "25h",
     "PgPoolAcquireTimeout takes a time from 0 to 24h" TIME_TEXT ", not \"25h\""},
    {PGP_OPTION_ACQUIRE_TIMEOUT, "9223372036854775807h",
     "PgPoolAcquireTimeout takes a time from 0 to 24h" TIME_TEXT
     ", not \"9223372036854775807h\""},
    {PGP_OPTION_CONNECT_TIMEOUT, "9ms",
     "PgPoolConnectTimeout takes a time from 10ms to 24h" TIME_TEXT ", not \"9ms\""},
    {PGP_OPTION_RETRY, "100ms",
     "PgPoolRetry takes two arguments (first and greatest wait between attempts to connect)"},
    {PGP_OPTION_RETRY, "0 5s",
     "PgPoolRetry takes a time from 1ms to 24h" TIME_TEXT ", not \"0\""},
    {PGP_OPTION_RETRY, "200ms never",
     "PgPoolRetry takes a time from 1ms to 24h" TIME_TEXT ", not \"never\""},
    {PGP_OPTION_PING, "never",
     "PgPoolPing takes a time from 0 to 24h" TIME_TEXT ", or off, not \"never\""},
    {PGP_OPTION_CHECK_TIMEOUT, "0",
     "PgPoolCheckTimeout takes a time from 1ms to 24h" TIME_TEXT ", not \"0\""},
    {PGP_OPTION_IDLE_TIMEOUT, "8761h",
     "PgPoolIdleTimeout takes a time from 0 to 8760h" TIME_TEXT ", not \"8761h\""},
    {PGP_OPTION_MAX_LIFETIME, "-1s",
     "PgPoolMaxLifetime takes a time from 0 to 8760h" TIME_TEXT ", not \"-1s\""},
    {PGP_OPTION_RESET, "everything",
     "PgPoolReset takes session, all, auto, transaction or close, not \"everything\""},
    {PGP_OPTION_INIT_SQL, "' ; '", "PgPoolInitSQL takes an SQL statement, not an empty string"},
};

START_TEST(bad_value_is_refused)
{
    pgp_settings *settings = pgp_settings_defaults(p), *before = pgp_settings_defaults(p);
    const char *wrong = set(settings, bad[_i].id, bad[_i].argument);

    ck_assert_msg(wrong != NULL, "%s %s is taken", pgp_options[bad[_i].id].name,
                  bad[_i].argument);
    ck_assert_str_eq(wrong, bad[_i].complaint);
    ck_assert_uint_eq(settings->set, 0);
    ck_assert(pgp_settings_equal(settings, before));
}
END_TEST

static const char *in_ms(apr_int64_t value)
{
    return apr_psprintf(p, "%" APR_INT64_T_FMT "ms", value / 1000);
}

/* Write the ends of an option's range as arguments, and the values just outside.  Returns 0 if
 * the option has no range. */
static int range_of(const pgp_option *o, const char *range[4])
{
    const apr_int64_t step = o->kind == PGP_KIND_NUMBER ? 1 : 1000;
    const apr_int64_t ends[] = {o->low, o->high, o->low - step, o->high + step};
    int i;

    if (o->low == o->high)
        return 0;
    for (i = 0; i < 4; i++) {
        range[i] = step == 1 ? apr_ltoa(p, ends[i]) : in_ms(ends[i]);
        if (o->kind == PGP_KIND_BACKOFF)
            range[i] = apr_pstrcat(p, range[i], " ", range[i], NULL);
    }
    return 1;
}

START_TEST(ranges_are_inclusive)
{
    pgp_settings *settings = pgp_settings_make(p);
    const char *range[4];
    int id;

    for (id = 0; id < PGP_OPTION_COUNT; id++) {
        if (!range_of(&pgp_options[id], range))
            continue;
        ck_assert_msg(!set(settings, id, range[0]), "%s %s", pgp_options[id].name, range[0]);
        ck_assert_msg(!set(settings, id, range[1]), "%s %s", pgp_options[id].name, range[1]);
        ck_assert_msg(set(settings, id, range[2]) != NULL, "%s %s", pgp_options[id].name,
                      range[2]);
        ck_assert_msg(set(settings, id, range[3]) != NULL, "%s %s", pgp_options[id].name,
                      range[3]);
    }
}
END_TEST

START_TEST(init_sql_repeats)
{
    pgp_settings *settings = pgp_settings_make(p);

    ck_assert_ptr_null(set(settings, PGP_OPTION_INIT_SQL, "'SET a.b = 1'"));
    ck_assert_ptr_null(set(settings, PGP_OPTION_INIT_SQL, "'SET a.c = 2'"));
    ck_assert_int_eq(settings->init_sql->nelts, 2);
    ck_assert_str_eq(text_of(settings, PGP_OPTION_INIT_SQL), "\"SET a.b = 1\" \"SET a.c = 2\"");
}
END_TEST

/* --- layers ----------------------------------------------------------------- */

START_TEST(overlay_copies_what_was_set)
{
    pgp_settings *base = pgp_settings_defaults(p), *over = pgp_settings_make(p);

    ck_assert_ptr_null(set(base, PGP_OPTION_MIN, "5"));
    ck_assert_ptr_null(set(base, PGP_OPTION_MAX, "50"));
    ck_assert_ptr_null(set(over, PGP_OPTION_MAX, "7"));
    ck_assert_ptr_null(set(over, PGP_OPTION_PING, "off"));
    ck_assert_ptr_null(set(over, PGP_OPTION_IDLE_TIMEOUT, "0"));
    over->origin[PGP_OPTION_MAX] = "other.conf:3";
    pgp_settings_overlay(base, over);
    ck_assert_int_eq(base->min, 5);
    ck_assert_int_eq(base->max, 7);
    ck_assert_int_eq(base->ping, PGP_NEVER);
    ck_assert_int_eq(base->idle_timeout, PGP_NEVER);
    ck_assert_int_eq(base->acquire_timeout, PGP_SEC(2));
    ck_assert_str_eq(base->origin[PGP_OPTION_MIN], "test.conf:7");
    ck_assert_str_eq(base->origin[PGP_OPTION_MAX], "other.conf:3");
    ck_assert_ptr_null(base->origin[PGP_OPTION_RETRY]);
}
END_TEST

/* For each option: an overlay in which it is set copies it, and no other option. */
START_TEST(overlay_carries_each_option)
{
    const pgp_option_id id = good[_i].id;
    pgp_settings *base = pgp_settings_defaults(p), *over = pgp_settings_make(p);
    int other;

    ck_assert_ptr_null(set(over, id, good[_i].argument));
    pgp_settings_overlay(base, over);
    for (other = 0; other < PGP_OPTION_COUNT; other++)
        if (other != (int)id)
            ck_assert_pstr_eq(text_of(base, other), text_of(pgp_settings_defaults(p), other));
    ck_assert_str_eq(text_of(base, id), good[_i].text);
    ck_assert_uint_eq(base->set, 1u << id);
}
END_TEST

/* --- comparing -------------------------------------------------------------- */

START_TEST(equal_unless_one_option_differs)
{
    const pgp_option_id id = good[_i].id;
    pgp_settings *a = pgp_settings_defaults(p), *b = pgp_settings_defaults(p);

    ck_assert_ptr_null(set(a, id, good[_i].argument));
    if (text_of(b, id) && !strcmp(text_of(b, id), good[_i].text))
        return; /* the default */
    ck_assert_msg(!pgp_settings_equal(a, b), "%s", pgp_options[id].name);
    ck_assert_msg(!pgp_settings_equal(b, a), "%s", pgp_options[id].name);
    ck_assert_ptr_null(set(b, id, good[_i].argument));
    b->origin[id] = "elsewhere.conf:1";
    ck_assert_msg(pgp_settings_equal(a, b), "%s", pgp_options[id].name);
}
END_TEST

START_TEST(init_sql_is_compared)
{
    pgp_settings *a = pgp_settings_defaults(p), *b = pgp_settings_defaults(p);

    set(a, PGP_OPTION_INIT_SQL, "'SET a.b = 1'");
    set(b, PGP_OPTION_INIT_SQL, "'SET a.b = 1'");
    ck_assert(pgp_settings_equal(a, b));
    set(a, PGP_OPTION_INIT_SQL, "'SET a.c = 1'");
    ck_assert(!pgp_settings_equal(a, b));
    set(b, PGP_OPTION_INIT_SQL, "'SET a.c = 2'");
    ck_assert(!pgp_settings_equal(a, b));
}
END_TEST

/* --- the rules between options ---------------------------------------------- */

/* The complaint about these values (NULL: the default), and the option it is about. */
static const char *check(const char *min, const char *max, const char *retry,
                         pgp_option_id *culprit)
{
    pgp_settings *settings = pgp_settings_defaults(p);

    if (min)
        ck_assert_ptr_null(set(settings, PGP_OPTION_MIN, min));
    if (max)
        ck_assert_ptr_null(set(settings, PGP_OPTION_MAX, max));
    if (retry)
        ck_assert_ptr_null(set(settings, PGP_OPTION_RETRY, retry));
    return pgp_settings_check(settings, p, culprit);
}

START_TEST(min_is_not_more_than_max)
{
    pgp_option_id culprit;

    ck_assert_ptr_null(check(NULL, NULL, NULL, &culprit));
    ck_assert_ptr_null(check("4", "4", NULL, &culprit));
    ck_assert_str_eq(check("5", "4", NULL, &culprit),
                     "PgPoolMin (5) is more than PgPoolMax (4)");
    ck_assert_int_eq(culprit, PGP_OPTION_MIN);
    ck_assert_str_eq(check("33", NULL, NULL, &culprit),
                     "PgPoolMin (33) is more than PgPoolMax (32)");
    ck_assert_int_eq(culprit, PGP_OPTION_MIN);
    ck_assert_ptr_nonnull(check(NULL, "1", NULL, &culprit));
    ck_assert_int_eq(culprit, PGP_OPTION_MAX);
}
END_TEST

START_TEST(first_wait_is_not_longer_than_the_greatest)
{
    pgp_option_id culprit;

    ck_assert_ptr_null(check(NULL, NULL, "5s 5s", &culprit));
    ck_assert_str_eq(check(NULL, NULL, "5s 100ms", &culprit),
                     "PgPoolRetry's first wait (5s) is longer than its greatest (100ms)");
    ck_assert_int_eq(culprit, PGP_OPTION_RETRY);
}
END_TEST

/* --- secrets ---------------------------------------------------------------- */

/* Neither the text nor a complaint shows "s3cr3t". */
static const char *const with_secret[] = {
    /* valid */
    "host=db password=s3cr3t",
    "host=db password='s3cr3t'",
    "host=db password = 's3cr3t' dbname=app",
    "password='it''s s3cr3t'",
    "password='it\\'s s3cr3t'",
    "host=db sslpassword=s3cr3t",
    "postgresql://ann:s3cr3t@db/app",
    "postgres://ann:s3cr3t@db:5432/app?sslmode=require",
    "postgresql://db/app?password=s3cr3t&user=ann",
    "postgresql://db/app?user=ann&sslpassword=s3cr3t",
    "postgresql://ann:%73s3cr3t%21@[::1]/app",
    "postgresql://ann:s3cr3t@db1:1,db2:2/app",
    /* invalid, or a secret in a wrong place */
    "s3cr3t",
    "host=db s3cr3t",
    "host=db password s3cr3t",
    "host=db pasword=s3cr3t",
    "host=db password=a s3cr3t",
    "host=db password=a s3cr3t=b",
    "host=db password='s3cr3t",
    "host=db password='a\"s3cr3t\"b' c\"s3cr3t\"d",
    "password=a\ns3cr3t",
    "password='a\ns3cr3t",
    "s3cr3t\"quoted\"s3cr3t=1",
    "postgresql://ann:s3cr3t%zz@db/app",
    "postgresql://ann:s3cr3t%00@db/app",
    "postgresql://ann:s3cr3t@db:port/app",
    "postgresql://ann:s3cr3t@[::1/app",
    "postgresql://ann:s3cr3t@[]/app",
    "postgresql://ann:s3cr3t@[::1]x/app",
    "postgresql://ann:a/s3cr3t@db/app",
    "postgresql://ann:a@s3cr3t@db/app",
    "postgresql://ann:12/s3cr3t@db/app",
    "postgresql://ann:12?s3cr3t@db/app",
    "postgresql://ann:a#s3cr3t@db/app",
    "postgresql://ann:a?s3cr3t@db/app",
    "postgresql://ann:s3cr3t@db/app?nonsense=1",
    "postgresql://ann:s3cr3t@db/app?password",
    "postgresql://db/app?s3cr3t",
    "postgresql://db/app?pasword=s3cr3t",
    "postgresql://db/app?password=s3cr3t=1",
    "postgresql://db/app?password=%zzs3cr3t",
    "dbname=postgresql://ann:s3cr3t@db/app",
    "dbname='host=db password=s3cr3t'",
    "host='postgresql://ann:s3cr3t@db/app'",
    "http://ann:s3cr3t@db/app",
    "postgresql:/ann:s3cr3t@db/app",
    "jdbc:postgresql://db/app?user=ann&password=s3cr3t",
};

START_TEST(secret_is_not_shown)
{
    pgp_settings *settings = pgp_settings_make(p);
    const char *argv[] = {with_secret[_i]};
    const char *wrong = pgp_settings_set(settings, p, PGP_OPTION_CONNINFO, 1, argv, "t:1");
    const char *shown = wrong ? wrong : text_of(settings, PGP_OPTION_CONNINFO);

    ck_assert_msg(!strstr(shown, "s3cr3t"), "of \"%s\" is shown: %s", with_secret[_i], shown);
    ck_assert_msg(!wrong || !strncmp(wrong, "PgPoolConninfo takes a libpq ", 29), "%s", wrong);
}
END_TEST

START_TEST(arguments_too_many_are_not_shown)
{
    pgp_settings *settings = pgp_settings_make(p);
    const char *wrong = set(settings, PGP_OPTION_CONNINFO, "host=db password=s3cr3t");

    ck_assert_str_eq(wrong, "PgPoolConninfo takes one argument (a libpq connection string or "
                            "URI)");
}
END_TEST

START_TEST(all_but_the_secret_is_shown)
{
    pgp_settings *settings = pgp_settings_make(p);
    const char *argv[] = {"user=ann password=s3cr3t dbname='my app' host='' port=5433 "
                          "application_name='it\\'s \\\\ mine'"};

    ck_assert_ptr_null(pgp_settings_set(settings, p, PGP_OPTION_CONNINFO, 1, argv, "t:1"));
    ck_assert_str_eq(text_of(settings, PGP_OPTION_CONNINFO),
                     "user=ann password=*** dbname='my app' host='' port=5433 "
                     "application_name='it\\'s \\\\ mine'");
}
END_TEST

static void add_reading(TCase *t)
{
    tcase_add_loop_test(t, good_value_is_taken, 0, LENGTH(good));
    tcase_add_loop_test(t, text_is_a_value, 0, LENGTH(good));
    tcase_add_test(t, never_is_never);
    tcase_add_loop_test(t, bad_value_is_refused, 0, LENGTH(bad));
    tcase_add_test(t, ranges_are_inclusive);
    tcase_add_test(t, init_sql_repeats);
}

static void add_layers(TCase *t)
{
    tcase_add_test(t, overlay_copies_what_was_set);
    tcase_add_loop_test(t, overlay_carries_each_option, 0, LENGTH(good));
    tcase_add_loop_test(t, equal_unless_one_option_differs, 0, LENGTH(good));
    tcase_add_test(t, init_sql_is_compared);
    tcase_add_test(t, min_is_not_more_than_max);
    tcase_add_test(t, first_wait_is_not_longer_than_the_greatest);
}

static TCase *with_pool(TCase *t)
{
    tcase_add_checked_fixture(t, pool_begin, NULL);
    return t;
}

int main(void)
{
    Suite *suite = suite_create("settings");
    TCase *t = with_pool(tcase(suite, "table"));

    tcase_add_test(t, defaults_are_as_documented);
    tcase_add_test(t, options_do_not_overlap);
    add_reading(with_pool(tcase(suite, "reading")));
    add_layers(with_pool(tcase(suite, "layers")));
    t = with_pool(tcase(suite, "secrets"));
    tcase_add_loop_test(t, secret_is_not_shown, 0, LENGTH(with_secret));
    tcase_add_test(t, arguments_too_many_are_not_shown);
    tcase_add_test(t, all_but_the_secret_is_shown);
    return suite_run(suite);
}
