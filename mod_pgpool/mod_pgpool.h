/**
 * mod_pgpool: PostgreSQL connections for the handlers of an Apache httpd.
 *
 * Model.  Each httpd child keeps named pools of libpq connections.  A handler
 * asks for a connection when it needs one and gets a plain PGconn, pinned to
 * its request: every further ask in the same request, in its subrequests,
 * after its internal redirects and in its ErrorDocument gives the same one.
 * Asks from different requests never share one.
 *
 * Ownership.  The PGconn belongs to the pool; the handler borrows it.  Never
 * call PQfinish() or PQreset() on it, never keep it beyond the request, and
 * never pass it to another thread while the request's own thread uses it.  It
 * goes back by itself when the request ends, whatever its outcome; an open or
 * failed transaction is rolled back then, so commit what is to stay.  The
 * connection is in autocommit mode, as libpq's are: say BEGIN for more.
 * client_encoding is UTF8 whatever the database's encoding is; what you set it to is undone at
 * return.  An event procedure (PQregisterEventProc) cannot be taken off again: it would stay
 * for all later borrowers, as long as the connection lives, so register none. What was set in
 * libpq (notice receiver and processor, verbosity, trace, nonblocking and pipeline mode) is
 * taken back as well.  Who puts back the receiver or the processor that was there before his
 * own does it with NULL as its argument, and never calls it.
 *
 * Too late.  The connection has gone back before the cleanups of r->pool run,
 * before log_transaction, and before a lazy bucket is read that the handler left in
 * its output: none of them may use the PGconn.  By then it may be another request's.
 * What they need, the handler copies first (a PGresult stays yours).  In builds with
 * a sanitizer mod_pgpool aborts if it sees a statement on a connection that nobody
 * has borrowed.
 *
 * Identity.  A statement runs with the settings (PgPoolSet) of the innermost running
 * request that acquired the connection, as of its last pgpool_acquire().  When a
 * subrequest or redirected request ends, those of the outer one are back before its
 * handler goes on; if that cannot be, because of an open transaction or an
 * unfinished query, the connection is cut off, and the next acquire says
 * PGPOOL_ELOST.  Acquire anew in each hook and after authentication: it costs nothing
 * if nothing has changed.  An acquire also sets again what your own DISCARD ALL, RESET,
 * SET, DO or CALL may have undone.
 *
 * Threads.  Every function may be called on any thread of a child, but the
 * functions that take a request_rec only on the thread that works on that
 * request.  None may be called in another process than that child, be it the parent
 * or one that a handler has forked: there they fail with PGPOOL_ESTOPPING or do
 * nothing.  Such a process must not use the PGconn either.
 *
 * Errors.  A function that can fail returns one of the PGPOOL_E codes below;
 * the cause (SQLSTATE, the server's words, the time waited) is in the error log
 * and in the note "pgpool-error" of the request.  A handler usually ends with
 * `return pgpool_http_status(r, rv);`.
 *
 * Everything is an APR optional function, so a module that uses them loads
 * whether or not mod_pgpool is there.  Look them up once, in an
 * optional_fn_retrieve hook:
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

/** The version of this header, for what a module asks at build time: major * 10000 + minor
 *  * 100 + patch.  A major version may change or drop what is here, a minor one adds. */
#define PGPOOL_VERSION_NUM 900
/** The same in words; the log's first line has that of the module which runs. */
#define PGPOOL_VERSION "0.9.0"

/** All connections stayed lent until PgPoolAcquireTimeout.  HTTP 503. */
#define PGPOOL_EEXHAUSTED (APR_OS_START_USERERR + 7301)
/** The server cannot be reached or refuses us, a hook refused, or PgPoolSet could not be
 *  applied.  HTTP 503. */
#define PGPOOL_EUNAVAIL (APR_OS_START_USERERR + 7302)
/** This request's pinned connection died.  Whatever was not committed is gone, and
 *  the old PGconn is of no use; the next acquire gives another.  HTTP 503. */
#define PGPOOL_ELOST (APR_OS_START_USERERR + 7303)
/** No pool of that name is configured for this server.  HTTP 500. */
#define PGPOOL_ENOPOOL (APR_OS_START_USERERR + 7304)
/** This child is going away and gives out no more connections, or this process is not the
 *  child that has them.  HTTP 503. */
#define PGPOOL_ESTOPPING (APR_OS_START_USERERR + 7305)

/**
 * Borrow a connection for the request, or get again the one it has.
 *
 * May block up to PgPoolAcquireTimeout.  A request that failed is answered the
 * same for the next second without waiting again; ELOST is said once.
 *
 * @param r     any request of the family; the pin sits on the initial one
 * @param pool  the pool's name; NULL: the directory's PgPoolUse, else "default"
 * @param conn  set on success only; borrowed until pgpool_release() or the
 *              request's end
 * @return APR_SUCCESS, PGPOOL_EEXHAUSTED, PGPOOL_EUNAVAIL, PGPOOL_ELOST,
 *         PGPOOL_ENOPOOL or PGPOOL_ESTOPPING
 */
APR_DECLARE_OPTIONAL_FN(apr_status_t, pgpool_acquire,
                        (request_rec *r, const char *pool, PGconn **conn));

/**
 * Give the request's connection back before the request ends.  Never blocks on
 * the network.  Do it before writing a large response: the reader may be slow.
 *
 * After it the old PGconn is not yours, in no part of the request (a subrequest
 * that releases takes it from its main request, too); results (PGresult) stay
 * yours.  The next acquire is a new pin.  Without a pin it does
 * nothing.
 *
 * @param pool  as in pgpool_acquire()
 */
APR_DECLARE_OPTIONAL_FN(void, pgpool_release, (request_rec *r, const char *pool));

/**
 * Borrow a connection without a request, e.g. in a thread of your own.
 *
 * @param s     the server whose pools are meant
 * @param pool  the pool's name; NULL: the server's PgPoolUse, else "default"
 * @param p     the lease ends when this pool is cleared or destroyed, if
 *              pgpool_close() did not end it before; only this thread may use
 *              p during the call
 * @param conn  set on success only
 * @return as pgpool_acquire(), but never PGPOOL_ELOST
 */
APR_DECLARE_OPTIONAL_FN(apr_status_t, pgpool_open,
                        (server_rec *s, const char *pool, apr_pool_t *p, PGconn **conn));

/**
 * Give back what pgpool_open() gave, on the thread that owns its apr_pool_t.
 * Never blocks on the network.  NULL is ignored.
 */
APR_DECLARE_OPTIONAL_FN(void, pgpool_close, (PGconn *conn));

/**
 * The HTTP status for a status of pgpool_acquire(): OK for APR_SUCCESS, else
 * 503 or 500 as the codes say (500 for codes that are not ours).  Sets
 * Retry-After on a 503.
 */
APR_DECLARE_OPTIONAL_FN(int, pgpool_http_status, (request_rec *r, apr_status_t rv));

/** One line of English for a status; a constant, never NULL. */
APR_DECLARE_OPTIONAL_FN(const char *, pgpool_strerror, (apr_status_t rv));

/**
 * @defgroup hooks Hooks
 *
 * Register with APR_OPTIONAL_HOOK(pgpool, connect, fn, NULL, NULL,
 * APR_HOOK_MIDDLE), likewise attach.  All are run, on the thread that asked;
 * each returns OK, DECLINED or an error.  After an error the acquire fails with
 * PGPOOL_EUNAVAIL and the connection is closed.  A hook must leave no
 * transaction open.  What it SETs is undone when the connection goes back: for a
 * connection's life use PgPoolInitSQL.  The settings of PgPoolSet come after the hooks,
 * so that a hook works as the pool's own role and cannot undo them.
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
