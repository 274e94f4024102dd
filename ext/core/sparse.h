/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * sparse: copying the frozen layers of a guest's disks: one file into another,
 * in place, without its holes, at a pace that a guest on the same storage can
 * live with, and with a checksum in passing.
 *
 * A VmrSparse is one copy, in a thread of its own (with all signals blocked). One
 * thread waits for it; progress, bandwidth and cancel may be used from any.
 */

#include "sparse_sum.h"
#include "wait.h"

G_BEGIN_DECLS

typedef enum {
    VMR_SPARSE_PACE_AUTO, /* as fast as others on the storage can bear */
    VMR_SPARSE_PACE_FULL, /* for idle storage */
    VMR_SPARSE_PACE_LAST
} VmrSparsePace;

/* By what means the data went over; in this order they are tried. */
typedef enum {
    VMR_SPARSE_METHOD_NONE,    /* nothing was copied: it was there already */
    VMR_SPARSE_METHOD_REFLINK, /* FICLONE: both files share the data */
    VMR_SPARSE_METHOD_URING,   /* io_uring, past the page cache */
    VMR_SPARSE_METHOD_RANGE,   /* copy_file_range */
    VMR_SPARSE_METHOD_THREADS, /* pread and pwrite */
    VMR_SPARSE_METHOD_LAST
} VmrSparseMethod;

typedef struct {
    const char *source;
    const char *destination;
    VmrSparsePace pace;
    guint64 bandwidth;  /* bytes/s, 0: no limit */
    gboolean reflink;   /* the files may share their data */
    gboolean verify;    /* read the destination back and compare */
    gboolean overwrite; /* an existing destination is truncated and filled */
    gboolean skip_header; /* of a checksum: leave the first 4 KiB out */
    guint deny;         /* mask of 1 << VmrSparseMethod: not to be tried */
} VmrSparseSpec;

typedef struct {
    guint64 current; /* bytes of data done */
    guint64 end;     /* bytes of data to do; 0 until they are counted */
} VmrSparseProgress;

typedef struct {
    guint64 size;   /* bytes, of both files */
    guint64 copied; /* bytes of data that were copied */
    double seconds;
    VmrSparseMethod method;
    gboolean verified;
    /* "": not known, since the data were not read (REFLINK without verify) */
    char checksum[VMR_SPARSE_CHECKSUM_LENGTH + 1];
} VmrSparseReport;

typedef struct VmrSparse VmrSparse;

/* "auto" or "full". Errors: INVALID_SPEC. */
gboolean vmr_sparse_pace_parse(const char *name, VmrSparsePace *pace,
                               GError **error);

/* "none", "reflink", "io_uring", "copy_file_range" or "threads"; static. */
const char *vmr_sparse_method_name(VmrSparseMethod method);

/* The method of that name. Errors: INVALID_SPEC. */
gboolean vmr_sparse_method_parse(const char *name, VmrSparseMethod *method,
                                 GError **error);

/* Open both files of @spec, which is copied, check them, and start to copy.
 * A destination that is not there is created, like its source. It is locked against
 * other copies; who finds it locked waits, and takes over what the other one has
 * copied if it fits. Errors: INVALID_SPEC (one and the same file), NOT_FOUND,
 * EXISTS, IMAGE (no file or block device), BUSY (in use by a QEMU), IO. */
VmrSparse *vmr_sparse_start(const VmrSparseSpec *spec, GError **error);

/* Wait for the end of @copy, whose outcome goes into *@report (may be NULL).
 * CANCELLED by an interruption ends the copy, too; TIMEOUT does not. Other
 * errors: IO, DIVERGED (the source has changed meanwhile), IMAGE, BUSY. After a
 * failure a destination that was created is gone; one that was there is left
 * without its beginning and marked incomplete, and the error is partial. */
gboolean vmr_sparse_wait(VmrSparse *copy, const VmrWait *wait,
                         VmrSparseReport *report, GError **error);

/* The same, but whatever ends the wait ends the copy. */
gboolean vmr_sparse_finish(VmrSparse *copy, const VmrWait *wait,
                           VmrSparseReport *report, GError **error);

/* Whether @copy has ended, well or not. Any thread. */
gboolean vmr_sparse_is_done(VmrSparse *copy);

/* How far @copy is. Any thread. */
VmrSparseProgress vmr_sparse_get_progress(VmrSparse *copy);

/* Limit @copy to @rate bytes per second from now on, 0: no limit. Any thread. */
void vmr_sparse_set_bandwidth(VmrSparse *copy, guint64 rate);

/* The limit. Any thread. */
guint64 vmr_sparse_get_bandwidth(VmrSparse *copy);

/* Tell @copy to end as soon as it can; does not wait. Any thread. */
void vmr_sparse_cancel(VmrSparse *copy);

/* Cancel @copy if it still runs, wait for its end, and free it; NULL is fine.
 * Where the storage hangs the wait is given up after a while: the thread then
 * ends by itself. */
void vmr_sparse_free(VmrSparse *copy);

/* The same, but the wait is given up after a moment. */
void vmr_sparse_abandon(VmrSparse *copy);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrSparse, vmr_sparse_free)

/* The checksum of the file @path, into @text: the same as the one of a copy of
 * it. Errors: NOT_FOUND, IMAGE, BUSY, IO, DIVERGED, TIMEOUT, CANCELLED. */
gboolean vmr_sparse_checksum(const char *path, const VmrWait *wait,
                             char text[VMR_SPARSE_CHECKSUM_LENGTH + 1],
                             GError **error);

/* The same without the first 4 KiB, where a qcow2 image has its header. */
gboolean vmr_sparse_checksum_of_rest(const char *path, const VmrWait *wait,
                                     char text[VMR_SPARSE_CHECKSUM_LENGTH + 1],
                                     GError **error);

G_END_DECLS
