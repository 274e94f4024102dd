/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>
#include <string.h>

#include "error.h"
#include "record.h"

static VmrFile *
new_file(const char *path, guint64 ino, gboolean created)
{
    VmrFile *file = vmr_file_new(path, "qcow2");

    file->dev = ino ? 2049 : 0;
    file->ino = ino;
    file->born = ino * 1000;
    file->created = created;
    return file;
}

static VmrRecord *
sample(void)
{
    VmrRecord *record = vmr_record_new("<s&\"'>", "uuid");
    VmrDisk *disk = vmr_disk_new("vda");

    disk->state = VMR_DISK_STATE_PIVOTING;
    disk->source = new_file("/old/s", 7, FALSE);
    disk->overlay = new_file("/old/o \xc3\xa4<&>'\"", 0, TRUE);
    disk->mirror = new_file("/new/m", G_MAXUINT64, TRUE);
    g_ptr_array_add(disk->copies, new_file("/new/1", 1, FALSE));
    g_ptr_array_add(disk->copies, new_file("/new/2", 2, FALSE));
    g_ptr_array_add(record->disks, disk);
    record->sequence = 41;
    record->state = VMR_STATE_PIVOTING;
    return record;
}

static void
check_same_file(const VmrFile *a, const VmrFile *b)
{
    g_assert_cmpstr(a->path, ==, b->path);
    g_assert_cmpstr(a->format, ==, b->format);
    g_assert_cmpint(a->created, ==, b->created);
    g_assert_cmpuint(a->dev, ==, b->dev);
    g_assert_cmpuint(a->ino, ==, b->ino);
    g_assert_cmpuint(a->born, ==, b->born);
}

static void
test_round_trip_keeps_everything(void)
{
    g_autoptr(VmrRecord) record = sample();
    g_autofree char *xml = vmr_record_format(record);
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrRecord) again = vmr_record_parse(xml, &error);
    const VmrDisk *disk = record->disks->pdata[0];
    const VmrDisk *read;

    g_assert_no_error(error);
    g_assert_cmpuint(again->sequence, ==, 41);
    g_assert_cmpstr(again->snapshot, ==, record->snapshot);
    g_assert_cmpstr(again->uuid, ==, "uuid");
    g_assert_cmpint(again->state, ==, VMR_STATE_PIVOTING);
    g_assert_cmpuint(again->disks->len, ==, 1);
    read = again->disks->pdata[0];
    g_assert_cmpstr(read->target, ==, "vda");
    g_assert_cmpint(read->state, ==, VMR_DISK_STATE_PIVOTING);
    check_same_file(read->source, disk->source);
    check_same_file(read->overlay, disk->overlay);
    check_same_file(read->mirror, disk->mirror);
    g_assert_cmpuint(read->copies->len, ==, 2);
    check_same_file(read->copies->pdata[1], disk->copies->pdata[1]);
}

static void
test_every_state_survives(void)
{
    g_autoptr(VmrRecord) record = sample();
    VmrDisk *disk = record->disks->pdata[0];

    for (int i = 0; i < VMR_STATE_LAST * VMR_DISK_STATE_LAST; i++) {
        g_autofree char *xml = NULL;
        g_autoptr(VmrRecord) again = NULL;

        record->state = (VmrState)(i % VMR_STATE_LAST);
        disk->state = (VmrDiskState)(i / VMR_STATE_LAST);
        xml = vmr_record_format(record);
        again = vmr_record_parse(xml, NULL);
        g_assert_cmpint(again->state, ==, record->state);
        g_assert_cmpint(((VmrDisk *)again->disks->pdata[0])->state, ==,
                        disk->state);
    }
}

/* It becomes metadata, whose namespace libvirt sets: none of ours. */
static void
test_format_has_no_namespace(void)
{
    g_autoptr(VmrRecord) record = sample();
    g_autofree char *xml = vmr_record_format(record);

    g_assert_true(g_str_has_prefix(xml, "<mirror "));
    g_assert_null(strstr(xml, "xmlns"));
}

#define FILES                                                                 \
    "<source path='/s' format='qcow2'/><overlay path='/o' format='qcow2'/>"   \
    "<mirror path='/m' format='qcow2'/>"
#define DISK "<disk target='vda' state='ready'>" FILES "</disk>"
#define HEAD_FOR(version, sequence, state)                                    \
    "<mirror version='" version "' sequence='" sequence                      \
    "' snapshot='s' domain='u' state='" state "'>"
#define GOOD_HEAD HEAD_FOR("1", "3", "mirroring")
#define GOOD_DISK "<disk target='vda' state='mirroring'>" FILES "</disk>"
#define WITH_FILES(files)                                                     \
    GOOD_HEAD "<disk target='vda' state='mirroring'>" files "</disk></mirror>"

static const struct {
    const char *name;
    const char *xml;
    const char *says;
} refused[] = {
    {"no_xml", "", ""},
    {"truncated", GOOD_HEAD GOOD_DISK, ""},
    {"other_root", "<disk/>", ""},
    {"dtd", "<!DOCTYPE mirror>" GOOD_HEAD GOOD_DISK "</mirror>", ""},
    {"entity",
     "<!DOCTYPE mirror [<!ENTITY a 'a'>]>" GOOD_HEAD GOOD_DISK "</mirror>", ""},
    {"newer", HEAD_FOR("2", "3", "mirroring") GOOD_DISK "</mirror>",
     "it has version 2, this virmirror knows version 1 only"},
    {"no_version", "<mirror sequence='1' snapshot='s' domain='u' "
                   "state='mirroring'>" GOOD_DISK "</mirror>",
     "no proper 'version'"},
    {"negative_sequence", HEAD_FOR("1", "-3", "mirroring") GOOD_DISK
     "</mirror>", "'-3' is no number for 'sequence'"},
    {"huge_sequence", HEAD_FOR("1", "18446744073709551616", "mirroring")
     GOOD_DISK "</mirror>", "is no number for 'sequence'"},
    {"unknown_state", HEAD_FOR("1", "3", "dreaming") GOOD_DISK "</mirror>",
     "unknown state 'dreaming'"},
    {"unknown_disk_state", GOOD_HEAD DISK "</mirror>",
     "unknown state 'ready'"},
    {"no_disks", GOOD_HEAD "</mirror>", "it has no disks"},
    {"disk_twice", GOOD_HEAD GOOD_DISK GOOD_DISK "</mirror>",
     "disk 'vda' is there twice"},
    {"no_overlay", WITH_FILES("<source path='/s' format='raw'/>"
                              "<mirror path='/m' format='qcow2'/>"),
     "a disk has no <overlay>"},
    {"relative_path", WITH_FILES("<source path='s' format='raw'/>"),
     "path 's' is not absolute"},
    {"empty_path", WITH_FILES("<source path='' format='raw'/>"),
     "<source> has no proper 'path'"},
    {"no_format", WITH_FILES("<source path='/s'/>"),
     "<source> has no proper 'format'"},
    {"strange_created",
     WITH_FILES("<source path='/s' format='raw' created='maybe'/>"),
     "'maybe' is no value for 'created'"},
    {"newline_in_value",
     WITH_FILES("<source path='/s' format='raw' created='&#10;'/>"),
     "'\\x0a' is no value for 'created'"},
    {"dev_without_ino", WITH_FILES("<source path='/s' format='raw' dev='1'/>"),
     "no proper 'ino'"},
};

static void
test_refused(gconstpointer data)
{
    gsize i = GPOINTER_TO_SIZE(data);
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_record_parse(refused[i].xml, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_JOURNAL);
    g_assert_true(g_str_has_prefix(error->message, "journal is unusable: "));
    g_assert_nonnull(strstr(error->message, refused[i].says));
    g_assert_null(strchr(error->message, '\n'));
}

/* @n layers, each with a path of @length bytes. */
static char *
with_copies(guint n, guint length)
{
    GString *xml = g_string_new(GOOD_HEAD "<disk target='vda' "
                                          "state='mirroring'>" FILES);
    g_autofree char *path = g_strnfill(length - 1, 'a');

    for (guint i = 0; i < n; i++)
        g_string_append_printf(xml, "<copy path='/%s' format='raw'/>", path);
    g_string_append(xml, "</disk></mirror>");
    return g_string_free(xml, FALSE);
}

static void
test_oversized_refused(void)
{
    g_autofree char *fits = with_copies(50, 4096);
    g_autofree char *long_path = with_copies(1, 4097);
    g_autofree char *large = with_copies(64, 4096);
    g_autoptr(VmrRecord) record = vmr_record_parse(fits, NULL);

    g_assert_nonnull(record);
    g_assert_null(vmr_record_parse(long_path, NULL));
    g_assert_null(vmr_record_parse(large, NULL));
}

/* Whatever is cut off, it is refused and not half understood. */
static void
test_truncated_anywhere_refused(void)
{
    g_autoptr(VmrRecord) record = sample();
    g_autofree char *xml = vmr_record_format(record);

    for (gsize length = strlen(xml) - 1; length > 0; length--) {
        g_autoptr(GError) error = NULL;

        xml[length] = '\0';
        g_assert_null(vmr_record_parse(xml, &error));
        g_assert_error(error, VMR_ERROR, VMR_ERROR_JOURNAL);
    }
}

static void
test_block_device_has_no_inode(void)
{
    g_autoptr(VmrFile) block = new_file("/dev/sda", 1, FALSE);
    g_autoptr(VmrFile) unknown = new_file("/a", 0, TRUE);

    g_assert_false(vmr_file_is_block(block));
    g_assert_false(vmr_file_is_block(unknown));
    block->ino = 0;
    g_assert_true(vmr_file_is_block(block));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/record/round_trip_keeps_everything",
                    test_round_trip_keeps_everything);
    g_test_add_func("/record/every_state_survives", test_every_state_survives);
    g_test_add_func("/record/format_has_no_namespace",
                    test_format_has_no_namespace);
    g_test_add_func("/record/oversized_refused", test_oversized_refused);
    g_test_add_func("/record/truncated_anywhere_refused",
                    test_truncated_anywhere_refused);
    g_test_add_func("/record/block_device_has_no_inode",
                    test_block_device_has_no_inode);
    for (gsize i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_autofree char *path =
            g_strdup_printf("/record/parse_%s_refused", refused[i].name);

        g_test_add_data_func(path, GSIZE_TO_POINTER(i), test_refused);
    }
    return g_test_run();
}
