/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The pivot of all disks at one point in the guest's time: it is suspended for
 * it, so that whichever side a crash leaves in use holds all of its writes. */

#include "blockjob.h"
#include "converge.h"
#include "error.h"
#include "job.h"
#include "journal.h"
#include "mirror_priv.h"
#include "pause.h"
#include "throttle.h"

#define DRAIN_STEP 2 /* ms */

typedef struct {
    VmrMirror *mirror;
    const VmrCutOver *how;
    VmrPause pause;
    VmrGauge gauge;
} CutOver;

/* Whether libvirt knows, too, that both sides are level. */
static gboolean
is_ready(const CutOver *cut, gboolean *ready, const VmrWait *wait,
         GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read(cut->mirror->dom, wait, error);
    const GPtrArray *disks = cut->mirror->record->disks;

    *ready = TRUE;
    for (guint i = 0; live && i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);

        if (disk->state != VMR_DISK_STATE_PIVOTED &&
            vmr_truth_of(disk, live) == VMR_TRUTH_MIRRORING)
            *ready = FALSE;
    }
    return live != NULL;
}

/* With the guest suspended, wait until both sides are level. */
static gboolean
drain(CutOver *cut, const VmrWait *wait, GError **error)
{
    VmrWait budget = vmr_wait_for(cut->how->pause_budget, wait);
    g_autoptr(GError) local = NULL;
    gboolean ready = FALSE;
    gboolean unused;

    do {
        if (!vmr_gauge_look(&cut->gauge, wait, &local) ||
            (cut->gauge.current == cut->gauge.end &&
             !is_ready(cut, &ready, wait, &local)))
            break;
        if (ready)
            return TRUE;
    } while (vmr_wait_fd(&budget, -1, DRAIN_STEP, &unused, &local));
    if (g_error_matches(local, VMR_ERROR, VMR_ERROR_TIMEOUT))
        vmr_gauge_note(&cut->gauge, "the guest was suspended for as long as it "
                       "may be, and nothing was pivoted", &local);
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
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

/* From the suspension on: whatever happens, the guest is resumed. */
static gboolean
pivot_suspended(CutOver *cut, const VmrWait *wait, GError **error)
{
    g_autoptr(GError) failure = NULL;
    VmrWait cleanup;

    if (!vmr_pause_begin(&cut->pause, cut->mirror, VMR_STATE_PIVOTING, wait,
                         &failure) ||
        !drain(cut, wait, &failure) ||
        !vmr_mirror_pivot_disks(cut->mirror, wait, &failure)) {
        cleanup = vmr_wait_for_cleanup(wait);
        return_all(cut, &cleanup, &failure);
    }
    /* an interruption comes too late to stop anything here */
    cleanup = vmr_wait_for_cleanup(wait);
    vmr_pause_end(&cut->pause, &cleanup, &failure);
    if (!failure)
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&failure));
    return FALSE;
}

/* Suspended when it is time for it. */
static gboolean
pivot_converged(CutOver *cut, const VmrWait *wait, GError **error)
{
    VmrWait carried;

    cut->gauge = vmr_gauge_new(cut->mirror, NULL);
    if (!vmr_converge(&cut->gauge, cut->how, wait, error))
        return FALSE;
    carried = vmr_wait_at_least(wait, cut->how->pause_budget +
                                          VMR_CONVERGE_GRACE);
    carried = vmr_mirror_patience(&carried);
    return pivot_suspended(cut, &carried, error);
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
    gboolean suspends = how->pause_budget >= 0;
    g_autoptr(GError) local = NULL;
    VmrWait patient = vmr_mirror_patience(wait);
    gboolean ok;

    if (!vmr_mirror_enter_to_change(mirror, error))
        return FALSE;
    ok = vmr_throttle_put_back(mirror, wait, &local) &&
         vmr_mirror_check_pivotable(mirror, suspends, wait, &local) &&
         vmr_mirror_prove_copies(mirror, wait, &local) &&
         lift_limits(mirror, wait, &local);
    if (ok && !suspends)
        ok = pivot_running(&cut, &patient, &local);
    else if (ok)
        ok = pivot_converged(&cut, wait, &local);
    /* what was done is not left unfinished because of a deadline */
    patient = vmr_wait_at_least(wait, VMR_CONVERGE_GRACE);
    ok = vmr_throttle_end(mirror, ok, wait, &local) &&
         vmr_mirror_finish(mirror, &patient, &local);
    vmr_mirror_leave(mirror);
    vmr_error_annotate(&local, NULL, "pivot");
    if (local)
        g_propagate_error(error, g_steal_pointer(&local));
    *pause = vmr_pause_seconds(&cut.pause);
    return ok;
}
