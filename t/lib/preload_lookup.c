/*
 * A resolver that hangs, for httpd's LD_PRELOAD.  For a name that ends in ".hang.test"
 * getaddrinfo() returns only when the file LOOKUP_HANGS_UNTIL exists; then it returns
 * 127.0.0.1.  Other names are looked up as usual.
 */
#include <dlfcn.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*lookup_fn)(const char *, const char *, const struct addrinfo *,
                         struct addrinfo **);

static int hangs(const char *name)
{
    static const char suffix[] = ".hang.test";
    const size_t length = name ? strlen(name) : 0;

    return length >= sizeof suffix && !strcmp(name + length - (sizeof suffix - 1), suffix);
}

__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints,
                                                       struct addrinfo **found)
{
    const lookup_fn real = (lookup_fn)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *until = getenv("LOOKUP_HANGS_UNTIL");

    if (!hangs(name))
        return real(name, service, hints, found);
    while (!until || access(until, F_OK))
        usleep(20000);
    return real("127.0.0.1", service, hints, found);
}
