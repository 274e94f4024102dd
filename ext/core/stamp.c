/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "stamp.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "autofd.h"
#include "error.h"
#include "imagefile.h"

static gint64
to_ns(struct timespec time)
{
    return (gint64)time.tv_sec * G_GINT64_CONSTANT(1000000000) + time.tv_nsec;
}

gboolean
vmr_stamp_take_fd(int fd, const char *path, VmrStamp *stamp, GError **error)
{
    struct stat st;
    dev_t dev;
    ino_t ino;

    if (fstat(fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "look at", path);
        return FALSE;
    }
    vmr_imagefile_identify(&st, &dev, &ino);
    *stamp = (VmrStamp){.dev = dev, .ino = ino};
    if (S_ISBLK(st.st_mode)) {
        if (ioctl(fd, BLKGETSIZE64, &stamp->size) == 0)
            return TRUE;
        vmr_error_set_errno(error, errno, "get the size of", path);
        return FALSE;
    }
    stamp->born = vmr_imagefile_get_birth(fd);
    stamp->size = (guint64)st.st_size;
    stamp->mtime = to_ns(st.st_mtim);
    stamp->ctime = to_ns(st.st_ctim);
    return TRUE;
}

gboolean
vmr_stamp_take(const char *path, VmrStamp *stamp, GError **error)
{
    struct stat st;
    vmr_autofd fd = vmr_imagefile_open(path, &st, error);

    return fd >= 0 && vmr_stamp_take_fd(fd, path, stamp, error);
}

gboolean
vmr_stamp_same_file(const VmrStamp *a, const VmrStamp *b)
{
    return a->dev == b->dev && a->ino == b->ino &&
           (a->born == 0 || b->born == 0 || a->born == b->born);
}

gboolean
vmr_stamp_same_data(const VmrStamp *a, const VmrStamp *b)
{
    return vmr_stamp_same_file(a, b) && a->size == b->size &&
           a->mtime == b->mtime;
}
