/*
 * The prepared statements of a connection: those that its session has, and their names.
 *
 * Model.  A list, the statement used last at its front.  A statement is known by its text and
 * its parameters' types.  An outdated statement stays on the list, since the session still has
 * it, but find() skips it and it is the first to be dropped.  The list gives each name once in
 * a session, so a statement that the session still has but the list has forgotten does no harm.
 * The list itself does not talk to the server: pgp_pq_run.h prepares, runs and drops
 * statements.
 *
 * Ownership.  The list belongs to its connection and copies all that it keeps.
 *
 * Threads.  The connection's owner.
 */
#ifndef PGP_PQ_STATEMENTS_H
#define PGP_PQ_STATEMENTS_H

#include <stdbool.h>
#include <apr_ring.h>
#include <libpq-fe.h>

/* Two statements are the same if these are equal. */
typedef struct {
    const char *sql;
    int nparams;      /* -1: a text as it is, which may have several statements */
    const Oid *types; /* nparams of them; NULL: the server infers them */
} pgp_pq_statement_key;

typedef struct pgp_pq_statement pgp_pq_statement;

struct pgp_pq_statement {
    APR_RING_ENTRY(pgp_pq_statement) entry;
    pgp_pq_statement_key key; /* its text and types lie behind this struct */
    bool is_outdated;
    char name[24];
};

typedef struct {
    APR_RING_HEAD(pgp_pq_statement_ring, pgp_pq_statement) ring;
    int count;
    unsigned named; /* the number in the last name */
} pgp_pq_statements;

void pgp_pq_statements_init(pgp_pq_statements *list);

/* Find a statement, and move it to the front: it is the one used last.  NULL: it is not on the
 * list, or outdated. */
pgp_pq_statement *pgp_pq_statements_find(pgp_pq_statements *list,
                                         const pgp_pq_statement_key *key);

/* Add a statement that is not on the list, with a new name. */
pgp_pq_statement *pgp_pq_statements_add(pgp_pq_statements *list,
                                        const pgp_pq_statement_key *key);

/* The session has the statement, but cannot execute it any more. */
void pgp_pq_statements_outdate(pgp_pq_statements *list, pgp_pq_statement *statement);

/* The statement to be dropped next: an outdated one, or the one that has not been used for
 * longest.  The list is not empty. */
pgp_pq_statement *pgp_pq_statements_oldest(const pgp_pq_statements *list);

void pgp_pq_statements_drop(pgp_pq_statements *list, pgp_pq_statement *statement);

/* Drop all: the session has lost them, or is about to end. */
void pgp_pq_statements_forget(pgp_pq_statements *list);

#endif
