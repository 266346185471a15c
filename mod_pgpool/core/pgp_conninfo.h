/*
 * Connection strings: checked and shown without giving away a secret.
 *
 * Model.  libpq decides what is a connection string (PQconninfoParse) and which of its
 * parameters are secret (PQconninfoOption.dispchar "*" or "D").
 *
 * Ownership and threads.  Each text returned is constant or of the apr_pool_t given.  Any
 * thread that may use that pool.
 */
#ifndef PGP_CONNINFO_H
#define PGP_CONNINFO_H

#include <apr_pools.h>
#include <libpq-fe.h>

/* NULL if the string is good, else what is wrong with it: libpq's complaint; a piece of a
 * password that stands where it would be shown; or a client_encoding other than UTF8.  The
 * complaint leaves out what libpq quotes from the string, since that may be a piece of a
 * password, too. */
const char *pgp_conninfo_check(apr_pool_t *p, const char *conninfo);

/* The string as key=value pairs with "***" for the value of each secret. */
const char *pgp_conninfo_masked(apr_pool_t *p, const char *conninfo);

/* The server that libpq connects to: "host:port", the numeric address if one is given, lists as
 * they are; libpq's defaults where the string says nothing.  "service=name" if a service file
 * tells the host: it is read anew for each connection. */
const char *pgp_conninfo_server(apr_pool_t *p, const char *conninfo);

/* The value of a parameter, which lives as long as the options; NULL if it is not given or is
 * empty.  options may be NULL: then there are no values. */
const char *pgp_conninfo_value(const PQconninfoOption *options, const char *keyword);

/* The string as pairs without the secrets: equal for strings that differ only in secrets.  For
 * comparison, never for libpq. */
const char *pgp_conninfo_identity(apr_pool_t *p, const char *conninfo);

#endif
