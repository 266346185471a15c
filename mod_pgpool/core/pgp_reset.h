/*
 * What a return undoes, and when: the judgement behind PgPoolReset.
 *
 * A reset is one message, sent at return without waiting; its answer is collected
 * at the next acquire and proves the connection alive.  The cheapest message that
 * keeps the promise of the mode:
 *
 *   DISCARD ALL   one statement.  It drops prepared statements and undoes the init
 *                 SQL, and cannot share a message with others.  So it serves "all"
 *                 without init SQL, and "session" as long as nothing was ever
 *                 prepared on the connection either.
 *   statements    all that DISCARD ALL does but DEALLOCATE, one by one, and the
 *                 init SQL again.  Its PREPAREs as well, after a DEALLOCATE: one of
 *                 "all", or a borrower's own.
 *
 * What a lease did is seen from the command tags of its results (libpq's event
 * procedure), so what cannot be seen there, pgp_reset_tag() cannot know:
 * set_config() or an advisory lock inside a SELECT.
 */
#ifndef PGP_RESET_H
#define PGP_RESET_H

#include "pgp_settings.h"

/* What a lease has done to its session, as far as the results tell; bits. */
typedef enum {
    PGP_DID_SOMETHING = 1, /* any result at all */
    PGP_DID_CHANGE = 2,    /* what may have changed the session */
    PGP_DID_PREPARE = 4,   /* there are prepared statements now */
    PGP_DID_FORGET = 8     /* all prepared statements have gone */
} pgp_deed;

/* The deeds that one result tells of.  tag: its command tag; rows: whether it was
 * one that returns rows (SELECT INTO has the tag of a SELECT, but none); prepared
 * statements made by the protocol have no tag. */
unsigned pgp_reset_tag(const char *tag, int rows);

/* Whether a statement of the init SQL is a PREPARE: it need not run again where
 * prepared statements stay. */
int pgp_reset_prepares(const char *sql);

/* Whether a lease with these deeds owes a reset. */
int pgp_reset_due(pgp_reset reset, unsigned deeds);

/* The message.  prepared: the connection has ever had a prepared statement. */
const char *pgp_reset_sql(const pgp_settings *settings, int prepared, unsigned deeds);

/* Make the messages when the settings are complete. */
void pgp_reset_compose(pgp_settings *settings, apr_pool_t *p);

#endif
