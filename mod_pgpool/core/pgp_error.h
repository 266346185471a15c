/*
 * An error of the server's or of libpq's, as a value.
 *
 * The text is valid UTF-8 in one line, without control characters, and never holds a password.
 * A pgp_error has no memory of its own: it is copied by assignment.  Any thread.
 */
#ifndef PGP_ERROR_H
#define PGP_ERROR_H

#include <stdbool.h>

/* Room for an error's text together with its SQLSTATE. */
#define PGP_ERROR_WORDS 280

typedef struct {
    char sqlstate[6];  /* "" where there is none, e.g. connection refused */
    char message[250]; /* "" if there is no error */
    bool absent;       /* nobody listens where the server should be */
    bool own_limit;    /* a CONNECTION LIMIT of the role or database, not max_connections */
} pgp_error;

/* Set the message to a text of libpq's, which may have several lines; longer text is cut.  The
 * other fields stay. */
void pgp_error_set_text(pgp_error *error, const char *text);

/* Print "message (SQLSTATE 57P01)", or the message alone where there is no SQLSTATE.  Returns
 * words. */
const char *pgp_error_print(char words[PGP_ERROR_WORDS], const pgp_error *error);

#endif
