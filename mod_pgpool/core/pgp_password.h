/*
 * A password that is read anew for each connect: from a file, or from the output of a command.
 *
 * Model.  The source is a list: "file:/path" alone, or "exec:/path" and the command's
 * arguments.  The password is its one line, without the end of the line.  An attempt to connect
 * makes a pgp_password, reads it on a thread of its own (pgp_task.h), since file systems and
 * commands may take their time, and frees it as soon as libpq has its copy.
 *
 * Secrecy.  The text stands in one place, which pgp_password_free() wipes.  No error has any
 * part of it.
 *
 * Ownership and threads.  A pgp_password belongs to one thread at a time.  Its source must
 * outlive it.
 */
#ifndef PGP_PASSWORD_H
#define PGP_PASSWORD_H

#include <apr_tables.h>
#include <apr_time.h>

typedef struct pgp_password pgp_password;

/* The fault of a source, or NULL.  The text has no part of it: an operator may have
 * written the password itself. */
const char *pgp_password_check(int n, const char *const *source);

/* source: array of const char *, which pgp_password_check() finds right.  A command is killed,
 * with all that it has started, after `patience`. */
pgp_password *pgp_password_make(const apr_array_header_t *source, apr_interval_time_t patience);
void pgp_password_free(pgp_password *password);

/* Read the source.  Blocks. */
void pgp_password_read(pgp_password *password);

/* Why it could not be read, or NULL; then the text has the password. */
const char *pgp_password_error(const pgp_password *password);
const char *pgp_password_text(const pgp_password *password);

#endif
