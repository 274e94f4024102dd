/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A new file has no name while it is being filled (O_TMPFILE): should its maker
 * die, nothing is left of it. It gets its name (linkat()) when its maker has
 * noted down somewhere which file it is. */

#define _GNU_SOURCE 1 /* O_PATH, O_TMPFILE */

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

/* Name and folder by descriptor, so that neither can be exchanged for another
 * one behind our back. */
struct VmrImageDraft {
    char *path;
    int folder_fd;
    char *base;
    int fd;
    gboolean named;     /* the file has its name */
    gboolean published; /* and is to keep it */
    VmrImage *image;    /* what was made */
};

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

static void
set_taken(const VmrImageDraft *draft, GError **error)
{
    g_set_error(error, VMR_ERROR, VMR_ERROR_EXISTS,
                "'%s' is there already, and is left as it is", draft->path);
}

/* Whether nothing has the name of @draft; that is looked at here only to spare
 * the work, what counts is that the naming fails. */
static gboolean
check_name_free(const VmrImageDraft *draft, GError **error)
{
    struct stat st;

    if (fstatat(draft->folder_fd, draft->base, &st, AT_SYMLINK_NOFOLLOW) < 0 &&
        errno == ENOENT)
        return TRUE;
    set_taken(draft, error);
    return FALSE;
}

/* Whether open(O_TMPFILE) failed since the file system or the kernel cannot do
 * that; the latter takes it for an attempt to write to a folder. */
static gboolean
has_no_unnamed_files(int code)
{
    return code == EOPNOTSUPP || code == EISDIR || code == ENOENT;
}

static gboolean
draft_open(VmrImageDraft *draft, GError **error)
{
    draft->folder_fd =
        vmr_imagefile_open_folder(draft->path, &draft->base, error);
    if (draft->folder_fd < 0 || !check_name_free(draft, error))
        return FALSE;
    draft->fd = openat(draft->folder_fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC,
                       0600);
    if (draft->fd < 0 && has_no_unnamed_files(errno)) {
        draft->fd = openat(draft->folder_fd, draft->base,
                           O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                           0600);
        draft->named = draft->fd >= 0;
    }
    if (draft->fd >= 0)
        return TRUE;
    if (errno == EEXIST)
        set_taken(draft, error);
    else
        vmr_error_set_errno(error, errno, "create", draft->path);
    return FALSE;
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

/* Take the name away again that a file has and is not to keep. */
static gboolean
draft_undo(VmrImageDraft *draft)
{
    struct stat st;
    gboolean mine;

    if (!draft->named || draft->published)
        return TRUE;
    draft->named = FALSE;
    return fstat(draft->fd, &st) == 0 &&
           remove_from(draft->folder_fd, draft->base, st.st_dev, st.st_ino,
                       &mine);
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
write_qcow2(const VmrImageDraft *draft, const VmrImageNew *image,
            const VmrWait *wait, GError **error)
{
    g_autofree char *options = qcow2_options(image);
    g_autofree char *size =
        g_strdup_printf("%" G_GUINT64_FORMAT, image->virtual_size);
    const char *args[] = {"create", "-q", "-u", "-f", "qcow2", "-o", options,
                          VMR_QEMUIMG_FILE, size, NULL};

    return vmr_qemuimg_run(args, draft->fd, wait, error);
}

static gboolean
write_raw(const VmrImageDraft *draft, const VmrImageNew *image,
          GError **error)
{
    if (ftruncate(draft->fd, (off_t)image->virtual_size) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "set the size of", draft->path);
    return FALSE;
}

/* What is on the disk counts, not what a program says that it has done. */
static gboolean
check_made(const VmrImageNew *image, const VmrImage *made, GError **error)
{
    guint64 size = image->virtual_size;
    guint version = g_str_equal(image->format, "qcow2") ? 3 : 0;

    size += (SECTOR_SIZE - size % SECTOR_SIZE) % SECTOR_SIZE;
    if (made->virtual_size != size || made->version != version ||
        (version == 3 && !made->empty) || made->data_file || made->encrypted ||
        g_strcmp0(made->backing_name, image->backing_name) != 0 ||
        (image->backing_name &&
         g_strcmp0(made->backing_format, image->backing_format) != 0)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "qemu-img made something else of '%s' than was asked for",
                    image->path);
        return FALSE;
    }
    return TRUE;
}

/* It reaches the disk before anybody relies on it. */
static gboolean
draft_fill(VmrImageDraft *draft, const VmrImageNew *image, const VmrWait *wait,
           GError **error)
{
    /* the umask may have taken something away from 0600 */
    if (fchmod(draft->fd, 0600) < 0) {
        vmr_error_set_errno(error, errno, "set the mode of", draft->path);
        return FALSE;
    }
    if (g_str_equal(image->format, "raw")) {
        if (!write_raw(draft, image, error))
            return FALSE;
    } else if (!write_qcow2(draft, image, wait, error)) {
        g_prefix_error(error, "cannot create '%s': ", draft->path);
        return FALSE;
    }
    draft->image =
        vmr_image_read_fd(draft->fd, draft->path, image->format, error);
    if (!draft->image || !check_made(image, draft->image, error) ||
        (image->like && !vmr_imagefile_give_owner(draft->fd, draft->path,
                                                  image->like, error)))
        return FALSE;
    if (fsync(draft->fd) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "write out", draft->path);
    return FALSE;
}

VmrImageDraft *
vmr_image_draft_new(const VmrImageNew *image, const VmrWait *wait,
                    GError **error)
{
    g_autoptr(VmrImageDraft) draft = g_new0(VmrImageDraft, 1);

    draft->path = g_strdup(image->path);
    draft->folder_fd = -1;
    draft->fd = -1;
    if (!check_wanted(image, error) || !draft_open(draft, error))
        return NULL;
    if (draft_fill(draft, image, wait, error))
        return g_steal_pointer(&draft);
    if (!draft_undo(draft))
        vmr_error_note(error, "'%s' could not be removed again", draft->path);
    return NULL;
}

const VmrImage *
vmr_image_draft_get_image(const VmrImageDraft *draft)
{
    return draft->image;
}

gboolean
vmr_image_draft_publish(VmrImageDraft *draft, GError **error)
{
    g_autofree char *file = g_strdup_printf("/proc/self/fd/%d", draft->fd);

    if (!draft->named && linkat(AT_FDCWD, file, draft->folder_fd, draft->base,
                                AT_SYMLINK_FOLLOW) < 0) {
        if (errno == EEXIST)
            set_taken(draft, error);
        else
            vmr_error_set_errno(error, errno, "name", draft->path);
        return FALSE;
    }
    draft->named = TRUE;
    if (fsync(draft->folder_fd) < 0) {
        vmr_error_set_errno(error, errno, "write out", draft->path);
        return FALSE;
    }
    draft->published = TRUE;
    return TRUE;
}

void
vmr_image_draft_free(VmrImageDraft *draft)
{
    if (!draft)
        return;
    draft_undo(draft);
    vmr_image_free(draft->image);
    vmr_fd_close(&draft->fd);
    vmr_fd_close(&draft->folder_fd);
    g_free(draft->base);
    g_free(draft->path);
    g_free(draft);
}

gboolean
vmr_image_create(const VmrImageNew *image, VmrImage **made,
                 const VmrWait *wait, GError **error)
{
    g_autoptr(VmrImageDraft) draft = vmr_image_draft_new(image, wait, error);

    if (!draft || !vmr_image_draft_publish(draft, error))
        return FALSE;
    if (made)
        *made = g_steal_pointer(&draft->image);
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
vmr_image_remove(const char *path, dev_t dev, ino_t ino, guint64 born,
                 GError **error)
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
    mine = S_ISREG(st.st_mode) && st.st_dev == dev && st.st_ino == ino &&
           (born == 0 || vmr_imagefile_get_birth(name_fd) == born);
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
