/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "fuzzutil.h"
#include "qcow2.h"

static void
check_header(const VmrQcow2 *header)
{
    g_assert_true(header->version == 2 || header->version == 3);
    g_assert_cmpuint(header->virtual_size, <=, G_MAXINT64);
    g_assert_cmpuint(header->virtual_size % 512, ==, 0);
    /* nothing that is read later lies beyond what off_t can tell */
    if (header->l1_size > 0)
        g_assert_cmpuint(header->l1_offset, <=, G_MAXINT64 - header->l1_size);
    if (header->backing_format)
        g_assert_nonnull(header->backing_name);
    if (header->backing_name) {
        g_assert_cmpstr(header->backing_name, !=, "");
        g_assert_true(vmr_text_is_plain(header->backing_name, NULL));
    }
    if (header->backing_format)
        g_assert_true(vmr_text_is_plain(header->backing_format, NULL));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_auto(VmrQcow2) header = {0};
    g_auto(VmrQcow2) part = {0};
    g_autoptr(GError) error = NULL;
    gsize wanted = vmr_qcow2_header_size(data, size);
    gboolean ok = vmr_qcow2_parse(data, size, &header, &error);

    g_assert_cmpuint(wanted, <=, MAX(size, VMR_QCOW2_MAX_HEADER));
    fuzz_check_error(ok, error);
    if (!ok)
        return 0;
    check_header(&header);
    /* the bytes that it says it wants are enough */
    g_assert_cmpuint(wanted, <=, size);
    g_assert_true(vmr_qcow2_parse(data, wanted, &part, &error));
    g_assert_cmpstr(part.backing_name, ==, header.backing_name);
    g_assert_cmpstr(part.backing_format, ==, header.backing_format);
    return 0;
}
