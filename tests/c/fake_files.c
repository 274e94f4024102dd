/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <glib/gstdio.h>
#include <unistd.h>

#include "fake_hv.h"
#include "image.h"

#define SIZE (4 * 1024 * 1024)

char *
fake_files_path(const FakeFiles *files, const char *side, const char *name)
{
    return g_build_filename(files->folder, side, name, NULL);
}

static void
make_image(const FakeFiles *files, const char *side, const char *name,
           const char *backing)
{
    g_autofree char *path = fake_files_path(files, side, name);
    VmrImageNew image = {.path = path,
                         .format = "qcow2",
                         .virtual_size = SIZE,
                         .backing_name = backing,
                         .backing_format = backing ? "qcow2" : NULL};
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;

    vmr_image_create(&image, NULL, &wait, &error);
    g_assert_no_error(error);
}

/* In memory if possible: the engine waits for each file to be on the disk. */
static const char *
temporary_folder(void)
{
    return g_access("/dev/shm", W_OK) == 0 ? "/dev/shm" : g_get_tmp_dir();
}

FakeFiles *
fake_files_new(void)
{
    return fake_files_new_in(temporary_folder());
}

FakeFiles *
fake_files_new_in(const char *parent)
{
    static const char *const sides[] = {"old", "new"};
    FakeFiles *files = g_new0(FakeFiles, 1);

    files->folder = g_build_filename(parent, "virmirror-XXXXXX", NULL);
    g_assert_nonnull(g_mkdtemp(files->folder));
    for (gsize i = 0; i < G_N_ELEMENTS(sides); i++) {
        g_autofree char *folder = fake_files_path(files, sides[i], NULL);

        g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
        for (int j = 0; j < FAKE_MAX_DISKS; j++) {
            g_autofree char *top = g_strdup_printf("vd%c", 'a' + j);
            g_autofree char *base = g_strconcat(top, "-base", NULL);
            g_autofree char *reuse = g_strconcat(top, ".reuse", NULL);

            make_image(files, sides[i], base, NULL);
            make_image(files, sides[i], top, base);
            make_image(files, sides[i], reuse, top);
        }
    }
    return files;
}

/* Remove from DIR/@side what ends with @suffix (NULL: all). */
static void
remove_from(const FakeFiles *files, const char *side, const char *suffix)
{
    g_autofree char *folder = fake_files_path(files, side, NULL);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);

        if (!suffix || g_str_has_suffix(name, suffix))
            g_unlink(path);
    }
    if (!suffix)
        g_rmdir(folder);
}

void
fake_files_tidy(const FakeFiles *files)
{
    remove_from(files, "old", "." FAKE_SNAPSHOT);
    remove_from(files, "new", "." FAKE_SNAPSHOT);
}

void
fake_files_free(FakeFiles *files)
{
    remove_from(files, "old", NULL);
    remove_from(files, "new", NULL);
    g_rmdir(files->folder);
    g_free(files->folder);
    g_free(files);
}
