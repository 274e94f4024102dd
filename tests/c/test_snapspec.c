/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>
#include <string.h>

#include "error.h"
#include "snapspec.h"

#define MAX_DISKS 4

typedef struct {
    const char *name;
    const char *disks[MAX_DISKS]; /* diskspecs */
    const char *message;          /* NULL: nothing is wrong */
    gboolean unsupported;
} Case;

static const Case cases[] = {
    {NULL, {"vda,mirror=/b"}, NULL, FALSE},
    {"migrate", {"vda,file=/a,mirror=/b"}, NULL, FALSE},
    {"migrate", {"vda,snapshot=external,driver=qcow2,file=/a,mirror=/b"}, NULL,
     FALSE},
    {"m", {"vda,mirror=/b", "vdb,mirror=/c", "vdc,snapshot=no"}, NULL, FALSE},
    {"-f ö;&'\"<,:", {"/path1/old.qcow2,file=/-a,mirror=/:b"}, NULL, FALSE},

    {"", {"vda,mirror=/b"}, "snapshot name '' is not valid: it is empty",
     FALSE},
    {"a/b", {"vda,mirror=/b"},
     "snapshot name 'a/b' is not valid: it must not contain '/'", FALSE},
    {"..", {"vda,mirror=/b"},
     "snapshot name '..' is not valid: it must not start with '.'", FALSE},
    {"a\nb", {"vda,mirror=/b"},
     "snapshot name 'a\\x0ab' is not valid: it has control characters or is "
     "not UTF-8", FALSE},
    {"caf\xe9", {"vda,mirror=/b"},
     "snapshot name 'caf\\xe9' is not valid: it has control characters or is "
     "not UTF-8", FALSE},

    {NULL, {NULL},
     "no disk is to be mirrored: give at least one disk a mirror", FALSE},
    {NULL, {"vda,snapshot=no"},
     "no disk is to be mirrored: give at least one disk a mirror", FALSE},
    {NULL, {"vda,mirror=/b", "vda,mirror=/c"}, "disk 'vda' is given twice",
     FALSE},
    {NULL, {"vda,mirror=/b", "vda,snapshot=no"}, "disk 'vda' is given twice",
     FALSE},
    {NULL, {"vda,file=/a"},
     "disk 'vda' has no mirror: snapshot it separately, or give it "
     "snapshot='no' or a mirror", FALSE},
    {NULL, {"vda,mirror=/b", "vdb,snapshot=internal"},
     "disk 'vdb' has no mirror: snapshot it separately, or give it "
     "snapshot='no' or a mirror", FALSE},
    {NULL, {"vda,snapshot=internal,mirror=/b"},
     "disk 'vda' has snapshot='internal': only an external snapshot can be "
     "mirrored", FALSE},
    {NULL, {"vda,snapshot=manual,mirror=/b"},
     "disk 'vda' has snapshot='manual': only an external snapshot can be "
     "mirrored", FALSE},
    {NULL, {"vda,snapshot=no,mirror=/b"},
     "disk 'vda' has snapshot='no', but also a driver, file or mirror",
     FALSE},
    {NULL, {"vda,snapshot=no,driver=raw,file=a,mirror=b"},
     "disk 'vda' has snapshot='no', but also a driver, file or mirror",
     FALSE},
    {NULL, {"vda,mirror=/b", "vdb,snapshot=no,file=/c"},
     "disk 'vdb' has snapshot='no', but also a driver, file or mirror",
     FALSE},

    {NULL, {"vda,mirror=b"},
     "path 'b' of the mirror of disk 'vda' is not absolute", FALSE},
    {NULL, {"vda,file=./a,mirror=/b"},
     "path './a' of the overlay of disk 'vda' is not absolute", FALSE},
    {NULL, {"vda,mirror=nbd:unix:/b"},
     "path 'nbd:unix:/b' of the mirror of disk 'vda' is not absolute", FALSE},
    {NULL, {"vda,mirror=/b/"},
     "path '/b/' of the mirror of disk 'vda' names a folder: add a file name",
     FALSE},
    {NULL, {"vda,file=/a,mirror=/a"},
     "'/a' is meant for the overlay of disk 'vda' and for the mirror of disk "
     "'vda'", FALSE},
    {NULL, {"vda,file=/a,mirror=/b", "vdb,file=/b,mirror=/c"},
     "'/b' is meant for the mirror of disk 'vda' and for the overlay of disk "
     "'vdb'", FALSE},
    {NULL, {"vda,mirror=/b", "vdb,mirror=/b"},
     "'/b' is meant for the mirror of disk 'vda' and for the mirror of disk "
     "'vdb'", FALSE},

    {NULL, {"vda,driver=raw,mirror=/b"},
     "the overlay of disk 'vda' cannot be 'raw': a raw file has no backing "
     "file and would lose the layers below, use 'qcow2'", TRUE},
    {NULL, {"vda,driver=qed,mirror=/b"},
     "format 'qed' of the overlay of disk 'vda' is not supported: use "
     "'qcow2'", TRUE},
    {NULL, {"vda,driver=QCOW2,mirror=/b"},
     "format 'QCOW2' of the overlay of disk 'vda' is not supported: use "
     "'qcow2'", TRUE},
    {"a/b", {"vda,driver=raw,file=a,mirror=/b", "vdb"},
     "snapshot name 'a/b' is not valid: it must not contain '/'; the overlay "
     "of disk 'vda' cannot be 'raw': a raw file has no backing file and would "
     "lose the layers below, use 'qcow2'; path 'a' of the overlay of disk "
     "'vda' is not absolute; disk 'vdb' has no mirror: snapshot it "
     "separately, or give it snapshot='no' or a mirror", FALSE},
};

static VmrSnapSpec *
make_spec(const Case *c)
{
    VmrSnapSpec *spec = vmr_snapspec_new(c->name, NULL);

    for (gsize i = 0; i < MAX_DISKS && c->disks[i]; i++) {
        g_autoptr(GError) error = NULL;

        g_ptr_array_add(spec->disks, vmr_diskspec_parse(c->disks[i], &error));
        g_assert_no_error(error);
    }
    return spec;
}

static void
check(const VmrSnapSpec *spec, const char *message, gboolean unsupported)
{
    g_autoptr(GError) error = NULL;

    if (!message) {
        g_assert_true(vmr_snapspec_check(spec, &error));
        g_assert_no_error(error);
        return;
    }
    g_assert_false(vmr_snapspec_check(spec, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
    g_assert_cmpstr(error->message, ==, message);
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                    unsupported ? VIR_ERR_CONFIG_UNSUPPORTED
                                : VIR_ERR_XML_DETAIL);
}

static void
test_check_table_as_expected(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(VmrSnapSpec) spec = make_spec(&cases[i]);

        check(spec, cases[i].message, cases[i].unsupported);
    }
}

/* libvirt fails on such a name when the guest has been snapshotted already. */
static void
test_check_name_at_the_length_cap_only(void)
{
    g_autofree char *name = g_strnfill(VMR_SNAPSPEC_MAX_NAME, 'n');
    g_autofree char *longer = g_strconcat(name, "n", NULL);
    const Case good = {name, {"vda,mirror=/b"}, NULL, FALSE};
    const Case bad = {longer, {"vda,mirror=/b"}, NULL, FALSE};
    g_autoptr(VmrSnapSpec) good_spec = make_spec(&good);
    g_autoptr(VmrSnapSpec) bad_spec = make_spec(&bad);
    g_autoptr(GError) error = NULL;

    check(good_spec, NULL, FALSE);
    g_assert_false(vmr_snapspec_check(bad_spec, &error));
    g_assert_true(g_str_has_suffix(error->message,
                                   "is longer than 247 bytes"));
}

static void
set_text(char **member, const char *text)
{
    g_free(*member);
    *member = g_strdup(text);
}

/* What only XML or a caller's struct can say. */
static void
test_check_struct_without_a_text_as_expected(void)
{
    const Case c = {NULL, {"vda,file=/a,mirror=/b"}, NULL, FALSE};
    g_autoptr(VmrSnapSpec) spec = make_spec(&c);
    VmrDiskSpec *disk = spec->disks->pdata[0];

    spec->description = g_strdup("two\r\n\tlines");
    disk->mirror_format = g_strdup("qcow2");
    disk->file_is_block = disk->mirror_is_block = TRUE;
    check(spec, NULL, FALSE);

    set_text(&disk->mirror_format, "raw");
    check(spec, "the mirror of disk 'vda' cannot be 'raw': a raw file has no "
                "backing file and would lose the layers below, use 'qcow2'",
          TRUE);
    set_text(&disk->mirror_format, NULL);

    set_text(&disk->mirror, "");
    check(spec, "path '' of the mirror of disk 'vda' is empty", FALSE);
    set_text(&disk->mirror, "/b\n");
    check(spec, "path '/b\\x0a' of the mirror of disk 'vda' has control "
                "characters or is not UTF-8", FALSE);
    set_text(&disk->mirror, "/b");

    set_text(&disk->name, "");
    check(spec, "disk name '' is empty, has control characters or is not "
                "UTF-8", FALSE);
    set_text(&disk->name, "v\x01");
    check(spec, "disk name 'v\\x01' is empty, has control characters or is "
                "not UTF-8", FALSE);
    set_text(&disk->name, "vda");

    set_text(&spec->description, "bell \x07");
    check(spec, "the description has control characters or is not UTF-8",
          FALSE);
}

static void
test_free_null_nothing(void)
{
    vmr_snapspec_free(NULL);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/snapspec/check_table_as_expected",
                    test_check_table_as_expected);
    g_test_add_func("/snapspec/check_name_at_the_length_cap_only",
                    test_check_name_at_the_length_cap_only);
    g_test_add_func("/snapspec/check_struct_without_a_text_as_expected",
                    test_check_struct_without_a_text_as_expected);
    g_test_add_func("/snapspec/free_null_nothing", test_free_null_nothing);
    return g_test_run();
}
