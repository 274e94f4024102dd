/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <glib/gstdio.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <sys/stat.h>

#include "image.h"
#include "mirror_fixture.h"

static FakeFiles *files;

/* Try to create on the first @n_disks disks. */
static VmrMirror *
create(FakeHv *fake, VmrSnapSpec *spec, guint flags, GError **error)
{
    VmrWait wait = vmr_wait_for(60, NULL);

    return vmr_mirror_create(fake_hv_get(fake), fake_hv_domain(fake), spec,
                             flags, &wait, error);
}

static VmrDiskSpec *
disk_of(VmrSnapSpec *spec, guint i)
{
    return g_ptr_array_index(spec->disks, i);
}

static void
check_source(FakeHv *fake, const char *target, const char *side,
             const char *name)
{
    g_autofree char *source = fake_hv_dup_source(fake, target);
    g_autofree char *expected = fake_files_path(files, side, name);

    g_assert_cmpstr(source, ==, expected);
}

/* ---- what works ---- */

static void
test_all_disks_on_overlays_and_mirrored(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 3);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 3, FALSE);
    const VmrRecord *record = vmr_mirror_get_record(mirror);

    g_assert_cmpint(record->state, ==, VMR_STATE_MIRRORING);
    g_assert_cmpuint(record->disks->len, ==, 3);
    check_source(fake, "vda", "old", "vda.snap");
    check_source(fake, "vdc", "old", "vdc.snap");
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_SNAPSHOT_CREATE), ==, 1);
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_BLOCK_COPY), ==, 3);
    fixture_clean_up(fake);
    fake_files_tidy(files);
}

static void
test_disk_not_named_is_left_alone(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);

    vmr_mirror_free(fixture_create(fake, 1, TRUE));
    check_source(fake, "vda", "old", "vda.reuse");
    check_source(fake, "vdb", "old", "vdb");
    fixture_clean_up(fake);
}

static void
check_made(const char *side, const char *name, const char *backing)
{
    g_autofree char *path = fake_files_path(files, side, name);
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrImage) image = vmr_image_read(path, "qcow2", &error);
    struct stat st;

    g_assert_no_error(error);
    g_assert_cmpstr(image->backing_name, ==, backing);
    g_assert_cmpint(g_stat(path, &st), ==, 0);
    /* as those of the source, which fake_files.c has made */
    g_assert_cmpint(st.st_mode & 0777, ==, 0600);
}

static void
test_new_files_are_private_and_relative(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);

    vmr_mirror_free(fixture_create(fake, 1, FALSE));
    check_made("old", "vda.snap", "vda");
    check_made("new", "vda.snap", "vda");
    fixture_clean_up(fake);
    fake_files_tidy(files);
}

static void
test_journal_knows_the_files(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrRecord) record = NULL;
    const VmrDisk *disk;
    struct stat st;

    vmr_mirror_free(fixture_create(fake, 1, FALSE));
    record = fixture_load(fake);
    disk = g_ptr_array_index(record->disks, 0);
    g_assert_cmpint(g_stat(disk->mirror->path, &st), ==, 0);
    g_assert_true(disk->mirror->created);
    g_assert_cmpuint(disk->mirror->ino, ==, st.st_ino);
    g_assert_cmpuint(disk->copies->len, ==, 2);
    g_assert_cmpint(disk->state, ==, VMR_DISK_STATE_MIRRORING);
    fixture_clean_up(fake);
    fake_files_tidy(files);
}

static void
test_transient_domain_has_a_live_journal_only(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = NULL;
    g_autofree char *config = NULL;
    g_autofree char *live = NULL;

    fake_hv_knobs(fake)->transient = TRUE;
    mirror = fixture_create(fake, 1, TRUE);
    live = fake_hv_dup_metadata(fake, FALSE);
    config = fake_hv_dup_metadata(fake, TRUE);
    g_assert_nonnull(live);
    g_assert_null(config);
    fixture_clean_up(fake);
}

static void
test_no_file_named_is_beside_the_source(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrSnapSpec) spec = fake_hv_spec(fake, 1, FALSE);
    g_autoptr(VmrMirror) mirror = NULL;
    g_autoptr(GError) error = NULL;

    g_clear_pointer(&disk_of(spec, 0)->file, g_free);
    mirror = create(fake, spec, 0, &error);
    g_assert_no_error(error);
    check_source(fake, "vda", "old", "vda.snap");
    fixture_clean_up(fake);
    fake_files_tidy(files);
}

/* ---- what is undone ---- */

static void
check_undone(guint n_disks, gboolean reuse, const char *refuse_copy)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, n_disks);
    g_autoptr(VmrSnapSpec) spec = fake_hv_spec(fake, n_disks, reuse);
    g_autofree char *before = fake_hv_describe(fake);
    g_autofree char *after = NULL;
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->refuse_copy = refuse_copy;
    g_assert_null(create(fake, spec, reuse ? VMR_MIRROR_REUSE_EXTERNAL : 0,
                         &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_VIRT);
    g_assert_cmpstr(vmr_error_get_detail(error)->disk, ==, refuse_copy);
    g_assert_cmpstr(vmr_error_get_detail(error)->phase, ==, "create");
    g_assert_false(vmr_error_get_detail(error)->partial);
    g_assert_true(fake_hv_settle(fake));
    after = fake_hv_describe(fake);
    g_assert_cmpstr(after, ==, before);
    /* files that were used are stale: the error tells of them */
    g_assert_cmpint(strstr(error->message, "vda.reuse' was in use") != NULL,
                    ==, reuse);
}

static void
test_third_copy_refused_everything_as_before(void)
{
    check_undone(3, FALSE, "vdc");
}

static void
test_copy_refused_tells_of_stale_overlays(void)
{
    check_undone(2, TRUE, "vdb");
}

static void
test_cleanup_fails_first_error_and_journal_stay(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrSnapSpec) spec = fake_hv_spec(fake, 1, TRUE);
    g_autofree char *journal = NULL;
    g_autoptr(GError) error = NULL;

    fake_hv_set_fault_on(fake, FAKE_FAULT_DEATH, VMR_HV_BLOCK_COPY);
    g_assert_null(create(fake, spec, VMR_MIRROR_REUSE_EXTERNAL, &error));
    g_assert_true(fake_hv_release(fake));
    g_assert_nonnull(strstr(error->message, "virDomainBlockCopy; undoing it "
                                            "failed, too"));
    g_assert_true(vmr_error_get_detail(error)->partial);
    journal = fake_hv_dup_metadata(fake, TRUE);
    g_assert_nonnull(journal);
    fixture_clean_up(fake);
}

/* ---- what is refused before anything is changed ---- */

typedef struct {
    const char *name;
    void (*spoil)(FakeHv *fake, VmrSnapSpec *spec);
    guint flags;
    VmrErrorCode code;
    int virt_code;
    const char *says;
} Refusal;

static void
spoil_disk(FakeHv *fake G_GNUC_UNUSED, VmrSnapSpec *spec)
{
    g_free(disk_of(spec, 0)->name);
    disk_of(spec, 0)->name = g_strdup("vdz");
}

static void
spoil_cdrom(FakeHv *fake G_GNUC_UNUSED, VmrSnapSpec *spec)
{
    g_free(disk_of(spec, 0)->name);
    disk_of(spec, 0)->name = g_strdup("sda");
}

/* Let the mirror of vda be DIR/@side/@name. */
static void
set_mirror(VmrSnapSpec *spec, const char *side, const char *name)
{
    g_free(disk_of(spec, 0)->mirror);
    disk_of(spec, 0)->mirror = fake_files_path(files, side, name);
}

static void
spoil_exists(FakeHv *fake G_GNUC_UNUSED, VmrSnapSpec *spec)
{
    set_mirror(spec, "new", "vda.reuse");
}

static void
spoil_source(FakeHv *fake G_GNUC_UNUSED, VmrSnapSpec *spec)
{
    set_mirror(spec, "new/../old", "vda");
}

static void
spoil_missing(FakeHv *fake G_GNUC_UNUSED, VmrSnapSpec *spec)
{
    set_mirror(spec, "new", "missing");
}

static void
spoil_folder(FakeHv *fake G_GNUC_UNUSED, VmrSnapSpec *spec)
{
    set_mirror(spec, "nowhere", "vda");
}

static void
spoil_skeleton(FakeHv *fake G_GNUC_UNUSED, VmrSnapSpec *spec)
{
    g_free(disk_of(spec, 0)->mirror);
    disk_of(spec, 0)->mirror = g_build_filename(files->folder, "vda", NULL);
}

static void
spoil_versions(FakeHv *fake, VmrSnapSpec *spec G_GNUC_UNUSED)
{
    fake_hv_knobs(fake)->qemu_version = 4002001;
}

static void
spoil_shut_off(FakeHv *fake, VmrSnapSpec *spec G_GNUC_UNUSED)
{
    fake_hv_shut_off(fake);
}

static void
spoil_snapshot(FakeHv *fake, VmrSnapSpec *spec G_GNUC_UNUSED)
{
    fake_hv_add_snapshot(fake, FAKE_SNAPSHOT);
}

static void
spoil_locked(FakeHv *fake, VmrSnapSpec *spec)
{
    fake_hv_knobs(fake)->locked = disk_of(spec, 0)->mirror;
    fake_hv_advance(fake, "vda");
}

static void
spoil_inactive(FakeHv *fake, VmrSnapSpec *spec G_GNUC_UNUSED)
{
    g_autofree char *other = fake_files_path(files, "old", "vdb");

    fake_hv_knobs(fake)->keep_inactive = TRUE;
    fake_hv_set_source(fake, "vda", other);
}

#define REUSE VMR_MIRROR_REUSE_EXTERNAL

static const Refusal refusals[] = {
    {"unknown_disk", spoil_disk, 0, VMR_ERROR_NOT_FOUND,
     VIR_ERR_CONFIG_UNSUPPORTED, "domain 'guest' has no disk 'vdz'"},
    {"cdrom", spoil_cdrom, 0, VMR_ERROR_NOT_SUPPORTED,
     VIR_ERR_CONFIG_UNSUPPORTED, "only devices of type 'disk'"},
    {"existing_mirror_without_reuse", spoil_exists, 0, VMR_ERROR_EXISTS,
     VIR_ERR_CONFIG_UNSUPPORTED, "reuse it (reuse_external)"},
    {"missing_mirror_with_reuse", spoil_missing, REUSE, VMR_ERROR_NOT_FOUND,
     VIR_ERR_SYSTEM_ERROR, "new/missing"},
    {"mirror_that_is_the_source", spoil_source, 0, VMR_ERROR_INVALID_SPEC,
     VIR_ERR_CONFIG_UNSUPPORTED, "is the same file as"},
    {"missing_folder", spoil_folder, 0, VMR_ERROR_NOT_FOUND,
     -1, "is no folder"},
    {"missing_skeleton", spoil_skeleton, 0, VMR_ERROR_NOT_FOUND, -1,
     "make its skeleton with prepare_chain() first"},
    {"old_qemu", spoil_versions, 0, VMR_ERROR_NOT_SUPPORTED,
     VIR_ERR_OPERATION_UNSUPPORTED, "QEMU 4.2 are too old"},
    {"inactive_domain", spoil_shut_off, 0, VMR_ERROR_INVALID_STATE,
     VIR_ERR_OPERATION_INVALID, "domain 'guest' is not running"},
    {"existing_snapshot", spoil_snapshot, 0, VMR_ERROR_EXISTS,
     VIR_ERR_OPERATION_INVALID, "has a snapshot 'snap' already"},
    {"mirror_in_use", spoil_locked, REUSE, VMR_ERROR_IMAGE,
     VIR_ERR_CONFIG_UNSUPPORTED, "is open for writing in another process"},
    {"other_persistent_source", spoil_inactive, 0, VMR_ERROR_LAST, -1,
     "the persistent definition has another source"},
};

static void
test_refusal(gconstpointer data)
{
    const Refusal *refusal = data;
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrSnapSpec) spec =
        fake_hv_spec(fake, 1, (refusal->flags & REUSE) != 0);
    g_autofree char *before = NULL;
    g_autofree char *after = NULL;
    g_autoptr(GError) error = NULL;

    refusal->spoil(fake, spec);
    fake_hv_settle(fake);
    before = fake_hv_describe(fake);
    g_assert_null(create(fake, spec, refusal->flags, &error));
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, refusal->says));
    if (refusal->code != VMR_ERROR_LAST)
        g_assert_error(error, VMR_ERROR, (int)refusal->code);
    if (refusal->virt_code >= 0)
        g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                        refusal->virt_code);
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_SET_METADATA), ==, 0);
    after = fake_hv_describe(fake);
    g_assert_cmpstr(after, ==, before);
}

static void
test_second_mirrored_snapshot_busy(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrSnapSpec) spec = fake_hv_spec(fake, 2, FALSE);
    g_autoptr(GError) error = NULL;

    vmr_mirror_free(fixture_create(fake, 1, TRUE));
    g_ptr_array_remove_index(spec->disks, 0);
    g_assert_null(create(fake, spec, 0, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_BUSY);
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                    VIR_ERR_BLOCK_COPY_ACTIVE);
    fixture_clean_up(fake);
}

static void
test_several_findings_in_one_error(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrSnapSpec) spec = fake_hv_spec(fake, 2, FALSE);
    g_autoptr(GError) error = NULL;

    spoil_exists(fake, spec);
    g_free(disk_of(spec, 1)->name);
    disk_of(spec, 1)->name = g_strdup("vdz");
    g_assert_null(create(fake, spec, 0, &error));
    g_assert_nonnull(strstr(error->message, "exists already"));
    g_assert_nonnull(strstr(error->message, "has no disk 'vdz'"));
}

static void
add_refusals(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(refusals); i++) {
        g_autofree char *path =
            g_strdup_printf("/mirror/create_%s_refused", refusals[i].name);

        g_test_add_data_func(path, &refusals[i], test_refusal);
    }
}

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    g_test_add_func("/mirror/create_all_disks_on_overlays_and_mirrored",
                    test_all_disks_on_overlays_and_mirrored);
    g_test_add_func("/mirror/create_disk_not_named_is_left_alone",
                    test_disk_not_named_is_left_alone);
    g_test_add_func("/mirror/create_new_files_are_private_and_relative",
                    test_new_files_are_private_and_relative);
    g_test_add_func("/mirror/create_journal_knows_the_files",
                    test_journal_knows_the_files);
    g_test_add_func("/mirror/create_transient_domain_has_a_live_journal_only",
                    test_transient_domain_has_a_live_journal_only);
    g_test_add_func("/mirror/create_no_file_named_is_beside_the_source",
                    test_no_file_named_is_beside_the_source);
    g_test_add_func("/mirror/create_third_copy_refused_everything_as_before",
                    test_third_copy_refused_everything_as_before);
    g_test_add_func("/mirror/create_copy_refused_tells_of_stale_overlays",
                    test_copy_refused_tells_of_stale_overlays);
    g_test_add_func("/mirror/create_cleanup_fails_first_error_and_journal_stay",
                    test_cleanup_fails_first_error_and_journal_stay);
    g_test_add_func("/mirror/create_second_mirrored_snapshot_busy",
                    test_second_mirrored_snapshot_busy);
    g_test_add_func("/mirror/create_several_findings_in_one_error",
                    test_several_findings_in_one_error);
    add_refusals();
    status = g_test_run();
    fake_files_free(files);
    return status;
}
