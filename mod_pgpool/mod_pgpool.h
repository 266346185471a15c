/**
 * mod_pgpool: PostgreSQL connections for the handlers of an Apache httpd.
 *
 * Model.  Each httpd child keeps named pools of libpq connections.  A handler acquires a
 * connection when it needs one and gets a plain PGconn, pinned to its request: every further
 * acquire in the same request, in its subrequests, after its internal redirects and in its
 * ErrorDocument gives the same PGconn.  Different requests never share one.
 *
 * Ownership.  The PGconn belongs to the pool; the handler borrows it.  Never call PQfinish() or
 * PQreset() on it, never keep it beyond the request, and never pass it to another thread while
 * the request's own thread uses it.  The connection goes back by itself when the request ends,
 * whatever its outcome.  The pool then rolls back an open or failed transaction, so commit what
 * is to stay.  The connection is in autocommit mode, as libpq's are; BEGIN starts a
 * transaction.
 *
 * Session.  client_encoding is UTF8, whatever the database's encoding is; at return the pool
 * undoes another value.  It also undoes what you set in libpq: notice receiver and processor,
 * verbosity, trace, nonblocking and pipeline mode.  To put an earlier notice receiver or
 * processor back yourself, set it with NULL as its argument, and never call it.  Register no
 * event procedure (PQregisterEventProc): libpq cannot take it off again, so it would stay for
 * all later borrowers of the connection.
 *
 * Too late.  The connection has gone back before the cleanups of r->pool run, before
 * log_transaction, and before httpd reads a lazy bucket that the handler left in its output.
 * None of them may use the PGconn: another request may have it by then.  The handler copies
 * what they need (a PGresult stays yours).  In builds with a sanitizer mod_pgpool aborts if it
 * sees a statement on a connection that nobody has borrowed.
 *
 * Identity.  A statement runs with the settings (PgPoolSet) of the innermost running request
 * that acquired the connection, as of its last pgpool_acquire().  When a subrequest or
 * redirected request ends, the settings of the outer request are back before its handler goes
 * on.  If an open transaction or an unfinished query prevents that, the connection is shut
 * down, and the next acquire returns PGPOOL_ELOST.  While an inner request runs with other
 * settings, an acquire for the outer one, in a filter for example, returns PGPOOL_EUNAVAIL.
 * Acquire anew in each hook and after authentication: that costs nothing if nothing has
 * changed.  An acquire also sets again what your own DISCARD ALL, RESET, SET, DO or CALL may
 * have undone.
 *
 * Threads.  Every function may be called on any thread of a child, but a function that takes a
 * request_rec only on the thread that works on that request.  In another process than that
 * child, be it the parent or a fork that a handler has made, the functions fail with
 * PGPOOL_ESTOPPING or do nothing.  Such a process must not use the PGconn either.
 *
 * Errors.  A function that can fail returns one of the PGPOOL_E codes below.  The error log and
 * the request's note "pgpool-error" tell the cause: the SQLSTATE, the server's words, the time
 * waited.  A handler usually ends with `return pgpool_http_status(r, rv);`.
 *
 * Everything is an APR optional function, so a module that uses them loads with or without
 * mod_pgpool.  Look them up once, in an optional_fn_retrieve hook:
 *
 *     static APR_OPTIONAL_FN_TYPE(pgpool_acquire) *acquire;
 *     ...
 *     acquire = APR_RETRIEVE_OPTIONAL_FN(pgpool_acquire);
 *
 * mod_pgpool_query.c is a complete example.
 */
#ifndef MOD_PGPOOL_H
#define MOD_PGPOOL_H

#include <httpd.h>
#include <apr_errno.h>
#include <apr_hooks.h>
#include <apr_optional.h>
#include <apr_optional_hooks.h>
#include <libpq-fe.h>

/** The version of this header, for checks at build time: major * 10000 + minor * 100 + patch. A
 *  major version may change or drop functions, a minor one adds some. */
#define PGPOOL_VERSION_NUM 900
/** The same as text.  The first line of the log has the version of the module that runs. */
#define PGPOOL_VERSION "0.9.0"

/** All connections stayed in use until PgPoolAcquireTimeout.  HTTP 503. */
#define PGPOOL_EEXHAUSTED (APR_OS_START_USERERR + 7301)
/** The server cannot be reached or rejects us, a hook or PgPoolSet has failed, or the request
 *  has a query under way.  HTTP 503, or 400 for a bad value of PgPoolSet. */
#define PGPOOL_EUNAVAIL (APR_OS_START_USERERR + 7302)
/** This request's pinned connection died.  Uncommitted work is lost, and the old PGconn is of
 * no use; the next acquire gives another one.  HTTP 503. */
#define PGPOOL_ELOST (APR_OS_START_USERERR + 7303)
/** No pool of that name is configured for this server.  HTTP 500. */
#define PGPOOL_ENOPOOL (APR_OS_START_USERERR + 7304)
/** This child is going away and gives out no more connections, or this process is not the child
 *  that has the pools.  HTTP 503. */
#define PGPOOL_ESTOPPING (APR_OS_START_USERERR + 7305)
/** The server refused the statement of pgpool_query().  The HTTP status depends on the
 * SQLSTATE: a bad value is 400, a duplicate 409, a lack of privilege 403, an error that may be
 * gone at the next try 503, a statement cancelled by the server 504, PTxyz is xyz (400 to 599),
 * anything else 500. */
#define PGPOOL_ESTATEMENT (APR_OS_START_USERERR + 7306)
/** The statement of pgpool_query() had not ended after PgPoolStatementTimeout.  HTTP 504. */
#define PGPOOL_ETIMEDOUT (APR_OS_START_USERERR + 7307)
/** The client has hung up, so the statement of pgpool_query() was given up (PgPoolAbort).
 *  The handler's output goes nowhere; the access log shows 499. */
#define PGPOOL_EABORTED (APR_OS_START_USERERR + 7308)

/**
 * Borrow a connection for the request, or get again the one that it has.
 *
 * May block up to PgPoolAcquireTimeout.  If the pool gave no connection, the request's further
 * acquires fail with the same status for a second, without another wait.  PGPOOL_ELOST is
 * returned once.
 *
 * @param r     any request of a family (an initial request with its subrequests
 *              and internal redirects); the pin belongs to the initial one
 * @param pool  the pool's name; NULL: the directory's PgPoolUse, else "default"
 * @param conn  set on success only; borrowed until pgpool_release() or the
 *              request's end
 * @return APR_SUCCESS, PGPOOL_EEXHAUSTED, PGPOOL_EUNAVAIL, PGPOOL_ELOST,
 *         PGPOOL_ENOPOOL or PGPOOL_ESTOPPING
 */
APR_DECLARE_OPTIONAL_FN(apr_status_t, pgpool_acquire,
                        (request_rec *r, const char *pool, PGconn **conn));

/**
 * Give the request's connection back before the request ends.  Never blocks on the network.
 * Call it before you write a large response: the client may be slow.
 *
 * Afterwards no part of the request may use the old PGconn: a subrequest that releases takes it
 * from its main request, too.  Results (PGresult) stay yours.  The next acquire is a new pin.
 * Without a pin the call does nothing.
 *
 * @param pool  as in pgpool_acquire()
 */
APR_DECLARE_OPTIONAL_FN(void, pgpool_release, (request_rec *r, const char *pool));

/**
 * Borrow a connection without a request, e.g. in a thread of your own.  No PgPoolSet applies to
 * it: its statements run as the pool's own role.
 *
 * @param s     the server that has the pool
 * @param pool  the pool's name; NULL: the server's PgPoolUse, else "default"
 * @param p     the lease ends when this APR pool is cleared or destroyed, if
 *              pgpool_close() did not end it before; only the calling thread
 *              may use p during the call
 * @param conn  set on success only
 * @return as pgpool_acquire(), but never PGPOOL_ELOST
 */
APR_DECLARE_OPTIONAL_FN(apr_status_t, pgpool_open,
                        (server_rec *s, const char *pool, apr_pool_t *p, PGconn **conn));

/**
 * Give back a connection of pgpool_open(), on the thread that owns its apr_pool_t.  Never
 * blocks on the network.  NULL is ignored.
 */
APR_DECLARE_OPTIONAL_FN(void, pgpool_close, (PGconn *conn));

/** A statement for pgpool_query(). */
typedef struct {
    const char *sql; /**< one statement, with $1 ... $nparams */
    int nparams;
    const Oid *types;  /**< nparams of them; NULL: the server infers them */
    int result_format; /**< 0 text, 1 binary */
} pgpool_statement;

/** Its values: nparams of each; NULL instead of the struct if there are none. */
typedef struct {
    const char *const *values; /**< NULL entries are nulls; text is UTF-8 */
    const int *lengths;        /**< of the binary ones, in bytes; NULL: all are text */
    const int *formats;        /**< 0 text, 1 binary; NULL: all are text */
} pgpool_params;

/**
 * Takes rows of pgpool_query_rows(), on the request's thread.  The statement is still under
 * way: the function must not use or release the pool's connection.
 *
 * @param rows  one or more rows; a result without a row comes once, for its columns.  Cleared
 *              after the return.
 * @return APR_SUCCESS; anything else ends the statement, and is what pgpool_query_rows()
 * returns
 */
typedef apr_status_t (*pgpool_row_fn)(void *baton, const PGresult *rows);

/**
 * Run one statement for the request, on its connection.
 *
 * Acquires as pgpool_acquire() does; the connection stays pinned afterwards.  The statement is
 * prepared once on each connection (PgPoolStatements).  The thread waits for the statement's
 * end.  When PgPoolStatementTimeout has passed or the client has hung up (PgPoolAbort), the
 * function returns at once, and the statement is cancelled.  If the request had the connection
 * before this call, its transaction is lost then, it must not use the PGconn any more, and its
 * next acquire returns PGPOOL_ELOST.
 *
 * A statement that may have done something is never executed twice.  Outside of a transaction,
 * a statement that the server refuses to execute because of how it was prepared is prepared
 * again and executed.
 *
 * @param pool    as in pgpool_acquire()
 * @param params  NULL: there are none
 * @param result  the result; with PGPOOL_ESTATEMENT its error; otherwise NULL.  The request's
 *                pool clears it.
 * @return APR_SUCCESS (with or without rows), PGPOOL_ESTATEMENT, PGPOOL_ETIMEDOUT,
 *         PGPOOL_EABORTED, PGPOOL_ELOST if the connection was lost meanwhile, PGPOOL_EUNAVAIL
 *         also if the request has a query under way, or what pgpool_acquire() returns
 */
APR_DECLARE_OPTIONAL_FN(apr_status_t, pgpool_query,
                        (request_rec *r, const char *pool, const pgpool_statement *st,
                         const pgpool_params *params, PGresult **result));

/**
 * The same, with the rows handed to a function as they come, so that a large result needs
 * little memory.  fn may have been called before the statement fails.
 *
 * @return as pgpool_query(), or what fn has returned
 */
APR_DECLARE_OPTIONAL_FN(apr_status_t, pgpool_query_rows,
                        (request_rec *r, const char *pool, const pgpool_statement *st,
                         const pgpool_params *params, pgpool_row_fn fn, void *baton));

/**
 * The HTTP status for a status of these functions: OK for APR_SUCCESS, else the one that the
 * code's comment names (500 for codes that are not ours).  After PGPOOL_ESTATEMENT it is that
 * of the request's last statement; after PGPOOL_EUNAVAIL it is 400 if a value of PgPoolSet has
 * characters that the server cannot take.  Sets Retry-After on a 503.
 */
APR_DECLARE_OPTIONAL_FN(int, pgpool_http_status, (request_rec *r, apr_status_t rv));

/** One line of English for a status; a constant, never NULL. */
APR_DECLARE_OPTIONAL_FN(const char *, pgpool_strerror, (apr_status_t rv));

/**
 * @defgroup hooks Hooks
 *
 * Register with APR_OPTIONAL_HOOK(pgpool, connect, fn, NULL, NULL, APR_HOOK_MIDDLE), likewise
 * attach.  All hooks run, on the thread that acquires; each returns OK, DECLINED or an error.
 * After an error, or if a hook leaves a transaction or a query open, or the connection in
 * another encoding, the acquire fails with PGPOOL_EUNAVAIL, and the connection is closed.  If
 * the connection is lost meanwhile, the hooks run again on another one.  A hook uses the PGconn
 * that it is called with: its own pgpool_acquire() or pgpool_query() for the request returns
 * PGPOOL_EUNAVAIL.  PgPoolReset undoes a hook's SET when the connection goes back;
 * PgPoolInitSQL sets something for a connection's whole life.  The settings of PgPoolSet are
 * applied after the hooks, so a hook works as the pool's own role and cannot undo them.
 * @{
 */
#define PGPOOL_DECLARE(type) type

/** The first time that a new physical connection is given out. */
APR_DECLARE_EXTERNAL_HOOK(pgpool, PGPOOL, int, connect, (const char *pool, PGconn *conn))
/** Each time that a connection is pinned to a request (the initial one). */
APR_DECLARE_EXTERNAL_HOOK(pgpool, PGPOOL, int, attach,
                          (request_rec * r, const char *pool, PGconn *conn))
/** @} */

#endif
