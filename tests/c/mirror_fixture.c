/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "mirror_fixture.h"

VmrMirror *
fixture_create(FakeHv *fake, guint n_disks, gboolean reuse)
{
    g_autoptr(VmrSnapSpec) spec = fake_hv_spec(fake, n_disks, reuse);
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;
    VmrMirror *mirror =
        vmr_mirror_create(fake_hv_get(fake), fake_hv_domain(fake), spec,
                          reuse ? VMR_MIRROR_REUSE_EXTERNAL : 0, &wait,
                          &error);

    g_assert_no_error(error);
    g_assert_nonnull(mirror);
    return mirror;
}

void
fixture_clean_up(FakeHv *fake)
{
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(VmrMirror) mirror = NULL;
    g_autoptr(GError) error = NULL;

    vmr_mirror_lookup(fake_hv_get(fake), fake_hv_domain(fake), &mirror, &wait,
                      &error);
    g_assert_no_error(error);
    if (!mirror)
        return;
    vmr_mirror_abort(mirror, NULL, &wait, &error);
    g_assert_no_error(error);
}

/* The lines of fake_hv_describe() that say that nothing is under way. */
static const char *const quiet_lines[] = {
    "\nsnapshots:\n", "\ncurrent: \n", "\nmetadata:  \n", "\nlisteners: 0\n",
};

static void
check_files(const FakeFiles *files, const char *target, const char *source)
{
    static const char *const sides[] = {"old", "new"};
    g_autofree char *name = g_strconcat(target, "." FAKE_SNAPSHOT, NULL);

    for (gsize i = 0; i < G_N_ELEMENTS(sides); i++) {
        g_autofree char *path = fake_files_path(files, sides[i], name);

        g_assert_cmpint(g_file_test(path, G_FILE_TEST_EXISTS), ==,
                        g_str_equal(path, source));
    }
}

void
fixture_check_ended(FakeHv *fake, const FakeFiles *files)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    g_assert_true(fake_hv_settle(fake));
    text = fake_hv_describe(fake);
    for (gsize i = 0; i < G_N_ELEMENTS(quiet_lines); i++) {
        if (!strstr(text, quiet_lines[i]))
            g_error("not '%s' in:\n%s", quiet_lines[i], text);
    }
    lines = g_strsplit(text, "\n", -1);
    for (guint i = 0; g_str_has_prefix(lines[i], "vd"); i++) {
        g_autofree char *target = g_strndup(lines[i], 3);
        g_autofree char *source = fake_hv_dup_source(fake, target);
        g_autofree char *end =
            g_strdup_printf("; inactive %s; job 0", source);

        if (!g_str_has_suffix(lines[i], end))
            g_error("not '%s' in:\n%s", end, text);
        check_files(files, target, source);
    }
}

gboolean
fixture_is_pivoted(FakeHv *fake, guint index)
{
    g_autofree char *target = g_strdup_printf("vd%c", 'a' + (int)index);
    g_autofree char *source = fake_hv_dup_source(fake, target);

    return strstr(source, "/new/") != NULL;
}

VmrRecord *
fixture_load(FakeHv *fake)
{
    g_autofree char *xml = fake_hv_dup_metadata(fake, FALSE);
    g_autoptr(GError) error = NULL;
    VmrRecord *record = xml ? vmr_record_parse(xml, &error) : NULL;

    g_assert_no_error(error);
    return record;
}

VmrWait
fixture_patience(void)
{
    return vmr_wait_for(60, NULL);
}

void
fixture_wait_ready(VmrMirror *mirror)
{
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    vmr_mirror_wait_ready(mirror, &wait, &error);
    g_assert_no_error(error);
}

void
fixture_pivot(VmrMirror *mirror)
{
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    vmr_mirror_pivot(mirror, &wait, &error);
    g_assert_no_error(error);
}
