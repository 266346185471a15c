/*
 * The driver on libpq.
 *
 * A link is a PGconn and what the pool keeps with it.  While the keeper has it
 * (connecting, cleaning) it is in libpq's nonblocking mode; a borrower gets it in
 * blocking mode, without pipeline, trace or foreign notice processor, whatever
 * the borrower before did to it.
 */
#ifndef PGP_PQ_H
#define PGP_PQ_H

#include <libpq-fe.h>

#include "pgp_driver.h"

extern const pgp_driver pgp_pq_driver;

/* The owner that connect() was given for this PGconn; NULL if the PGconn is none
 * of ours.  Any thread that may use the PGconn. */
void *pgp_pq_owner(const PGconn *conn);

#endif
