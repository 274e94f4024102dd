/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which backend copies, and what goes on with another one. */

#include <errno.h>
#include <fcntl.h>

#include "error.h"
#include "sparse_priv.h"

typedef struct {
    VmrSparseMethod method;
    VmrSparseRun (*run)(VmrSparseTransfer *transfer);
} Backend;

static VmrSparseRun
run_threads_direct(VmrSparseTransfer *transfer)
{
    return vmr_sparse_threads_run(transfer, TRUE);
}

static VmrSparseRun
run_threads_cached(VmrSparseTransfer *transfer)
{
    return vmr_sparse_threads_run(transfer, FALSE);
}

/* The best first. Past the page cache before through it: the cache of the host
 * is left alone, and nothing is written back that a guest would wait for. */
static const Backend backend_table[] = {
    {VMR_SPARSE_METHOD_URING, vmr_sparse_uring_run},
    {VMR_SPARSE_METHOD_THREADS, run_threads_direct},
    {VMR_SPARSE_METHOD_RANGE, vmr_sparse_range_run},
    {VMR_SPARSE_METHOD_THREADS, run_threads_cached},
};

gboolean
vmr_sparse_check_cancelled(VmrSparse *copy, GError **error)
{
    if (!g_atomic_int_get(&copy->cancelled))
        return FALSE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_CANCELLED,
                "the copy of '%s' was cancelled", copy->source);
    return TRUE;
}

static gboolean
stop_counting(gpointer data)
{
    return g_atomic_int_get(&((VmrSparse *)data)->cancelled) != 0;
}

gboolean
vmr_sparse_count(VmrSparse *copy, int fd, const char *path, guint64 size,
                 guint64 *bytes, GError **error)
{
    g_autoptr(VmrSparsePlan) plan = vmr_sparse_plan_new(fd, 0, size);

    if (vmr_sparse_plan_count(plan, stop_counting, copy, bytes))
        return TRUE;
    if (!vmr_sparse_check_cancelled(copy, error))
        vmr_error_set_errno(error, errno, "look for data of", path);
    return FALSE;
}

/* Each range must have been handed out and have come to its end: a copy that is
 * not whole must never be taken for one. */
static gboolean
check_finished(VmrSparseTransfer *transfer, GError **error)
{
    guint64 found;
    gboolean empty = vmr_sparse_plan_is_empty(transfer->plan, &found);

    if (empty && transfer->finished == found)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_IO,
                "not all of '%s' has come over, but %" G_GUINT64_FORMAT
                " of %" G_GUINT64_FORMAT "%s bytes",
                transfer->source, transfer->finished, found,
                empty ? "" : " or more");
    return FALSE;
}

/* Run one backend after the other until all is done. */
static gboolean
run_backends(VmrSparse *copy, VmrSparseTransfer *transfer,
             VmrSparseMethod *method, GError **error)
{
    for (gsize i = 0; i < G_N_ELEMENTS(backend_table); i++) {
        const Backend *backend = &backend_table[i];

        if (copy->deny & (1u << backend->method))
            continue;
        switch (backend->run(transfer)) {
        case VMR_SPARSE_RUN_DONE:
            *method = backend->method;
            return check_finished(transfer, error);
        case VMR_SPARSE_RUN_UNSUITABLE:
            break;
        case VMR_SPARSE_RUN_FAILED:
            if (transfer->error)
                g_propagate_error(error, g_steal_pointer(&transfer->error));
            else
                vmr_sparse_check_cancelled(copy, error);
            return FALSE;
        }
    }
    g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                "there is no way left to copy '%s' to '%s'", transfer->source,
                transfer->destination);
    return FALSE;
}

/* Do what is in @plan; @transfer has the files, and gets the rest. */
static gboolean
move(VmrSparse *copy, VmrSparseTransfer *transfer, guint64 begin, guint64 end,
     VmrSparseMethod *method, GError **error)
{
    g_autoptr(VmrSparsePlan) plan =
        vmr_sparse_plan_new(transfer->in, begin, end);
    gboolean ok;

    transfer->plan = plan;
    transfer->pacer = copy->pacer;
    transfer->limit = copy->limit;
    transfer->gentle = copy->gentle;
    transfer->cancelled = &copy->cancelled;
    transfer->done = &copy->current;
    pthread_mutex_init(&transfer->mutex, NULL);
    ok = run_backends(copy, transfer, method, error);
    pthread_mutex_destroy(&transfer->mutex);
    g_clear_error(&transfer->error);
    return ok;
}

/* Do the small part of a file from @begin to @end, its first or its last bytes,
 * through the page cache; @out -1: only the sum. */
static gboolean
move_small(VmrSparse *copy, const VmrSparseTransfer *files, guint64 begin,
           guint64 end, VmrSparseSum *sum, GError **error)
{
    g_autoptr(VmrSparsePlan) plan = vmr_sparse_plan_new(files->in, begin, end);
    g_autofree guint8 *buffer = g_malloc(VMR_SPARSE_HEAD);
    VmrSparseRange range;

    for (;;) {
        if (!vmr_sparse_plan_claim(plan, VMR_SPARSE_HEAD, &range)) {
            vmr_error_set_errno(error, errno, "look for data of",
                                files->source);
            return FALSE;
        }
        if (range.length == 0)
            return TRUE;
        if (!vmr_sparse_read_full(files->in, buffer, range.length,
                                  range.offset)) {
            vmr_sparse_set_io_error(error, errno ? errno : ENODATA, "read",
                                    files->source, range.offset);
            return FALSE;
        }
        if (files->out >= 0 && !vmr_sparse_write_full(files->out, buffer,
                                                      range.length,
                                                      range.offset)) {
            vmr_sparse_set_io_error(error, errno, "write", files->destination,
                                    range.offset);
            return FALSE;
        }
        vmr_sparse_sum_add(sum, buffer, range.length, range.offset);
        __atomic_add_fetch(&copy->current, range.length, __ATOMIC_RELAXED);
    }
}

/* Where the bulk of a file of @size bytes ends. */
static guint64
end_of_bulk(guint64 size)
{
    return MAX(size - size % VMR_SPARSE_BLOCK, MIN(size, VMR_SPARSE_HEAD));
}

gboolean
vmr_sparse_move(VmrSparse *copy, GError **error)
{
    const VmrSparseFiles *files = &copy->files;
    guint64 end = end_of_bulk(files->size);
    VmrSparseTransfer transfer = {.source = copy->source,
                                  .destination = copy->destination,
                                  .in = files->in,
                                  .in_direct = files->in_direct,
                                  .out = files->out,
                                  .out_direct = files->out_direct,
                                  .size = files->size};

    if (!move(copy, &transfer, MIN(files->size, VMR_SPARSE_HEAD), end,
              &copy->report.method, error))
        return FALSE;
    vmr_sparse_sum_merge(&copy->sum, transfer.sum);
    return move_small(copy, &transfer, end, files->size, &copy->sum,
                                 error);
}

gboolean
vmr_sparse_move_head(VmrSparse *copy, GError **error)
{
    const VmrSparseFiles *files = &copy->files;
    VmrSparseTransfer transfer = {.source = copy->source,
                                  .destination = copy->destination,
                                  .in = files->in,
                                  .out = files->out};

    return move_small(copy, &transfer, 0,
                                 MIN(files->size, VMR_SPARSE_HEAD), &copy->sum,
                                 error);
}

gboolean
vmr_sparse_read_sum(VmrSparse *copy, const char *path, int in, int direct,
                    guint64 from, guint64 size, gboolean past_cache,
                    VmrSparseSum *sum, GError **error)
{
    guint64 end = MAX(size - size % VMR_SPARSE_BLOCK, MIN(from, size));
    VmrSparseTransfer transfer = {.source = path,
                                  .destination = path,
                                  .in = in,
                                  .in_direct = direct,
                                  .out = -1,
                                  .out_direct = -1,
                                  .size = size,
                                  .past_cache = past_cache};
    VmrSparseMethod method;

    if (past_cache)
        (void)posix_fadvise(in, 0, 0, POSIX_FADV_DONTNEED);
    if (!move(copy, &transfer, MIN(from, size), end, &method, error))
        return FALSE;
    *sum = transfer.sum;
    return move_small(copy, &transfer, end, size, sum, error);
}
