/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The two files of a copy: opening them, and refusing what must not be copied. */

#define _GNU_SOURCE 1 /* O_DIRECT */

#include <errno.h>
#include <fcntl.h>
#include <libvirt/virterror.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "autofd.h"
#include "error.h"
#include "imagefile.h"
#include "lockprobe.h"
#include "share.h"
#include "sparse_priv.h"
#include "storage.h"
#include "trust.h"

/* The size of the file or device @fd. */
static gboolean
get_size(int fd, const struct stat *st, const char *path, guint64 *size,
         GError **error)
{
    *size = (guint64)st->st_size;
    if (!S_ISBLK(st->st_mode) || ioctl(fd, BLKGETSIZE64, size) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "get the size of", path);
    return FALSE;
}

static gboolean
check_unused(int fd, const char *path, gboolean for_writing, GError **error)
{
    VmrLock lock;
    gboolean ok = for_writing ? vmr_lock_probe_use_fd(fd, path, &lock, error)
                              : vmr_lock_probe_fd(fd, path, &lock, error);

    if (!ok)
        return FALSE;
    if (lock != VMR_LOCK_WRITER)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                for_writing ? "'%s' is in use by a QEMU, so nothing is copied "
                              "into it"
                            : "'%s' is open for writing in a QEMU, so it "
                              "cannot be copied",
                path);
    return FALSE;
}

static gboolean
open_source(VmrSparseFiles *files, GError **error)
{
    vmr_autofd fd = vmr_imagefile_open(files->source, &files->in_st, error);

    if (fd < 0)
        return FALSE;
    /* without O_NONBLOCK, with which io_uring gives up instead of waiting */
    files->in =
        vmr_imagefile_reopen_as(fd, O_RDONLY, files->source, error);
    if (files->in < 0)
        return FALSE;
    files->in_direct =
        vmr_imagefile_reopen_as(fd, O_RDONLY | O_DIRECT, files->source, NULL);
    return check_unused(files->in, files->source, FALSE, error);
}

static gboolean
create_destination(VmrSparseFiles *files, GError **error)
{
    g_autofree char *folder = g_path_get_dirname(files->destination);
    VmrTrust trust = vmr_trust_new_for_folder(NULL, files->source);

    if (!vmr_trust_check_folder(&trust, folder, error))
        return FALSE;
    files->folder =
        vmr_imagefile_open_folder(files->destination, &files->base, error);
    if (files->folder < 0)
        return FALSE;
    files->out = openat(files->folder, files->base,
                        O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                        0600);
    if (files->out >= 0) {
        files->created = TRUE;
        return vmr_imagefile_give_owner_of(files->out, files->destination,
                                           files->in, error);
    }
    vmr_error_set_virt(error,
                       errno == EEXIST ? VMR_ERROR_EXISTS : VMR_ERROR_IO,
                       VIR_ERR_SYSTEM_ERROR, "cannot create '%s': %s",
                       files->destination, g_strerror(errno));
    return FALSE;
}

static gboolean
check_different(const VmrSparseFiles *files, const struct stat *out,
                GError **error)
{
    VmrStorage from = vmr_storage_of(&files->in_st);
    VmrStorage to = vmr_storage_of(out);

    if (!vmr_storage_overlaps(&from, &to))
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                vmr_storage_same(&from, &to)
                    ? "'%s' and '%s' are one and the same file"
                    : "'%s' and '%s' are on the same storage: what is written "
                      "to one changes the other",
                files->source, files->destination);
    return FALSE;
}

static gboolean
open_destination(VmrSparseFiles *files, gboolean overwrite, GError **error)
{
    g_autoptr(GError) local = NULL;
    VmrTrust trust = vmr_trust_new(NULL, files->in);
    struct stat st;
    vmr_autofd fd = vmr_imagefile_open(files->destination, &st, &local);

    if (g_error_matches(local, VMR_ERROR, VMR_ERROR_NOT_FOUND))
        return create_destination(files, error);
    if (fd < 0) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    if (!check_different(files, &st, error))
        return FALSE;
    if (!overwrite) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_EXISTS,
                    "'%s' exists: it is filled only where that is asked for",
                    files->destination);
        return FALSE;
    }
    if (!vmr_trust_check_file(&trust, fd, files->destination, error) ||
        !check_unused(fd, files->destination, TRUE, error))
        return FALSE;
    files->out_is_block = S_ISBLK(st.st_mode);
    files->out =
        vmr_imagefile_reopen_as(fd, O_RDWR, files->destination, error);
    return files->out >= 0;
}

gboolean
vmr_sparse_files_open(VmrSparseFiles *files, const char *source,
                      const char *destination, gboolean overwrite,
                      GError **error)
{
    *files = (VmrSparseFiles){.source = source,
                              .destination = destination,
                              .in = -1,
                              .in_direct = -1,
                              .out = -1,
                              .out_direct = -1,
                              .folder = -1};
    if (!open_source(files, error))
        return FALSE;
    if (!destination)
        return TRUE;
    if (!open_destination(files, overwrite, error))
        return FALSE;
    /* a file that libvirt has given to QEMU's user can be written to by who has
     * it open, but not be opened again */
    files->out_direct = vmr_imagefile_reopen_as(
        files->out, O_RDWR | O_DIRECT, destination, NULL);
    return TRUE;
}

void
vmr_sparse_files_close(VmrSparseFiles *files)
{
    /* a child that was forked meanwhile has the descriptors, too */
    if (files->out >= 0)
        vmr_sparse_files_unlock(files);
    vmr_fd_close(&files->in);
    vmr_fd_close(&files->in_direct);
    vmr_fd_close(&files->out_direct);
    vmr_fd_close(&files->out);
    vmr_fd_close(&files->folder);
    g_clear_pointer(&files->base, g_free);
}

/* Have the lock of the destination be @type (F_WRLCK), if it can be so at once. */
static gboolean
set_lock(const VmrSparseFiles *files, short type)
{
    struct flock lock = {
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = VMR_SHARE_LOCK_BYTE,
        .l_len = 1,
    };

    return fcntl(files->out, F_OFD_SETLK, &lock) == 0;
}

gboolean
vmr_sparse_files_try_lock(VmrSparseFiles *files, gboolean *taken,
                          GError **error)
{
    *taken = set_lock(files, F_WRLCK);
    if (*taken || errno == EAGAIN || errno == EACCES || errno == EINTR)
        return TRUE;
    if (errno == ENOLCK || errno == EOPNOTSUPP || errno == ENOSYS ||
        errno == EINVAL) {
        *taken = TRUE;
        return TRUE;
    }
    vmr_error_set_errno(error, errno, "lock", files->destination);
    return FALSE;
}

gboolean
vmr_sparse_files_try_share(VmrSparseFiles *files)
{
    return set_lock(files, F_RDLCK);
}

void
vmr_sparse_files_unlock(VmrSparseFiles *files)
{
    (void)set_lock(files, F_UNLCK);
}

/* That the destination still has a name; what it is goes into *@st. */
static gboolean
check_not_removed(const VmrSparseFiles *files, struct stat *st, GError **error)
{
    if (fstat(files->out, st) < 0) {
        vmr_error_set_errno(error, errno, "look at", files->destination);
        return FALSE;
    }
    if (st->st_nlink > 0)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "'%s' was removed by somebody: copy again",
                files->destination);
    return FALSE;
}

/* Of a device the kernel knows whether it is mounted, or a part of another one; that a
 * QEMU has it open it does not tell. */
static gboolean
check_not_claimed(const VmrSparseFiles *files, GError **error)
{
    g_autoptr(GError) local = NULL;
    vmr_autofd claim = -1;

    if (!files->out_is_block)
        return TRUE;
    claim = vmr_imagefile_reopen_as(files->out, O_RDONLY | O_EXCL,
                                    files->destination, &local);
    if (claim >= 0)
        return TRUE;
    if (errno == EBUSY)
        g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                    "'%s' is in use: it is mounted, or a part of another device",
                    files->destination);
    else
        g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

/* That the destination is the file to be filled, and can be. */
static gboolean
look_at_destination(const VmrSparseFiles *files, GError **error)
{
    struct stat st;
    guint64 size;

    if (!check_not_removed(files, &st, error))
        return FALSE;
    if (!get_size(files->out, &st, files->destination, &size, error))
        return FALSE;
    if (files->out_is_block && size < files->size) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "'%s' has %" G_GUINT64_FORMAT " bytes, too few for the "
                    "%" G_GUINT64_FORMAT " of '%s'",
                    files->destination, size, files->size, files->source);
        return FALSE;
    }
    return check_not_claimed(files, error) &&
           check_unused(files->out, files->destination, TRUE, error);
}

static gboolean
look_at_source(VmrSparseFiles *files, GError **error)
{
    if (fstat(files->in, &files->in_st) < 0) {
        vmr_error_set_errno(error, errno, "look at", files->source);
        return FALSE;
    }
    if (!vmr_stamp_take_fd(files->in, files->source, &files->in_stamp, error))
        return FALSE;
    files->size = files->in_stamp.size;
    return check_unused(files->in, files->source, FALSE, error);
}

gboolean
vmr_sparse_files_look(VmrSparseFiles *files, GError **error)
{
    return look_at_source(files, error) &&
           (!files->destination || look_at_destination(files, error));
}

gboolean
vmr_sparse_files_look_beside_others(VmrSparseFiles *files, GError **error)
{
    struct stat st;

    return look_at_source(files, error) &&
           check_not_removed(files, &st, error);
}

gboolean
vmr_sparse_files_check_source(const VmrSparseFiles *files, GError **error)
{
    const struct stat *was = &files->in_st;
    struct stat now;

    if (fstat(files->in, &now) < 0) {
        vmr_error_set_errno(error, errno, "look at", files->source);
        return FALSE;
    }
    /* the time of the last change of the inode may be another one: libvirt
     * changes owners and labels; a device's own times say nothing */
    if (S_ISBLK(now.st_mode) ||
        (now.st_size == was->st_size &&
         now.st_mtim.tv_sec == was->st_mtim.tv_sec &&
         now.st_mtim.tv_nsec == was->st_mtim.tv_nsec))
        return check_unused(files->in, files->source, FALSE, error);
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "'%s' has changed while it was read", files->source);
    return FALSE;
}

gboolean
vmr_sparse_files_check_space(const VmrSparseFiles *files, guint64 bytes,
                             GError **error)
{
    struct statvfs fs;
    struct stat st;
    guint64 room;

    /* file systems that cannot tell say that they have no blocks at all */
    if (files->out_is_block || fstatvfs(files->out, &fs) < 0 ||
        fs.f_blocks == 0 || fstat(files->out, &st) < 0)
        return TRUE;
    room = (guint64)(geteuid() == 0 ? fs.f_bfree : fs.f_bavail) * fs.f_frsize +
           (guint64)st.st_blocks * 512;
    if (bytes <= room)
        return TRUE;
    vmr_error_set_virt(error, VMR_ERROR_IO, VIR_ERR_SYSTEM_ERROR,
                       "'%s' needs %" G_GUINT64_FORMAT
                       " bytes, but there is room for %" G_GUINT64_FORMAT
                       " only",
                       files->destination, bytes, room);
    return FALSE;
}

gboolean
vmr_sparse_files_remove(const VmrSparseFiles *files, GError **error)
{
    struct stat ours;
    struct stat now;

    if (!files->created || fstat(files->out, &ours) < 0 ||
        fstatat(files->folder, files->base, &now, AT_SYMLINK_NOFOLLOW) < 0 ||
        ours.st_dev != now.st_dev || ours.st_ino != now.st_ino)
        return TRUE;
    if (unlinkat(files->folder, files->base, 0) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "remove", files->destination);
    return FALSE;
}
