/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The backends of threads, each of which claims a range, copies it, and claims
 * the next one: by pread and pwrite, past the page cache or through it, or by
 * copy_file_range. What goes through the page cache is written back as it comes,
 * so that neither the end of the copy nor a guest's own flush has to wait for
 * all of it. */

#define _GNU_SOURCE 1 /* copy_file_range, sync_file_range */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "sparse_priv.h"

#define MAX_THREADS 8

/* Through the page cache more threads only get into each other's way. */
#define CACHED_THREADS 2

/* How much each thread has in write-back: the whole is bounded by it. */
#define WINDOW        16u
#define GENTLE_WINDOW 4u

typedef enum { KIND_DIRECT, KIND_CACHED, KIND_RANGE } Kind;

typedef struct {
    VmrSparseTransfer *transfer;
    Kind kind;
    guint number; /* of the thread */
    pthread_t thread;
    guint8 *buffer;
    VmrSparseRange window[WINDOW]; /* the last ranges in write-back */
    guint written;                 /* how many there have been */
} Worker;

/* How a piece of work has ended. */
typedef enum { STEP_DONE, STEP_PASSED_ON, STEP_FAILED } Step;

static Step
step_failed(Worker *worker, VmrSparseRange range, gboolean reading, int errnum)
{
    VmrSparseTransfer *transfer = worker->transfer;

    if (errnum == 0) {
        vmr_sparse_transfer_fail_short(transfer, range.offset + range.length);
    } else if (worker->kind != KIND_CACHED && vmr_sparse_is_refusal(errnum)) {
        vmr_sparse_transfer_pass_on(transfer, range);
        return STEP_PASSED_ON;
    } else {
        vmr_sparse_transfer_fail(
            transfer, errnum, reading ? "read" : "write",
            reading ? transfer->source : transfer->destination, range.offset);
    }
    return STEP_FAILED;
}

/* Whether @errnum says that sync_file_range() is not to be had here; what it would
 * have begun is then left to the fsync. */
static gboolean
is_no_sync_range(int errnum)
{
    return errnum == EINVAL || errnum == ESPIPE || errnum == ENOSYS ||
           errnum == EOPNOTSUPP || errnum == EPERM;
}

/* An error of the storage is told to a descriptor once: what is not taken from
 * here is not in the fsync any more. */
static gboolean
sync_range(Worker *worker, VmrSparseRange range, unsigned flags)
{
    VmrSparseTransfer *transfer = worker->transfer;

    if (sync_file_range(transfer->out, (off_t)range.offset,
                        (off_t)range.length, flags) == 0 ||
        is_no_sync_range(errno))
        return TRUE;
    vmr_sparse_transfer_fail(transfer, errno, "write back",
                             transfer->destination, range.offset);
    return FALSE;
}

/* Have the kernel begin to write @range back, and wait for what it began a
 * window ago. */
static Step
write_back(Worker *worker, VmrSparseRange range)
{
    int out = worker->transfer->out;
    guint size = worker->transfer->gentle ? GENTLE_WINDOW : WINDOW;
    VmrSparseRange *slot = &worker->window[worker->written % size];

    if (worker->written >= size) {
        if (!sync_range(worker, *slot,
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                            SYNC_FILE_RANGE_WAIT_AFTER))
            return STEP_FAILED;
        (void)posix_fadvise(out, (off_t)slot->offset, (off_t)slot->length,
                            POSIX_FADV_DONTNEED);
    }
    if (!sync_range(worker, range, SYNC_FILE_RANGE_WRITE))
        return STEP_FAILED;
    *slot = range;
    worker->written++;
    return STEP_DONE;
}

static Step
copy_through_buffer(Worker *worker, VmrSparseRange range)
{
    VmrSparseTransfer *transfer = worker->transfer;
    gboolean direct = worker->kind == KIND_DIRECT;
    int in = direct ? transfer->in_direct : transfer->in;
    int out = direct ? transfer->out_direct : transfer->out;
    VmrSparseSum sum = {0, 0};

    if (!vmr_sparse_read_full(in, worker->buffer, range.length, range.offset))
        return step_failed(worker, range, TRUE, errno);
    if (out >= 0 &&
        !vmr_sparse_write_full(out, worker->buffer, range.length, range.offset))
        return step_failed(worker, range, FALSE, errno);
    vmr_sparse_sum_add(&sum, worker->buffer, range.length, range.offset);
    vmr_sparse_transfer_finish(transfer, range, sum);
    return out >= 0 && !direct ? write_back(worker, range) : STEP_DONE;
}

static Step
copy_in_kernel(Worker *worker, VmrSparseRange range)
{
    VmrSparseTransfer *transfer = worker->transfer;
    off_t in = (off_t)range.offset;
    off_t out = (off_t)range.offset;
    gsize left = range.length;
    VmrSparseSum sum = {0, 0};

    while (left > 0) {
        ssize_t n = copy_file_range(transfer->in, &in, transfer->out, &out,
                                    left, 0);

        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return step_failed(worker, range, FALSE, errno);
        /* some kernels copy nothing of some files, and call that success */
        if (n == 0)
            return step_failed(worker, range, FALSE, EOPNOTSUPP);
        left -= n > 0 ? (gsize)n : 0;
    }
    /* the kernel has just read it, so this does not */
    if (!vmr_sparse_read_full(transfer->in, worker->buffer, range.length,
                              range.offset))
        return step_failed(worker, range, TRUE, errno);
    vmr_sparse_sum_add(&sum, worker->buffer, range.length, range.offset);
    vmr_sparse_transfer_finish(transfer, range, sum);
    return write_back(worker, range);
}

/* Wait until this thread may start something, and say how much; FALSE: it has to
 * stop. */
static gboolean
wait_for_turn(Worker *worker, guint *block)
{
    VmrSparseTransfer *transfer = worker->transfer;

    while (!vmr_sparse_transfer_stopped(transfer) &&
           !vmr_sparse_transfer_exhausted(transfer)) {
        gint64 now = g_get_monotonic_time();
        guint depth;
        guint limited;
        gint64 limit = vmr_sparse_limit_delay(transfer->limit, now, &limited);
        gint64 pause =
            vmr_sparse_pacer_get(transfer->pacer, now, &depth, block);

        pause = MAX(pause, limit);
        *block = MIN(*block, limited);
        if (worker->number >= depth)
            pause = MAX(pause, VMR_SPARSE_STOP_SLICE / 5);
        if (pause == 0)
            return TRUE;
        g_usleep((gulong)MIN(pause, VMR_SPARSE_STOP_SLICE));
    }
    return FALSE;
}

static void *
worker_run(void *opaque)
{
    Worker *worker = opaque;
    VmrSparseTransfer *transfer = worker->transfer;
    VmrSparseRange range;
    guint block;

    while (wait_for_turn(worker, &block) &&
           vmr_sparse_transfer_claim(transfer, block, &range)) {
        gint64 begin = g_get_monotonic_time();
        gint64 end;
        Step step;

        vmr_sparse_limit_charge(transfer->limit, range.length, begin);
        vmr_sparse_pacer_begin(transfer->pacer, begin);
        step = worker->kind == KIND_RANGE ? copy_in_kernel(worker, range)
                                          : copy_through_buffer(worker, range);
        end = g_get_monotonic_time();
        /* two requests, one after the other */
        vmr_sparse_pacer_end(transfer->pacer, (guint)range.length,
                             (end - begin) / 2, end);
        if (step != STEP_DONE)
            break;
    }
    return NULL;
}

static gboolean
worker_start(Worker *worker)
{
    worker->buffer = vmr_sparse_buffers_new(VMR_SPARSE_MAX_BLOCK);
    if (worker->buffer &&
        pthread_create(&worker->thread, NULL, worker_run, worker) == 0)
        return TRUE;
    vmr_sparse_buffers_free(worker->buffer, VMR_SPARSE_MAX_BLOCK);
    return FALSE;
}

/* Have up to @n threads copy all there is; the calling one, whose signals are
 * blocked already, which they inherit, only waits. */
static VmrSparseRun
run(VmrSparseTransfer *transfer, Kind kind, guint n)
{
    g_autofree Worker *workers = g_new0(Worker, n);
    guint started = 0;

    for (guint i = 0; i < n; i++) {
        workers[i] =
            (Worker){.transfer = transfer, .kind = kind, .number = i};
        if (!worker_start(&workers[i]))
            break;
        started++;
    }
    if (started == 0)
        vmr_sparse_transfer_fail(transfer, EAGAIN, "start a thread for",
                                 transfer->source, 0);
    for (guint i = 0; i < started; i++) {
        pthread_join(workers[i].thread, NULL);
        vmr_sparse_buffers_free(workers[i].buffer, VMR_SPARSE_MAX_BLOCK);
    }
    return vmr_sparse_transfer_outcome(transfer);
}

VmrSparseRun
vmr_sparse_threads_run(VmrSparseTransfer *transfer, gboolean direct)
{
    if (!direct)
        return run(transfer, KIND_CACHED, CACHED_THREADS);
    if (transfer->in_direct < 0 ||
        (transfer->out >= 0 && transfer->out_direct < 0))
        return VMR_SPARSE_RUN_UNSUITABLE;
    return run(transfer, KIND_DIRECT, MAX_THREADS);
}

VmrSparseRun
vmr_sparse_range_run(VmrSparseTransfer *transfer)
{
    if (transfer->out < 0)
        return VMR_SPARSE_RUN_UNSUITABLE;
    return run(transfer, KIND_RANGE, CACHED_THREADS);
}
