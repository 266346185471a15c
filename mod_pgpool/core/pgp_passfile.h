/*
 * The password file, when the server has asked for a password and libpq had none.
 *
 * libpq passes over a file that it may not or will not read, and says only that there is no
 * password.  Users are told by number: to look up a name may block the keeper.
 */
#ifndef PGP_PASSFILE_H
#define PGP_PASSFILE_H

#include <apr.h>
#include <libpq-fe.h>

/* Why the password file has not helped this connection: with its path, owner and mode, as the
 * user that the process runs as sees it. */
void pgp_passfile_explain(PGconn *conn, char *words, apr_size_t size);

#endif
