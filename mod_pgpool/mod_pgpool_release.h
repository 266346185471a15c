/*
 * The moment when a connection goes back, if its handler has not given it back itself.
 *
 *   request    (default) As soon as the handler has finished.  httpd then sends an
 *              end-of-request bucket down the connection's filters.  The bucket passes long
 *              before a slow client has read the last byte and the request's pool dies.
 *   response   When the response has been generated: its end-of-stream bucket passes the
 *              initial request's protocol filters.
 *   auth       A connection acquired before the first handler goes back when that begins, or
 *              when httpd writes an error instead, so that no connection of authentication or
 *              authorization is held through the response, or while httpd reads the body that
 *              came with a bad password.  A handler's connection goes back as by `request`.
 *              The directory of the initial request decides.
 *
 * The cleanup of a pin (mod_pgpool_pin.h) gives back what all these have missed.
 *
 * Threads.  Both filters run on the thread that works on the request.
 */
#ifndef MOD_PGPOOL_RELEASE_H
#define MOD_PGPOOL_RELEASE_H

#include <httpd.h>

/* Release the pins of a request at its end.  Call it before the request gets its first pin. */
void pgpool_release_at_request_end(request_rec *initial);

/* Call pgpool_pins_release_at_response() at the end of the response that r, of the initial
 * request's family, is a part of. */
void pgpool_release_at_response_end(request_rec *r, request_rec *initial);

#endif
