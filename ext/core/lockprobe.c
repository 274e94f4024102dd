/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* O_PATH, F_OFD_GETLK */

#include "lockprobe.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "autofd.h"
#include "error.h"
#include "imagefile.h"

/* QEMU holds a read lock on the byte 100 + n for each permission n that it
 * uses on the file; BLK_PERM_WRITE is number 1 (RAW_LOCK_PERM_BASE). */
#define QEMU_WRITE_BYTE 101

/* All the bytes that a QEMU locks: the permissions that it uses from 100 on, and
 * from 200 on those that it lets nobody else have (RAW_LOCK_SHARED_BASE). */
#define QEMU_FIRST_BYTE 100
#define QEMU_BYTES      128

static const char *const name_table[VMR_LOCK_LAST] = {
    [VMR_LOCK_FREE] = "free",
    [VMR_LOCK_WRITER] = "writer",
    [VMR_LOCK_UNKNOWN] = "unknown",
};

const char *
vmr_lock_name(VmrLock lock)
{
    g_return_val_if_fail((unsigned)lock < VMR_LOCK_LAST, "unknown");
    return name_table[lock];
}

static gboolean
can_be_locked(const struct stat *st)
{
    return S_ISREG(st->st_mode) || S_ISBLK(st->st_mode);
}

static gboolean
means_no_locks(int errnum)
{
    return errnum == EINVAL || errnum == ENOLCK || errnum == ENOSYS ||
           errnum == EOPNOTSUPP;
}

static gboolean
probe(int fd, const char *path, off_t first, off_t bytes, VmrLock *lock,
      GError **error)
{
    /* a write lock would conflict with QEMU's read lock; it is asked about
     * only, never taken, so a QEMU that starts meanwhile is not disturbed */
    struct flock probe = {
        .l_type = F_WRLCK,
        .l_whence = SEEK_SET,
        .l_start = first,
        .l_len = bytes,
    };
    struct stat st;

    *lock = VMR_LOCK_UNKNOWN;
    if (fstat(fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "look at", path);
        return FALSE;
    }
    if (!can_be_locked(&st))
        return TRUE;
    if (fcntl(fd, F_OFD_GETLK, &probe) == 0) {
        if (probe.l_type != F_UNLCK)
            *lock = VMR_LOCK_WRITER;
        else if (S_ISREG(st.st_mode))
            *lock = VMR_LOCK_FREE;
        return TRUE;
    }
    if (means_no_locks(errno))
        return TRUE;
    vmr_error_set_errno(error, errno, "probe the locks of", path);
    return FALSE;
}

gboolean
vmr_lock_probe_fd(int fd, const char *path, VmrLock *lock, GError **error)
{
    return probe(fd, path, QEMU_WRITE_BYTE, 1, lock, error);
}

gboolean
vmr_lock_probe_use_fd(int fd, const char *path, VmrLock *lock, GError **error)
{
    return probe(fd, path, QEMU_FIRST_BYTE, QEMU_BYTES, lock, error);
}

gboolean
vmr_lock_probe(const char *path, VmrLock *lock, GError **error)
{
    /* QEMU follows symbolic links, so they are followed here, too */
    vmr_autofd path_fd = open(path, O_PATH | O_CLOEXEC);
    vmr_autofd fd = -1;
    struct stat st;

    *lock = VMR_LOCK_UNKNOWN;
    if (path_fd < 0 || fstat(path_fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "open", path);
        return FALSE;
    }
    if (!can_be_locked(&st))
        return TRUE;
    fd = vmr_imagefile_reopen(path_fd, path, error);
    return fd >= 0 && vmr_lock_probe_fd(fd, path, lock, error);
}
