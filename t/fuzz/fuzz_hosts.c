/* The hosts of a connection string, before a look-up: for each first host the lists of names
 * and of addresses are equally long. */
#include "fuzz.h"

#include "pgp_pq_hosts.h"

static int commas(const char *list)
{
    int n = 0;

    while (*list)
        n += *list++ == ',';
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    apr_pool_t *p = fuzz_pool();
    pgp_pq_hosts *hosts = pgp_pq_hosts_read(apr_pstrmemdup(p, (const char *)data, size));

    for (unsigned first = 0; first < 4; first++) {
        const char *params[3] = {NULL, NULL, NULL};

        if (pgp_pq_hosts_params(hosts, first, params))
            PROMISE(commas(params[0]) == commas(params[1]));
        else
            PROMISE(!params[0] && !params[1] && !params[2]);
    }
    pgp_pq_hosts_has_names(hosts);
    pgp_pq_hosts_free(hosts);
    apr_pool_destroy(p);
    return 0;
}
