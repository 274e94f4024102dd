/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "error.h"
#include "truth.h"

static VmrDisk *
sample_disk(void)
{
    VmrDisk *disk = vmr_disk_new("vda");

    disk->source = vmr_file_new("/old/source", "qcow2");
    disk->overlay = vmr_file_new("/old/overlay", "qcow2");
    disk->mirror = vmr_file_new("/new/mirror", "qcow2");
    return disk;
}

/* A domain whose disk @target runs on @source, with the element @mirror. */
static VmrDomXml *
domain_on(const char *target, const char *source, const char *mirror)
{
    g_autofree char *xml = g_strdup_printf(
        "<domain type='qemu' id='1'><name>guest</name><uuid>u</uuid><devices>"
        "<disk type='file' device='disk'>%s%s%s%s<target dev='%s'/></disk>"
        "</devices></domain>",
        source ? "<source file='" : "", source ? source : "",
        source ? "'/>" : "", mirror, target);
    g_autoptr(GError) error = NULL;
    VmrDomXml *dom = vmr_domxml_parse(xml, &error);

    g_assert_no_error(error);
    return dom;
}

#define MIRROR(job, ready, path)                                              \
    "<mirror type='file' job='" job "'" ready ">"                             \
    "<format type='qcow2'/><source file='" path "'/></mirror>"
#define COPY(ready) MIRROR("copy", ready, "/new/mirror")
#define COMMIT(ready) MIRROR("active-commit", ready, "/old/source")

static const struct {
    const char *name;
    const char *target;
    const char *source;
    const char *mirror;
    VmrTruth truth;
} rows[] = {
    {"source", "vda", "/old/source", "", VMR_TRUTH_SOURCE},
    {"overlay", "vda", "/old/overlay", "", VMR_TRUTH_OVERLAY},
    {"mirroring", "vda", "/old/overlay", COPY(""), VMR_TRUTH_MIRRORING},
    {"ready", "vda", "/old/overlay", COPY(" ready='yes'"), VMR_TRUTH_READY},
    {"pivot_under_way", "vda", "/old/overlay", COPY(" ready='pivot'"),
     VMR_TRUTH_ENDING},
    {"abort_under_way", "vda", "/old/overlay", COPY(" ready='abort'"),
     VMR_TRUTH_ENDING},
    {"pivoted", "vda", "/new/mirror", "", VMR_TRUTH_PIVOTED},
    {"undoing", "vda", "/old/overlay", COMMIT(""), VMR_TRUTH_UNDOING},
    {"undoing_ready", "vda", "/old/overlay", COMMIT(" ready='yes'"),
     VMR_TRUTH_UNDOING},
    {"undoing_pivot_under_way", "vda", "/old/overlay",
     COMMIT(" ready='pivot'"), VMR_TRUTH_ENDING},
    {"commit_elsewhere", "vda", "/old/overlay",
     MIRROR("active-commit", "", "/old/base"), VMR_TRUTH_OTHER},
    {"copy_to_the_source", "vda", "/old/overlay",
     MIRROR("copy", " ready='yes'", "/old/source"), VMR_TRUTH_OTHER},
    {"copy_elsewhere", "vda", "/old/overlay",
     MIRROR("copy", " ready='yes'", "/elsewhere"), VMR_TRUTH_OTHER},
    {"copy_of_something_else", "vda", "/elsewhere", COPY(" ready='yes'"),
     VMR_TRUTH_OTHER},
    {"foreign_source", "vda", "/elsewhere", "", VMR_TRUTH_OTHER},
    {"no_medium", "vda", NULL, "", VMR_TRUTH_OTHER},
    {"no_such_disk", "vdb", "/old/overlay", "", VMR_TRUTH_OTHER},
};

static void
test_row(gconstpointer data)
{
    gsize i = GPOINTER_TO_SIZE(data);
    g_autoptr(VmrDisk) disk = sample_disk();
    g_autoptr(VmrDomXml) live =
        domain_on(rows[i].target, rows[i].source, rows[i].mirror);

    g_assert_cmpstr(vmr_truth_name(vmr_truth_of(disk, live)), ==,
                    vmr_truth_name(rows[i].truth));
}

static void
test_names_differ(void)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    for (int i = 0; i < VMR_TRUTH_LAST; i++)
        g_assert_true(g_hash_table_add(
            names, (gpointer)vmr_truth_name((VmrTruth)i)));
}

static void
test_inactive_follows_fine(void)
{
    g_autoptr(VmrDisk) disk = sample_disk();
    g_autoptr(VmrDomXml) inactive = domain_on("vda", "/new/mirror", "");

    g_assert_true(
        vmr_truth_check_inactive(disk, "/new/mirror", inactive, NULL));
    g_assert_true(vmr_truth_check_inactive(disk, "/new/mirror", NULL, NULL));
}

static void
check_behind(const char *target)
{
    g_autoptr(VmrDisk) disk = sample_disk();
    g_autoptr(VmrDomXml) inactive = domain_on(target, "/old/overlay", "");
    g_autoptr(GError) error = NULL;

    g_assert_false(
        vmr_truth_check_inactive(disk, "/new/mirror", inactive, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_assert_cmpstr(vmr_error_get_detail(error)->disk, ==, "vda");
    g_assert_nonnull(strstr(error->message, "'/new/mirror'"));
}

static void
test_inactive_behind_diverged(void)
{
    check_behind("vda");
    check_behind("vdb");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/truth/names_differ", test_names_differ);
    g_test_add_func("/truth/inactive_follows_fine",
                    test_inactive_follows_fine);
    g_test_add_func("/truth/inactive_behind_diverged",
                    test_inactive_behind_diverged);
    for (gsize i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *path = g_strdup_printf("/truth/of_%s", rows[i].name);

        g_test_add_data_func(path, GSIZE_TO_POINTER(i), test_row);
    }
    return g_test_run();
}
