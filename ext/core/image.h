/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * image: one image file: what its header says, and creating a new one.
 *
 * Headers are read here, as hostile input and without following anything they
 * name; files are created by qemu-img. A format is never guessed.
 */

#include <sys/types.h>

#include "wait.h"

G_BEGIN_DECLS

#define VMR_IMAGE_MAX_BACKING_NAME 1023 /* of the qcow2 format */

typedef struct {
    char *path;
    char *format;          /* "qcow2" or "raw" */
    guint version;         /* of qcow2: 2 or 3; 0 for raw */
    guint64 virtual_size;  /* bytes that the guest sees */
    char *backing_name;    /* as in the header, or NULL */
    char *backing_format;  /* or NULL where the header does not say */
    gboolean data_file;    /* data is kept in another file */
    gboolean encrypted;
    gboolean dirty;        /* or corrupt: not closed cleanly */
    gboolean has_snapshots;/* internal ones */
    gboolean has_bitmaps;  /* persistent dirty bitmaps */
    gboolean empty;        /* qcow2 without any cluster of its own */
    gboolean is_block;     /* a block device, else a regular file */
    guint64 file_size;     /* bytes, of the file or the device */
    dev_t dev;             /* identity of the file; of a block device its */
    ino_t ino;             /* device number and 0 */
    guint64 born;          /* when it was made, ns, or 0 where nobody knows */
} VmrImage;

/* Read the header of @path as @format ("qcow2", "raw"). A final component that
 * is a symbolic link is followed only to a block device; FIFOs and the like are
 * refused without opening them. Errors: IMAGE (says what is wrong and what to
 * do), NOT_FOUND, IO. */
VmrImage *vmr_image_read(const char *path, const char *format, GError **error);

/* The same of a regular file that is open as @fd; @path is what it is called. */
VmrImage *vmr_image_read_fd(int fd, const char *path, const char *format,
                            GError **error);

/* Free @image; NULL is fine. */
void vmr_image_free(VmrImage *image);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrImage, vmr_image_free)

/* Whether both are one and the same file or device. */
gboolean vmr_image_same(const VmrImage *a, const VmrImage *b);

/* Whether they are, or one stands on the other (a loop device over a file, ...):
 * see vmr_storage_overlaps(). */
gboolean vmr_image_overlaps(const VmrImage *a, const VmrImage *b);

/* Whether the header of @image names its backing file relative to its own
 * folder, and plainly: no absolute path, no protocol ("nbd:", "json:"). */
gboolean vmr_image_backing_is_relative(const VmrImage *image);

/* The path that the backing name of @image means, next to @image; owned; NULL
 * where it has no backing file, or one with a protocol. */
char *vmr_image_dup_backing_path(const VmrImage *image);

typedef struct {
    const char *path;
    const char *format;         /* "qcow2" (v3 is made) or "raw" */
    guint64 virtual_size;       /* bytes */
    const char *backing_name;   /* to be written as it is, or NULL */
    const char *backing_format; /* with backing_name, always */
    const char *like;           /* image whose owner, group and mode it gets
                                 * (vmr_imagefile_give_owner()), or NULL */
} VmrImageNew;

/* A file that is made, but is not to be seen yet. */
typedef struct VmrImageDraft VmrImageDraft;

/* Make @image: a new file, of mode 0600 if like none, its header by qemu-img, the backing file
 * not looked at. It gets its name by vmr_image_draft_publish(); only where the
 * file system has no unnamed files it has it at once.
 * Errors: EXISTS, INVALID_SPEC, NOT_FOUND (its folder), NOT_SUPPORTED (no
 * qemu-img), IMAGE, IO, TIMEOUT, CANCELLED. */
VmrImageDraft *vmr_image_draft_new(const VmrImageNew *image,
                                   const VmrWait *wait, GError **error);

/* What was made, read back; borrowed. */
const VmrImage *vmr_image_draft_get_image(const VmrImageDraft *draft);

/* Give the file its name, to stay. Errors: EXISTS, IO. */
gboolean vmr_image_draft_publish(VmrImageDraft *draft, GError **error);

/* Free @draft; a file that was not published is gone. NULL is fine. */
void vmr_image_draft_free(VmrImageDraft *draft);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrImageDraft, vmr_image_draft_free)

/* Create @image: a new file, as by a draft (an existing one is never touched),
 * its header by qemu-img, the backing file not looked at. *@made (may be NULL)
 * is what was made, read back. On failure nothing is left behind.
 * Errors: EXISTS, INVALID_SPEC, NOT_FOUND (its folder), NOT_SUPPORTED (no
 * qemu-img), IMAGE, IO, TIMEOUT, CANCELLED. */
gboolean vmr_image_create(const VmrImageNew *image, VmrImage **made,
                          const VmrWait *wait, GError **error);

/* Have the header of the qcow2 image @path name @backing_name, of
 * @backing_format, as its backing file; neither that nor the data is looked at. No
 * QEMU may have it open. Errors: NOT_SUPPORTED (no qemu-img), IMAGE, BUSY,
 * NOT_FOUND, IO, TIMEOUT, CANCELLED. */
gboolean vmr_image_rebase(const char *path, const char *backing_name,
                          const char *backing_format, const VmrWait *wait,
                          GError **error);

/* Remove @path if it is still the file @dev/@ino, made at @born (0: whenever),
 * and no QEMU has it open, for reading either. A file that is gone is fine.
 * Errors: DIVERGED, BUSY (also where the file system cannot tell), IO. */
gboolean vmr_image_remove(const char *path, dev_t dev, ino_t ino,
                          guint64 born, GError **error);

G_END_DECLS
