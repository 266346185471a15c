/*
 * The checks of the core on itself.
 *
 *   assert()      cheap, and in every build: a child that goes on with a broken pool would lend
 *                 one request's session to another.
 *   PGP_CHECK()   dear; evaluated only by builds with SANITIZE= (they define PGP_CHECKED).
 */
#ifndef PGP_CHECK_H
#define PGP_CHECK_H

#include <assert.h>

#ifdef PGP_CHECKED
#define PGP_CHECK(holds) assert(holds)
#else
#define PGP_CHECK(holds) ((void)0)
#endif

#endif
