/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "text.h"

#include <string.h>

/* Unicode's line breaks count as control characters here: an error is one
 * line. U+FFFE and U+FFFF are not control characters, but no XML character
 * either. */
static gboolean
char_is_plain(gunichar c)
{
    return !g_unichar_iscntrl(c) && c != 0x2028 && c != 0x2029 &&
           c != 0xFFFE && c != 0xFFFF;
}

gboolean
vmr_text_is_plain(const char *text, const char *allowed)
{
    if (!g_utf8_validate(text, -1, NULL))
        return FALSE;
    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        if (allowed && strchr(allowed, *p))
            continue;
        if (!char_is_plain(g_utf8_get_char(p)))
            return FALSE;
    }
    return TRUE;
}

char *
vmr_text_clean(const char *text)
{
    GString *out = g_string_new(NULL);
    const char *p = text;
    guint n = 0;

    for (; *p && n < VMR_TEXT_CLEAN_MAX; n++) {
        gunichar c = g_utf8_get_char_validated(p, -1);

        /* the two error values of the call above are no plain characters */
        if (c < 0x110000 && char_is_plain(c)) {
            g_string_append_unichar(out, c);
            p = g_utf8_next_char(p);
        } else {
            g_string_append_printf(out, "\\x%02x", (guchar)*p);
            p++;
        }
    }
    if (*p)
        g_string_append(out, "...");
    return g_string_free(out, FALSE);
}
