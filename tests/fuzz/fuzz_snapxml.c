/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "fuzzutil.h"
#include "snapxml.h"

/* What is written is read as the same. */
static void
check_round_trip(const VmrSnapSpec *spec)
{
    g_autofree char *first = vmr_snapxml_format(spec);
    g_autofree char *second = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrSnapSpec) same = vmr_snapxml_parse(first, &error);

    g_assert_no_error(error);
    second = vmr_snapxml_format(same);
    g_assert_cmpstr(first, ==, second);
}

/* libvirt sees no mirror, and every mirror is back in what it tells of. */
static void
check_libvirt_form(const VmrSnapSpec *spec)
{
    static const char *const others[] = {"other", NULL};
    g_autofree char *plain = vmr_snapxml_format_libvirt(spec, others, NULL);
    g_autofree char *mirrored = NULL;
    g_autoptr(GError) error = NULL;
    gboolean has = TRUE;

    g_assert_true(vmr_snapxml_has_mirror(plain, &has, &error));
    g_assert_false(has);
    mirrored = vmr_snapxml_add_mirrors(plain, spec->disks, &error);
    g_assert_no_error(error);
    g_assert_true(vmr_snapxml_has_mirror(mirrored, &has, &error));
    g_assert_true(has);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = fuzz_text(data, size);
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) has_error = NULL;
    g_autoptr(VmrSnapSpec) spec = vmr_snapxml_parse(text, &error);
    gboolean has = FALSE;
    gboolean known = vmr_snapxml_has_mirror(text, &has, &has_error);

    fuzz_check_error(spec != NULL, error);
    fuzz_check_error(known, has_error);
    if (!spec)
        return 0;
    g_assert_true(known && has);
    check_round_trip(spec);
    check_libvirt_form(spec);
    return 0;
}
