/*
 * Text from outside (a server's words, a client's address), made fit for logs, headers and
 * pages.
 */
#ifndef PGP_TEXT_H
#define PGP_TEXT_H

/* Afterwards the text is valid UTF-8 without control characters: each of these has become a
 * blank, each other byte that is none of UTF-8's a "?".  In place; the length stays. */
void pgp_text_clean(char *text);

#endif
