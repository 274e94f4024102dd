/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * golden: expected output kept in files under tests/data. With
 * VIRMIRROR_REGENERATE=1 in the environment the files are written instead of
 * compared: look at the difference before committing it.
 */

#include <glib.h>

/* The path of @name under tests/data; owned. */
static inline char *
golden_path(const char *name)
{
    return g_build_filename(VMR_TEST_DATA_DIR, name, NULL);
}

/* The content of @name under tests/data; owned. */
static inline char *
golden_read(const char *name)
{
    g_autofree char *path = golden_path(name);
    g_autoptr(GError) error = NULL;
    char *content = NULL;

    g_file_get_contents(path, &content, NULL, &error);
    g_assert_no_error(error);
    return content;
}

/* Check that @actual and a newline are the content of @name. */
static inline void
golden_check(const char *actual, const char *name)
{
    g_autofree char *path = golden_path(name);
    g_autofree char *line = g_strconcat(actual, "\n", NULL);
    g_autofree char *expected = NULL;
    g_autoptr(GError) error = NULL;

    if (g_strcmp0(g_getenv("VIRMIRROR_REGENERATE"), "1") == 0) {
        g_file_set_contents(path, line, -1, &error);
        g_assert_no_error(error);
        return;
    }
    expected = golden_read(name);
    g_assert_cmpstr(line, ==, expected);
}
