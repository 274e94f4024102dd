/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* F_OFD_SETLK */

#include "error.h"
#include "image.h"
#include "imgutil.h"

static gboolean
rebase(const char *path, const char *name, GError **error)
{
    VmrWait wait = vmr_wait_for(30, NULL);

    return vmr_image_rebase(path, name, "qcow2", &wait, error);
}

static void
test_rebase_gives_the_header_another_name(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path =
        img_make_over(folder, "top", "/somewhere/base", "raw");
    struct stat before = img_stat(path);
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrImage) image = NULL;

    g_assert_true(rebase(path, "-odd, name", &error));
    g_assert_no_error(error);
    image = vmr_image_read(path, "qcow2", &error);
    g_assert_no_error(error);
    g_assert_cmpstr(image->backing_name, ==, "-odd, name");
    g_assert_cmpstr(image->backing_format, ==, "qcow2");
    g_assert_cmpuint(img_stat(path).st_ino, ==, before.st_ino);
}

static void
test_rebase_of_image_in_use_busy(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make_over(folder, "top", "base", "qcow2");
    /* as a QEMU that only reads it holds it */
    struct flock lock = {.l_type = F_RDLCK, .l_start = 100, .l_len = 1};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    g_assert_false(rebase(path, "other", &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_BUSY);
    close(fd);
}

static void
test_rebase_of_what_is_no_image_fails(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *raw = img_make_raw(folder, "raw", IMG_SIZE);
    g_autofree char *link = img_path(folder, "link");
    g_autofree char *none = img_path(folder, "none");
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(symlink(raw, link), ==, 0);
    g_assert_false(rebase(raw, "other", &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IO);
    g_clear_error(&error);
    g_assert_false(rebase(link, "other", &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IO);
    g_clear_error(&error);
    g_assert_false(rebase(none, "other", &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/imgrebase/gives_the_header_another_name",
                    test_rebase_gives_the_header_another_name);
    g_test_add_func("/imgrebase/of_image_in_use_busy",
                    test_rebase_of_image_in_use_busy);
    g_test_add_func("/imgrebase/of_what_is_no_image_fails",
                    test_rebase_of_what_is_no_image_fails);
    return g_test_run();
}
