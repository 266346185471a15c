/*
 * What a return undoes, and when: the judgement behind PgPoolReset.
 *
 * A reset is one message.  The return sends it and does not wait; the next acquire, or the
 * keeper's look at an idle connection, collects the answer, which proves the connection alive.
 * There are three messages; each runs the init SQL again, since it has undone that as well:
 *
 *   session    the statements of DISCARD ALL one by one, without those that drop prepared
 *              statements and plans: a PL/pgSQL function keeps its plans.
 *   prepared   the same, and DEALLOCATE ALL, for a lease that has deallocated something where
 *              the init SQL prepares: its PREPAREs run again as well.
 *   all        DISCARD ALL.  That cannot share a message with other statements, so with init
 * SQL it is their list again, with nothing left out.
 *
 * The command tags of a lease's results (libpq's event procedure) tell what it did.  So
 * pgp_pq_reset_tag() cannot know what no tag tells: set_config() or an advisory lock inside a
 * SELECT, a DEALLOCATE inside a function, and PQclosePrepared().
 */
#ifndef PGP_PQ_RESET_H
#define PGP_PQ_RESET_H

#include "pgp_settings.h"

/* What a lease has done to its session, as far as the results tell; bits. */
typedef enum {
    PGP_DID_SOMETHING = 1, /* any result at all */
    PGP_DID_CHANGE = 2,    /* what may have changed the session */
    PGP_DID_PREPARE = 4,   /* there are prepared statements now */
    PGP_DID_FORGET = 8     /* a prepared statement has gone: another may have taken its name */
} pgp_deed;

/* The deeds that one result tells of.  tag: its command tag; rows: whether it was
 * one that returns rows (SELECT INTO has the tag of a SELECT, but none); prepared
 * statements made by the protocol have no tag. */
unsigned pgp_pq_reset_tag(const char *tag, int rows);

/* Whether a statement of the init SQL is a PREPARE: it need not run again where
 * prepared statements stay. */
int pgp_pq_reset_prepares(const char *sql);

/* Whether a lease with these deeds owes a reset. */
int pgp_pq_reset_due(pgp_reset reset, unsigned deeds);

/* The message for a lease with these deeds. */
const char *pgp_pq_reset_sql(const pgp_settings *settings, unsigned deeds);

/* Make the messages when the settings are complete. */
void pgp_pq_reset_compose(pgp_settings *settings, apr_pool_t *p);

#endif
