/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Aborting, and what both ends have in common: leaving nothing behind. */

#include <libvirt/virterror.h>

#include "blockjob.h"
#include "converge.h"
#include "error.h"
#include "image.h"
#include "job.h"
#include "journal.h"
#include "pause.h"
#include "throttle.h"

/* Seconds that a copy has to end by itself before anything is done to the guest. */
#define ABORT_PATIENCE 1.0
#define ABORT_STEP 2 /* ms, between two looks while the guest is suspended */

static gboolean
try_to_remove(gpointer data, const VmrWait *wait G_GNUC_UNUSED, GError **error)
{
    const VmrFile *file = data;

    return vmr_image_remove(file->path, file->dev, file->ino, file->born,
                            error);
}

/* QEMU gets a moment to let go of it. */
static gboolean
remove_file(const VmrFile *file, const VmrWait *wait, GError **error)
{
    /* without an identity it was planned but never made, as far as we know */
    return !file->created || file->ino == 0 ||
           vmr_wait_settle(wait, VMR_ERROR_BUSY, try_to_remove, (gpointer)file,
                           error);
}

gboolean
vmr_mirror_forget(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    g_autoptr(GError) local = NULL;

    /* libvirt's record names files that are no longer what it believes: only
     * the record may go. That it is gone already is as well. */
    if (!vmr_hv_snapshot_delete(mirror->dom, mirror->record->snapshot,
                                VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY, wait,
                                &local)) {
        const VmrErrorDetail *detail = vmr_error_get_detail(local);

        if (!detail || detail->virt_code != VIR_ERR_NO_DOMAIN_SNAPSHOT) {
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
    }
    return vmr_journal_clear(mirror->dom, wait, error);
}

/* Whether a file that was not removed for this reason is to be left: somebody
 * has it open, its storage has failed, or another file has its name by now. To
 * fail would help nobody, as each further attempt would fail, too. */
static gboolean
may_be_left(const GError *error)
{
    return g_error_matches(error, VMR_ERROR, VMR_ERROR_BUSY) ||
           g_error_matches(error, VMR_ERROR, VMR_ERROR_IO) ||
           g_error_matches(error, VMR_ERROR, VMR_ERROR_DIVERGED);
}

gboolean
vmr_mirror_drop_file(VmrMirror *mirror, const VmrFile *file,
                     const VmrWait *wait, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (remove_file(file, wait, &local))
        return TRUE;
    if (may_be_left(local)) {
        g_ptr_array_add(mirror->leftovers, g_strdup(file->path));
        return TRUE;
    }
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

gboolean
vmr_mirror_finish(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    GPtrArray *disks = mirror->record->disks;

    if (!vmr_mirror_resume_guest(mirror, wait, error) ||
        !vmr_throttle_put_back(mirror, wait, error))
        return FALSE;
    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);
        gboolean pivoted = disk->state == VMR_DISK_STATE_PIVOTED;
        gboolean unused = disk->state == VMR_DISK_STATE_PLANNED;

        if (((pivoted || unused) &&
             !vmr_mirror_drop_file(mirror, disk->overlay, wait, error)) ||
            (!pivoted &&
             !vmr_mirror_drop_file(mirror, disk->mirror, wait, error)))
            return FALSE;
    }
    if (!vmr_mirror_forget(mirror, wait, error))
        return FALSE;
    mirror->record->state = VMR_STATE_DONE;
    return TRUE;
}

/* Whether a job of ours runs: the copy, or the commit by which a mirrored
 * snapshot that could not be created was being undone. */
static gboolean
has_job(VmrTruth truth)
{
    return truth == VMR_TRUTH_MIRRORING || truth == VMR_TRUTH_READY ||
           truth == VMR_TRUTH_UNDOING;
}

/* The copy that a look is for. */
typedef struct {
    VmrMirror *mirror;
    const VmrDisk *disk;
} Look;

static VmrLook
look_for_aborted(gpointer data, gboolean last, const VmrWait *wait,
                 GError **error)
{
    Look *what = data;
    g_autoptr(VmrDomXml) live = NULL;
    virDomainBlockJobInfo info;
    gboolean active;
    VmrTruth truth;

    if (!vmr_hv_block_job_info(what->mirror->dom, what->disk->target, &info,
                               &active, wait, error))
        return VMR_LOOK_FAILED;
    live = vmr_live_read(what->mirror->dom, wait, error);
    if (!live)
        return VMR_LOOK_FAILED;
    truth = vmr_truth_of(what->disk, live);
    if (active || has_job(truth))
        return VMR_LOOK_AGAIN;
    if (truth == VMR_TRUTH_OVERLAY)
        return VMR_LOOK_DONE;
    if (truth == VMR_TRUTH_ENDING && !last)
        return VMR_LOOK_SETTLING;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s' is in state '%s' after the abort of its copy",
                what->disk->target, vmr_truth_name(truth));
    return VMR_LOOK_FAILED;
}

/* Whether an abort that was asked for, by whomever, is not done yet. */
static gboolean
is_being_aborted(const VmrDisk *disk, const VmrDomXml *live)
{
    const VmrDomDisk *now = vmr_domxml_find(live, disk->target);

    return vmr_truth_of(disk, live) == VMR_TRUTH_ENDING &&
           now->ready == VMR_READY_ABORT;
}

/* An attempt to find that a copy has ended by itself. */
static gboolean
has_ended(gpointer data, const VmrWait *wait, GError **error)
{
    switch (look_for_aborted(data, FALSE, wait, error)) {
    case VMR_LOOK_DONE:
        return TRUE;
    case VMR_LOOK_FAILED:
        return FALSE;
    case VMR_LOOK_SETTLING:
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED, "ending");
        return FALSE;
    case VMR_LOOK_AGAIN:
        break;
    }
    g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE, "running");
    return FALSE;
}

/* Look again and again while the guest is suspended, for @budget seconds. */
static gboolean
wait_suspended(Look *what, VmrGauge *gauge, double budget, const VmrWait *wait,
               GError **error)
{
    VmrWait pause = vmr_wait_for(budget, wait);
    g_autoptr(GError) local = NULL;
    gboolean unused;

    do {
        VmrLook look = look_for_aborted(what, FALSE, wait, &local);

        if (look == VMR_LOOK_DONE)
            return TRUE;
        if (look == VMR_LOOK_FAILED || !vmr_gauge_look(gauge, wait, &local))
            break;
    } while (vmr_wait_fd(&pause, -1, ABORT_STEP, &unused, &local));
    if (g_error_matches(local, VMR_ERROR, VMR_ERROR_TIMEOUT))
        vmr_gauge_note(gauge, "the guest was suspended for as long as it may be",
                       &local);
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

/* A copy that does not end by itself is brought level with the guest. */
static gboolean
bring_level(Look *what, const VmrCutOver *how, const VmrWait *wait,
            GError **error)
{
    VmrGauge gauge = vmr_gauge_new(what->mirror, what->disk);
    VmrWait carried;
    VmrWait cleanup;
    VmrPause pause;
    g_autoptr(GError) failure = NULL;

    gauge.may_end = TRUE;
    if (!vmr_converge(&gauge, how, wait, error))
        return FALSE;
    if (gauge.end == 0)
        return TRUE;
    carried = vmr_wait_at_least(wait, how->pause_budget + VMR_CONVERGE_GRACE);
    if (vmr_pause_begin(&pause, what->mirror, what->mirror->record->state,
                        &carried, &failure))
        wait_suspended(what, &gauge, how->pause_budget, &carried, &failure);
    else if (g_error_matches(failure, VMR_ERROR, VMR_ERROR_TIMEOUT))
        vmr_gauge_note(&gauge, "the guest could not be suspended", &failure);
    cleanup = vmr_wait_for_cleanup(wait);
    vmr_pause_end(&pause, &cleanup, &failure);
    if (!failure)
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&failure));
    return FALSE;
}

/* Wait until the copy, whose end was asked for, has ended: at once, if it was never
 * ready; else QEMU has to find it level with the guest. There is time left on @wait
 * after that. */
static gboolean
wait_aborted(Look *what, VmrJobs *jobs, const VmrCutOver *how, VmrWait *wait,
             GError **error)
{
    VmrWait soon = vmr_wait_for(ABORT_PATIENCE, wait);
    g_autoptr(GError) local = NULL;

    soon.deadline = MIN(soon.deadline, wait->deadline);
    if (how && how->pause_budget >= 0) {
        if (vmr_jobs_wait_until(jobs, look_for_aborted, what, &soon, &local))
            return TRUE;
        if (!g_error_matches(local, VMR_ERROR, VMR_ERROR_TIMEOUT)) {
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
        if (!bring_level(what, how, wait, error))
            return FALSE;
        *wait = vmr_wait_at_least(wait, VMR_CONVERGE_GRACE);
    }
    return vmr_jobs_wait_until(jobs, look_for_aborted, what, wait, error);
}

gboolean
vmr_mirror_abort_copy(VmrMirror *mirror, const VmrDisk *disk,
                      const VmrCutOver *how, const VmrWait *wait,
                      GError **error)
{
    g_autoptr(VmrJobs) jobs = vmr_jobs_open(mirror->dom, wait, error);
    g_autoptr(VmrDomXml) live =
        jobs ? vmr_live_read(mirror->dom, wait, error) : NULL;
    Look what = {.mirror = mirror, .disk = disk};
    VmrWait patient = *wait;
    g_autoptr(GError) refused = NULL;

    if (!live)
        return FALSE;
    /* the synchronous one waits for the target, however dead it is; refused is
     * also what has ended meanwhile, which libvirt may not have heard yet */
    if (!is_being_aborted(disk, live) &&
        !vmr_blockjob_end(mirror->dom, disk->target,
                          VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC, wait,
                          &refused) &&
        !vmr_wait_settle(wait, VMR_ERROR_DIVERGED, has_ended, &what, NULL)) {
        g_propagate_error(error, g_steal_pointer(&refused));
        return FALSE;
    }
    if (wait_aborted(&what, jobs, how, &patient, error) &&
        vmr_mirror_prove(mirror, disk, VMR_TRUTH_OVERLAY, &patient, error))
        return TRUE;
    /* libvirt does not force QEMU, which waits until both sides are in step */
    if (error && g_error_matches(*error, VMR_ERROR, VMR_ERROR_TIMEOUT))
        vmr_error_note(error,
                       "the copy of disk '%s' ends when QEMU has written to '%s' "
                       "what is still missing there: if that storage hangs, "
                       "bring it back; else abort again, with a longer pause "
                       "budget, with converge='throttle' or with the guest "
                       "suspended",
                       disk->target, disk->mirror->path);
    vmr_error_mark_partial(error);
    return FALSE;
}

/* What is to be done about @disk: nothing, or its copy is to be ended. */
static gboolean
check_abortable(VmrMirror *mirror, VmrDisk *disk, const VmrDomXml *live,
                gboolean *running, const VmrWait *wait, GError **error)
{
    VmrTruth truth = vmr_truth_of(disk, live);
    virDomainBlockJobInfo info;

    *running = has_job(truth);
    switch (truth) {
    case VMR_TRUTH_PIVOTED:
        disk->state = VMR_DISK_STATE_PIVOTED;
        return TRUE;
    case VMR_TRUTH_OVERLAY:
        /* a copy that QEMU started and libvirt forgot (a daemon that died at
         * the wrong moment) shows only in the job's figures */
        disk->state = VMR_DISK_STATE_ABORTING;
        return vmr_hv_block_job_info(mirror->dom, disk->target, &info, running,
                                     wait, error);
    case VMR_TRUTH_SOURCE:
        /* nothing of it was ever in use */
        disk->state = VMR_DISK_STATE_PLANNED;
        return TRUE;
    case VMR_TRUTH_READY:
    case VMR_TRUTH_MIRRORING:
    case VMR_TRUTH_UNDOING:
        disk->state = VMR_DISK_STATE_ABORTING;
        return TRUE;
    case VMR_TRUTH_ENDING:
        disk->state = VMR_DISK_STATE_ABORTING;
        if (!vmr_hv_block_job_info(mirror->dom, disk->target, &info, running,
                                   wait, error))
            return FALSE;
        if (*running && is_being_aborted(disk, live))
            return TRUE;
        break;
    case VMR_TRUTH_RETURNING:
    case VMR_TRUTH_OTHER:
    case VMR_TRUTH_LAST:
        break;
    }
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s' is in state '%s': an abort could take the disk "
                "away that the guest writes to, so nothing was done",
                disk->target, vmr_truth_name(truth));
    vmr_error_annotate(error, disk->target, NULL);
    return FALSE;
}

/* End the copy of @disk, if it is @running; if not, prove the end that libvirt
 * tells of, which may have missed what QEMU did. */
static gboolean
end_disk(VmrMirror *mirror, const VmrDisk *disk, gboolean running,
         const VmrCutOver *how, const VmrWait *wait, GError **error)
{
    if (running)
        return vmr_mirror_abort_copy(mirror, disk, how, wait, error);
    if (disk->state == VMR_DISK_STATE_PLANNED)
        return vmr_mirror_prove(mirror, disk, VMR_TRUTH_SOURCE, wait, error);
    return vmr_mirror_prove(mirror, disk,
                            disk->state == VMR_DISK_STATE_PIVOTED
                                ? VMR_TRUTH_PIVOTED
                                : VMR_TRUTH_OVERLAY,
                            wait, error);
}

/* What is to be done about all disks. */
typedef struct {
    VmrMirror *mirror;
    gboolean *running; /* of each disk, whether there is a copy to end */
} AbortPlan;

/* One look. The definition and the job are asked for one after the other, and a
 * job may end in between: what does not fit has to be so for a while. */
static gboolean
plan_abort(gpointer data, const VmrWait *wait, GError **error)
{
    AbortPlan *plan = data;
    GPtrArray *disks = plan->mirror->record->disks;
    g_autoptr(VmrDomXml) live = vmr_live_read(plan->mirror->dom, wait, error);

    if (!live)
        return FALSE;
    for (guint i = 0; i < disks->len; i++) {
        if (!check_abortable(plan->mirror, g_ptr_array_index(disks, i), live,
                             &plan->running[i], wait, error))
            return FALSE;
    }
    return TRUE;
}

static gboolean
abort_all(VmrMirror *mirror, const VmrCutOver *how, const VmrWait *wait,
          GError **error)
{
    GPtrArray *disks = mirror->record->disks;
    g_autofree gboolean *running = g_new0(gboolean, disks->len);
    AbortPlan plan = {.mirror = mirror, .running = running};

    if (!vmr_wait_settle(wait, VMR_ERROR_DIVERGED, plan_abort, &plan, error) ||
        !vmr_mirror_save(mirror, VMR_STATE_ABORTING, VMR_DISK_STATE_LAST, wait,
                         error))
        return FALSE;
    for (guint i = 0; i < disks->len; i++) {
        VmrDisk *disk = g_ptr_array_index(disks, i);

        if (!end_disk(mirror, disk, running[i], how, wait, error)) {
            vmr_error_annotate(error, disk->target, NULL);
            return FALSE;
        }
        if (disk->state == VMR_DISK_STATE_ABORTING)
            disk->state = VMR_DISK_STATE_ABORTED;
    }
    return TRUE;
}

gboolean
vmr_mirror_abort(VmrMirror *mirror, const VmrCutOver *how, const VmrWait *wait,
                 GError **error)
{
    g_autoptr(GError) local = NULL;
    VmrWait patient;
    gboolean ok;

    if (!vmr_mirror_enter_to_change(mirror, error))
        return FALSE;
    ok = abort_all(mirror, how, wait, &local);
    /* what was done is not left unfinished because of a deadline */
    patient = vmr_wait_at_least(wait, VMR_CONVERGE_GRACE);
    ok = vmr_throttle_end(mirror, ok, wait, &local) &&
         vmr_mirror_finish(mirror, &patient, &local);
    if (!ok)
        vmr_mirror_mark_ended(mirror, &local);
    vmr_mirror_leave(mirror);
    vmr_error_annotate(&local, NULL, "abort");
    if (local)
        g_propagate_error(error, g_steal_pointer(&local));
    return ok;
}

gboolean
vmr_mirror_disown(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    gboolean ok;

    if (!vmr_mirror_enter_to_change(mirror, error))
        return FALSE;
    ok = vmr_mirror_resume_guest(mirror, wait, error) &&
         vmr_throttle_put_back(mirror, wait, error) &&
         vmr_mirror_forget(mirror, wait, error);
    if (ok)
        mirror->record->state = VMR_STATE_DONE;
    vmr_mirror_leave(mirror);
    vmr_error_annotate(error, NULL, "abort");
    return ok;
}
