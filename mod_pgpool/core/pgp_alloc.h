/*
 * Memory that one owner frees with free().
 *
 * The driver needs it for what lives as long as one connection, which no apr_pool_t does.
 * Any thread; never under a pool's mutex.
 */
#ifndef PGP_ALLOC_H
#define PGP_ALLOC_H

#include <stddef.h>

/* Zeroed memory.  Never NULL: it aborts where there is no memory, as APR does. */
void *pgp_alloc(size_t size);

#endif
