/*
 * Tells whether a request's client is still there (mod_pgpool_client.h).
 */
#include "mod_pgpool_client.h"

#include <apr_portable.h>
#include <http_core.h>

#include "core/pgp_settings.h"

/* How often the mark of an HTTP/2 stream is looked at. */
#define LOOK_STEP PGP_MS(100)

#define HANG_UP (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)

pgpool_client pgpool_client_watch(const request_rec *r, bool is_watched)
{
    conn_rec *c = r->connection;
    pgpool_client client = {.connection = is_watched ? c : NULL,
                            .socket = {.fd = -1, .events = POLLRDHUP}};
    apr_socket_t *socket = is_watched && !c->master ? ap_get_conn_socket(c) : NULL;

    if (socket)
        apr_os_sock_get(&client.socket.fd, socket);
    return client;
}

apr_interval_time_t pgpool_client_patience(const pgpool_client *client)
{
    return client->connection && client->socket.fd < 0 ? LOOK_STEP : PGP_NEVER;
}

bool pgpool_client_has_gone(const pgpool_client *client)
{
    return client->connection &&
           (client->connection->aborted || (client->socket.revents & HANG_UP));
}

/* httpd takes ErrorDocument 500 for a status that it has no words for, such as 499: an empty
 * text stands in its place. */
void pgpool_client_stop_output(request_rec *r)
{
    r->connection->aborted = 1;
    ap_custom_response(r, HTTP_INTERNAL_SERVER_ERROR, "");
}
