/* Reads the hosts of a connection string, looks their addresses up, and orders them. */

#include "pgp_pq_hosts.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>
#include <apr_strings.h>
#include <apr_tables.h>

#include "pgp_conninfo.h"

typedef struct {
    const char *host, *addr, *port; /* "" where there is none */
} entry;

struct pgp_pq_hosts {
    apr_pool_t *p;
    apr_array_header_t *entries; /* of entry */
    bool has_port;               /* the string names one */
    const char *error;
};

/* --- reading ---------------------------------------------------------------- */

static apr_array_header_t *list_split(apr_pool_t *p, const char *text)
{
    apr_array_header_t *list = apr_array_make(p, 2, sizeof(const char *));
    const char *comma;

    for (; (comma = strchr(text, ',')) != NULL; text = comma + 1)
        APR_ARRAY_PUSH(list, const char *) = apr_pstrmemdup(p, text, comma - text);
    APR_ARRAY_PUSH(list, const char *) = apr_pstrdup(p, text);
    return list;
}

/* As libpq does: if there is one port, it serves all hosts. */
static const char *list_item(const apr_array_header_t *list, int i)
{
    if (list->nelts == 1)
        i = 0;
    return i < list->nelts ? APR_ARRAY_IDX(list, i, const char *) : "";
}

static void entries_make(pgp_pq_hosts *hosts, const char *host, const char *addr,
                         const char *port)
{
    const apr_array_header_t *names = list_split(hosts->p, host);
    const apr_array_header_t *addrs = list_split(hosts->p, addr);
    const apr_array_header_t *ports = list_split(hosts->p, port);
    const int n = names->nelts > addrs->nelts ? names->nelts : addrs->nelts;
    int i;

    if ((ports->nelts > 1 && ports->nelts != n) ||
        (*host && *addr && names->nelts != addrs->nelts))
        return; /* libpq rejects it, and says why */
    for (i = 0; i < n; i++)
        APR_ARRAY_PUSH(hosts->entries, entry) = (entry){
            .host = i < names->nelts ? APR_ARRAY_IDX(names, i, const char *) : "",
            .addr = i < addrs->nelts ? APR_ARRAY_IDX(addrs, i, const char *) : "",
            .port = list_item(ports, i)};
}

static const char *option_value(const PQconninfoOption *options, const char *keyword)
{
    const char *value = pgp_conninfo_value(options, keyword);

    return value ? value : "";
}

pgp_pq_hosts *pgp_pq_hosts_read(const char *conninfo)
{
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);
    apr_pool_t *p;
    pgp_pq_hosts *hosts;

    apr_pool_create_unmanaged_ex(&p, NULL, NULL);
    hosts = apr_pcalloc(p, sizeof(*hosts));
    hosts->p = p;
    hosts->entries = apr_array_make(p, 2, sizeof(entry));
    if (*option_value(options, "host") || *option_value(options, "hostaddr")) {
        hosts->has_port = *option_value(options, "port") != '\0';
        entries_make(hosts, option_value(options, "host"), option_value(options, "hostaddr"),
                     option_value(options, "port"));
    }
    PQconninfoFree(options);
    return hosts;
}

void pgp_pq_hosts_free(pgp_pq_hosts *hosts)
{
    apr_pool_destroy(hosts->p);
}

/* --- looking up ------------------------------------------------------------- */

static bool is_name(const entry *e)
{
    unsigned char binary[sizeof(struct in6_addr)];

    return *e->host && *e->host != '/' && *e->host != '@' && !*e->addr &&
           inet_pton(AF_INET, e->host, binary) != 1 &&
           inet_pton(AF_INET6, e->host, binary) != 1;
}

bool pgp_pq_hosts_has_names(const pgp_pq_hosts *hosts)
{
    int i;

    for (i = 0; i < hosts->entries->nelts; i++)
        if (is_name(&APR_ARRAY_IDX(hosts->entries, i, entry)))
            return true;
    return false;
}

/* Append an entry for each address of a name. */
static void entry_resolve(pgp_pq_hosts *hosts, const entry *e, apr_array_header_t *found)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list, *at;
    char addr[NI_MAXHOST];
    const int failed = getaddrinfo(e->host, NULL, &hints, &list);

    if (failed) {
        hosts->error = apr_psprintf(hosts->p,
                                    "could not translate host name \"%s\" to address: %s",
                                    e->host, gai_strerror(failed));
        return;
    }
    for (at = list; at; at = at->ai_next)
        if (!getnameinfo(at->ai_addr, at->ai_addrlen, addr, sizeof addr, NULL, 0,
                         NI_NUMERICHOST))
            APR_ARRAY_PUSH(found, entry) = (entry){
                .host = e->host, .addr = apr_pstrdup(hosts->p, addr), .port = e->port};
    freeaddrinfo(list);
}

void pgp_pq_hosts_resolve(pgp_pq_hosts *hosts)
{
    apr_array_header_t *found = apr_array_make(hosts->p, 4, sizeof(entry));
    int i;

    for (i = 0; i < hosts->entries->nelts; i++) {
        const entry *e = &APR_ARRAY_IDX(hosts->entries, i, entry);

        if (is_name(e))
            entry_resolve(hosts, e, found);
        else
            APR_ARRAY_PUSH(found, entry) = *e;
    }
    hosts->entries = found;
}

const char *pgp_pq_hosts_error(const pgp_pq_hosts *hosts)
{
    return hosts->entries->nelts == 0 ? hosts->error : NULL;
}

/* --- for libpq -------------------------------------------------------------- */

static const char *list_append(apr_pool_t *p, const char *list, int i, const char *item)
{
    return i == 0 ? item : apr_pstrcat(p, list, ",", item, NULL);
}

bool pgp_pq_hosts_params(pgp_pq_hosts *hosts, unsigned first, const char *params[3])
{
    const int n = hosts->entries->nelts;
    int i;

    for (i = 0; i < n; i++) {
        const entry *e = &APR_ARRAY_IDX(hosts->entries, (int)((first + i) % n), entry);

        params[0] = list_append(hosts->p, params[0], i, e->host);
        params[1] = list_append(hosts->p, params[1], i, e->addr);
        params[2] = list_append(hosts->p, params[2], i, e->port);
    }
    if (!hosts->has_port)
        params[2] = NULL; /* libpq takes PGPORT's, or the default */
    return n > 0;
}
