/*
 * The hosts of a connection string: their addresses, and their order.
 *
 * Model.  libpq looks names up in the middle of PQconnectPoll(), where it blocks,
 * and gives a host that does not answer all the time there is.  So names are looked
 * up before, on a thread of their own (pgp_task.h), and handed to libpq as
 * hostaddr, one entry an address; and after a failure the list starts one entry
 * later for a while, so that a dead first host does not keep the pool from the second.
 *
 * What the string does not say (PGHOST, a service file) is left to libpq.
 *
 * Ownership.  A pgp_pq_hosts belongs to one thread at a time and frees all its memory
 * at once.
 */
#ifndef PGP_PQ_HOSTS_H
#define PGP_PQ_HOSTS_H

typedef struct pgp_pq_hosts pgp_pq_hosts;

/* Never fails: a string that libpq does not take has no hosts. */
pgp_pq_hosts *pgp_pq_hosts_read(const char *conninfo);
void pgp_pq_hosts_free(void *hosts);

/* Whether there is a name to look up. */
int pgp_pq_hosts_unknown(const pgp_pq_hosts *hosts);

/* Look all names up.  Blocks for as long as the resolver likes. */
void pgp_pq_hosts_resolve(void *hosts);

/* Why no host is left after looking up, or NULL. */
const char *pgp_pq_hosts_error(const pgp_pq_hosts *hosts);

/* libpq's parameters host, hostaddr and port, beginning with the first-th entry
 * (modulo their number); 0 if the string names no host: nothing to set then. */
int pgp_pq_hosts_params(pgp_pq_hosts *hosts, unsigned first, const char *params[3]);

#endif
