/* pgp_text_clean() makes text valid UTF-8 without control characters; pgp_text_is_utf8() tells
 * whether text is UTF-8. */
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

static const struct {
    const char *text;
    bool is_utf8;
} encodings[] = {
    {"", true},
    {"tab\t line\r\n \x01 \x7f", true},
    {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x90\x98 \xc2\x85", true},
    {"\xee\x80\x80 \xef\xbf\xbf \xf4\x8f\xbf\xbf", true},
    {"caf\xe9", false},
    {"cut \xe2\x82", false},
    {"\xc0\x80", false},         /* overlong */
    {"\xc1\xbf", false},         /* overlong */
    {"\xe0\x9f\xbf", false},     /* overlong */
    {"\xf0\x8f\xbf\xbf", false}, /* overlong */
    {"\xed\xa0\x80", false},     /* a surrogate */
    {"\xf4\x90\x80\x80", false}, /* beyond the last character */
    {"\x80", false},
    {"\xc3(", false},
};

START_TEST(utf8_is_recognised)
{
    ck_assert_int_eq(pgp_text_is_utf8(encodings[_i].text), encodings[_i].is_utf8);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("text");

    tcase_add_loop_test(tcase(suite, "text"), text_is_clean, 0, LENGTH(texts));
    tcase_add_loop_test(tcase(suite, "utf8"), utf8_is_recognised, 0, LENGTH(encodings));
    return suite_run(suite);
}
