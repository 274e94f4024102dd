/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <utime.h>

#include "error.h"
#include "imgutil.h"
#include "mirror_fixture.h"
#include "proof.h"

/* A disk of the chain "old/top" on "old/base", with copies of the same names in
 * "new"; and its record. */
typedef struct {
    char *folder;
    VmrRecord *record;
    VmrDisk *disk;
} Disk;

static VmrFile *
new_file(const char *folder, const char *name, const char *format)
{
    g_autofree char *path = img_path(folder, name);
    VmrFile *file = vmr_file_new(path, format);
    VmrStamp stamp;
    g_autoptr(GError) error = NULL;

    vmr_stamp_take(path, &stamp, &error);
    g_assert_no_error(error);
    file->dev = stamp.dev;
    file->ino = stamp.ino;
    file->born = stamp.born;
    return file;
}

static void
make_side(const char *folder, const char *side)
{
    g_autofree char *path = img_path(folder, side);

    g_assert_cmpint(g_mkdir(path, 0700), ==, 0);
}

/* @odd is a part of all names. */
static Disk
disk_new(const char *odd)
{
    Disk disk = {.folder = img_folder_new(),
                 .record = vmr_record_new("snap", "uuid")};
    g_autofree char *base = g_strdup_printf("old/%sbase", odd);
    g_autofree char *top = g_strdup_printf("old/%stop", odd);
    g_autofree char *new_base = g_strdup_printf("new/%sbase", odd);
    g_autofree char *new_top = g_strdup_printf("new/%stop", odd);
    g_autofree char *base_path = img_path(disk.folder, base);
    g_autofree char *top_path = img_path(disk.folder, top);

    make_side(disk.folder, "old");
    make_side(disk.folder, "new");
    img_run("qemu-img create -q -f qcow2 '%s' %d", base_path, IMG_SIZE);
    img_run("qemu-img create -q -f qcow2 -u -b './%sbase' -F qcow2 '%s' %d",
            odd, top_path, IMG_SIZE);
    img_run("qemu-io -f qcow2 -c 'write -q -P 7 64k 64k' '%s'", base_path);
    img_run("qemu-io -f qcow2 -c 'write -q -P 8 256k 64k' '%s'", top_path);
    img_run("cp '%s' '%s/new'", base_path, disk.folder);
    img_run("cp '%s' '%s/new'", top_path, disk.folder);
    disk.disk = vmr_disk_new("vda");
    disk.disk->source = new_file(disk.folder, top, "qcow2");
    g_ptr_array_add(disk.disk->backing, new_file(disk.folder, base, "qcow2"));
    g_ptr_array_add(disk.disk->copies,
                    new_file(disk.folder, new_top, "qcow2"));
    g_ptr_array_add(disk.disk->copies,
                    new_file(disk.folder, new_base, "qcow2"));
    g_ptr_array_add(disk.record->disks, disk.disk);
    return disk;
}

static void
disk_clear(Disk *disk)
{
    vmr_record_free(disk->record);
    img_folder_free(disk->folder);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Disk, disk_clear)

static VmrProof *
prove(const Disk *disk, GError **error)
{
    VmrWait wait = fixture_patience();

    return vmr_proof_new(disk->record, &wait, error);
}

static const VmrFile *
copy_of(const Disk *disk, guint i)
{
    return g_ptr_array_index(disk->disk->copies, i);
}

/* That the copies are refused, by an error of @code that names @path. */
static void
assert_refused(const Disk *disk, VmrErrorCode code, const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrProof) proof = prove(disk, &error);

    g_assert_null(proof);
    g_assert_error(error, VMR_ERROR, (int)code);
    g_assert_nonnull(strstr(error->message, path));
}

static void
assert_proven(const Disk *disk)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrProof) proof = prove(disk, &error);

    g_assert_no_error(error);
    g_assert_nonnull(proof);
    g_assert_true(vmr_proof_still_holds(proof, &error));
    g_assert_no_error(error);
}

static void
test_new_same_bytes_proven(void)
{
    g_auto(Disk) disk = disk_new("");

    assert_proven(&disk);
}

static void
test_new_same_content_in_other_bytes_proven(void)
{
    g_auto(Disk) disk = disk_new("a b:c,\"\\\xc3\xa4");
    const VmrFile *copy = copy_of(&disk, 1);
    g_autofree char *made = img_path(disk.folder, "made");

    img_run("qemu-img convert -f qcow2 -O qcow2 -o cluster_size=4k "
            "'file:%s' '%s'", copy->path, made);
    img_run("cp '%s' '%s'", made, copy->path);
    assert_proven(&disk);
}

static void
test_new_other_content_refused(void)
{
    g_auto(Disk) disk = disk_new("");

    for (guint i = 0; i < 2; i++) {
        const VmrFile *copy = copy_of(&disk, i);

        /* where the layers above hide nothing */
        img_run("qemu-io -f qcow2 -c 'write -q -P 1 %uk 512' '%s'",
                768 + 64 * i, copy->path);
        assert_refused(&disk, VMR_ERROR_IMAGE, copy->path);
        img_run("qemu-io -f qcow2 -c 'write -q -z %uk 512' '%s'", 768 + 64 * i,
                copy->path);
        assert_proven(&disk);
    }
}

static void
test_new_empty_skeleton_refused(void)
{
    g_auto(Disk) disk = disk_new("");
    const VmrFile *copy = copy_of(&disk, 0);

    img_run("qemu-img create -q -f qcow2 -u -b base -F qcow2 '%s' %d",
            copy->path, IMG_SIZE);
    assert_refused(&disk, VMR_ERROR_IMAGE, copy->path);
}

static void
test_new_file_replaced_refused(void)
{
    g_auto(Disk) disk = disk_new("");
    const VmrFile *files[] = {copy_of(&disk, 1), disk.disk->source};

    for (gsize i = 0; i < G_N_ELEMENTS(files); i++) {
        img_run("cp -a '%s' '%s.x'", files[i]->path, files[i]->path);
        img_run("mv '%s' '%s.y'", files[i]->path, files[i]->path);
        img_run("mv '%s.x' '%s'", files[i]->path, files[i]->path);
        assert_refused(&disk, VMR_ERROR_DIVERGED, files[i]->path);
        img_run("mv '%s.y' '%s'", files[i]->path, files[i]->path);
        assert_proven(&disk);
    }
}

static void
test_new_layer_that_nothing_is_recorded_of_refused(void)
{
    g_auto(Disk) disk = disk_new("");

    g_ptr_array_set_size(disk.disk->backing, 0);
    assert_refused(&disk, VMR_ERROR_DIVERGED, "new/base");
}

static void
test_new_interrupted_cancelled(void)
{
    g_auto(Disk) disk = disk_new("");
    VmrWait wait = {.deadline = 0};
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_proof_new(disk.record, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
}

static void
test_still_holds_file_changed_false(void)
{
    g_auto(Disk) disk = disk_new("");
    const VmrFile *files[] = {disk.disk->source,
                              g_ptr_array_index(disk.disk->backing, 0),
                              copy_of(&disk, 0), copy_of(&disk, 1)};

    for (gsize i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(VmrProof) proof = prove(&disk, &error);
        const struct utimbuf then = {.actime = 1, .modtime = (time_t)i + 1};

        g_assert_no_error(error);
        g_assert_cmpint(utime(files[i]->path, &then), ==, 0);
        g_assert_false(vmr_proof_still_holds(proof, &error));
        g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
        g_assert_nonnull(strstr(error->message, files[i]->path));
    }
}

/* While the guest stands still, and nothing can be read any more. */
static void
test_pivot_copy_changed_after_the_proof_refused(void)
{
    FakeFiles *files = fake_files_new_in("/var/tmp");
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    g_autofree char *path = fake_files_path(files, "new", "vda-base");
    const VmrCutOver how = {.atomic = TRUE, .pause_budget = 10};
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;
    double pause;

    fixture_wait_ready(mirror);
    fake_hv_knobs(fake)->written_at_rest = path;
    g_assert_false(vmr_mirror_cut_over(mirror, &how, &pause, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_assert_nonnull(strstr(error->message, path));
    g_assert_false(fixture_is_pivoted(fake, 0));
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_RESUME), ==, 1);
    fixture_clean_up(fake);
    fixture_check_ended(fake, files);
    fake_files_free(files);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/proof/new_same_bytes_proven", test_new_same_bytes_proven);
    g_test_add_func("/proof/new_same_content_in_other_bytes_proven",
                    test_new_same_content_in_other_bytes_proven);
    g_test_add_func("/proof/new_other_content_refused",
                    test_new_other_content_refused);
    g_test_add_func("/proof/new_empty_skeleton_refused",
                    test_new_empty_skeleton_refused);
    g_test_add_func("/proof/new_file_replaced_refused",
                    test_new_file_replaced_refused);
    g_test_add_func("/proof/new_layer_that_nothing_is_recorded_of_refused",
                    test_new_layer_that_nothing_is_recorded_of_refused);
    g_test_add_func("/proof/new_interrupted_cancelled",
                    test_new_interrupted_cancelled);
    g_test_add_func("/proof/still_holds_file_changed_false",
                    test_still_holds_file_changed_false);
    g_test_add_func("/proof/pivot_copy_changed_after_the_proof_refused",
                    test_pivot_copy_changed_after_the_proof_refused);
    return g_test_run();
}
