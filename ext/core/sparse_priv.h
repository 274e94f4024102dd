/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * sparse_priv: what the parts of the copy engine share. A transfer is the bulk of
 * a copy: the data between the beginning of the file, which is written last, and
 * its last, odd block. Three backends can do it; one that finds itself unsuitable,
 * at any moment, gives back what it has not done, for the next one to do.
 */

#include <pthread.h>
#include <sys/stat.h>

#include "sparse_pace.h"
#include "sparse_plan.h"
#include "stamp.h"

G_BEGIN_DECLS

/* The beginning of the destination, with the header of a qcow2 image, is written
 * last. */
#define VMR_SPARSE_HEAD (64u * 1024u)

#define VMR_SPARSE_STOP_SLICE (50 * G_TIME_SPAN_MILLISECOND)

typedef struct {
    const char *source;      /* for error texts */
    const char *destination;
    int in;                  /* the source */
    int in_direct;           /* the same with O_DIRECT, or -1 */
    int out;                 /* the destination; -1: the checksum only */
    int out_direct;          /* the same with O_DIRECT, or -1 */
    guint64 size;            /* of the source */
    gboolean gentle;         /* keep little in write-back */
    gboolean past_cache;     /* do not take from the page cache what is there */
    VmrSparsePlan *plan;
    VmrSparsePacer *pacer;
    VmrSparseLimit *limit;
    gint *cancelled;         /* atomic */
    guint64 *done;           /* atomic: bytes */
    pthread_mutex_t mutex; /* guards what follows */
    guint64 finished;        /* bytes */
    VmrSparseSum sum;        /* of them */
    GError *error;           /* the first */
    gboolean unsuitable;     /* the backend has to be another one */
    gboolean exhausted;      /* there is nothing left to claim */
} VmrSparseTransfer;

typedef enum {
    VMR_SPARSE_RUN_DONE,
    VMR_SPARSE_RUN_UNSUITABLE, /* the next backend is to go on */
    VMR_SPARSE_RUN_FAILED,     /* error is set, or it was cancelled */
} VmrSparseRun;

/* Whether what was begun is to be left: cancelled, failed, or unsuitable. */
gboolean vmr_sparse_transfer_stopped(VmrSparseTransfer *transfer);

/* Whether there is nothing left to claim. */
gboolean vmr_sparse_transfer_exhausted(VmrSparseTransfer *transfer);

/* Whether it was cancelled. */
gboolean vmr_sparse_transfer_cancelled(const VmrSparseTransfer *transfer);

/* Keep @errnum of @action ("read") at @offset of @path as the error, if it is
 * the first one. */
void vmr_sparse_transfer_fail(VmrSparseTransfer *transfer, int errnum,
                              const char *action, const char *path,
                              guint64 offset);

/* The source ends before @offset: it was cut off meanwhile. */
void vmr_sparse_transfer_fail_short(VmrSparseTransfer *transfer,
                                    guint64 offset);

/* Put @range back, for another backend to do. */
void vmr_sparse_transfer_pass_on(VmrSparseTransfer *transfer,
                                 VmrSparseRange range);

/* Leave what is left to another backend. */
void vmr_sparse_transfer_give_up(VmrSparseTransfer *transfer);

/* @range, whose blocks have @sum, is done. */
void vmr_sparse_transfer_finish(VmrSparseTransfer *transfer,
                                VmrSparseRange range, VmrSparseSum sum);

/* Take the next range, of @max bytes at most; FALSE: there is none, or it has
 * failed. */
gboolean vmr_sparse_transfer_claim(VmrSparseTransfer *transfer, guint64 max,
                                   VmrSparseRange *range);

/* How the transfer stands once a backend has ended. */
VmrSparseRun vmr_sparse_transfer_outcome(VmrSparseTransfer *transfer);

/* Whether @errnum says that this way of doing it is refused, by the kernel or
 * the file system, and not that the storage is broken. */
gboolean vmr_sparse_is_refusal(int errnum);

/* Set @error for @errnum at @offset of @path. */
void vmr_sparse_set_io_error(GError **error, int errnum, const char *action,
                             const char *path, guint64 offset);

/* The backend of io_uring: needs the descriptors with O_DIRECT. */
VmrSparseRun vmr_sparse_uring_run(VmrSparseTransfer *transfer);

/* The backend of threads that read and write, with O_DIRECT where @direct. */
VmrSparseRun vmr_sparse_threads_run(VmrSparseTransfer *transfer,
                                    gboolean direct);

/* The backend of threads with copy_file_range. */
VmrSparseRun vmr_sparse_range_run(VmrSparseTransfer *transfer);

/* Buffers of @size bytes, in huge pages where there are any: a request to or from
 * them then has few segments, while one of 1 MiB in small pages has more than
 * many a device takes at once, and is cut up. NULL: errno says why. */
guint8 *vmr_sparse_buffers_new(gsize size);

/* Free @buffers of @size bytes; NULL is fine. */
void vmr_sparse_buffers_free(guint8 *buffers, gsize size);

/* Read @len bytes at @offset, all of them; FALSE: errno says why, 0 that the
 * file ends before. */
gboolean vmr_sparse_read_full(int fd, guint8 *data, gsize len, guint64 offset);

/* Write @len bytes at @offset, all of them; FALSE: errno says why. */
gboolean vmr_sparse_write_full(int fd, const guint8 *data, gsize len,
                               guint64 offset);

/* The open files of a copy. */
typedef struct {
    const char *source;      /* their paths, borrowed */
    const char *destination; /* NULL: none, the checksum only */
    int in;
    int in_direct;           /* with O_DIRECT, or -1 */
    int out;
    int out_direct;          /* with O_DIRECT, or -1 */
    gboolean out_is_block;   /* a block device */
    struct stat in_st;       /* the source as it was when it was looked at */
    VmrStamp in_stamp;       /* the same */
    guint64 size;            /* of the source, then */
    gboolean created;        /* the destination was, by us */
    int folder;              /* it is in there, if it was created */
    char *base;              /* under this name */
} VmrSparseFiles;

/* Open @source and (unless NULL) @destination, which are borrowed, and refuse
 * what must not be copied. Errors: as for vmr_sparse_start(). */
gboolean vmr_sparse_files_open(VmrSparseFiles *files, const char *source,
                               const char *destination, gboolean overwrite,
                               GError **error);

/* Close them. */
void vmr_sparse_files_close(VmrSparseFiles *files);

/* Take the lock of the destination if nobody has it; *@taken tells. Where there
 * are no locks it is as if it were taken. Errors: IO. */
gboolean vmr_sparse_files_try_lock(VmrSparseFiles *files, gboolean *taken,
                                   GError **error);

/* Take the lock together with others who have it so, while nobody fills the
 * destination; FALSE: it is being filled. */
gboolean vmr_sparse_files_try_share(VmrSparseFiles *files);

/* Give the lock back. */
void vmr_sparse_files_unlock(VmrSparseFiles *files);

/* Look at the files before anything is done: sizes, and that no QEMU has the
 * destination open, or the source for writing. Errors: BUSY, DIVERGED (the
 * destination was removed), INVALID_SPEC (a device too small), IO. */
gboolean vmr_sparse_files_look(VmrSparseFiles *files, GError **error);

/* The same where the lock is shared: the destination may be in use, and is not to
 * be filled. */
gboolean vmr_sparse_files_look_beside_others(VmrSparseFiles *files,
                                             GError **error);

/* Check that the source is as it was looked at. Errors: DIVERGED, IO. */
gboolean vmr_sparse_files_check_source(const VmrSparseFiles *files,
                                       GError **error);

/* Check that the destination has room for @bytes of data. Errors: IO. */
gboolean vmr_sparse_files_check_space(const VmrSparseFiles *files,
                                      guint64 bytes, GError **error);

/* Remove the destination if it was created and is still there. Errors: IO. */
gboolean vmr_sparse_files_remove(const VmrSparseFiles *files, GError **error);

struct VmrSparse {
    gint refs;               /* atomic: the owner's and the thread's */
    char *source;
    char *destination;       /* NULL: the checksum only */
    gboolean reflink;
    gboolean verify;
    gboolean gentle;
    guint deny;
    guint64 from;            /* of the checksum only: what is before is left out */
    VmrSparseFiles files;    /* of the thread, once that runs */
    VmrSparsePacer *pacer;
    VmrSparseLimit *limit;
    gint cancelled;          /* atomic */
    guint64 current;         /* atomic: bytes done */
    guint64 end;             /* atomic: bytes to do */
    gint64 begin;            /* µs: when it was started */
    pthread_t thread;
    gboolean has_thread;     /* to be joined; the owner's */
    gboolean hangs;          /* its end was waited for, in vain; the owner's */
    pid_t pid;               /* of the process that has the thread */
    int done_fd;             /* eventfd: readable once the thread has ended */
    /* of the thread until then: */
    gboolean locked;
    gboolean filling;        /* the destination was changed */
    gboolean has_head;       /* its beginning was written */
    VmrSparseSum sum;
    VmrSparseReport report;
    GError *error;
};

/* Fill the destination, from locking it to marking it complete. In the thread
 * of @copy. Errors: as for vmr_sparse_wait(). */
gboolean vmr_sparse_fill(VmrSparse *copy, GError **error);

/* After a fill that failed: remove what was created, or spoil what is left, and
 * say so in *@error. */
void vmr_sparse_fill_undo(VmrSparse *copy, GError **error);

/* Copy the bulk of the data, by whatever backend can; their sum is added to
 * @copy's. Errors: IO, DIVERGED, NOT_SUPPORTED, CANCELLED. */
gboolean vmr_sparse_move(VmrSparse *copy, GError **error);

/* Copy the beginning of the file, which comes last; the same. */
gboolean vmr_sparse_move_head(VmrSparse *copy, GError **error);

/* Count the bytes of data of @fd (@path, for error texts) of @size bytes. Errors:
 * IO, CANCELLED. */
gboolean vmr_sparse_count(VmrSparse *copy, int fd, const char *path,
                          guint64 size, guint64 *bytes, GError **error);

/* The sum of the open file @in (@direct: with O_DIRECT, or -1) of @size bytes, from the
 * block at @from on; with @past_cache read from the storage. Errors: the same. */
gboolean vmr_sparse_read_sum(VmrSparse *copy, const char *path, int in,
                             int direct, guint64 from, guint64 size,
                             gboolean past_cache, VmrSparseSum *sum,
                             GError **error);

/* Set @error to CANCELLED if @copy was, and say so. */
gboolean vmr_sparse_check_cancelled(VmrSparse *copy, GError **error);

G_END_DECLS
