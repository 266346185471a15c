/* The reader of query strings and forms: a value that it finds is UTF-8, and no longer than the
 * form. */
#include "fuzz.h"

#include "pgp_text.h"

#include "../mod_pgpool_query_form.h"

/* The first line of the input is the name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    apr_pool_t *p = fuzz_pool();
    char *name = apr_pstrmemdup(p, (const char *)data, size);
    char *form = strchr(name, '\n');
    const char *value = NULL;
    pgpool_form_result result;

    if (form)
        *form++ = '\0';
    result = pgpool_form_find(p, form, name, &value);
    PROMISE((result == PGPOOL_FORM_FOUND) == (value != NULL));
    if (value) {
        PROMISE(pgp_text_is_utf8(value));
        PROMISE(strlen(value) <= strlen(form));
    }
    PROMISE(form || result == PGPOOL_FORM_ABSENT);
    apr_pool_destroy(p);
    return 0;
}
