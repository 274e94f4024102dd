/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "fuzzutil.h"
#include "record.h"

static void
check_file(const VmrFile *file)
{
    g_assert_true(g_path_is_absolute(file->path));
    g_assert_nonnull(file->format);
}

static void
check_disk(const VmrDisk *disk)
{
    g_assert_nonnull(disk->target);
    g_assert_cmpuint(disk->state, <, VMR_DISK_STATE_LAST);
    check_file(disk->source);
    check_file(disk->overlay);
    check_file(disk->mirror);
    for (guint i = 0; i < disk->copies->len; i++)
        check_file(disk->copies->pdata[i]);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = fuzz_text(data, size);
    g_autofree char *first = NULL;
    g_autofree char *second = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrRecord) record = vmr_record_parse(text, &error);
    g_autoptr(VmrRecord) same = NULL;

    fuzz_check_error(record != NULL, error);
    if (!record)
        return 0;
    g_assert_cmpuint(record->state, <, VMR_STATE_LAST);
    for (guint i = 0; i < record->disks->len; i++)
        check_disk(record->disks->pdata[i]);
    first = vmr_record_format(record);
    same = vmr_record_parse(first, &error);
    g_assert_no_error(error);
    second = vmr_record_format(same);
    g_assert_cmpstr(first, ==, second);
    return 0;
}
