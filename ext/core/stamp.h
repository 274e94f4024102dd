/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * stamp: which file a path leads to, and in which state that file was. What was
 * looked at once can be told from what is there later on.
 */

#include <glib.h>
#include <sys/stat.h>

G_BEGIN_DECLS

typedef struct {
    guint64 dev;  /* identity: device and inode, or of a block device its */
    guint64 ino;  /* number and 0 */
    guint64 born; /* and when it was made, ns since 1970, 0: not known */
    guint64 size; /* state: bytes, */
    gint64 mtime; /* last change of the data and of the inode, ns since 1970; */
    gint64 ctime; /* both 0 of a block device, whose times say nothing */
} VmrStamp;

/* Take the stamp of the open file @fd (O_PATH will do for a regular file);
 * @path is for error texts. Errors: IO. */
gboolean vmr_stamp_take_fd(int fd, const char *path, VmrStamp *stamp,
                           GError **error);

/* The same of the file that @path leads to now, which is opened for reading.
 * Errors: IMAGE (no regular file or block device), NOT_FOUND, IO. */
gboolean vmr_stamp_take(const char *path, VmrStamp *stamp, GError **error);

/* Whether both are of one and the same file; where the birth time of one is not
 * known, device and inode decide. */
gboolean vmr_stamp_same_file(const VmrStamp *a, const VmrStamp *b);

/* Whether, besides, the data have not changed in between, as far as size and the
 * time of their last change tell. */
gboolean vmr_stamp_same_data(const VmrStamp *a, const VmrStamp *b);

G_END_DECLS
