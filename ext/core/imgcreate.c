/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* O_PATH */

#include <fcntl.h>
#include <string.h>

#include "autofd.h"
#include "backingname.h"
#include "error.h"
#include "image.h"
#include "imagefile.h"
#include "lockprobe.h"
#include "qemuimg.h"

#define SECTOR_SIZE 512

/* A file on its way: name and folder by descriptor, so that neither can be
 * exchanged for another one behind our back. */
typedef struct {
    const char *path;
    int folder_fd;
    char *base;
    int fd;
    dev_t dev; /* of the file that was created */
    ino_t ino;
} NewFile;

static gboolean
check_wanted(const VmrImageNew *image, GError **error)
{
    gboolean is_raw = !g_strcmp0(image->format, "raw");

    if (!is_raw && g_strcmp0(image->format, "qcow2") != 0) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                    "cannot create '%s' in format '%s', only qcow2 and raw",
                    image->path, image->format ? image->format : "");
        return FALSE;
    }
    if (image->virtual_size > G_MAXINT64 ||
        (!is_raw && image->virtual_size % SECTOR_SIZE != 0)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "'%s' cannot have %" G_GUINT64_FORMAT
                    " bytes: a disk has whole sectors of 512",
                    image->path, image->virtual_size);
        return FALSE;
    }
    if (!image->backing_name)
        return TRUE;
    if (is_raw || !image->backing_format || !image->backing_name[0]) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "'%s' needs format qcow2 and a backing format to have a "
                    "backing file", image->path);
        return FALSE;
    }
    if (strlen(image->backing_name) > VMR_IMAGE_MAX_BACKING_NAME) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "the backing name for '%s' is longer than %d bytes",
                    image->path, VMR_IMAGE_MAX_BACKING_NAME);
        return FALSE;
    }
    return TRUE;
}

static gboolean
new_file_open(NewFile *file, GError **error)
{
    struct stat st;

    file->folder_fd = vmr_imagefile_open_folder(file->path, &file->base, error);
    if (file->folder_fd < 0)
        return FALSE;
    file->fd = openat(file->folder_fd, file->base,
                      O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                      0600);
    if (file->fd < 0 && errno == EEXIST) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_EXISTS,
                    "'%s' is there already, and is left as it is", file->path);
        return FALSE;
    }
    if (file->fd < 0 || fstat(file->fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "create", file->path);
        return FALSE;
    }
    vmr_imagefile_identify(&st, &file->dev, &file->ino);
    return TRUE;
}

static void
new_file_close(NewFile *file)
{
    vmr_fd_close(&file->fd);
    vmr_fd_close(&file->folder_fd);
    g_free(file->base);
}

/* Remove @base from the folder if it is still the file @dev/@ino; *@mine tells
 * whether it was, or was gone. */
static gboolean
remove_from(int folder_fd, const char *base, dev_t dev, ino_t ino,
            gboolean *mine)
{
    struct stat st;

    *mine = TRUE;
    if (fstatat(folder_fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT;
    *mine = S_ISREG(st.st_mode) && st.st_dev == dev && st.st_ino == ino;
    if (!*mine)
        return FALSE;
    return unlinkat(folder_fd, base, 0) == 0 || errno == ENOENT;
}

static void
new_file_undo(const NewFile *file, GError **error)
{
    gboolean mine;

    if (!remove_from(file->folder_fd, file->base, file->dev, file->ino, &mine))
        vmr_error_note(error, "'%s' could not be removed again", file->path);
}

/* The value of "-o". */
static char *
qcow2_options(const VmrImageNew *image)
{
    g_autofree char *name = NULL;
    g_autofree char *format = NULL;

    if (!image->backing_name)
        return g_strdup("compat=1.1");
    name = vmr_qemuimg_escape(image->backing_name);
    format = vmr_qemuimg_escape(image->backing_format);
    return g_strdup_printf("compat=1.1,backing_file=%s,backing_fmt=%s", name,
                           format);
}

/* qemu-img truncates the file that it finds, so inode and mode stay ours. By
 * -u the backing file is not opened: it need not be there yet. */
static gboolean
write_qcow2(const NewFile *file, const VmrImageNew *image, const VmrWait *wait,
            GError **error)
{
    g_autofree char *options = qcow2_options(image);
    g_autofree char *size =
        g_strdup_printf("%" G_GUINT64_FORMAT, image->virtual_size);
    const char *args[] = {"create", "-q", "-u", "-f", "qcow2", "-o", options,
                          VMR_QEMUIMG_FILE, size, NULL};

    return vmr_qemuimg_run(args, file->fd, wait, error);
}

static gboolean
write_raw(const NewFile *file, const VmrImageNew *image, GError **error)
{
    if (ftruncate(file->fd, (off_t)image->virtual_size) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "set the size of", file->path);
    return FALSE;
}

/* File and name reach the disk before anybody relies on them. */
static gboolean
new_file_sync(const NewFile *file, GError **error)
{
    if (fsync(file->fd) == 0 && fsync(file->folder_fd) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "write out", file->path);
    return FALSE;
}

/* What is on the disk counts, not what a program says that it has done. */
static gboolean
check_made(const NewFile *file, const VmrImageNew *image, const VmrImage *made,
           GError **error)
{
    guint64 size = image->virtual_size;
    guint version = g_str_equal(image->format, "qcow2") ? 3 : 0;

    if (made->dev != file->dev || made->ino != file->ino) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "'%s' was exchanged while it was being created",
                    file->path);
        return FALSE;
    }
    size += (SECTOR_SIZE - size % SECTOR_SIZE) % SECTOR_SIZE;
    if (made->virtual_size != size || made->version != version ||
        (version == 3 && !made->empty) || made->data_file || made->encrypted ||
        g_strcmp0(made->backing_name, image->backing_name) != 0 ||
        (image->backing_name &&
         g_strcmp0(made->backing_format, image->backing_format) != 0)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "qemu-img made something else of '%s' than was asked for",
                    file->path);
        return FALSE;
    }
    return TRUE;
}

static VmrImage *
new_file_fill(const NewFile *file, const VmrImageNew *image,
              const VmrWait *wait, GError **error)
{
    g_autoptr(VmrImage) made = NULL;

    /* the umask may have taken something away from 0600 */
    if (fchmod(file->fd, 0600) < 0) {
        vmr_error_set_errno(error, errno, "set the mode of", file->path);
        return NULL;
    }
    if (g_str_equal(image->format, "raw")) {
        if (!write_raw(file, image, error))
            return NULL;
    } else if (!write_qcow2(file, image, wait, error)) {
        g_prefix_error(error, "cannot create '%s': ", file->path);
        return NULL;
    }
    made = vmr_image_read(file->path, image->format, error);
    if (!made || !check_made(file, image, made, error) ||
        !new_file_sync(file, error))
        return NULL;
    return g_steal_pointer(&made);
}

gboolean
vmr_image_create(const VmrImageNew *image, VmrImage **made,
                 const VmrWait *wait, GError **error)
{
    NewFile file = {.path = image->path, .folder_fd = -1, .fd = -1};
    g_autoptr(VmrImage) result = NULL;

    if (check_wanted(image, error) && new_file_open(&file, error)) {
        result = new_file_fill(&file, image, wait, error);
        if (!result)
            new_file_undo(&file, error);
    }
    new_file_close(&file);
    if (!result)
        return FALSE;
    if (made)
        *made = g_steal_pointer(&result);
    return TRUE;
}

/* Whether a QEMU has the file behind @name_fd open; where that cannot be told
 * the answer is an error, too: what may be in use is not removed. */
static gboolean
check_unused(int name_fd, const char *path, GError **error)
{
    vmr_autofd fd = vmr_imagefile_reopen(name_fd, path, error);
    VmrLock lock;

    if (fd < 0 || !vmr_lock_probe_use_fd(fd, path, &lock, error))
        return FALSE;
    if (lock == VMR_LOCK_FREE)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                lock == VMR_LOCK_WRITER
                    ? "'%s' is not removed: a QEMU has it open"
                    : "'%s' is not removed: its file system cannot tell "
                      "whether it is in use",
                path);
    return FALSE;
}

gboolean
vmr_image_remove(const char *path, dev_t dev, ino_t ino, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autofree char *base = NULL;
    vmr_autofd folder_fd = vmr_imagefile_open_folder(path, &base, &local);
    vmr_autofd name_fd = -1;
    struct stat st;
    gboolean mine;

    if (g_error_matches(local, VMR_ERROR, VMR_ERROR_NOT_FOUND))
        return TRUE;
    if (folder_fd < 0) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    name_fd = openat(folder_fd, base, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (name_fd < 0 && errno == ENOENT)
        return TRUE;
    if (name_fd < 0 || fstat(name_fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "look at", path);
        return FALSE;
    }
    mine = S_ISREG(st.st_mode) && st.st_dev == dev && st.st_ino == ino;
    if (mine && !check_unused(name_fd, path, error))
        return FALSE;
    if (mine && remove_from(folder_fd, base, dev, ino, &mine)) {
        /* if this fails the file may be back after a crash, no more */
        (void)fsync(folder_fd);
        return TRUE;
    }
    if (mine)
        vmr_error_set_errno(error, errno, "remove", path);
    else
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "'%s' is not removed: it is another file by now", path);
    return FALSE;
}
