/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* O_NOFOLLOW */

#include <fcntl.h>
#include <sys/stat.h>

#include "autofd.h"
#include "error.h"
#include "image.h"
#include "lockprobe.h"
#include "qemuimg.h"

/* A regular file of that name that no QEMU has open; -1 is an error. */
static int
open_unused(const char *path, GError **error)
{
    vmr_autofd fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    VmrLock lock;

    if (fd < 0 || fstat(fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "open", path);
        return -1;
    }
    if (!S_ISREG(st.st_mode)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "'%s' is no regular file", path);
        return -1;
    }
    if (!vmr_lock_probe_use_fd(fd, path, &lock, error))
        return -1;
    if (lock == VMR_LOCK_WRITER) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                    "'%s' keeps its backing name: a QEMU has it open", path);
        return -1;
    }
    return vmr_fd_steal(&fd);
}

static gboolean
check_rebased(const char *path, const char *name, const char *format,
              GError **error)
{
    g_autoptr(VmrImage) image = vmr_image_read(path, "qcow2", error);

    if (!image)
        return FALSE;
    if (g_strcmp0(image->backing_name, name) == 0 &&
        g_strcmp0(image->backing_format, format) == 0)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                "qemu-img gave '%s' another backing file than '%s'", path,
                name);
    return FALSE;
}

gboolean
vmr_image_rebase(const char *path, const char *backing_name,
                 const char *backing_format, const VmrWait *wait,
                 GError **error)
{
    /* -u: only the header is written, and no backing file is opened */
    const char *args[] = {"rebase",     "-q", "-u",         "-f",
                          "qcow2",      "-F", backing_format, "-b",
                          backing_name, VMR_QEMUIMG_FILE,   NULL};
    vmr_autofd fd = open_unused(path, error);

    if (fd < 0 || !vmr_qemuimg_run(args, fd, wait, error))
        return FALSE;
    if (fsync(fd) != 0) {
        vmr_error_set_errno(error, errno, "write out", path);
        return FALSE;
    }
    return check_rebased(path, backing_name, backing_format, error);
}
