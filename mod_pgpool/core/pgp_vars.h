/*
 * Lists of session variables (PgPoolSet): what one borrower wants its session to have.
 *
 * Ownership and threads.  The maker of a list owns it.  Nobody changes it after that, so any
 * thread may read it.
 */
#ifndef PGP_VARS_H
#define PGP_VARS_H

#include <stdbool.h>

typedef struct {
    int n;
    /* n of each: names of letters, digits, "_" and ".", each once, whatever its case; no value
     * is NULL */
    const char *const *names;
    const char *const *values;
} pgp_vars;

/* The value of a name; NULL if the list does not have it.  A NULL list is empty. */
const char *pgp_vars_find(const pgp_vars *vars, const char *name);

/* Whether two lists hold the same names and values, in any order. */
bool pgp_vars_equal(const pgp_vars *a, const pgp_vars *b);

/* Whether the list `all` has all names of the first one. */
bool pgp_vars_within(const pgp_vars *vars, const pgp_vars *all);

/* A copy in one block of memory, for free(). */
pgp_vars *pgp_vars_copy(const pgp_vars *vars);

#endif
