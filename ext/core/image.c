/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "image.h"

#include <fcntl.h>
#include <string.h>

#include "autofd.h"
#include "backingname.h"
#include "error.h"
#include "imagefile.h"
#include "qcow2.h"
#include "storage.h"

#define SECTOR_SIZE 512
#define L1_PIECE (64 * 1024)

void
vmr_image_free(VmrImage *image)
{
    if (!image)
        return;
    g_free(image->path);
    g_free(image->format);
    g_free(image->backing_name);
    g_free(image->backing_format);
    g_free(image);
}

static VmrStorage
storage_of(const VmrImage *image)
{
    return (VmrStorage){image->dev, image->ino, image->is_block};
}

gboolean
vmr_image_same(const VmrImage *a, const VmrImage *b)
{
    VmrStorage x = storage_of(a);
    VmrStorage y = storage_of(b);

    return vmr_storage_same(&x, &y);
}

gboolean
vmr_image_overlaps(const VmrImage *a, const VmrImage *b)
{
    VmrStorage x = storage_of(a);
    VmrStorage y = storage_of(b);

    return vmr_storage_overlaps(&x, &y);
}

gboolean
vmr_image_backing_is_relative(const VmrImage *image)
{
    return image->backing_name &&
           vmr_backing_name_is_relative(image->backing_name);
}

char *
vmr_image_dup_backing_path(const VmrImage *image)
{
    if (!image->backing_name)
        return NULL;
    return vmr_backing_name_resolve(image->path, image->backing_name);
}

static gboolean
file_size(int fd, const char *path, const struct stat *st, guint64 *size,
          GError **error)
{
    off_t end = st->st_size;

    if (S_ISBLK(st->st_mode))
        end = lseek(fd, 0, SEEK_END);
    if (end < 0) {
        vmr_error_set_errno(error, errno, "get the size of", path);
        return FALSE;
    }
    *size = (guint64)end;
    return TRUE;
}

/* The first cluster, as far as the file goes. */
static guint8 *
read_header(int fd, const char *path, gsize *len, GError **error)
{
    g_autofree guint8 *data = g_malloc(VMR_QCOW2_MAX_HEADER);
    gsize want;

    if (!vmr_imagefile_read(fd, path, data, VMR_QCOW2_MIN_HEADER, 0, len,
                            error))
        return NULL;
    want = vmr_qcow2_header_size(data, *len);
    if (want > *len &&
        !vmr_imagefile_read(fd, path, data, want, 0, len, error))
        return NULL;
    return g_steal_pointer(&data);
}

/* Whether the L1 table points to nothing, so that every read goes to the
 * backing file. */
static gboolean
read_is_empty(int fd, const char *path, const VmrQcow2 *header,
              gboolean *empty, GError **error)
{
    static const guint8 zeros[L1_PIECE];
    g_autofree guint8 *piece = g_malloc(L1_PIECE);
    guint64 done = 0;

    *empty = TRUE;
    while (done < header->l1_size && *empty) {
        gsize len = (gsize)MIN(header->l1_size - done, L1_PIECE);
        gsize got;

        if (!vmr_imagefile_read(fd, path, piece, len,
                                (goffset)(header->l1_offset + done), &got,
                                error))
            return FALSE;
        if (got < len) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                        "image '%s' is truncated: it ends within its L1 table",
                        path);
            return FALSE;
        }
        *empty = memcmp(piece, zeros, len) == 0;
        done += len;
    }
    return TRUE;
}

static gboolean
read_qcow2(int fd, VmrImage *image, GError **error)
{
    g_auto(VmrQcow2) header = {0};
    g_autofree guint8 *data = NULL;
    gsize len;

    data = read_header(fd, image->path, &len, error);
    if (!data)
        return FALSE;
    if (!vmr_qcow2_parse(data, len, &header, error)) {
        g_prefix_error(error, "'%s' is no usable qcow2 image: ", image->path);
        return FALSE;
    }
    image->version = header.version;
    image->virtual_size = header.virtual_size;
    image->backing_name = g_steal_pointer(&header.backing_name);
    image->backing_format = g_steal_pointer(&header.backing_format);
    image->data_file = header.data_file;
    image->encrypted = header.encrypted;
    image->dirty = header.dirty;
    image->has_snapshots = header.has_snapshots;
    image->has_bitmaps = header.has_bitmaps;
    return read_is_empty(fd, image->path, &header, &image->empty, error);
}

static gboolean
check_format(const char *path, const char *format, GError **error)
{
    if (!g_strcmp0(format, "qcow2") || !g_strcmp0(format, "raw"))
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                "format '%s' of '%s' is not supported, only qcow2 and raw are",
                format ? format : "", path);
    return FALSE;
}

static VmrImage *
read_opened(int fd, const struct stat *st, const char *path,
            const char *format, GError **error)
{
    g_autoptr(VmrImage) image = g_new0(VmrImage, 1);

    image->path = g_strdup(path);
    image->format = g_strdup(format);
    image->is_block = S_ISBLK(st->st_mode);
    vmr_imagefile_identify(st, &image->dev, &image->ino);
    image->born = vmr_imagefile_get_birth(fd);
    if (!file_size(fd, path, st, &image->file_size, error))
        return NULL;
    if (g_str_equal(format, "qcow2")) {
        if (!read_qcow2(fd, image, error))
            return NULL;
    } else {
        /* raw means raw, whatever it begins with: a guest may have written
         * that. QEMU fills the last sector up. */
        image->virtual_size =
            (image->file_size + SECTOR_SIZE - 1) / SECTOR_SIZE * SECTOR_SIZE;
    }
    return g_steal_pointer(&image);
}

VmrImage *
vmr_image_read(const char *path, const char *format, GError **error)
{
    vmr_autofd fd = -1;
    struct stat st;

    if (!check_format(path, format, error))
        return NULL;
    fd = vmr_imagefile_open(path, &st, error);
    return fd < 0 ? NULL : read_opened(fd, &st, path, format, error);
}

VmrImage *
vmr_image_read_fd(int fd, const char *path, const char *format, GError **error)
{
    struct stat st;

    if (!check_format(path, format, error))
        return NULL;
    if (fstat(fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "look at", path);
        return NULL;
    }
    return read_opened(fd, &st, path, format, error);
}
