/*
 * The driver on libpq: the model stands in pgp_driver.h.
 *
 * A borrower gets a PGconn that is idle, in blocking mode, in UTF-8, without pipeline, trace or
 * a foreign notice processor, whatever the borrower before did to it.
 */
#ifndef PGP_PQ_DRIVER_H
#define PGP_PQ_DRIVER_H

#include <libpq-fe.h>

#include "pgp_driver.h"

extern const pgp_driver pgp_pq_driver;

/* The owner that connect() was given for this PGconn; NULL if the PGconn is not of this driver.
 * Any thread that may use the PGconn. */
void *pgp_pq_driver_owner(const PGconn *conn);

/* Whether a PGconn of this driver speaks UTF-8 as it did when it was lent. */
bool pgp_pq_driver_speaks_utf8(const PGconn *conn);

#endif
