/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* O_PATH, statx() */

#include "imagefile.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "autofd.h"
#include "error.h"

static const char *
kind_name(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "a regular file";
    case S_IFDIR:
        return "a folder";
    case S_IFBLK:
        return "a block device";
    case S_IFCHR:
        return "a character device";
    case S_IFIFO:
        return "a FIFO";
    case S_IFSOCK:
        return "a socket";
    default:
        return "a special file";
    }
}

/* O_PATH opens the name only: no FIFO blocks, no device driver acts. */
static int
open_name(const char *path, int flags, struct stat *st, GError **error)
{
    vmr_autofd fd = open(path, O_PATH | O_CLOEXEC | flags);

    if (fd < 0 || fstat(fd, st) < 0) {
        vmr_error_set_errno(error, errno, "open", path);
        return -1;
    }
    return vmr_fd_steal(&fd);
}

static int
open_link(const char *path, struct stat *st, GError **error)
{
    g_autoptr(GError) local = NULL;
    vmr_autofd fd = open_name(path, 0, st, &local);

    if (g_error_matches(local, VMR_ERROR, VMR_ERROR_NOT_FOUND)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "'%s' is a symbolic link that leads nowhere", path);
        return -1;
    }
    if (fd < 0) {
        g_propagate_error(error, g_steal_pointer(&local));
        return -1;
    }
    if (!S_ISBLK(st->st_mode)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "'%s' is a symbolic link to %s: name what it leads to",
                    path, kind_name(st->st_mode));
        return -1;
    }
    return vmr_fd_steal(&fd);
}

int
vmr_imagefile_open(const char *path, struct stat *st, GError **error)
{
    vmr_autofd fd = open_name(path, O_NOFOLLOW, st, error);

    if (fd < 0)
        return -1;
    if (S_ISLNK(st->st_mode)) {
        vmr_fd_close(&fd);
        fd = open_link(path, st, error);
        if (fd < 0)
            return -1;
    }
    if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "'%s' is %s: an image is a file or a block device", path,
                    kind_name(st->st_mode));
        return -1;
    }
    return vmr_imagefile_reopen(fd, path, error);
}

int
vmr_imagefile_reopen_as(int fd, int flags, const char *path, GError **error)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    int reopened = open(link, flags | O_CLOEXEC);
    int errnum = errno;

    if (reopened < 0)
        vmr_error_set_errno(error, errnum, "open", path);
    errno = errnum;
    return reopened;
}

int
vmr_imagefile_reopen(int path_fd, const char *path, GError **error)
{
    return vmr_imagefile_reopen_as(path_fd, O_RDONLY | O_NONBLOCK, path, error);
}

int
vmr_imagefile_open_folder(const char *path, char **base, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(path);
    int fd;

    if (path[0] == '\0' || g_str_has_suffix(path, "/")) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "'%s' names no file", path);
        return -1;
    }
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        vmr_error_set_errno(error, errno, "open folder", folder);
        return -1;
    }
    *base = g_path_get_basename(path);
    return fd;
}

char *
vmr_imagefile_dup_real_path(const char *path, GError **error)
{
    char *real = realpath(path, NULL); /* from malloc() */
    char *copy = g_strdup(real);

    if (!real)
        vmr_error_set_errno(error, errno, "resolve", path);
    free(real);
    return copy;
}

void
vmr_imagefile_identify(const struct stat *st, dev_t *dev, ino_t *ino)
{
    gboolean is_block = S_ISBLK(st->st_mode);

    /* a device can have many nodes, which have inodes of their own */
    *dev = is_block ? st->st_rdev : st->st_dev;
    *ino = is_block ? 0 : st->st_ino;
}

guint64
vmr_imagefile_get_birth(int fd)
{
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) < 0 ||
        !(stx.stx_mask & STATX_BTIME))
        return 0;
    return (guint64)stx.stx_btime.tv_sec * G_GUINT64_CONSTANT(1000000000) +
           stx.stx_btime.tv_nsec;
}

/* Where libvirt (7.0 and later) notes the owner of a file that it gives to a QEMU's
 * user, until it takes it back; only root can read it. */
#define REMEMBERED_OWNER "trusted.libvirt.security.dac"

void
vmr_imagefile_get_lasting_owner(int fd, const struct stat *st, uid_t *uid,
                                gid_t *gid)
{
    char text[64] = "";
    unsigned owner;
    unsigned group;

    *uid = st->st_uid;
    *gid = st->st_gid;
    if (fgetxattr(fd, REMEMBERED_OWNER, text, sizeof(text) - 1) > 0 &&
        sscanf(text, "+%u:+%u", &owner, &group) == 2) {
        *uid = owner;
        *gid = group;
    }
}

gboolean
vmr_imagefile_give_owner_of(int fd, const char *path, int like_fd,
                            GError **error)
{
    struct stat like;
    struct stat st;
    uid_t uid;
    gid_t gid;

    if (fstat(like_fd, &like) < 0 || fstat(fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "look at", path);
        return FALSE;
    }
    vmr_imagefile_get_lasting_owner(like_fd, &like, &uid, &gid);
    /* an ordinary user can give no file away, but to a group of its own */
    if (geteuid() != 0 && st.st_gid != gid && fchown(fd, (uid_t)-1, gid) < 0)
        return TRUE;
    if (geteuid() == 0 && (st.st_uid != uid || st.st_gid != gid) &&
        fchown(fd, uid, gid) < 0) {
        vmr_error_set_errno(error, errno, "set the owner of", path);
        return FALSE;
    }
    if (fchmod(fd, like.st_mode & 0664) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "set the mode of", path);
    return FALSE;
}

gboolean
vmr_imagefile_give_owner(int fd, const char *path, const char *like,
                         GError **error)
{
    struct stat st;
    vmr_autofd like_fd = vmr_imagefile_open(like, &st, error);

    return like_fd >= 0 &&
           vmr_imagefile_give_owner_of(fd, path, like_fd, error);
}

gboolean
vmr_imagefile_read(int fd, const char *path, guint8 *data, gsize len,
                   goffset offset, gsize *got, GError **error)
{
    *got = 0;
    while (*got < len) {
        ssize_t n = pread(fd, data + *got, len - *got,
                          offset + (goffset)*got);

        if (n == 0)
            break;
        if (n > 0) {
            *got += (gsize)n;
        } else if (errno != EINTR) {
            vmr_error_set_errno(error, errno, "read", path);
            return FALSE;
        }
    }
    return TRUE;
}
