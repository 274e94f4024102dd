/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The pivot of all disks at one point in the guest's time: it is suspended for
 * it, so that whichever side a crash leaves in use holds all of its writes.
 * That we suspend it is journalled first, so that it can be resumed by whoever
 * comes after us. */

#include "blockjob.h"
#include "error.h"
#include "job.h"
#include "journal.h"
#include "mirror_priv.h"

#define SAMPLE_STEP 20 /* ms, the longest one */
#define DRAIN_STEP 2   /* ms */

/* How long, in seconds, mirrors may take to converge when the caller sets no
 * deadline: one that is written to faster than it can follow never does. */
#define CONVERGE_SECONDS 120.0

#define MIB (1024.0 * 1024)

typedef struct {
    VmrMirror *mirror;
    const VmrCutOver *how;
    gint64 suspended_at; /* µs, 0 if it was not us */
    gint64 resumed_at;
    /* of the mirrors together, for the budget and for the error */
    guint64 left;        /* bytes */
    double rate;         /* bytes/s mirrored, as last seen */
    double written;      /* bytes/s that the guest has added */
} CutOver;

/* What all mirrors have done, and have to do, in bytes. */
static gboolean
sample(CutOver *cut, guint64 *current, guint64 *end, const VmrWait *wait,
       GError **error)
{
    const VmrRecord *record = cut->mirror->record;

    *current = 0;
    *end = 0;
    for (guint i = 0; i < record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(record->disks, i);
        virDomainBlockJobInfo info;
        gboolean active;

        if (disk->state == VMR_DISK_STATE_PIVOTED)
            continue;
        if (!vmr_hv_block_job_info(cut->mirror->dom, disk->target, &info,
                                   &active, wait, error))
            return FALSE;
        if (!active) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED,
                        "the copy of disk '%s' has ended before the pivot",
                        disk->target);
            vmr_error_annotate(error, disk->target, NULL);
            return FALSE;
        }
        *current += info.cur;
        *end += info.end;
    }
    cut->left = *end - *current;
    return TRUE;
}

static void
note_figures(const CutOver *cut, const char *what, GError **error)
{
    vmr_error_note(error,
                   "%s: %.1f MiB are left, the guest writes %.1f MiB/s, %.1f "
                   "MiB/s are mirrored, the pause budget is %.1f s",
                   what, (double)cut->left / MIB, cut->written / MIB,
                   cut->rate / MIB, cut->how->pause_budget);
}

/* Wait until the mirrors have done all that was left when this was called, which
 * takes *@lag seconds. QEMU reports its work in lumps, so no rate that is
 * measured over a shorter time means anything. */
static gboolean
follow(CutOver *cut, double *lag, const VmrWait *patient, const VmrWait *wait,
       GError **error)
{
    gint64 begin = g_get_monotonic_time();
    guint64 first;
    guint64 mark;
    guint64 current;

    *lag = 0;
    if (!sample(cut, &first, &mark, wait, error))
        return FALSE;
    current = first;
    for (int step_ms = 1; current < mark;
         step_ms = MIN(2 * step_ms, SAMPLE_STEP)) {
        guint64 end;
        gboolean unused;

        if (!vmr_wait_fd(patient, -1, step_ms, &unused, error) ||
            !sample(cut, &current, &end, wait, error))
            return FALSE;
        *lag = (double)(g_get_monotonic_time() - begin) / 1e6;
        cut->rate = (double)(current - first) / *lag;
        cut->written = (double)(end - mark) / *lag;
    }
    return TRUE;
}

/* Wait until what is left can be mirrored in half of the budget. */
static gboolean
converge(CutOver *cut, const VmrWait *wait, GError **error)
{
    VmrWait patient = wait->deadline == VMR_WAIT_FOREVER
                          ? vmr_wait_for(CONVERGE_SECONDS, wait)
                          : *wait;
    g_autoptr(GError) local = NULL;
    double lag;

    while (follow(cut, &lag, &patient, wait, &local)) {
        if (lag <= cut->how->pause_budget / 2)
            return TRUE;
    }
    if (g_error_matches(local, VMR_ERROR, VMR_ERROR_TIMEOUT))
        note_figures(cut, "the mirrors do not converge", &local);
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

static gboolean
suspend(CutOver *cut, const VmrWait *wait, GError **error)
{
    VmrMirror *mirror = cut->mirror;
    int state;

    if (!vmr_hv_get_state(mirror->dom, &state, NULL, wait, error))
        return FALSE;
    if (state != VIR_DOMAIN_RUNNING)
        return TRUE;
    mirror->record->paused = TRUE;
    if (!vmr_mirror_save(mirror, VMR_STATE_PIVOTING, VMR_DISK_STATE_LAST, wait,
                         error))
        return FALSE;
    cut->suspended_at = g_get_monotonic_time();
    return vmr_hv_suspend(mirror->dom, wait, error);
}

/* With the guest suspended, wait until both sides are the same. */
static gboolean
drain(CutOver *cut, const VmrWait *wait, GError **error)
{
    VmrWait budget = vmr_wait_for(cut->how->pause_budget, wait);
    guint64 current;
    guint64 end;
    gboolean unused;

    for (;;) {
        if (!sample(cut, &current, &end, wait, error))
            return FALSE;
        if (cut->left == 0)
            return TRUE;
        if (!vmr_wait_fd(&budget, -1, DRAIN_STEP, &unused, error)) {
            note_figures(cut, "the guest was suspended for as long as it may "
                         "be, and nothing was pivoted", error);
            return FALSE;
        }
    }
}

typedef struct {
    VmrMirror *mirror;
    const VmrDisk *disk;
} Return;

static VmrLook
look_for_return(gpointer data, gboolean last, const VmrWait *wait,
                GError **error)
{
    Return *back = data;
    g_autoptr(VmrDomXml) live = vmr_live_read(back->mirror->dom, wait, error);
    const VmrDomDisk *now =
        live ? vmr_domxml_find(live, back->disk->target) : NULL;

    if (!live)
        return VMR_LOOK_FAILED;
    if (vmr_truth_of(back->disk, live) == VMR_TRUTH_RETURNING)
        return now->ready == VMR_READY_YES ? VMR_LOOK_DONE : VMR_LOOK_AGAIN;
    if (!last)
        return VMR_LOOK_SETTLING;
    g_set_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED,
                "the copy of disk '%s' back to '%s' has ended",
                back->disk->target, back->disk->overlay->path);
    return VMR_LOOK_FAILED;
}

/* Mirror a disk that was pivoted back to its overlay, and pivot to that. */
static gboolean
return_disk(VmrMirror *mirror, VmrDisk *disk, const VmrWait *wait,
            GError **error)
{
    g_autoptr(VmrJobs) jobs = vmr_jobs_open(mirror->dom, wait, error);
    Return back = {.mirror = mirror, .disk = disk};

    if (!jobs)
        return FALSE;
    /* not PIVOTING: that is how it came to the mirror */
    disk->state = VMR_DISK_STATE_ABORTING;
    if (!vmr_mirror_save(mirror, VMR_STATE_PIVOTING, VMR_DISK_STATE_LAST, wait,
                         error) ||
        !vmr_mirror_start_copy(mirror, disk, disk->overlay, wait, error) ||
        !vmr_jobs_wait_until(jobs, look_for_return, &back, wait, error) ||
        !vmr_blockjob_end(mirror->dom, disk->target,
                          VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT, wait,
                          error) ||
        !vmr_mirror_prove(mirror, disk, VMR_TRUTH_OVERLAY, wait, error))
        return FALSE;
    disk->state = VMR_DISK_STATE_ABORTED;
    return vmr_mirror_save(mirror, VMR_STATE_PIVOTING, VMR_DISK_STATE_LAST,
                           wait, error);
}

gboolean
vmr_mirror_abort_return(VmrMirror *mirror, const VmrDisk *disk,
                        const VmrWait *wait, GError **error)
{
    return vmr_blockjob_end(mirror->dom, disk->target,
                            VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC, wait,
                            error) &&
           vmr_mirror_prove(mirror, disk, VMR_TRUTH_PIVOTED, wait, error);
}

/* After *@failure: back to none of the disks, where that was asked for. */
static void
return_all(CutOver *cut, const VmrWait *wait, GError **failure)
{
    GPtrArray *disks = cut->mirror->record->disks;
    g_autoptr(GError) local = NULL;
    guint returned = 0;

    if (!cut->how->atomic || vmr_error_is_unknown(*failure)) {
        vmr_mirror_mark_ended(cut->mirror, failure);
        return;
    }
    for (guint i = disks->len; i-- > 0 && !local;) {
        VmrDisk *disk = g_ptr_array_index(disks, i);

        if (disk->state == VMR_DISK_STATE_PIVOTED)
            returned += return_disk(cut->mirror, disk, wait, &local);
    }
    if (local) {
        vmr_error_note(failure, "bringing the other disks back failed, too: "
                       "%s", local->message);
        vmr_error_mark_partial(failure);
    } else if (returned > 0) {
        vmr_error_note(failure, "the disks that had been pivoted were brought "
                       "back: abort what is left and start again");
    }
}

/* Resume the guest after @failure. While a call may still take effect (it may
 * be the one that suspends), the journal goes on to say that it was us. */
static void
resume_after(CutOver *cut, const VmrWait *wait, GError **failure)
{
    g_autoptr(GError) local = NULL;
    gboolean unknown = vmr_error_is_unknown(*failure);
    gboolean ok = unknown
                      ? vmr_mirror_resume_cpus(cut->mirror, wait, &local)
                      : vmr_mirror_resume_guest(cut->mirror, wait, &local);

    if (!ok)
        vmr_error_note(failure, "resuming the guest failed, too: %s; it may "
                       "stay suspended until it is recovered", local->message);
    if (!ok || unknown)
        vmr_error_mark_partial(failure);
}

/* From the suspension on: whatever happens, the guest is resumed. */
static gboolean
pivot_suspended(CutOver *cut, const VmrWait *wait, GError **error)
{
    g_autoptr(GError) failure = NULL;
    gboolean pivoted = suspend(cut, wait, &failure) &&
                       drain(cut, wait, &failure) &&
                       vmr_mirror_pivot_disks(cut->mirror, wait, &failure);
    VmrWait cleanup = vmr_wait_for_cleanup(wait);

    if (!pivoted)
        return_all(cut, &cleanup, &failure);
    /* an interruption comes too late to stop anything here */
    if (pivoted)
        vmr_mirror_resume_guest(cut->mirror, &cleanup, &failure);
    if (failure)
        resume_after(cut, &cleanup, &failure);
    cut->resumed_at = g_get_monotonic_time();
    if (!failure)
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&failure));
    return FALSE;
}

static gboolean
pivot_running(CutOver *cut, const VmrWait *wait, GError **error)
{
    VmrWait cleanup;

    if (vmr_mirror_pivot_disks(cut->mirror, wait, error))
        return TRUE;
    cleanup = vmr_wait_for_cleanup(wait);
    return_all(cut, &cleanup, error);
    return FALSE;
}

/* A limit would hold the last bytes back; QEMU forgets it at READY anyway. */
static gboolean
lift_limits(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    for (guint i = 0; i < mirror->record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(mirror->record->disks, i);

        if (disk->state != VMR_DISK_STATE_PIVOTED &&
            !vmr_hv_block_job_set_speed(mirror->dom, disk->target, 0, wait,
                                        error))
            return FALSE;
    }
    return TRUE;
}

gboolean
vmr_mirror_cut_over(VmrMirror *mirror, const VmrCutOver *how, double *pause,
                    const VmrWait *wait, GError **error)
{
    CutOver cut = {.mirror = mirror, .how = how};
    g_autoptr(GError) local = NULL;
    VmrWait patient = vmr_mirror_patience(wait);
    gboolean ok;

    if (!vmr_mirror_enter_to_change(mirror, error))
        return FALSE;
    ok = vmr_mirror_check_pivotable(mirror, wait, &local) &&
         vmr_mirror_prove_copies(mirror, wait, &local) &&
         lift_limits(mirror, wait, &local);
    if (ok && how->pause_budget < 0)
        ok = pivot_running(&cut, &patient, &local);
    else if (ok)
        ok = converge(&cut, wait, &local) &&
             pivot_suspended(&cut, &patient, &local);
    ok = ok && vmr_mirror_finish(mirror, wait, &local);
    vmr_mirror_leave(mirror);
    vmr_error_annotate(&local, NULL, "pivot");
    if (local)
        g_propagate_error(error, g_steal_pointer(&local));
    *pause = cut.suspended_at > 0
                 ? (double)(cut.resumed_at - cut.suspended_at) / 1e6
                 : 0;
    return ok;
}
