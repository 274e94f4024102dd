/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "image.h"

#include "error.h"
#include "imgutil.h"

#include <sys/socket.h>
#include <sys/un.h>

static VmrImage *
read_fine(const char *path, const char *format)
{
    g_autoptr(GError) error = NULL;
    VmrImage *image = vmr_image_read(path, format, &error);

    g_assert_no_error(error);
    g_assert_nonnull(image);
    return image;
}

/* Reading @path must fail with @code and a text that has @text in it. */
static void
read_fails(const char *path, const char *format, VmrErrorCode code,
           const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrImage) image = vmr_image_read(path, format, &error);

    g_assert_null(image);
    g_assert_error(error, VMR_ERROR, (int)code);
    if (!strstr(error->message, text))
        g_error("'%s' is not in: %s", text, error->message);
    g_assert_null(strchr(error->message, '\n'));
}

static void
test_read_overlay_all_fields(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make_over(folder, "a", "b", "raw");
    g_autoptr(VmrImage) image = read_fine(path, "qcow2");
    struct stat st = img_stat(path);

    g_assert_cmpstr(image->path, ==, path);
    g_assert_cmpstr(image->format, ==, "qcow2");
    g_assert_cmpuint(image->version, ==, 3);
    g_assert_cmpuint(image->virtual_size, ==, IMG_SIZE);
    g_assert_cmpstr(image->backing_name, ==, "b");
    g_assert_cmpstr(image->backing_format, ==, "raw");
    g_assert_cmpuint(image->file_size, ==, st.st_size);
    g_assert_true(image->dev == st.st_dev && image->ino == st.st_ino);
    g_assert_true(image->empty);
    g_assert_false(image->data_file || image->encrypted || image->dirty ||
                   image->has_snapshots || image->has_bitmaps ||
                   image->is_block);
}

/* What one option of qemu-img makes of the header. */
static VmrImage *
read_made(const char *options)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", options);

    return read_fine(path, "qcow2");
}

static void
test_read_old_version_2(void)
{
    g_autoptr(VmrImage) image = read_made("compat=0.10,backing_file=b,"
                                          "backing_fmt=qcow2");

    g_assert_cmpuint(image->version, ==, 2);
    g_assert_cmpstr(image->backing_format, ==, "qcow2");
    g_assert_true(image->empty);
}

static void
test_read_no_backing_none(void)
{
    g_autoptr(VmrImage) image = read_made(NULL);

    g_assert_null(image->backing_name);
    g_assert_null(image->backing_format);
}

static void
test_read_all_cluster_kinds_fine(void)
{
    static const char *const option_table[] = {
        "cluster_size=512", "cluster_size=2M", "extended_l2=on",
        "compression_type=zstd", "refcount_bits=64", "lazy_refcounts=on",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(option_table); i++) {
        g_autoptr(VmrImage) image = read_made(option_table[i]);

        g_assert_cmpuint(image->virtual_size, ==, IMG_SIZE);
        g_assert_true(image->empty);
    }
}

static void
test_read_preallocated_not_empty(void)
{
    g_autoptr(VmrImage) image = read_made("preallocation=metadata");

    g_assert_false(image->empty);
}

static void
test_read_written_not_empty(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    g_autoptr(VmrImage) image = NULL;

    img_run("qemu-io -f qcow2 -c 'write 512k 4k' %s", path);
    image = read_fine(path, "qcow2");
    g_assert_false(image->empty);
}

/* The L1 table is read in pieces: the last entry is in the last one. */
static void
test_read_last_cluster_written_not_empty(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    g_autoptr(VmrImage) before = NULL;
    g_autoptr(VmrImage) after = NULL;

    img_run("qemu-img create -q -f qcow2 %s 64T", path);
    before = read_fine(path, "qcow2");
    g_assert_true(before->empty);
    img_run("qemu-io -f qcow2 -c 'write 68719476732k 4k' %s", path);
    after = read_fine(path, "qcow2");
    g_assert_false(after->empty);
}

static void
test_read_snapshot_and_bitmap_told(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    g_autoptr(VmrImage) image = NULL;

    img_run("qemu-img snapshot -c s %s", path);
    img_run("qemu-img bitmap --add -f qcow2 %s b", path);
    image = read_fine(path, "qcow2");
    g_assert_true(image->has_snapshots);
    g_assert_true(image->has_bitmaps);
}

static void
test_read_data_file_told(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *data = img_path(folder, "data");
    g_autofree char *options = g_strdup_printf("data_file=%s", data);
    g_autofree char *path = img_make(folder, "a", options);
    g_autoptr(VmrImage) image = read_fine(path, "qcow2");

    g_assert_true(image->data_file);
}

static void
test_read_encrypted_told(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    g_autoptr(VmrImage) image = NULL;

    /* qemu-img's key derivation now and then fails on a busy machine */
    img_poke32(path, 32, 2);
    image = read_fine(path, "qcow2");
    g_assert_true(image->encrypted);
}

static void
test_read_dirty_told(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    g_autoptr(VmrImage) image = NULL;

    img_poke32(path, 76, 1);
    image = read_fine(path, "qcow2");
    g_assert_true(image->dirty);
}

static void
test_read_forged_header_image(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);

    img_poke32(path, 100, 5);
    read_fails(path, "qcow2", VMR_ERROR_IMAGE, "header length of 5");
    read_fails(path, "qcow2", VMR_ERROR_IMAGE, path);
}

static void
test_read_truncated_image(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);

    g_assert_cmpint(truncate(path, 0x30007), ==, 0);
    read_fails(path, "qcow2", VMR_ERROR_IMAGE, "within its L1 table");
    g_assert_cmpint(truncate(path, 0xffff), ==, 0);
    read_fails(path, "qcow2", VMR_ERROR_IMAGE, "first cluster");
    g_assert_cmpint(truncate(path, 0), ==, 0);
    read_fails(path, "qcow2", VMR_ERROR_IMAGE, "does not begin as");
}

static void
test_read_raw_as_qcow2_image(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make_raw(folder, "a", IMG_SIZE);

    read_fails(path, "qcow2", VMR_ERROR_IMAGE, "does not begin as");
}

static void
test_read_raw_odd_size_rounded_up(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make_raw(folder, "a", 1025);
    g_autoptr(VmrImage) image = read_fine(path, "raw");

    g_assert_cmpuint(image->virtual_size, ==, 1536);
    g_assert_cmpuint(image->file_size, ==, 1025);
    g_assert_cmpuint(image->version, ==, 0);
    g_assert_false(image->empty);
}

static void
test_read_qcow2_as_raw_is_raw(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make_over(folder, "a", "/etc/shadow", "raw");
    g_autoptr(VmrImage) image = read_fine(path, "raw");

    g_assert_null(image->backing_name);
    g_assert_cmpuint(image->virtual_size, !=, IMG_SIZE);
}

static void
test_read_other_format_not_supported(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make_raw(folder, "a", IMG_SIZE);

    read_fails(path, "vmdk", VMR_ERROR_NOT_SUPPORTED, "'vmdk'");
    read_fails(path, "", VMR_ERROR_NOT_SUPPORTED, "''");
    read_fails(path, NULL, VMR_ERROR_NOT_SUPPORTED, "''");
}

static void
test_read_missing_not_found(void)
{
    read_fails("/nonexistent/a", "raw", VMR_ERROR_NOT_FOUND,
               "'/nonexistent/a'");
}

static void
test_read_special_file_image(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *fifo = img_path(folder, "fifo");
    g_autofree char *name = img_path(folder, "socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    g_strlcpy(address.sun_path, name, sizeof(address.sun_path));
    g_assert_cmpint(bind(sock, (struct sockaddr *)&address, sizeof(address)),
                    ==, 0);
    read_fails(fifo, "raw", VMR_ERROR_IMAGE, "is a FIFO");
    read_fails(name, "raw", VMR_ERROR_IMAGE, "is a socket");
    read_fails(folder, "raw", VMR_ERROR_IMAGE, "is a folder");
    read_fails("/dev/zero", "raw", VMR_ERROR_IMAGE, "is a character device");
    close(sock);
}

static void
test_read_symbolic_link_image(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    g_autofree char *link = img_path(folder, "link");
    g_autofree char *dangling = img_path(folder, "dangling");
    g_autofree char *loop = img_path(folder, "loop");

    g_assert_cmpint(symlink(path, link), ==, 0);
    g_assert_cmpint(symlink("nothing", dangling), ==, 0);
    g_assert_cmpint(symlink("loop", loop), ==, 0);
    read_fails(link, "qcow2", VMR_ERROR_IMAGE, "link to a regular file");
    read_fails(dangling, "qcow2", VMR_ERROR_IMAGE, "leads nowhere");
    read_fails(loop, "qcow2", VMR_ERROR_IO, "symbolic links");
}

/* Block devices need root and loop devices: where there are none, nothing can
 * be said about them. */
static void
test_read_block_device_by_link_fine(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make_raw(folder, "a", IMG_SIZE);
    g_autofree char *link = img_path(folder, "link");
    g_autofree char *device = NULL;
    char *argv[] = {(char *)"losetup", (char *)"-f", (char *)"--show",
                    path, NULL};
    g_autoptr(VmrImage) direct = NULL;
    g_autoptr(VmrImage) linked = NULL;
    int status = -1;

    if (!g_spawn_sync(NULL, argv, NULL,
                      G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL, NULL,
                      NULL, &device, NULL, &status, NULL) || status != 0) {
        g_test_skip("no loop devices");
        return;
    }
    g_strchomp(device);
    g_assert_cmpint(symlink(device, link), ==, 0);
    direct = read_fine(device, "raw");
    linked = read_fine(link, "raw");
    img_run("losetup -d %s", device);
    g_assert_true(direct->is_block && linked->is_block);
    g_assert_cmpuint(direct->virtual_size, ==, IMG_SIZE);
    g_assert_cmpuint(direct->ino, ==, 0);
    g_assert_true(vmr_image_same(direct, linked));
}

static void
test_same_hard_link_true(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    g_autofree char *twin = img_path(folder, "twin");
    g_autofree char *other = img_make(folder, "other", NULL);
    g_autoptr(VmrImage) a = read_fine(path, "qcow2");
    g_autoptr(VmrImage) b = NULL;
    g_autoptr(VmrImage) c = read_fine(other, "qcow2");

    g_assert_cmpint(link(path, twin), ==, 0);
    b = read_fine(twin, "qcow2");
    g_assert_true(vmr_image_same(a, b));
    g_assert_false(vmr_image_same(a, c));
}

/* A backing name, and what it means in the header of /images/top. */
typedef struct {
    const char *name;
    gboolean relative;
    const char *path;
} Backing;

static const Backing backing_table[] = {
    {"base", TRUE, "/images/base"},
    {"sub/base", TRUE, "/images/sub/base"},
    {"../base", TRUE, "/images/../base"},
    {"./a:b", TRUE, "/images/a:b"},
    {"sub/a:b", TRUE, "/images/sub/a:b"},
    {"/etc/shadow", FALSE, "/etc/shadow"},
    {"/a:b", FALSE, "/a:b"},
    {"a:b", FALSE, NULL},
    {"nbd:localhost:10809", FALSE, NULL},
    {"json:{\"driver\":\"null-co\"}", FALSE, NULL},
    {"file:/etc/shadow", FALSE, NULL},
    {NULL, FALSE, NULL},
};

static void
test_backing_name_any_as_qemu_reads_it(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(backing_table); i++) {
        const Backing *row = &backing_table[i];
        VmrImage image = {.path = (char *)"/images/top",
                          .backing_name = (char *)row->name};
        g_autofree char *path = vmr_image_dup_backing_path(&image);

        g_assert_cmpint(vmr_image_backing_is_relative(&image), ==,
                        row->relative);
        g_assert_cmpstr(path, ==, row->path);
    }
}

static void
test_free_null_fine(void)
{
    vmr_image_free(NULL);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/image/" #name, test_##name)
    ADD(read_overlay_all_fields);
    ADD(read_old_version_2);
    ADD(read_no_backing_none);
    ADD(read_all_cluster_kinds_fine);
    ADD(read_preallocated_not_empty);
    ADD(read_written_not_empty);
    ADD(read_last_cluster_written_not_empty);
    ADD(read_snapshot_and_bitmap_told);
    ADD(read_data_file_told);
    ADD(read_encrypted_told);
    ADD(read_dirty_told);
    ADD(read_forged_header_image);
    ADD(read_truncated_image);
    ADD(read_raw_as_qcow2_image);
    ADD(read_raw_odd_size_rounded_up);
    ADD(read_qcow2_as_raw_is_raw);
    ADD(read_other_format_not_supported);
    ADD(read_missing_not_found);
    ADD(read_special_file_image);
    ADD(read_symbolic_link_image);
    ADD(read_block_device_by_link_fine);
    ADD(same_hard_link_true);
    ADD(backing_name_any_as_qemu_reads_it);
    ADD(free_null_fine);
#undef ADD
    return g_test_run();
}
