/* Text from outside is valid UTF-8 without control characters afterwards. */
#include <string.h>

#include "stage.h"

#include "pgp_text.h"

static const struct {
    const char *text, *clean;
} texts[] = {
    {"", ""},
    {"plain: \"~\"", "plain: \"~\""},
    {"a\r\nb\tc\x01\x7f", "a  b c  "},
    {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x98", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x98"},
    {"caf\xe9", "caf?"},                  /* LATIN1 */
    {"\xc2\x85 \xc2\xa0", "?? \xc2\xa0"}, /* a C1 control, a no-break space */
    {"cut \xe2\x82", "cut ??"},
    {"cut \xf0\x9f\x90", "cut ???"},
    {"\xc0\xaf \xe0\x80\xaf", "?? ???"}, /* overlong */
    {"\xed\xa0\x80", "???"},             /* a surrogate */
    {"\xf4\x90\x80\x80 \xff", "???? ?"}, /* beyond the last character */
};

START_TEST(text_is_clean)
{
    char text[64];

    strcpy(text, texts[_i].text);
    pgp_text_clean(text);
    ck_assert_str_eq(text, texts[_i].clean);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("text");

    tcase_add_loop_test(tcase(suite, "text"), text_is_clean, 0, LENGTH(texts));
    return suite_run(suite);
}
