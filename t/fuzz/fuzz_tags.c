/* The readers of command tags, which a server sends, and of PgPoolInitSQL. */
#include "fuzz.h"

#include "pgp_pq_effects.h"
#include "pgp_pq_reset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    apr_pool_t *p = fuzz_pool();
    const char *text = apr_pstrmemdup(p, (const char *)data, size);

    PROMISE(pgp_pq_effects_of_tag(text, 0));
    PROMISE(pgp_pq_effects_of_tag(text, 1));
    pgp_pq_reset_is_prepare(text);
    apr_pool_destroy(p);
    return 0;
}
