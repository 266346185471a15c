/* The arguments of a pool's directive: a value that is accepted has a text, and that text is
 * accepted and has the same text again.  The first byte of the input chooses the directive;
 * each line is an argument. */
#include "fuzz.h"

#include "pgp_settings.h"

#define WORDS_MOST 8

static int split(char *text, const char *words[WORDS_MOST])
{
    int n = 0;
    char *last, *word;

    for (word = apr_strtok(text, "\n", &last); word && n < WORDS_MOST;
         word = apr_strtok(NULL, "\n", &last))
        words[n++] = word;
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    apr_pool_t *p = fuzz_pool();
    pgp_settings *settings = pgp_settings_make(p), *again = pgp_settings_make(p);
    const char *words[WORDS_MOST], *wrong, *shown;
    const pgp_option_id id = size ? data[0] % PGP_OPTION_COUNT : 0;
    char *text = apr_pstrmemdup(p, (const char *)data + (size > 0), size - (size > 0));
    int n = split(text, words);

    wrong = pgp_settings_set(settings, p, id, n, words, "here:1");
    PROMISE(!wrong || (*wrong && !(settings->set & (1u << id))));
    if (!wrong) {
        PROMISE(settings->set == 1u << id);
        shown = pgp_option_text(settings, p, id);
        PROMISE(shown);
        n = split(apr_pstrdup(p, shown), words);
        if (n == 1 && pgp_options[id].kind != PGP_KIND_BACKOFF &&
            pgp_options[id].kind != PGP_KIND_SQL_LIST) {
            PROMISE(!pgp_settings_set(again, p, id, 1, words, "here:1"));
            PROMISE(!strcmp(pgp_option_text(again, p, id), shown));
        }
    }
    apr_pool_destroy(p);
    return 0;
}
