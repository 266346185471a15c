/*
 * The settings of a pool, and the one table that defines them.
 *
 * Model.  PGP_OPTIONS has one entry for each option: its directive, its field, its kind, its
 * default and its range.  Parsing, defaults, inheritance, comparison, the dump and the test of
 * conf/reference.conf all run over that list.
 *
 * A pgp_settings may be sparse: `set` has a bit for each option that the operator has set in
 * this scope, and `origin` tells where (file:line).  pgp_settings_overlay() puts an inner scope
 * over an outer one.  The outermost is pgp_settings_defaults(), in which every option has a
 * value; settings that were laid over it are complete.
 *
 * Ownership.  The memory comes from the apr_pool_t of the caller.  Settings never change once a
 * pool runs with them.
 *
 * Threads.  Any thread may read; one thread at a time may change settings.
 */
#ifndef PGP_SETTINGS_H
#define PGP_SETTINGS_H

#include <stdbool.h>
#include <apr_pools.h>
#include <apr_tables.h>
#include <apr_time.h>

/* A time that never comes: PgPoolPing off, PgPoolIdleTimeout 0. */
#define PGP_NEVER APR_INT64_C(-1)

/* The form of an option's arguments, and the C type of its field. */
typedef enum {
    PGP_KIND_CONNINFO,    /* const char *: checked by libpq */
    PGP_KIND_NUMBER,      /* int */
    PGP_KIND_TIME,        /* apr_interval_time_t, in microseconds */
    PGP_KIND_TIME_NEVER,  /* the same; 0 is PGP_NEVER */
    PGP_KIND_TIME_OR_OFF, /* the same; the word "off" is PGP_NEVER */
    PGP_KIND_BACKOFF,     /* pgp_backoff: two times */
    PGP_KIND_RESET,       /* pgp_reset: one word */
    PGP_KIND_PASSWORD,    /* apr_array_header_t * of const char *: see pgp_password.h */
    PGP_KIND_SQL_LIST     /* apr_array_header_t * of const char *: may repeat */
} pgp_kind;

/* The first and the greatest wait between attempts to connect. */
typedef struct {
    apr_interval_time_t first, most;
} pgp_backoff;

/* How much a return undoes, besides an open transaction. */
typedef enum {
    PGP_RESET_SESSION,     /* everything but prepared statements and plans */
    PGP_RESET_ALL,         /* everything */
    PGP_RESET_AUTO,        /* as SESSION, if the lease is seen to have changed something */
    PGP_RESET_TRANSACTION, /* nothing more */
    PGP_RESET_CLOSE        /* the connection is closed */
} pgp_reset;

#define PGP_MS(n) (APR_INT64_C(1000) * (n))
#define PGP_SEC(n) (PGP_MS(1000) * (n))
#define PGP_DAY PGP_SEC(86400)

/* X(identifier, field, directive, kind, default, least, greatest, help).  The range of a time
 * is in microseconds. */
#define PGP_OPTIONS(X)                                                                         \
    X(CONNINFO, conninfo, "PgPoolConninfo", PGP_KIND_CONNINFO, NULL, 0, 0,                     \
      "a libpq connection string or URI")                                                      \
    X(PASSWORD, password, "PgPoolPassword", PGP_KIND_PASSWORD, NULL, 0, 0,                     \
      "file:/path, or exec:/path and arguments: read anew for each connect")                   \
    X(MIN, min, "PgPoolMin", PGP_KIND_NUMBER, "2", 0, 10000,                                   \
      "connections kept open in each child")                                                   \
    X(MAX, max, "PgPoolMax", PGP_KIND_NUMBER, "32", 1, 10000,                                  \
      "connections at most in each child")                                                     \
    X(TOTAL_MAX, total_max, "PgPoolTotalMax", PGP_KIND_NUMBER, "80", 0, 1000000,               \
      "connections at most over all children of this httpd; 0 = no such cap")                  \
    X(SERVER_MAX, server_max, "PgPoolServerMax", PGP_KIND_NUMBER, "0", 0, 1000000,             \
      "connections at most to this pool's server, over all pools and children; 0 = no such "   \
      "cap")                                                                                   \
    X(ACQUIRE_TIMEOUT, acquire_timeout, "PgPoolAcquireTimeout", PGP_KIND_TIME, "2s", 0,        \
      PGP_DAY, "how long an acquire may take in all; 0 = fail at once")                        \
    X(MAX_WAITERS, max_waiters, "PgPoolMaxWaiters", PGP_KIND_NUMBER, "0", 0, 100000,           \
      "requests that may wait in a child; 0 = no limit")                                       \
    X(CONNECT_TIMEOUT, connect_timeout, "PgPoolConnectTimeout", PGP_KIND_TIME, "3s",           \
      PGP_MS(10), PGP_DAY, "one attempt to connect, over all hosts")                           \
    X(RETRY, retry, "PgPoolRetry", PGP_KIND_BACKOFF, "100ms 5s", PGP_MS(1), PGP_DAY,           \
      "first and greatest wait between attempts to connect")                                   \
    X(PING, ping, "PgPoolPing", PGP_KIND_TIME_OR_OFF, "30s", 0, PGP_DAY,                       \
      "a round trip before giving out one that was idle this long; 0 = always; or off")        \
    X(CHECK_TIMEOUT, check_timeout, "PgPoolCheckTimeout", PGP_KIND_TIME, "1s", PGP_MS(1),      \
      PGP_DAY, "deadline of a ping or a rollback")                                             \
    X(IDLE_TIMEOUT, idle_timeout, "PgPoolIdleTimeout", PGP_KIND_TIME_NEVER, "5min", 0,         \
      PGP_DAY * 365, "close what was idle this long, down to PgPoolMin; 0 = never")            \
    X(MAX_LIFETIME, max_lifetime, "PgPoolMaxLifetime", PGP_KIND_TIME_NEVER, "30min", 0,        \
      PGP_DAY * 365, "close what is older, less 0-20 % at random; 0 = never")                  \
    X(RESET, reset, "PgPoolReset", PGP_KIND_RESET, "session", 0, 0,                            \
      "what a return undoes: session, all, auto, transaction or close")                        \
    X(STATEMENTS, statements, "PgPoolStatements", PGP_KIND_NUMBER, "100", 0, 1000,             \
      "statements of pgpool_query kept prepared on each connection; 0 = none is prepared")     \
    X(HOLD_WARNING, hold_warning, "PgPoolHoldWarning", PGP_KIND_TIME_NEVER, "30s", 0, PGP_DAY, \
      "log who holds a connection longer; 0 = never")                                          \
    X(INIT_SQL, init_sql, "PgPoolInitSQL", PGP_KIND_SQL_LIST, NULL, 0, 0,                      \
      "run on each new connection; may repeat")

#define PGP_OPTION_ID(id, ...) PGP_OPTION_##id,
typedef enum { PGP_OPTIONS(PGP_OPTION_ID) PGP_OPTION_COUNT } pgp_option_id;
#undef PGP_OPTION_ID

typedef struct {
    const char *name; /* the directive */
    pgp_kind kind;
    size_t offset, size;   /* the field in pgp_settings */
    const char *initial;   /* as an operator would write it; NULL: nothing */
    apr_int64_t low, high; /* inclusive */
    const char *help;
} pgp_option;

extern const pgp_option pgp_options[PGP_OPTION_COUNT];

typedef struct {
    const char *conninfo;         /* NULL: no pool */
    apr_array_header_t *password; /* of const char *: its source; NULL: none */
    int min, max, total_max, server_max, max_waiters, statements;
    apr_interval_time_t acquire_timeout, connect_timeout, check_timeout;
    apr_interval_time_t ping;                                     /* or PGP_NEVER */
    apr_interval_time_t idle_timeout, max_lifetime, hold_warning; /* or PGP_NEVER */
    pgp_backoff retry;
    pgp_reset reset;
    apr_array_header_t *init_sql; /* of const char *; NULL: none */

    /* made from the others by pgp_pq_reset_compose(), when the settings are complete */
    const char *reset_all, *reset_session, *reset_prepared; /* see pgp_pq_reset.h */
    const char *undo_begin, *undo_end; /* before and after the undoing of variables */

    unsigned set;                         /* 1u << pgp_option_id */
    const char *origin[PGP_OPTION_COUNT]; /* "file:line", or NULL for a default */
} pgp_settings;

/* Settings with nothing set. */
pgp_settings *pgp_settings_make(apr_pool_t *p);

/* Settings with every option at its default. */
pgp_settings *pgp_settings_defaults(apr_pool_t *p);

/* Set one option from a directive's arguments.  Returns NULL, or a text that tells what is
 * wrong and what would be right.  The text has no part of a connection string, which may hold a
 * secret. */
const char *pgp_settings_set(pgp_settings *settings, apr_pool_t *p, pgp_option_id id, int argc,
                             const char *const *argv, const char *origin);

/* Copy the options that are set in `over` to `base`. */
void pgp_settings_overlay(pgp_settings *base, const pgp_settings *over);

/* Whether two complete settings define the same pool, wherever they were written. */
bool pgp_settings_equal(const pgp_settings *a, const pgp_settings *b);

/* Check the rules between options of complete settings.  Returns NULL, or a text that tells
 * what is wrong; *culprit is then the option whose origin the caller should name. */
const char *pgp_settings_check(const pgp_settings *settings, apr_pool_t *p,
                               pgp_option_id *culprit);

/* An option's value as an operator would write it, with "***" for each password; NULL if it has
 * no value. */
const char *pgp_option_text(const pgp_settings *settings, apr_pool_t *p, pgp_option_id id);

#endif
