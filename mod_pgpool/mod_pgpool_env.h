/*
 * The environment that httpd gives to the core: clock, random numbers, log, limits of the MPM.
 */
#ifndef MOD_PGPOOL_ENV_H
#define MOD_PGPOOL_ENV_H

#include <stdbool.h>
#include <httpd.h>

#include "core/pgp_env.h"

/* The environment of a child's pools, with the main server's log. */
pgp_env pgpool_env_make(server_rec *main_server);

/* Now, on the clock of that environment. */
apr_time_t pgpool_env_now(void);

/* The MPM's answer to a query (AP_MPMQ_*), but at least 1: prefork answers 0 threads. */
int pgpool_mpm_number(int query);
bool pgpool_mpm_is_threaded(void);

#endif
