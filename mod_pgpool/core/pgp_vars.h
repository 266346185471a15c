/*
 * Lists of session variables (PgPoolSet): what one borrower wants its session to have.
 */
#ifndef PGP_VARS_H
#define PGP_VARS_H

#include <stdbool.h>

typedef struct {
    int n;
    const char *const
        *names; /* of letters, digits, "_" and "."; each once, whatever its case */
    const char *const *values; /* none is NULL */
} pgp_vars;

/* The value of a name; NULL if the list (NULL: an empty one) has it not. */
const char *pgp_vars_find(const pgp_vars *vars, const char *name);

/* Whether two lists say the same, in whatever order. */
bool pgp_vars_equal(const pgp_vars *a, const pgp_vars *b);

/* Whether the second list has all names of the first one. */
bool pgp_vars_within(const pgp_vars *vars, const pgp_vars *all);

/* A copy in one block of memory, for free(). */
pgp_vars *pgp_vars_copy(const pgp_vars *vars);

#endif
