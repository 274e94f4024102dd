/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "diskspec.h"
#include "fuzzutil.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = fuzz_text(data, size);
    g_autofree char *again = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrDiskSpec) spec = vmr_diskspec_parse(text, &error);
    g_autoptr(VmrDiskSpec) same = NULL;

    fuzz_check_error(spec != NULL, error);
    if (!spec)
        return 0;
    again = vmr_diskspec_format(spec);
    same = vmr_diskspec_parse(again, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(spec->name, ==, same->name);
    g_assert_cmpstr(spec->snapshot, ==, same->snapshot);
    g_assert_cmpstr(spec->driver, ==, same->driver);
    g_assert_cmpstr(spec->file, ==, same->file);
    g_assert_cmpstr(spec->mirror, ==, same->mirror);
    return 0;
}
