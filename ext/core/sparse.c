/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The life of a copy: its thread, and those who wait for it. Both hold a
 * reference, since a thread that hangs in its storage may be the last one. */

#include "sparse.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"
#include "sparse_priv.h"
#include "worker.h"

/* How long, in ms, the end of a cancelled copy is waited for: as long as its
 * storage takes for what is under way. */
#define END_GRACE_MS 5000
#define MOMENT_MS    200

static const char *const pace_table[VMR_SPARSE_PACE_LAST] = {
    [VMR_SPARSE_PACE_AUTO] = "auto",
    [VMR_SPARSE_PACE_FULL] = "full",
};

static const char *const method_table[VMR_SPARSE_METHOD_LAST] = {
    [VMR_SPARSE_METHOD_NONE] = "none",
    [VMR_SPARSE_METHOD_REFLINK] = "reflink",
    [VMR_SPARSE_METHOD_URING] = "io_uring",
    [VMR_SPARSE_METHOD_RANGE] = "copy_file_range",
    [VMR_SPARSE_METHOD_THREADS] = "threads",
};

gboolean
vmr_sparse_pace_parse(const char *name, VmrSparsePace *pace, GError **error)
{
    for (guint i = 0; i < VMR_SPARSE_PACE_LAST; i++) {
        if (g_str_equal(name, pace_table[i])) {
            *pace = i;
            return TRUE;
        }
    }
    g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                "the pace must be 'auto' or 'full'");
    return FALSE;
}

const char *
vmr_sparse_method_name(VmrSparseMethod method)
{
    g_return_val_if_fail((unsigned)method < VMR_SPARSE_METHOD_LAST, "unknown");
    return method_table[method];
}

gboolean
vmr_sparse_method_parse(const char *name, VmrSparseMethod *method,
                        GError **error)
{
    for (guint i = 0; i < VMR_SPARSE_METHOD_LAST; i++) {
        if (g_str_equal(name, method_table[i])) {
            *method = i;
            return TRUE;
        }
    }
    g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                "there is no such method of copying");
    return FALSE;
}

static VmrSparse *
sparse_new(const VmrSparseSpec *spec)
{
    VmrSparse *copy = g_new0(VmrSparse, 1);

    copy->refs = 1;
    copy->source = g_strdup(spec->source);
    copy->destination = g_strdup(spec->destination);
    copy->reflink = spec->reflink;
    copy->verify = spec->verify;
    copy->gentle = spec->pace == VMR_SPARSE_PACE_AUTO;
    copy->deny = spec->deny;
    copy->from = spec->skip_header ? VMR_SPARSE_BLOCK : 0;
    /* it makes reflinks where it can */
    if (!spec->reflink)
        copy->deny |= 1u << VMR_SPARSE_METHOD_RANGE;
    copy->limit = vmr_sparse_limit_new(spec->bandwidth);
    copy->begin = g_get_monotonic_time();
    copy->pid = getpid();
    copy->done_fd = eventfd(0, EFD_CLOEXEC);
    return copy;
}

/* The disks of both files; NULL where one of them has none that is known. */
static VmrDiskload *
dup_load(const VmrSparseFiles *files)
{
    g_autoptr(VmrDiskload) load = vmr_diskload_new();
    struct stat st;

    if (!vmr_diskload_add(load, &files->in_st) ||
        (files->out >= 0 &&
         (fstat(files->out, &st) < 0 || !vmr_diskload_add(load, &st))))
        return NULL;
    return g_steal_pointer(&load);
}

static void
sparse_unref(VmrSparse *copy)
{
    if (!g_atomic_int_dec_and_test(&copy->refs))
        return;
    if (copy->done_fd >= 0)
        close(copy->done_fd);
    vmr_sparse_pacer_free(copy->pacer);
    vmr_sparse_limit_free(copy->limit);
    g_clear_error(&copy->error);
    g_free(copy->source);
    g_free(copy->destination);
    g_free(copy);
}

static gboolean
take_sum(VmrSparse *copy, GError **error)
{
    VmrSparseFiles *files = &copy->files;
    guint64 bytes;

    if (!vmr_sparse_files_look(files, error) ||
        !vmr_sparse_count(copy, files->in, copy->source, files->size, &bytes,
                          error))
        return FALSE;
    __atomic_store_n(&copy->end, bytes, __ATOMIC_RELAXED);
    if (!vmr_sparse_read_sum(copy, copy->source, files->in, files->in_direct,
                             copy->from, files->size, FALSE, &copy->sum,
                             error) ||
        !vmr_sparse_files_check_source(files, error))
        return FALSE;
    copy->report.size = files->size;
    vmr_sparse_sum_format(copy->sum, files->size, copy->report.checksum);
    return TRUE;
}

static void *
sparse_run(void *opaque)
{
    VmrSparse *copy = opaque;
    gboolean ok = copy->destination ? vmr_sparse_fill(copy, &copy->error)
                                    : take_sum(copy, &copy->error);

    if (ok && vmr_sparse_check_cancelled(copy, &copy->error))
        ok = FALSE; /* who has ended the wait does not expect it to be there */
    if (!ok && copy->destination)
        vmr_sparse_fill_undo(copy, &copy->error);
    vmr_sparse_files_close(&copy->files);
    copy->report.seconds =
        (double)(g_get_monotonic_time() - copy->begin) / G_USEC_PER_SEC;
    /* can fail only if the counter were full, and then it is readable */
    (void)eventfd_write(copy->done_fd, 1);
    sparse_unref(copy);
    return NULL;
}

static gboolean
start_thread(VmrSparse *copy, GError **error)
{
    int rc;

    if (copy->done_fd < 0) {
        vmr_error_set_errno(error, EMFILE, "create", "eventfd");
        return FALSE;
    }
    g_atomic_int_inc(&copy->refs);
    rc = vmr_worker_start_thread(&copy->thread, sparse_run, copy);
    if (rc == 0) {
        copy->has_thread = TRUE;
        return TRUE;
    }
    sparse_unref(copy);
    vmr_error_set_errno(error, rc, "start", "thread");
    return FALSE;
}

VmrSparse *
vmr_sparse_start(const VmrSparseSpec *spec, GError **error)
{
    g_autoptr(VmrSparse) copy = sparse_new(spec);

    if (vmr_sparse_files_open(&copy->files, copy->source, copy->destination,
                              spec->overwrite, error)) {
        copy->pacer = vmr_sparse_pacer_new(spec->pace, dup_load(&copy->files));
        if (start_thread(copy, error))
            return g_steal_pointer(&copy);
    }
    (void)vmr_sparse_files_remove(&copy->files, NULL);
    vmr_sparse_files_close(&copy->files);
    return NULL;
}

/* Wait @grace_ms (-1: for ever) for the end of the thread, and join it. FALSE:
 * it has not ended. */
static gboolean
join(VmrSparse *copy, int grace_ms)
{
    const VmrWait patience = {.deadline = VMR_WAIT_FOREVER};
    gboolean ready = FALSE;

    if (!copy->has_thread)
        return TRUE;
    if (copy->pid != getpid())
        return FALSE;
    if (!vmr_wait_fd(&patience, copy->done_fd, grace_ms, &ready, NULL) ||
        !ready)
        return FALSE;
    pthread_join(copy->thread, NULL);
    copy->has_thread = FALSE;
    return TRUE;
}

/* The outcome of a copy whose thread was joined. */
static gboolean
take_outcome(VmrSparse *copy, VmrSparseReport *report, GError **error)
{
    if (copy->error) {
        g_propagate_error(error, g_error_copy(copy->error));
        return FALSE;
    }
    if (report)
        *report = copy->report;
    return TRUE;
}

/* End @copy since the wait for it has ended by *@error, of which what is left of
 * it becomes a part. */
static void
end_early(VmrSparse *copy, GError **error)
{
    const VmrErrorDetail *detail;

    vmr_sparse_cancel(copy);
    if (!join(copy, END_GRACE_MS)) {
        vmr_error_note(error, "what is under way to the storage of '%s' does "
                       "not end",
                       copy->destination ? copy->destination : copy->source);
        vmr_error_set_unknown(error, TRUE);
        copy->hangs = TRUE;
        return;
    }
    detail = vmr_error_get_detail(copy->error);
    if (!detail) {
        vmr_error_note(error, "it was completed just before");
        return;
    }
    vmr_error_note(error, "%s", copy->error->message);
    if (detail->partial)
        vmr_error_mark_partial(error);
}

static gboolean
wait_for_end(VmrSparse *copy, const VmrWait *wait, gboolean end_on_timeout,
             VmrSparseReport *report, GError **error)
{
    g_autoptr(GError) local = NULL;
    gboolean ready;

    if (!copy->has_thread)
        return take_outcome(copy, report, error);
    if (copy->pid != getpid()) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE,
                    "the copy of '%s' belongs to process %d, which has started it",
                    copy->source, (int)copy->pid);
        return FALSE;
    }
    if (vmr_wait_fd(wait, copy->done_fd, -1, &ready, &local)) {
        join(copy, -1);
        return take_outcome(copy, report, error);
    }
    if (end_on_timeout ||
        !g_error_matches(local, VMR_ERROR, VMR_ERROR_TIMEOUT))
        end_early(copy, &local);
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

gboolean
vmr_sparse_wait(VmrSparse *copy, const VmrWait *wait, VmrSparseReport *report,
                GError **error)
{
    return wait_for_end(copy, wait, FALSE, report, error);
}

gboolean
vmr_sparse_finish(VmrSparse *copy, const VmrWait *wait,
                  VmrSparseReport *report, GError **error)
{
    return wait_for_end(copy, wait, TRUE, report, error);
}

gboolean
vmr_sparse_is_done(VmrSparse *copy)
{
    const VmrWait wait = {.deadline = VMR_WAIT_FOREVER};
    gboolean ready = FALSE;

    return !vmr_wait_fd(&wait, copy->done_fd, 0, &ready, NULL) || ready;
}

VmrSparseProgress
vmr_sparse_get_progress(VmrSparse *copy)
{
    return (VmrSparseProgress){
        .current = __atomic_load_n(&copy->current, __ATOMIC_RELAXED),
        .end = __atomic_load_n(&copy->end, __ATOMIC_RELAXED),
    };
}

void
vmr_sparse_set_bandwidth(VmrSparse *copy, guint64 rate)
{
    vmr_sparse_limit_set(copy->limit, rate);
}

guint64
vmr_sparse_get_bandwidth(VmrSparse *copy)
{
    return vmr_sparse_limit_get(copy->limit);
}

void
vmr_sparse_cancel(VmrSparse *copy)
{
    g_atomic_int_set(&copy->cancelled, 1);
}

static void
drop(VmrSparse *copy, int grace_ms)
{
    vmr_sparse_cancel(copy);
    if (!join(copy, copy->hangs ? 0 : grace_ms) && copy->pid == getpid())
        pthread_detach(copy->thread);
    sparse_unref(copy);
}

void
vmr_sparse_free(VmrSparse *copy)
{
    if (copy)
        drop(copy, END_GRACE_MS);
}

void
vmr_sparse_abandon(VmrSparse *copy)
{
    if (copy)
        drop(copy, MOMENT_MS);
}

static gboolean
checksum(const VmrSparseSpec *spec, const VmrWait *wait,
         char text[VMR_SPARSE_CHECKSUM_LENGTH + 1], GError **error)
{
    g_autoptr(VmrSparse) copy = vmr_sparse_start(spec, error);
    VmrSparseReport report;

    if (!copy || !vmr_sparse_finish(copy, wait, &report, error))
        return FALSE;
    g_strlcpy(text, report.checksum, VMR_SPARSE_CHECKSUM_LENGTH + 1);
    return TRUE;
}

gboolean
vmr_sparse_checksum(const char *path, const VmrWait *wait,
                    char text[VMR_SPARSE_CHECKSUM_LENGTH + 1], GError **error)
{
    const VmrSparseSpec spec = {.source = path, .pace = VMR_SPARSE_PACE_AUTO};

    return checksum(&spec, wait, text, error);
}

gboolean
vmr_sparse_checksum_of_rest(const char *path, const VmrWait *wait,
                            char text[VMR_SPARSE_CHECKSUM_LENGTH + 1],
                            GError **error)
{
    const VmrSparseSpec spec = {.source = path,
                                .pace = VMR_SPARSE_PACE_AUTO,
                                .skip_header = TRUE};

    return checksum(&spec, wait, text, error);
}
