/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* madvise */

#include <errno.h>
#include <libvirt/virterror.h>
#include <sys/mman.h>
#include <unistd.h>

#include "error.h"
#include "sparse_priv.h"

#define HUGE_PAGE (2u * 1024u * 1024u)

gboolean
vmr_sparse_is_refusal(int errnum)
{
    switch (errnum) {
    case EINVAL:     /* alignment, or no O_DIRECT after all */
    case EOPNOTSUPP:
    case ENOSYS:
    case EPERM:      /* seccomp, or io_uring is switched off */
    case EACCES:
    case EXDEV:      /* copy_file_range between file systems */
    case EBADF:      /* copy_file_range of what it takes for no file */
    case ETXTBSY:    /* copy_file_range of a swap file */
    case ENOMEM:     /* io_uring beyond the limit of locked memory */
    case EMFILE:
    case ENFILE:
        return TRUE;
    default:
        return FALSE;
    }
}

gboolean
vmr_sparse_transfer_cancelled(const VmrSparseTransfer *transfer)
{
    return g_atomic_int_get(transfer->cancelled) != 0;
}

gboolean
vmr_sparse_transfer_stopped(VmrSparseTransfer *transfer)
{
    gboolean stopped;

    if (vmr_sparse_transfer_cancelled(transfer))
        return TRUE;
    pthread_mutex_lock(&transfer->mutex);
    stopped = transfer->error || transfer->unsuitable;
    pthread_mutex_unlock(&transfer->mutex);
    return stopped;
}

void
vmr_sparse_set_io_error(GError **error, int errnum, const char *action,
                        const char *path, guint64 offset)
{
    vmr_error_set_virt(error, VMR_ERROR_IO, VIR_ERR_SYSTEM_ERROR,
                       "cannot %s '%s' at byte %" G_GUINT64_FORMAT ": %s",
                       action, path, offset, g_strerror(errnum));
}

/* Keep @error, owned, if it is the first one. */
static void
keep_error(VmrSparseTransfer *transfer, GError *error)
{
    pthread_mutex_lock(&transfer->mutex);
    if (!transfer->error)
        transfer->error = g_steal_pointer(&error);
    pthread_mutex_unlock(&transfer->mutex);
    g_clear_error(&error);
}

void
vmr_sparse_transfer_fail(VmrSparseTransfer *transfer, int errnum,
                         const char *action, const char *path, guint64 offset)
{
    GError *error = NULL;

    vmr_sparse_set_io_error(&error, errnum, action, path, offset);
    keep_error(transfer, error);
}

void
vmr_sparse_transfer_fail_short(VmrSparseTransfer *transfer, guint64 offset)
{
    keep_error(transfer,
               g_error_new(VMR_ERROR, VMR_ERROR_DIVERGED,
                           "'%s' has changed while it was read: it ends "
                           "before byte %" G_GUINT64_FORMAT,
                           transfer->source, offset));
}

void
vmr_sparse_transfer_give_up(VmrSparseTransfer *transfer)
{
    pthread_mutex_lock(&transfer->mutex);
    transfer->unsuitable = TRUE;
    pthread_mutex_unlock(&transfer->mutex);
}

void
vmr_sparse_transfer_pass_on(VmrSparseTransfer *transfer, VmrSparseRange range)
{
    vmr_sparse_plan_give_back(transfer->plan, range);
    vmr_sparse_transfer_give_up(transfer);
}

void
vmr_sparse_transfer_finish(VmrSparseTransfer *transfer, VmrSparseRange range,
                           VmrSparseSum sum)
{
    __atomic_add_fetch(transfer->done, range.length, __ATOMIC_RELAXED);
    pthread_mutex_lock(&transfer->mutex);
    transfer->finished += range.length;
    vmr_sparse_sum_merge(&transfer->sum, sum);
    pthread_mutex_unlock(&transfer->mutex);
}

gboolean
vmr_sparse_transfer_claim(VmrSparseTransfer *transfer, guint64 max,
                          VmrSparseRange *range)
{
    if (!vmr_sparse_plan_claim(transfer->plan, max, range)) {
        vmr_sparse_transfer_fail(transfer, errno, "look for data of",
                                 transfer->source, 0);
        return FALSE;
    }
    if (range->length > 0)
        return TRUE;
    pthread_mutex_lock(&transfer->mutex);
    transfer->exhausted = TRUE;
    pthread_mutex_unlock(&transfer->mutex);
    return FALSE;
}

gboolean
vmr_sparse_transfer_exhausted(VmrSparseTransfer *transfer)
{
    gboolean exhausted;

    pthread_mutex_lock(&transfer->mutex);
    exhausted = transfer->exhausted;
    pthread_mutex_unlock(&transfer->mutex);
    return exhausted;
}

VmrSparseRun
vmr_sparse_transfer_outcome(VmrSparseTransfer *transfer)
{
    VmrSparseRun run = VMR_SPARSE_RUN_DONE;

    pthread_mutex_lock(&transfer->mutex);
    if (transfer->error || vmr_sparse_transfer_cancelled(transfer))
        run = VMR_SPARSE_RUN_FAILED;
    else if (transfer->unsuitable)
        run = VMR_SPARSE_RUN_UNSUITABLE;
    transfer->unsuitable = FALSE;
    transfer->exhausted = FALSE;
    pthread_mutex_unlock(&transfer->mutex);
    return run;
}

/* As much as is mapped for @size bytes: whole huge pages. */
static gsize
round_up(gsize size)
{
    return (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

guint8 *
vmr_sparse_buffers_new(gsize wanted)
{
    gsize size = round_up(wanted);
    gsize mapped = size + HUGE_PAGE;
    guint8 *mapping = mmap(NULL, mapped, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    gsize before;

    if (mapping == MAP_FAILED)
        return NULL;
    before = -GPOINTER_TO_SIZE(mapping) % HUGE_PAGE;
    if (before > 0)
        munmap(mapping, before);
    munmap(mapping + before + size, mapped - before - size);
    /* refused where they are switched off: small pages do, too */
    (void)madvise(mapping + before, size, MADV_HUGEPAGE);
    return mapping + before;
}

void
vmr_sparse_buffers_free(guint8 *buffers, gsize size)
{
    if (buffers)
        munmap(buffers, round_up(size));
}

gboolean
vmr_sparse_read_full(int fd, guint8 *data, gsize len, guint64 offset)
{
    gsize done = 0;

    while (done < len) {
        ssize_t n = pread(fd, data + done, len - done, (off_t)(offset + done));

        if (n == 0) {
            errno = 0;
            return FALSE;
        }
        if (n > 0)
            done += (gsize)n;
        else if (errno != EINTR && errno != EAGAIN)
            return FALSE;
    }
    return TRUE;
}

gboolean
vmr_sparse_write_full(int fd, const guint8 *data, gsize len, guint64 offset)
{
    gsize done = 0;

    while (done < len) {
        ssize_t n =
            pwrite(fd, data + done, len - done, (off_t)(offset + done));

        if (n == 0) {
            errno = ENOSPC; /* no file system is known to do this */
            return FALSE;
        }
        if (n > 0)
            done += (gsize)n;
        else if (errno != EINTR && errno != EAGAIN)
            return FALSE;
    }
    return TRUE;
}
