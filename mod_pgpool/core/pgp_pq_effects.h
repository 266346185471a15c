/*
 * The effects of a lease on its session, as far as its results tell.
 *
 * Model.  The driver sees each result of a connection (pgp_pq_callbacks.c), and its command tag
 * tells what it may have changed.  The end of the lease judges by that whether a reset is due.
 *
 * Limits.  No tag tells of set_config() or of an advisory lock inside a SELECT, of a DEALLOCATE
 * inside a function, or of PQclosePrepared().
 *
 * Threads.  pgp_pq_effects_of_tag() is pure; the other functions are for the connection's
 * owner.
 */
#ifndef PGP_PQ_EFFECTS_H
#define PGP_PQ_EFFECTS_H

#include <libpq-fe.h>

#include "pgp_driver.h"

/* Bits. */
typedef enum {
    PGP_EFFECT_ANY = 1,       /* there was a result */
    PGP_EFFECT_CHANGE = 2,    /* the session may have changed */
    PGP_EFFECT_PREPARE = 4,   /* a statement was prepared */
    PGP_EFFECT_DEALLOCATE = 8 /* a prepared statement may have gone or changed */
} pgp_effect;

/* The effects that one result tells of.  tag: its command tag, "" for a statement that was
 * prepared by the protocol.  has_rows: the result is one of rows; a SELECT INTO has the tag of
 * a SELECT, but none. */
unsigned pgp_pq_effects_of_tag(const char *tag, bool has_rows);

/* Note in connection->lease what a result tells. */
void pgp_pq_effects_note(pgp_connection *connection, const PGresult *result);

/* Note the size of a message that was sent or received, in bytes: a large one has swollen
 * libpq's buffers. */
void pgp_pq_effects_measure(pgp_connection *connection, size_t size);

/* Forget what the lease has changed so far.  Its variables stay known, and that it was large or
 * out of step. */
void pgp_pq_effects_forget(pgp_connection *connection);

#endif
