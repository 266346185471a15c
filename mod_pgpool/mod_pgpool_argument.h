/*
 * The arguments that the module's own handlers take in their query strings: words, some with a
 * value ("?json", "?refresh=2").
 */
#ifndef MOD_PGPOOL_ARGUMENT_H
#define MOD_PGPOOL_ARGUMENT_H

#include <httpd.h>

/* The value of an argument as it stands there, without decoding: "" if the word stands alone,
 * NULL if it is not there. */
const char *pgpool_argument_find(request_rec *r, const char *name);

#endif
