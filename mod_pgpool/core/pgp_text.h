/*
 * Text from outside (a server's words, a client's address), made fit for logs, headers and
 * pages.
 *
 * Threads.  Any.
 */
#ifndef PGP_TEXT_H
#define PGP_TEXT_H

#include <stdbool.h>

/* Make a text valid UTF-8 without control characters, in place: each control character of ASCII
 * becomes a blank, each byte of another one a "?", as does each byte that is not part of a
 * UTF-8 character.  The length stays. */
void pgp_text_clean(char *text);

/* Whether a text is well-formed UTF-8.  It may contain control characters. */
bool pgp_text_is_utf8(const char *text);

#endif
