/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "domxml.h"
#include "fuzzutil.h"
#include "journal.h"
#include "record.h"

static void
check_dom(const VmrDomXml *dom)
{
    for (guint i = 0; i < dom->disks->len; i++) {
        const VmrDomDisk *disk = dom->disks->pdata[i];

        g_assert_cmpuint(disk->ready, <, VMR_READY_LAST);
        g_assert_true((disk->mirror != NULL) == (disk->mirror_job != NULL));
        g_assert_nonnull(vmr_domxml_find(dom, disk->target));
        vmr_domdisk_source(disk);
    }
}

/* A disk that can be put on another file is on that file alone afterwards, in
 * whatever shape the definition was. */
static void
check_set_source(const char *xml, const char *target)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *changed = vmr_domxml_set_source(
        xml, target, "/new/<a> & 'b'", "qcow2", &error);
    g_autoptr(VmrDomXml) dom = NULL;
    const VmrDomDisk *disk;

    fuzz_check_error(changed != NULL, error);
    if (!changed)
        return;
    dom = vmr_domxml_parse(changed, &error);
    g_assert_no_error(error);
    disk = vmr_domxml_find(dom, target);
    g_assert_nonnull(disk);
    g_assert_cmpstr(vmr_domdisk_source(disk), ==, "/new/<a> & 'b'");
    g_assert_cmpuint(disk->chain->len, ==, 1);
    g_assert_false(disk->chain_ends);
}

/* What is found of the journal goes to the next parser. */
static void
check_metadata(const char *xml)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) record_error = NULL;
    g_autofree char *text = NULL;
    g_autoptr(VmrRecord) record = NULL;

    fuzz_check_error(
        vmr_domxml_dup_metadata(xml, VMR_JOURNAL_URI, &text, &error), error);
    if (!text)
        return;
    record = vmr_record_parse(text, &record_error);
    fuzz_check_error(record != NULL, record_error);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = fuzz_text(data, size);
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrDomXml) dom = vmr_domxml_parse(text, &error);

    fuzz_check_error(dom != NULL, error);
    check_metadata(text);
    if (!dom)
        return 0;
    check_dom(dom);
    check_set_source(text, "vda");
    if (dom->disks->len > 0) {
        const VmrDomDisk *disk = dom->disks->pdata[dom->disks->len - 1];

        check_set_source(text, disk->target);
    }
    return 0;
}
