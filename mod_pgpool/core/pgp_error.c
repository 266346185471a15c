/* Sets and prints the text of an error. */

#include "pgp_error.h"

#include <string.h>
#include <apr_strings.h>

#include "pgp_text.h"

/* libpq indents the lines after the first by tabs.  A LOCATION helps only the developers of the
 * server. */
void pgp_error_set_text(pgp_error *error, const char *text)
{
    char *out = error->message;
    const char *end = out + sizeof error->message - 3;

    while (*text && out < end) {
        size_t line;

        text += strspn(text, "\t");
        line = strcspn(text, "\r\n");
        if (line && strncmp(text, "LOCATION:", 9)) {
            size_t room;

            if (out > error->message)
                out = apr_cpystrn(out, "; ", 3);
            room = end > out ? (size_t)(end - out) : 0;
            out = apr_cpystrn(out, text, (line < room ? line : room) + 1);
        }
        text += line;
        text += strspn(text, "\r\n");
    }
    *out = '\0';
    pgp_text_clean(error->message);
}

const char *pgp_error_print(char words[PGP_ERROR_WORDS], const pgp_error *error)
{
    const bool has_sqlstate = *error->sqlstate != '\0';

    apr_snprintf(words, PGP_ERROR_WORDS, "%s%s%s%s", error->message,
                 has_sqlstate ? " (SQLSTATE " : "", error->sqlstate, has_sqlstate ? ")" : "");
    return words;
}
