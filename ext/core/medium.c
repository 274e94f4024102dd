/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* O_PATH, major */

#include "medium.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "autofd.h"
#include "error.h"

/* Media stand on one another, but not endlessly. */
#define MAX_DEPTH 8

/* A line of mountinfo: "ID PARENT M:N ROOT POINT OPTIONS ... - TYPE SOURCE SUPER" */
typedef struct {
    char *type;   /* "ext4" */
    char *source; /* "/dev/sda1" */
    char *super;  /* options of the file system, joined by ',' */
} Mount;

static void
mount_clear(Mount *mount)
{
    g_free(mount->type);
    g_free(mount->source);
    g_free(mount->super);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Mount, mount_clear)

static gboolean probe(const char *path, guint depth, VmrMedium *medium,
                      GError **error);

/* The number of the mount that @fd is on, as mountinfo has it. */
static gboolean
find_mount_id(int fd, guint64 *id)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fdinfo/%d", fd);
    g_autofree char *text = NULL;
    const char *found;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return FALSE;
    found = strstr(text, "mnt_id:");
    if (!found)
        return FALSE;
    *id = strtoull(found + strlen("mnt_id:"), NULL, 10);
    return TRUE;
}

/* Blanks and the like are written as \ooo. */
static char *
unescape(const char *text)
{
    return g_strcompress(text);
}

static gboolean
read_mount_line(const char *line, Mount *mount)
{
    const char *tail = strstr(line, " - ");
    g_auto(GStrv) words = tail ? g_strsplit(tail + 3, " ", 3) : NULL;

    if (!words || g_strv_length(words) != 3)
        return FALSE;
    mount->type = g_strdup(words[0]);
    mount->source = unescape(words[1]);
    mount->super = unescape(words[2]);
    return TRUE;
}

/* The mount that @fd is on; FALSE: not to be had, as without /proc. */
static gboolean
find_mount(int fd, Mount *mount)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    guint64 id;

    if (!find_mount_id(fd, &id) ||
        !g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
        return FALSE;
    lines = g_strsplit(text, "\n", -1);
    for (guint i = 0; lines[i]; i++)
        if (g_ascii_isdigit(lines[i][0]) &&
            strtoull(lines[i], NULL, 10) == id)
            return read_mount_line(lines[i], mount);
    return FALSE;
}

/* Whether @text begins with @prefix and a number. */
static gboolean
is_numbered(const char *text, const char *prefix)
{
    return g_str_has_prefix(text, prefix) &&
           g_ascii_isdigit(text[strlen(prefix)]);
}

static gboolean
probe_device(dev_t dev, guint depth, VmrMedium *medium, GError **error)
{
    g_autofree char *link =
        g_strdup_printf("/sys/dev/block/%u:%u", major(dev), minor(dev));
    g_autofree char *target = g_file_read_link(link, NULL);
    g_autofree char *name = target ? g_path_get_basename(target) : NULL;
    g_autofree char *loop = g_build_filename(link, "loop/backing_file", NULL);
    g_autofree char *part = g_build_filename(link, "../loop/backing_file", NULL);
    g_autofree char *file = NULL;

    *medium = VMR_MEDIUM_LASTING;
    if (!name)
        return TRUE;
    if (is_numbered(name, "ram") || is_numbered(name, "zram"))
        *medium = VMR_MEDIUM_MEMORY;
    else if (is_numbered(name, "loop") &&
             (g_file_get_contents(loop, &file, NULL, NULL) ||
              g_file_get_contents(part, &file, NULL, NULL)) &&
             g_file_test(g_strchomp(file), G_FILE_TEST_EXISTS))
        return probe(file, depth + 1, medium, error);
    return TRUE;
}

/* An overlayfs keeps what is written in its upper folder, whose path is that of
 * whoever mounted it. */
static gboolean
probe_upper(const char *super, guint depth, VmrMedium *medium, GError **error)
{
    g_auto(GStrv) options = g_strsplit(super, ",", -1);

    *medium = VMR_MEDIUM_LASTING;
    for (guint i = 0; options[i]; i++) {
        const char *folder = options[i] + strlen("upperdir=");

        if (g_str_has_prefix(options[i], "upperdir=") &&
            g_file_test(folder, G_FILE_TEST_IS_DIR))
            return probe(folder, depth + 1, medium, error);
    }
    return TRUE;
}

static gboolean
probe_mount(int fd, const struct stat *st, guint depth, VmrMedium *medium,
            GError **error)
{
    g_auto(Mount) mount = {0};
    struct stat source;

    *medium = VMR_MEDIUM_LASTING;
    if (!find_mount(fd, &mount))
        return TRUE;
    if (g_str_equal(mount.type, "devtmpfs"))
        *medium = VMR_MEDIUM_NODES;
    else if (g_str_equal(mount.type, "tmpfs") ||
             g_str_equal(mount.type, "ramfs"))
        *medium = VMR_MEDIUM_MEMORY;
    else if (g_str_equal(mount.type, "overlay"))
        return probe_upper(mount.super, depth, medium, error);
    else if (major(st->st_dev) != 0)
        return probe_device(st->st_dev, depth, medium, error);
    else if (mount.source[0] == '/' && stat(mount.source, &source) == 0 &&
             S_ISBLK(source.st_mode))
        return probe_device(source.st_rdev, depth, medium, error);
    return TRUE;
}

static gboolean
probe(const char *path, guint depth, VmrMedium *medium, GError **error)
{
    vmr_autofd fd = open(path, O_PATH | O_CLOEXEC);
    struct stat st;

    *medium = VMR_MEDIUM_LASTING;
    if (fd < 0 || fstat(fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "look at", path);
        return FALSE;
    }
    if (depth > MAX_DEPTH)
        return TRUE;
    /* what is written to a device is not where its node is */
    if (S_ISBLK(st.st_mode))
        return probe_device(st.st_rdev, depth, medium, error);
    return probe_mount(fd, &st, depth, medium, error);
}

gboolean
vmr_medium_probe(const char *path, VmrMedium *medium, GError **error)
{
    return probe(path, 0, medium, error);
}

const char *
vmr_medium_why_unwritable(const char *folder)
{
    /* a trailing slash has it be a folder */
    g_autofree char *path = g_strconcat(folder, "/", NULL);

    if (faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) == 0)
        return NULL;
    switch (errno) {
    case EROFS:
        return "is on a file system that is mounted read-only";
    case EACCES:
    case EPERM:
        return "may not be written to by this user";
    case ENOENT:
    case ENOTDIR:
        return "is no folder";
    default:
        return "cannot be written to";
    }
}

static gboolean
is_barrier(const char *folder, uid_t uid, gid_t gid)
{
    struct stat st;

    if (stat(folder, &st) < 0 ||
        getxattr(folder, "system.posix_acl_access", NULL, 0) > 0)
        return FALSE;
    if (st.st_uid == uid)
        return !(st.st_mode & S_IXUSR);
    if (st.st_gid == gid)
        return !(st.st_mode & S_IXGRP);
    return !(st.st_mode & (S_IXGRP | S_IXOTH));
}

char *
vmr_medium_find_barrier(const char *folder, uid_t uid, gid_t gid)
{
    g_autofree char *real = realpath(folder, NULL);

    if (!real || uid == 0)
        return NULL;
    for (char *end = strchr(real + 1, '/'); end; end = strchr(end + 1, '/')) {
        *end = '\0';
        if (is_barrier(real, uid, gid))
            return g_strdup(real);
        *end = '/';
    }
    return is_barrier(real, uid, gid) ? g_strdup(real) : NULL;
}
