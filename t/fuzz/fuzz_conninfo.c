/* Connection strings: the masked string shows the word SECRET only in parameters that libpq
 * does not call secret, and has the same other parameters. */
#include "fuzz.h"

#include <libpq-fe.h>

#include "pgp_conninfo.h"

#define SECRET "S3cr1t"

static int is_secret(const PQconninfoOption *o)
{
    return strpbrk(o->dispchar, "*D") != NULL;
}

static int shows_secret(const PQconninfoOption *o)
{
    for (; o->keyword; o++)
        if (o->val && !is_secret(o) && strstr(o->val, SECRET))
            return 1;
    return 0;
}

static void check_masked(apr_pool_t *p, const PQconninfoOption *options, const char *conninfo)
{
    const char *masked = pgp_conninfo_masked(p, conninfo);
    PQconninfoOption *shown = PQconninfoParse(masked, NULL);

    PROMISE(shown);
    PROMISE(shows_secret(options) || !strstr(masked, SECRET));
    for (int i = 0; options[i].keyword; i++) {
        const char *value = options[i].val;

        PROMISE(!value == !shown[i].val);
        PROMISE(!value || !strcmp(shown[i].val, is_secret(&options[i]) ? "***" : value));
    }
    PQconninfoFree(shown);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    apr_pool_t *p = fuzz_pool();
    const char *conninfo = apr_pstrmemdup(p, (const char *)data, size);
    const char *wrong = pgp_conninfo_check(p, conninfo);
    PQconninfoOption *options = PQconninfoParse(conninfo, NULL);

    PROMISE(options || wrong);
    PROMISE(!wrong || (*wrong && !strstr(wrong, SECRET)));
    PROMISE(pgp_conninfo_identity(p, conninfo));
    if (options)
        check_masked(p, options, conninfo);
    PQconninfoFree(options);
    apr_pool_destroy(p);
    return 0;
}
