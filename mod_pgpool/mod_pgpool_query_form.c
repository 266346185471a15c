/*
 * Finds a value in a query string or an urlencoded form (mod_pgpool_query_form.h).
 */
#include "mod_pgpool_query_form.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "core/pgp_text.h"

static int hex_value(char c)
{
    return isdigit((unsigned char)c) ? c - '0' : tolower((unsigned char)c) - 'a' + 10;
}

/* Decode one byte at *at, which moves behind it.  Returns -1 for a bad escape. */
static int decode_byte(const char **at)
{
    const char *from = *at;

    if (*from != '%') {
        *at = from + 1;
        return *from == '+' ? ' ' : (unsigned char)*from;
    }
    if (!isxdigit((unsigned char)from[1]) || !isxdigit((unsigned char)from[2]))
        return -1;
    *at = from + 3;
    return hex_value(from[1]) << 4 | hex_value(from[2]);
}

/* Whether the encoded text from..end means the name. */
static bool name_matches(const char *from, const char *end, const char *name)
{
    for (; from < end && *name; name++)
        if (decode_byte(&from) != (unsigned char)*name)
            return false;
    return from == end && !*name;
}

/* Returns the decoded text from..end, or NULL if it is malformed. */
static const char *decode_value(apr_pool_t *p, const char *from, const char *end)
{
    char *value = apr_palloc(p, end - from + 1), *to = value;

    while (from < end) {
        const int byte = decode_byte(&from);

        if (byte <= 0)
            return NULL;
        *to++ = (char)byte;
    }
    *to = '\0';
    return pgp_text_is_utf8(value) ? value : NULL;
}

pgpool_form_result pgpool_form_find(apr_pool_t *p, const char *form, const char *name,
                                    const char **value)
{
    for (const char *pair = form; pair && *pair;) {
        const char *end = pair + strcspn(pair, "&");
        const char *name_end = pair + strcspn(pair, "=&");

        if (name_matches(pair, name_end, name)) {
            *value = decode_value(p, name_end < end ? name_end + 1 : end, end);
            return *value ? PGPOOL_FORM_FOUND : PGPOOL_FORM_MALFORMED;
        }
        pair = *end ? end + 1 : end;
    }
    return PGPOOL_FORM_ABSENT;
}
