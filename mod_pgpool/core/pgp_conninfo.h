/*
 * Connection strings: checked and shown without giving away a secret.
 *
 * libpq decides what is a connection string (PQconninfoParse) and which of its
 * parameters are secret (PQconninfoOption.dispchar "*" or "D").
 */
#ifndef PGP_CONNINFO_H
#define PGP_CONNINFO_H

#include <apr_pools.h>

/* NULL if the string is good, else what is wrong: libpq's complaint, that a
 * piece of a password stands where it would be shown, or that it asks for a client_encoding
 * other than UTF8.  What libpq quotes from the string is blanked: it may be such a piece as
 * well. */
const char *pgp_conninfo_check(apr_pool_t *p, const char *conninfo);

/* The string as key=value pairs with every secret as "***". */
const char *pgp_conninfo_masked(apr_pool_t *p, const char *conninfo);

/* Where libpq connects to: "host:port", the numeric address if one is given, lists as they
 * are; libpq's defaults where the string says nothing. */
const char *pgp_conninfo_server(apr_pool_t *p, const char *conninfo);

/* The string as pairs without the secrets: equal for strings that differ in secrets alone.  For
 * comparison, never for libpq. */
const char *pgp_conninfo_identity(apr_pool_t *p, const char *conninfo);

#endif
