/* pgp_text_clean() makes text UTF-8 without control characters, and no longer than it was. */
#include "fuzz.h"

#include <iconv.h>

#include "pgp_text.h"

static int is_utf8(char *text)
{
    static iconv_t utf8;
    size_t left = strlen(text), room = 4 * left + 4;
    char *wide = malloc(room), *end = wide;
    int good;

    if (!utf8)
        utf8 = iconv_open("UTF-32LE", "UTF-8");
    good = iconv(utf8, &text, &left, &end, &room) != (size_t)-1;
    free(wide);
    return good;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    apr_pool_t *p = fuzz_pool();
    char *text = apr_pstrmemdup(p, (const char *)data, size);
    const size_t length = strlen(text);
    const char *once;
    size_t i;

    pgp_text_clean(text);
    PROMISE(strlen(text) <= length);
    PROMISE(is_utf8(text));
    for (i = 0; text[i]; i++)
        PROMISE((uint8_t)text[i] >= ' ' && text[i] != 0x7f);
    once = apr_pstrdup(p, text);
    pgp_text_clean(text);
    PROMISE(!strcmp(text, once));
    apr_pool_destroy(p);
    return 0;
}
