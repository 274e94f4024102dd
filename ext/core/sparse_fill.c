/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Filling the destination: in which order, so that it is at no moment taken for
 * what it is not. It is marked incomplete, gets the bulk of the data and, once
 * those are on stable storage, its beginning; then it is marked complete. */

#define _GNU_SOURCE 1 /* fallocate */

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "copymark.h"
#include "error.h"
#include "headers.h"
#include "share.h"
#include "sparse_priv.h"

/* A device is zeroed in steps, between which the copy can be cancelled. */
#define ZERO_STEP (16u * 1024u * 1024u)

static gboolean
set_mark(VmrSparse *copy, VmrCopymarkState state, GError **error)
{
    VmrCopymark mark = {.state = state};
    const VmrSparseFiles *files = &copy->files;
    VmrStamp now;

    if (state == VMR_COPYMARK_COMPLETE) {
        if (!vmr_stamp_take_fd(files->out, copy->destination, &now, error))
            return FALSE;
        vmr_copymark_complete(&mark, &files->in_stamp, &now,
                              copy->report.checksum);
    }
    return vmr_copymark_set(files->out, copy->destination, &mark, error);
}

/* Read the destination back, from the storage, and compare. */
static gboolean
verify(VmrSparse *copy, const char *checksum, gboolean *same, GError **error)
{
    const VmrSparseFiles *files = &copy->files;
    char text[VMR_SPARSE_CHECKSUM_LENGTH + 1];
    VmrSparseSum sum;

    if (!vmr_sparse_read_sum(copy, copy->destination, files->out,
                             files->out_direct, 0, files->size, TRUE, &sum,
                             error))
        return FALSE;
    vmr_sparse_sum_format(sum, files->size, text);
    *same = strcmp(text, checksum) == 0;
    return TRUE;
}

/* The same of a copy that may have been given another backing name since, which must
 * not be written over with the old one. */
static gboolean
verify_rebased(VmrSparse *copy, gboolean *same, GError **error)
{
    const VmrSparseFiles *files = &copy->files;
    VmrSparseSum sum[2];
    char text[2][VMR_SPARSE_CHECKSUM_LENGTH + 1];

    if (!vmr_headers_differ_in_names(files->in, copy->source, files->out,
                                   copy->destination, same, error))
        return FALSE;
    if (!*same)
        return TRUE;
    if (!vmr_sparse_read_sum(copy, copy->source, files->in, files->in_direct,
                             VMR_SPARSE_BLOCK, files->size, FALSE, &sum[0],
                             error) ||
        !vmr_sparse_read_sum(copy, copy->destination, files->out,
                             files->out_direct, VMR_SPARSE_BLOCK, files->size,
                             TRUE, &sum[1], error))
        return FALSE;
    for (guint i = 0; i < G_N_ELEMENTS(sum); i++)
        vmr_sparse_sum_format(sum[i], files->size, text[i]);
    *same = strcmp(text[0], text[1]) == 0;
    return TRUE;
}

/* Whether the source still has the checksum of @mark, whose other figures leave
 * that open; it is noted with the figures of now, if so. */
static gboolean
has_same_data(VmrSparse *copy, const VmrCopymark *mark, const VmrStamp *out,
              gboolean *same, GError **error)
{
    const VmrSparseFiles *files = &copy->files;
    char text[VMR_SPARSE_CHECKSUM_LENGTH + 1];
    VmrSparseSum sum = {0};
    VmrCopymark now;

    if (!vmr_sparse_read_sum(copy, copy->source, files->in, files->in_direct, 0,
                             files->size, FALSE, &sum, error) ||
        !vmr_sparse_files_check_source(files, error))
        return FALSE;
    vmr_sparse_sum_format(sum, files->size, text);
    *same = strcmp(text, mark->checksum) == 0;
    if (!*same)
        return TRUE;
    vmr_copymark_complete(&now, &files->in_stamp, out, text);
    return vmr_copymark_set(files->out, copy->destination, &now, error);
}

/* Whether somebody has copied just this already, and completely. */
static gboolean
is_there_already(VmrSparse *copy, gboolean *there, GError **error)
{
    const VmrSparseFiles *files = &copy->files;
    VmrCopymark mark;
    VmrStamp out;

    *there = FALSE;
    if (!vmr_stamp_take_fd(files->out, copy->destination, &out, error) ||
        !vmr_copymark_get(files->out, copy->destination, &mark, error))
        return FALSE;
    switch (vmr_copymark_compare(&mark, &files->in_stamp, &out)) {
    case VMR_COPYMARK_FITS:
        *there = TRUE;
        break;
    case VMR_COPYMARK_TOUCHED:
        if (mark.checksum[0] &&
            !has_same_data(copy, &mark, &out, there, error))
            return FALSE;
        break;
    case VMR_COPYMARK_OTHER:
        break;
    }
    if (*there && copy->verify) {
        *there = FALSE;
        if (mark.checksum[0] &&
            (!verify(copy, mark.checksum, there, error) ||
             (!*there && !verify_rebased(copy, there, error))))
            return FALSE;
    }
    if (*there) {
        g_strlcpy(copy->report.checksum, mark.checksum,
                  sizeof(copy->report.checksum));
        copy->report.verified = copy->verify;
    }
    return TRUE;
}

/* The destination that was created empty may have been filled by another copy,
 * which got the lock first: then it is that one's. */
static gboolean
see_whose_it_is(VmrSparse *copy, GError **error)
{
    VmrSparseFiles *files = &copy->files;
    gboolean created = files->created;
    VmrCopymark mark;
    struct stat st;

    files->created = FALSE;
    if (fstat(files->out, &st) < 0) {
        vmr_error_set_errno(error, errno, "look at", copy->destination);
        return FALSE;
    }
    if (!vmr_copymark_get(files->out, copy->destination, &mark, error))
        return FALSE;
    files->created =
        created && st.st_size == 0 && mark.state == VMR_COPYMARK_NONE;
    return TRUE;
}

/* Wait for the lock, or until the one who has it lets others share it, and what
 * they then find is all there: *@there. To verify it, it must be our own. Errors:
 * as for vmr_sparse_files_look(), and CANCELLED. */
static gboolean
lock_destination(VmrSparse *copy, gboolean *there, GError **error)
{
    VmrSparseFiles *files = &copy->files;

    for (;;) {
        if (!vmr_sparse_files_try_lock(files, &copy->locked, error) ||
            (copy->locked && !see_whose_it_is(copy, error)) ||
            vmr_sparse_check_cancelled(copy, error))
            return FALSE;
        if (copy->locked)
            return vmr_sparse_files_look(files, error) &&
                   is_there_already(copy, there, error);
        if (!copy->verify && vmr_sparse_files_try_share(files)) {
            if (!vmr_sparse_files_look_beside_others(files, error) ||
                !is_there_already(copy, there, error))
                return FALSE;
            if (*there)
                return TRUE;
            vmr_sparse_files_unlock(files);
        }
        g_usleep(VMR_SPARSE_STOP_SLICE);
    }
}

/* Write zeros over @len bytes of a device at @offset; at best by having it forget
 * them. */
static gboolean
zero_device(const VmrSparseFiles *files, guint64 offset, guint64 len)
{
    g_autofree guint8 *zeros = NULL;
    guint64 range[2] = {offset, len};

    if (fallocate(files->out, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)offset, (off_t)len) == 0 ||
        ioctl(files->out, BLKZEROOUT, range) == 0)
        return TRUE;
    zeros = g_malloc0(len);
    return vmr_sparse_write_full(files->out, zeros, len, offset);
}

/* What is a hole of the source must read as zeros on a device. */
static gboolean
zero_holes(VmrSparse *copy, GError **error)
{
    const VmrSparseFiles *files = &copy->files;
    guint64 at = 0;

    while (at < files->size) {
        VmrSparseRange data;

        if (!vmr_sparse_next_data(files->in, at, files->size, &data)) {
            vmr_error_set_errno(error, errno, "look for data of",
                                copy->source);
            return FALSE;
        }
        while (at < data.offset) {
            guint64 step = MIN(data.offset - at, ZERO_STEP);

            if (vmr_sparse_check_cancelled(copy, error))
                return FALSE;
            if (!zero_device(files, at, step)) {
                vmr_sparse_set_io_error(error, errno, "zero",
                                        copy->destination, at);
                return FALSE;
            }
            at += step;
        }
        at = data.offset + data.length;
    }
    return TRUE;
}

/* Write zeros over the beginning of the destination, for good: a header in front
 * of data that are missing or wrong would make it an image. */
static gboolean
take_head_away(VmrSparse *copy, GError **error)
{
    gsize len = MIN(copy->files.size, VMR_SPARSE_HEAD);
    g_autofree guint8 *zeros = g_malloc0(len);

    if (vmr_sparse_write_full(copy->files.out, zeros, len, 0) &&
        fdatasync(copy->files.out) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "take away the beginning of",
                        copy->destination);
    return FALSE;
}

/* Have the destination be nothing but a hole of the right size; a device has no
 * holes, but zeros, and its other data are to come. */
static gboolean
empty_destination(VmrSparse *copy, GError **error)
{
    const VmrSparseFiles *files = &copy->files;

    if (files->out_is_block)
        return take_head_away(copy, error) && zero_holes(copy, error);
    if (ftruncate(files->out, 0) == 0 &&
        ftruncate(files->out, (off_t)files->size) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "set the size of", copy->destination);
    return FALSE;
}

static gboolean
sync_file(VmrSparse *copy, int (*sync)(int fd), GError **error)
{
    if (sync(copy->files.out) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "write back", copy->destination);
    return FALSE;
}

/* Whether both files share their data from here on. */
static gboolean
try_reflink(VmrSparse *copy)
{
    const VmrSparseFiles *files = &copy->files;

    if (!copy->reflink || (copy->deny & (1u << VMR_SPARSE_METHOD_REFLINK)) ||
        ioctl(files->out, FICLONE, files->in) != 0)
        return FALSE;
    return ftruncate(files->out, (off_t)files->size) == 0;
}

static gboolean
fill_by_reflink(VmrSparse *copy, GError **error)
{
    copy->report.method = VMR_SPARSE_METHOD_REFLINK;
    copy->has_head = TRUE;
    if (!vmr_sparse_files_check_source(&copy->files, error))
        return FALSE;
    /* nothing was read, so there is no checksum unless one is needed */
    return !copy->verify ||
           vmr_sparse_read_sum(copy, copy->source, copy->files.in,
                               copy->files.in_direct, 0, copy->files.size,
                               FALSE, &copy->sum, error);
}

static gboolean
fill_by_copying(VmrSparse *copy, GError **error)
{
    const VmrSparseFiles *files = &copy->files;
    guint64 bytes;

    if (!vmr_sparse_count(copy, files->in, copy->source, files->size, &bytes,
                          error) ||
        !vmr_sparse_files_check_space(files, bytes, error))
        return FALSE;
    __atomic_store_n(&copy->end, copy->verify ? 2 * bytes : bytes,
                     __ATOMIC_RELAXED);
    if (!empty_destination(copy, error) || !vmr_sparse_move(copy, error) ||
        !sync_file(copy, fdatasync, error) ||
        !vmr_sparse_files_check_source(files, error) ||
        vmr_sparse_check_cancelled(copy, error))
        return FALSE;
    copy->has_head = TRUE;
    if (!vmr_sparse_move_head(copy, error) ||
        !vmr_sparse_files_check_source(files, error))
        return FALSE;
    copy->report.copied = bytes;
    return TRUE;
}

/* The folder, too, must know of a file that was created. */
static gboolean
sync_folder(VmrSparse *copy, GError **error)
{
    if (!copy->files.created || fsync(copy->files.folder) == 0)
        return TRUE;
    vmr_error_set_errno(error, errno, "write back the folder of",
                        copy->destination);
    return FALSE;
}

static gboolean
verify_destination(VmrSparse *copy, GError **error)
{
    if (!copy->verify)
        return TRUE;
    if (!verify(copy, copy->report.checksum, &copy->report.verified, error))
        return FALSE;
    if (copy->report.verified)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_IO,
                "'%s' does not read as it was written: its storage is broken",
                copy->destination);
    return FALSE;
}

gboolean
vmr_sparse_fill(VmrSparse *copy, GError **error)
{
    VmrSparseFiles *files = &copy->files;
    gboolean there;

    if (!lock_destination(copy, &there, error))
        return FALSE;
    copy->report.size = files->size;
    /* somebody has made it, and may not want it any more one day */
    if (there)
        return vmr_share_note(files->out, copy->destination,
                              VMR_SHARE_USER_COPY, error);
    copy->filling = TRUE;
    if (!set_mark(copy, VMR_COPYMARK_INCOMPLETE, error) ||
        !(try_reflink(copy) ? fill_by_reflink(copy, error)
                            : fill_by_copying(copy, error)) ||
        !sync_file(copy, fsync, error))
        return FALSE;
    if (copy->report.copied > 0 || copy->verify ||
        copy->report.method != VMR_SPARSE_METHOD_REFLINK)
        vmr_sparse_sum_format(copy->sum, files->size, copy->report.checksum);
    return verify_destination(copy, error) &&
           set_mark(copy, VMR_COPYMARK_COMPLETE, error) &&
           sync_file(copy, fsync, error) && sync_folder(copy, error);
}

/* Take mark and beginning of an incomplete copy away again. */
static void
spoil(VmrSparse *copy, GError **error)
{
    g_autoptr(GError) unmarked = NULL;
    g_autoptr(GError) failed = NULL;

    if (!copy->has_head)
        return;
    if (!set_mark(copy, VMR_COPYMARK_INCOMPLETE, &unmarked))
        vmr_error_note(error, "%s", unmarked->message);
    if (!take_head_away(copy, &failed))
        vmr_error_note(error, "%s", failed->message);
}

void
vmr_sparse_fill_undo(VmrSparse *copy, GError **error)
{
    g_autoptr(GError) failed = NULL;

    /* what is locked by another one is its own */
    if (!copy->locked)
        return;
    if (copy->files.created) {
        if (vmr_sparse_files_remove(&copy->files, &failed))
            return;
        vmr_error_note(error, "%s", failed->message);
    }
    if (!copy->filling)
        return;
    vmr_error_note(error, "'%s' is left incomplete", copy->destination);
    vmr_error_mark_partial(error);
    spoil(copy, error);
}
