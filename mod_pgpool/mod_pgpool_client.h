/*
 * Whether a request's client is still there.
 *
 * Model.  A connection of HTTP/1, with TLS or without, is watched by its socket: the kernel
 * says when the other side has closed it.  Bytes that a client sends ahead are no hang-up.  A
 * client that has shut down its sending side and waits for the answer cannot be told from one
 * that has gone: it counts as gone.  A stream of HTTP/2 has no socket; mod_http2 marks its
 * connection when the stream is reset or its client has gone, and the caller has to look now
 * and then.
 *
 * Threads.  The request's.
 */
#ifndef MOD_PGPOOL_CLIENT_H
#define MOD_PGPOOL_CLIENT_H

#include <poll.h>
#include <stdbool.h>
#include <httpd.h>
#include <apr_time.h>

typedef struct {
    conn_rec *connection; /* NULL: it is not watched */
    struct pollfd socket; /* fd -1: it has none to poll */
} pgpool_client;

/* is_watched: whether the caller wants to know that the client hangs up. */
pgpool_client pgpool_client_watch(const request_rec *r, bool is_watched);

/* How long a caller may sleep before it looks again, in microseconds; PGP_NEVER: as long as it
 * likes, if it polls client->socket. */
apr_interval_time_t pgpool_client_patience(const pgpool_client *client);

/* Whether it has gone; socket.revents has what poll() said, or 0. */
bool pgpool_client_has_gone(const pgpool_client *client);

/* Write nothing more to a client that has gone. */
void pgpool_client_stop_output(request_rec *r);

#endif
