/*
 * The password file: why it did not help, when the server asked for a password and libpq had
 * none.
 *
 * libpq skips a file that it may not or will not read, and only says that it has no password.
 * The explanation names users by number, because to look up a name may block the keeper.
 */
#ifndef PGP_PASSFILE_H
#define PGP_PASSFILE_H

#include <apr.h>
#include <libpq-fe.h>

/* Write to `words`, of `size` bytes, why the password file did not help this connection: the
 * path, owner and mode of the file, as the user of the process sees them. */
void pgp_passfile_explain(PGconn *conn, char *words, apr_size_t size);

#endif
