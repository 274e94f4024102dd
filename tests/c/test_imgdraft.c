/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* File systems without unnamed files are played by openat(), which is ours. */

#define _GNU_SOURCE 1 /* O_TMPFILE */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "error.h"
#include "image.h"
#include "imgutil.h"

static gboolean no_unnamed_files;

int
openat(int folder, const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    va_start(args, flags);
    if (flags & (O_CREAT | O_TMPFILE))
        mode = va_arg(args, mode_t);
    va_end(args);
    if (no_unnamed_files && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

static VmrImageDraft *
draft(const char *path)
{
    VmrImageNew image = {path, "qcow2", IMG_SIZE, "below", "raw", NULL};
    VmrWait wait = vmr_wait_for(20, NULL);
    g_autoptr(GError) error = NULL;
    VmrImageDraft *made = vmr_image_draft_new(&image, &wait, &error);

    g_assert_no_error(error);
    g_assert_nonnull(made);
    return made;
}

static void
test_draft_not_published_is_not_seen(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    g_autoptr(VmrImageDraft) made = draft(path);

    g_assert_cmpuint(img_count(folder), ==, 0);
    g_assert_true(vmr_image_draft_get_image(made)->empty);
}

static void
test_draft_freed_leaves_nothing(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");

    for (int i = 0; i < 2; i++) {
        no_unnamed_files = i == 1;
        vmr_image_draft_free(draft(path));
        g_assert_cmpuint(img_count(folder), ==, 0);
    }
    no_unnamed_files = FALSE;
}

/* The identity can be noted down before the file is seen. */
static void
test_draft_published_is_that_file(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");

    for (int i = 0; i < 2; i++) {
        g_autoptr(VmrImageDraft) made = NULL;
        g_autoptr(GError) error = NULL;
        g_autoptr(VmrImage) image = NULL;

        no_unnamed_files = i == 1;
        made = draft(path);
        vmr_image_draft_publish(made, &error);
        g_assert_no_error(error);
        image = vmr_image_read(path, "qcow2", &error);
        g_assert_no_error(error);
        g_assert_true(vmr_image_same(image, vmr_image_draft_get_image(made)));
        g_assert_cmpstr(image->backing_name, ==, "below");
        g_assert_cmpuint(img_stat(path).st_mode & 07777, ==, 0600);
        g_clear_pointer(&made, vmr_image_draft_free);
        g_assert_cmpuint(img_count(folder), ==, 1);
        g_assert_cmpint(unlink(path), ==, 0);
    }
    no_unnamed_files = FALSE;
}

/* Somebody may have taken the name meanwhile. */
static void
test_draft_name_taken_exists(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    g_autoptr(VmrImageDraft) made = draft(path);
    g_autofree char *theirs = img_make_raw(folder, "a", 5);
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_image_draft_publish(made, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_EXISTS);
    g_clear_pointer(&made, vmr_image_draft_free);
    g_assert_cmpint(img_stat(theirs).st_size, ==, 5);
}

/* What was exchanged for a file that had its name at once is not removed. */
static void
test_draft_exchanged_is_left(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    VmrImageDraft *made;
    g_autofree char *theirs = NULL;

    no_unnamed_files = TRUE;
    made = draft(path);
    no_unnamed_files = FALSE;
    g_assert_cmpint(unlink(path), ==, 0);
    theirs = img_make_raw(folder, "a", 5);
    vmr_image_draft_free(made);
    g_assert_cmpint(img_stat(theirs).st_size, ==, 5);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/imgdraft/" #name, test_##name)
    ADD(draft_not_published_is_not_seen);
    ADD(draft_freed_leaves_nothing);
    ADD(draft_published_is_that_file);
    ADD(draft_name_taken_exists);
    ADD(draft_exchanged_is_left);
#undef ADD
    return g_test_run();
}
