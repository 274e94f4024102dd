/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * imgutil: a folder for image files that is gone after the test, images made
 * by the real qemu-img, and headers forged byte by byte.
 */

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Values of the tests' standard image. */
#define IMG_SIZE (1024 * 1024)

/* A new folder; owned, to be removed by img_folder_free(). */
static inline char *
img_folder_new(void)
{
    g_autoptr(GError) error = NULL;
    char *folder = g_dir_make_tmp("virmirror-test-XXXXXX", &error);

    g_assert_no_error(error);
    return folder;
}

static inline void
img_folder_free(char *folder)
{
    char *argv[] = {(char *)"rm", (char *)"-rf", (char *)"--", folder, NULL};

    g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL,
                 NULL, NULL);
    g_free(folder);
}

typedef char ImgFolder;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ImgFolder, img_folder_free)

/* Run a command line that must succeed; @...: printf. */
G_GNUC_PRINTF(1, 2)
static inline void
img_run(const char *format, ...)
{
    g_autofree char *line = NULL;
    g_autofree char *output = NULL; /* would disturb the report of the tests */
    g_autofree char *complaint = NULL;
    g_autoptr(GError) error = NULL;
    int status = 0;
    va_list args;

    va_start(args, format);
    line = g_strdup_vprintf(format, args);
    va_end(args);
    g_spawn_command_line_sync(line, &output, &complaint, &status, &error);
    g_assert_no_error(error);
    if (status != 0)
        g_error("'%s' failed: %s", line, complaint);
}

static inline char *
img_path(const char *folder, const char *name)
{
    return g_build_filename(folder, name, NULL);
}

/* Make @name in @folder by qemu-img; @options NULL or as after "-o". */
static inline char *
img_make(const char *folder, const char *name, const char *options)
{
    char *path = img_path(folder, name);

    img_run("qemu-img create -q -f qcow2 -u -o compat=1.1%s%s '%s' %d",
            options ? "," : "", options ? options : "", path, IMG_SIZE);
    return path;
}

/* Make an overlay @name whose header names @backing of @format. */
static inline char *
img_make_over(const char *folder, const char *name, const char *backing,
              const char *format)
{
    g_autofree char *options =
        g_strdup_printf("backing_file=%s,backing_fmt=%s", backing, format);

    return img_make(folder, name, options);
}

static inline char *
img_make_raw(const char *folder, const char *name, off_t size)
{
    char *path = img_path(folder, name);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, size), ==, 0);
    close(fd);
    return path;
}

/* Overwrite @len bytes of @path at @offset. */
static inline void
img_poke(const char *path, off_t offset, const void *data, gsize len)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, data, len, offset), ==, (gssize)len);
    close(fd);
}

static inline void
img_poke32(const char *path, off_t offset, guint32 value)
{
    guint32 big = GUINT32_TO_BE(value);

    img_poke(path, offset, &big, sizeof(big));
}

static inline struct stat
img_stat(const char *path)
{
    struct stat st;

    g_assert_cmpint(lstat(path, &st), ==, 0);
    return st;
}

static inline gboolean
img_exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* How many entries @folder has: to see that nothing is left behind. */
static inline guint
img_count(const char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    guint n = 0;

    while (g_dir_read_name(dir))
        n++;
    return n;
}
