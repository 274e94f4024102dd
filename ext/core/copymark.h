/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * copymark: a note on a copied file, as the extended attribute
 * "user.virmirror.copy", that says whether the copy is complete, and of what.
 *
 * Anybody who may write the file may write the note: it is read as hostile
 * input, and believed only of a file that passes vmr_trust_holds(). File systems without such
 * attributes, and block devices, have none.
 */

#include "sparse_sum.h"
#include "stamp.h"

G_BEGIN_DECLS

#define VMR_COPYMARK_NAME "user.virmirror.copy"

typedef enum {
    VMR_COPYMARK_NONE,       /* no mark, or none that can be understood */
    VMR_COPYMARK_INCOMPLETE, /* a copy into the file was begun and not ended */
    VMR_COPYMARK_COMPLETE,   /* it was ended: see the rest */
    VMR_COPYMARK_LAST
} VmrCopymarkState;

typedef struct {
    VmrCopymarkState state;
    /* of COMPLETE only: the source as it was, the destination as it became */
    VmrStamp source;
    guint64 size;
    gint64 mtime; /* ns since the epoch */
    char checksum[VMR_SPARSE_CHECKSUM_LENGTH + 1]; /* "": was not taken */
} VmrCopymark;

/* What a mark says of a source and a destination as they are now. */
typedef enum {
    VMR_COPYMARK_FITS,    /* a complete copy, and neither has changed since */
    VMR_COPYMARK_TOUCHED, /* the same, but the source's inode has changed, or the
                           * source is a device: an owner may have changed, or data
                           * and their time put back; the checksum decides */
    VMR_COPYMARK_OTHER,   /* not a complete copy of this source as it is now */
} VmrCopymarkFit;

/* Fill @mark in as COMPLETE for a copy of @source that is now @destination. */
void vmr_copymark_complete(VmrCopymark *mark, const VmrStamp *source,
                           const VmrStamp *destination, const char *checksum);

/* The text of @mark; owned. NULL for NONE. */
char *vmr_copymark_format(const VmrCopymark *mark);

/* Read @text, of @len bytes, into @mark; what is not understood is NONE. */
void vmr_copymark_parse(const char *text, gsize len, VmrCopymark *mark);

/* Read the mark of the open file @fd; NONE where there can be none. @path is
 * for error texts. Errors: IO. */
gboolean vmr_copymark_get(int fd, const char *path, VmrCopymark *mark,
                          GError **error);

/* Put @mark on the open file @fd (NONE takes it away). Where a file can have
 * none nothing happens. Errors: IO. */
gboolean vmr_copymark_set(int fd, const char *path, const VmrCopymark *mark,
                          GError **error);

/* Compare @mark with @source and @destination as they are now. */
VmrCopymarkFit vmr_copymark_compare(const VmrCopymark *mark,
                                    const VmrStamp *source,
                                    const VmrStamp *destination);

G_END_DECLS
