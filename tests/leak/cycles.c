/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The engine in cycles: parse and format, and whole mirrored snapshots on the
 * fake hypervisor, which checks itself that no reference to its domain is left.
 *
 *   cycles N leak    does so with a cycle that leaks 64 bytes
 *   cycles N         prints "NAME BYTES RSS" for each kind of cycle: by how much
 *                    is allocated, and the resident memory, grew in N cycles
 *                    after the first N/10 + 20
 */

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "diskspec.h"
#include "domxml.h"
#include "image.h"
#include "journal.h"
#include "mirror_fixture.h"
#include "qcow2.h"
#include "snapxml.h"
#include "sparse.h"

static FakeFiles *files;
static char *live_xml;
static char *snapshot_xml;

static void
cycle_diskspec(void)
{
    static const char *const texts[] = {
        "vda,snapshot=external,driver=qcow2,file=/a,,b,mirror=/c", "vda,x=y"};

    for (gsize i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(VmrDiskSpec) spec = vmr_diskspec_parse(texts[i], &error);

        if (spec)
            g_free(vmr_diskspec_format(spec));
    }
}

static void
cycle_snapxml(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrSnapSpec) spec = vmr_snapxml_parse(snapshot_xml, &error);
    g_autofree char *xml = NULL;

    g_assert_no_error(error);
    xml = vmr_snapxml_format(spec);
    g_free(vmr_snapxml_format_libvirt(spec, NULL, NULL));
    g_free(vmr_snapxml_add_mirrors(xml, spec->disks, &error));
    vmr_snapspec_free(vmr_snapxml_parse("<domainsnapshot><a/>", &error));
    g_assert_nonnull(error);
}

static void
cycle_domxml(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrDomXml) dom = vmr_domxml_parse(live_xml, &error);
    g_autofree char *text = NULL;

    g_assert_no_error(error);
    g_free(vmr_domxml_set_source(live_xml, "vda", "/new", "qcow2", &error));
    g_assert_no_error(error);
    vmr_domxml_dup_metadata(live_xml, VMR_JOURNAL_URI, &text, &error);
    vmr_domxml_free(vmr_domxml_parse("<domain><name>", &error));
    g_assert_nonnull(error);
}

static void
cycle_record(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrRecord) record = vmr_record_new("snap", "uuid");
    g_autoptr(VmrRecord) again = NULL;
    g_autofree char *xml = NULL;
    VmrDisk *disk = vmr_disk_new("vda");

    disk->source = vmr_file_new("/s", "qcow2");
    disk->overlay = vmr_file_new("/o", "qcow2");
    disk->mirror = vmr_file_new("/m", "qcow2");
    g_ptr_array_add(disk->copies, vmr_file_new("/c", "raw"));
    g_ptr_array_add(record->disks, disk);
    xml = vmr_record_format(record);
    again = vmr_record_parse(xml, &error);
    g_assert_no_error(error);
    xml[strlen(xml) / 2] = '\0';
    g_assert_null(vmr_record_parse(xml, &error));
}

static void
cycle_image(void)
{
    static const guint8 broken[512] = {'Q', 'F', 'I', 0xfb, 0, 0, 0, 3};
    g_autofree char *path = fake_files_path(files, "old", "vda");
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) broken_error = NULL;
    g_autoptr(VmrImage) image = vmr_image_read(path, "qcow2", &error);
    VmrQcow2 header;

    g_assert_no_error(error);
    g_assert_false(
        vmr_qcow2_parse(broken, sizeof(broken), &header, &broken_error));
}

/* Create, then abort or pivot; each guest is a new one. */
static void
cycle_mirror(gboolean pivot)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 2, TRUE);
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;

    if (pivot) {
        vmr_mirror_wait_ready(mirror, &wait, &error);
        g_assert_no_error(error);
        vmr_mirror_pivot(mirror, &wait, &error);
    } else {
        vmr_mirror_abort(mirror, NULL, &wait, &error);
    }
    g_assert_no_error(error);
}

static void
cycle_abort(void)
{
    cycle_mirror(FALSE);
}

static void
cycle_pivot(void)
{
    cycle_mirror(TRUE);
}

/* A create whose second copy fails, and that is undone. */
static void
cycle_undo(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrSnapSpec) spec = fake_hv_spec(fake, 2, TRUE);
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->refuse_copy = "vdb";
    g_assert_null(vmr_mirror_create(fake_hv_get(fake), fake_hv_domain(fake),
                                    spec, VMR_MIRROR_REUSE_EXTERNAL, &wait,
                                    &error));
    g_assert_nonnull(error);
}

/* A copy that succeeds, one that is cancelled, one that is refused. */
static void
cycle_copy(void)
{
    g_autofree char *from = fake_files_path(files, "old", "vda");
    g_autofree char *to = fake_files_path(files, "new", "leak.copy");
    const VmrSparseSpec spec = {.source = from, .destination = to};
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) refused = NULL;
    VmrSparse *copy = vmr_sparse_start(&spec, &error);

    g_assert_no_error(error);
    vmr_sparse_finish(copy, &wait, NULL, &error);
    g_assert_no_error(error);
    vmr_sparse_free(copy);
    g_assert_null(vmr_sparse_start(&spec, &refused));
    g_assert_cmpint(unlink(to), ==, 0);
    vmr_sparse_free(vmr_sparse_start(&spec, &error));
    unlink(to);
}

static void
cycle_leak(void)
{
    volatile char *lost = g_malloc(64);

    lost[0] = 1;
}

static gint64
allocated(void)
{
    struct mallinfo2 info = mallinfo2();

    return (gint64)(info.uordblks + info.hblkhd);
}

static gint64
resident(void)
{
    g_autofree char *text = NULL;
    long pages = 0;

    malloc_trim(0);
    if (g_file_get_contents("/proc/self/statm", &text, NULL, NULL))
        g_assert_cmpint(sscanf(text, "%*d %ld", &pages), ==, 1);
    return (gint64)pages * sysconf(_SC_PAGESIZE);
}

static void
measure(const char *name, void (*cycle)(void), int n)
{
    gint64 bytes;
    gint64 rss;

    for (int i = 0; i < n / 10 + 20; i++)
        cycle();
    rss = resident();
    bytes = allocated();
    for (int i = 0; i < n; i++)
        cycle();
    bytes = allocated() - bytes;
    rss = resident() - rss;
    printf("%s %" G_GINT64_FORMAT " %" G_GINT64_FORMAT "\n", name, bytes, rss);
    fflush(stdout);
}

static char *
load(const char *name)
{
    g_autofree char *path =
        g_build_filename(VMR_TEST_DATA_DIR, name, NULL);
    g_autoptr(GError) error = NULL;
    char *text = NULL;

    g_file_get_contents(path, &text, NULL, &error);
    g_assert_no_error(error);
    return text;
}

int
main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 100;

    if (argc > 2 && strcmp(argv[2], "leak") == 0) {
        measure("leak", cycle_leak, n);
        return 0;
    }
    files = fake_files_new();
    live_xml = load("domxml/ready.live.xml");
    snapshot_xml = load("snapxml/special.xml");
    measure("diskspec", cycle_diskspec, n);
    measure("snapxml", cycle_snapxml, n);
    measure("domxml", cycle_domxml, n);
    measure("record", cycle_record, n);
    measure("image", cycle_image, n);
    measure("create-abort", cycle_abort, n);
    measure("create-pivot", cycle_pivot, n);
    measure("create-undo", cycle_undo, n);
    measure("copy", cycle_copy, n);
    g_free(live_xml);
    g_free(snapshot_xml);
    fake_files_free(files);
    return 0;
}
