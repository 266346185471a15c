/* Makes text from outside fit for logs, headers and pages. */

#include "pgp_text.h"

#include <apr_lib.h>

/* The length in bytes of the first character of a text; 0 if it is no well-formed UTF-8. */
static int character_length(const unsigned char *text)
{
    static const struct {
        unsigned char low, high, second_low, second_high, length;
    } forms[] = {
        {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    unsigned i, k;

    for (i = 0; i < sizeof forms / sizeof *forms; i++)
        if (*text >= forms[i].low && *text <= forms[i].high)
            break;
    if (i == sizeof forms / sizeof *forms)
        return 0;
    if (forms[i].length > 1 &&
        (text[1] < forms[i].second_low || text[1] > forms[i].second_high))
        return 0;
    for (k = 2; k < forms[i].length; k++)
        if (text[k] < 0x80 || text[k] > 0xbf)
            return 0;
    return forms[i].length;
}

/* Whether a text begins with a control character, of ASCII or of Unicode's C1. */
static bool is_control(const unsigned char *text)
{
    return *text < 0x20 || *text == 0x7f || (text[0] == 0xc2 && text[1] < 0xa0);
}

void pgp_text_clean(char *text)
{
    while (*text) {
        const unsigned char *at = (unsigned char *)text;
        const int length = is_control(at) ? 0 : character_length(at);

        if (!length)
            *text = apr_iscntrl(*text) ? ' ' : '?';
        text += length ? length : 1;
    }
}

bool pgp_text_is_utf8(const char *text)
{
    while (*text) {
        const int length = character_length((const unsigned char *)text);

        if (!length)
            return false;
        text += length;
    }
    return true;
}
