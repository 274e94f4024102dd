/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "text.h"

typedef struct {
    const char *text;
    const char *allowed;
    gboolean plain;
    const char *clean;
} Case;

static const Case cases[] = {
    {"", NULL, TRUE, ""},
    {"/path1/old.qcow2", NULL, TRUE, "/path1/old.qcow2"},
    {"it's, \"quoted\": --x", NULL, TRUE, "it's, \"quoted\": --x"},
    {"/größe/ディスク", NULL, TRUE, "/größe/ディスク"},
    {"a\nb", NULL, FALSE, "a\\x0ab"},
    {"a\nb\t", "\n\t", TRUE, "a\\x0ab\\x09"},
    {"a\tb", "\n", FALSE, "a\\x09b"},
    {"\x1b[31m", NULL, FALSE, "\\x1b[31m"},
    {"\x7f", NULL, FALSE, "\\x7f"},
    {"\xc2\x85", NULL, FALSE, "\\xc2\\x85"},         /* U+0085, next line */
    {"\xe2\x80\xa8", NULL, FALSE, "\\xe2\\x80\\xa8"}, /* U+2028, line break */
    {"\xef\xbf\xbf", NULL, FALSE, "\\xef\\xbf\\xbf"}, /* U+FFFF, not in XML */
    {"caf\xe9", NULL, FALSE, "caf\\xe9"},             /* Latin-1 */
    {"\xed\xa0\x80", NULL, FALSE, "\\xed\\xa0\\x80"}, /* a surrogate */
    {"cut \xc3", NULL, FALSE, "cut \\xc3"},
};

static void
test_is_plain_table_as_expected(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("case %" G_GSIZE_FORMAT, i);
        g_assert_true(vmr_text_is_plain(cases[i].text, cases[i].allowed) ==
                      cases[i].plain);
    }
}

static void
test_clean_table_as_expected(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *clean = vmr_text_clean(cases[i].text);

        g_assert_cmpstr(clean, ==, cases[i].clean);
    }
}

static void
test_clean_long_text_cut(void)
{
    g_autofree char *text = g_strnfill(VMR_TEXT_CLEAN_MAX + 1, 'x');
    g_autofree char *cut = vmr_text_clean(text);
    g_autofree char *whole = vmr_text_clean(text + 1);

    g_assert_cmpuint(strlen(cut), ==, VMR_TEXT_CLEAN_MAX + 3);
    g_assert_true(g_str_has_suffix(cut, "x..."));
    g_assert_cmpstr(whole, ==, text + 1);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/text/is_plain_table_as_expected",
                    test_is_plain_table_as_expected);
    g_test_add_func("/text/clean_table_as_expected",
                    test_clean_table_as_expected);
    g_test_add_func("/text/clean_long_text_cut", test_clean_long_text_cut);
    return g_test_run();
}
