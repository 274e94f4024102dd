/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* F_OFD_SETLK */

#include "error.h"
#include "image.h"
#include "imgutil.h"

static void
remove_fine(const char *path, dev_t dev, ino_t ino)
{
    g_autoptr(GError) error = NULL;
    gboolean ok = vmr_image_remove(path, dev, ino, 0, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
    g_assert_false(img_exists(path));
}

/* Removing @path must fail with @code and leave it. */
static void
remove_fails(const char *path, dev_t dev, ino_t ino, VmrErrorCode code)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_image_remove(path, dev, ino, 0, &error));
    g_assert_error(error, VMR_ERROR, (int)code);
    g_assert_nonnull(strstr(error->message, path));
    g_assert_true(img_exists(path));
}

static void
test_remove_own_file_gone(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    struct stat st = img_stat(path);

    remove_fine(path, st.st_dev, st.st_ino);
}

static void
test_remove_gone_file_fine(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    g_autofree char *deeper = img_path(folder, "sub/a");

    remove_fine(path, 1, 1);
    remove_fine(deeper, 1, 1);
}

/* The inode's number may have been used again. */
static void
test_remove_made_at_another_time_diverged(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrImage) image = vmr_image_read(path, "qcow2", &error);

    g_assert_no_error(error);
    g_assert_cmpuint(image->born, >, 0);
    g_assert_false(vmr_image_remove(path, image->dev, image->ino,
                                    image->born + 1, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_clear_error(&error);
    g_assert_true(img_exists(path));
    vmr_image_remove(path, image->dev, image->ino, image->born, &error);
    g_assert_no_error(error);
    g_assert_false(img_exists(path));
}

static void
test_remove_other_inode_diverged(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    struct stat st = img_stat(path);

    remove_fails(path, st.st_dev, st.st_ino + 1, VMR_ERROR_DIVERGED);
    remove_fails(path, st.st_dev + 1, st.st_ino, VMR_ERROR_DIVERGED);
}

static void
test_remove_link_to_it_diverged(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    g_autofree char *link = img_path(folder, "link");
    struct stat st = img_stat(path);
    struct stat link_st;

    g_assert_cmpint(symlink(path, link), ==, 0);
    link_st = img_stat(link);
    remove_fails(link, st.st_dev, st.st_ino, VMR_ERROR_DIVERGED);
    remove_fails(link, link_st.st_dev, link_st.st_ino, VMR_ERROR_DIVERGED);
}

static void
test_remove_fifo_or_folder_diverged(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *fifo = img_path(folder, "fifo");
    struct stat st;

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    st = img_stat(fifo);
    remove_fails(fifo, st.st_dev, st.st_ino, VMR_ERROR_DIVERGED);
    st = img_stat(folder);
    remove_fails(folder, st.st_dev, st.st_ino, VMR_ERROR_DIVERGED);
}

/* A lock on the byte by which QEMU says that it writes. */
static void
test_remove_written_by_qemu_busy(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    struct stat st = img_stat(path);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET,
                         .l_start = 101, .l_len = 1};
    int fd = open(path, O_RDWR | O_CLOEXEC);

    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    remove_fails(path, st.st_dev, st.st_ino, VMR_ERROR_BUSY);
    close(fd);
    remove_fine(path, st.st_dev, st.st_ino);
}

static void
test_remove_only_one_of_two_names(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    g_autofree char *twin = img_path(folder, "twin");
    struct stat st = img_stat(path);

    g_assert_cmpint(link(path, twin), ==, 0);
    remove_fine(path, st.st_dev, st.st_ino);
    g_assert_true(img_exists(twin));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/imgremove/" #name, test_##name)
    ADD(remove_own_file_gone);
    ADD(remove_gone_file_fine);
    ADD(remove_made_at_another_time_diverged);
    ADD(remove_other_inode_diverged);
    ADD(remove_link_to_it_diverged);
    ADD(remove_fifo_or_folder_diverged);
    ADD(remove_written_by_qemu_busy);
    ADD(remove_only_one_of_two_names);
#undef ADD
    return g_test_run();
}
