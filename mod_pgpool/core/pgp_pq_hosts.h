/*
 * The hosts of a connection string: their addresses, and their order.
 *
 * Model.  libpq looks names up in the middle of PQconnectPoll(), where it blocks, and spends
 * all the time there is on a host that does not answer.  So the driver looks names up before,
 * on a thread of their own (pgp_task.h), and hands libpq one entry an address, as hostaddr.
 * After a failure the list begins one entry later for a while, so that a dead first host does
 * not keep the pool from the second.
 *
 * libpq settles what the string does not say (PGHOST, a service file).
 *
 * Ownership and threads.  A pgp_pq_hosts belongs to one thread at a time, and frees all its
 * memory at once.
 */
#ifndef PGP_PQ_HOSTS_H
#define PGP_PQ_HOSTS_H

#include <stdbool.h>

typedef struct pgp_pq_hosts pgp_pq_hosts;

/* Never fails: a string that libpq rejects has no hosts. */
pgp_pq_hosts *pgp_pq_hosts_read(const char *conninfo);
void pgp_pq_hosts_free(pgp_pq_hosts *hosts);

/* Whether there is a name to look up. */
bool pgp_pq_hosts_has_names(const pgp_pq_hosts *hosts);

/* Look all names up.  Blocks for as long as the resolver does. */
void pgp_pq_hosts_resolve(pgp_pq_hosts *hosts);

/* Why no host is left after the look-up, or NULL. */
const char *pgp_pq_hosts_error(const pgp_pq_hosts *hosts);

/* Set libpq's parameters host, hostaddr and port, beginning with the first-th entry (modulo
 * their number); they live as long as the hosts.  false: the string names no host, nothing is
 * set. */
bool pgp_pq_hosts_params(pgp_pq_hosts *hosts, unsigned first, const char *params[3]);

#endif
