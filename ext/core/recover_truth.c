/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The part of recovery that sees to it that the next start of the guest uses the
 * files that QEMU writes to now. */

#include "collapse.h"
#include "error.h"
#include "journal.h"
#include "recover_priv.h"
#include "throttle.h"

VmrStep
vmr_recover_go_on(VmrRecover *what, const VmrWait *wait, GError **error)
{
    if (what->now->record->paused) {
        if (!vmr_mirror_resume_guest(what->mirror, wait, error))
            return VMR_STEP_FAILED;
        vmr_recover_tell(what->recovery->done, "resumed the guest");
    }
    if (vmr_throttle_is_on(what->mirror)) {
        if (!vmr_throttle_put_back(what->mirror, wait, error))
            return VMR_STEP_FAILED;
        vmr_recover_tell(what->recovery->done,
                         "put back the limits of the guest's disks, which had been "
                         "lowered");
    }
    return VMR_STEP_END;
}

/* The next start of @disk is to use @written, which QEMU writes to now. */
static gboolean
save_source(VmrRecover *what, const VmrDiskInspection *disk,
            const VmrFile *written, const VmrWait *wait, GError **error)
{
    if (!what->now->persistent ||
        g_strcmp0(disk->persistent, written->path) == 0)
        return TRUE;
    if (!vmr_live_set_source(what->mirror->dom, disk->disk->target,
                             written->path, written->format, wait, error))
        return FALSE;
    vmr_recover_tell(
        what->recovery->done,
        "set '%s' as the source of disk '%s' in the persistent definition, "
        "since QEMU writes to it",
        written->path, disk->disk->target);
    return TRUE;
}

static gboolean
save_truth_of(VmrRecover *what, const VmrDiskInspection *disk, VmrDisk *record,
              const VmrWait *wait, GError **error)
{
    const VmrFile *written = vmr_disk_inspection_written(disk);

    record->state = written == disk->disk->mirror ? VMR_DISK_STATE_PIVOTED
                                                  : VMR_DISK_STATE_ABORTED;
    return save_source(what, disk, written, wait, error);
}

/* The same for all disks; *@clear tells whether it is known of all of them. */
static gboolean
save_truth(VmrRecover *what, gboolean *clear, const VmrWait *wait,
           GError **error)
{
    VmrRecord *record = what->mirror->record;

    *clear = TRUE;
    for (guint i = 0; i < what->now->disks->len; i++) {
        const VmrDiskInspection *disk =
            g_ptr_array_index(what->now->disks, i);

        if (disk->verdict < VMR_VERDICT_STUCK ||
            disk->verdict > VMR_VERDICT_LOST)
            continue;
        if (!vmr_disk_inspection_written(disk)) {
            *clear = FALSE;
            vmr_recover_tell(
                what->recovery->left,
                "disk '%s': cannot tell which of '%s' and '%s' QEMU writes "
                "to: look at the running QEMU before it is ended%s",
                disk->disk->target, disk->disk->overlay->path,
                disk->disk->mirror->path,
                record->paused ? ", or resumed" : "");
        } else if (!save_truth_of(what, disk,
                                  g_ptr_array_index(record->disks, i), wait,
                                  error)) {
            return FALSE;
        }
    }
    return vmr_journal_save(what->mirror->dom, record, wait, error);
}

/* QEMU writes to another file than libvirt believes, and nothing can change
 * that while the guest runs: see that its next start uses the right one. Only
 * then may a guest go on that we had suspended: before, both sides are equal. */
VmrStep
vmr_recover_save_truth(VmrRecover *what, const VmrWait *wait, GError **error)
{
    gboolean clear;

    if (!save_truth(what, &clear, wait, error))
        return VMR_STEP_FAILED;
    for (guint i = 0; i < what->now->disks->len; i++) {
        const VmrDiskInspection *disk =
            g_ptr_array_index(what->now->disks, i);
        const VmrFile *written = vmr_disk_inspection_written(disk);

        if (written)
            vmr_recover_tell(
                what->recovery->left,
                "disk '%s': the guest writes to '%s', which libvirt does not "
                "know: shut it down and start it %s when its owner agrees, "
                "then recover again",
                disk->disk->target, written->path,
                what->now->persistent ? "again" : "anew from that file");
    }
    return clear ? vmr_recover_go_on(what, wait, error) : VMR_STEP_END;
}

/* A QEMU that libvirt knows nothing of. With the definition on the file that it
 * writes to, its lock on that keeps a second one from starting. */
VmrStep
vmr_recover_lost(VmrRecover *what, const VmrWait *wait, GError **error)
{
    gboolean clear;

    if (!save_truth(what, &clear, wait, error))
        return VMR_STEP_FAILED;
    vmr_recover_tell(what->recovery->left, "%s", vmr_verdict_advice(VMR_VERDICT_LOST));
    return VMR_STEP_END;
}

/* They can be finished, or end with the guest: an abort would end libvirt, and QEMU's
 * own way to cancel them is taken for a success by libvirt. */
VmrStep
vmr_recover_hidden(VmrRecover *what, const GPtrArray *targets,
                   const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomain) dom = vmr_domain_new(what->hv, what->dom);
    VmrStep step = VMR_STEP_AGAIN;

    for (guint i = 0; i < targets->len; i++) {
        const char *target = g_ptr_array_index(targets, i);
        g_autofree char *path = NULL;
        g_autoptr(GError) local = NULL;

        if (vmr_collapse_finish(dom, target, &path, wait, &local)) {
            vmr_recover_tell(what->recovery->done,
                             "finished the commit of disk '%s', which libvirt "
                             "did not show: the guest goes on with '%s'",
                             target, path);
        } else if (g_error_matches(local, VMR_ERROR, VMR_ERROR_DIVERGED)) {
            vmr_recover_tell(what->recovery->left, "%s", local->message);
            step = VMR_STEP_END;
        } else {
            g_propagate_error(error, g_steal_pointer(&local));
            return VMR_STEP_FAILED;
        }
    }
    return step;
}

/* The file that @disk runs on, where libvirt and QEMU agree on that. */
static const VmrFile *
agreed_file(const VmrDiskInspection *disk)
{
    if (disk->verdict > VMR_VERDICT_ORPHANED ||
        disk->verdict == VMR_VERDICT_OFF)
        return NULL;
    switch (disk->truth) {
    case VMR_TRUTH_SOURCE:
        return disk->disk->source;
    case VMR_TRUTH_OVERLAY:
    case VMR_TRUTH_MIRRORING:
    case VMR_TRUTH_READY:
    case VMR_TRUTH_UNDOING:
        return disk->disk->overlay;
    case VMR_TRUTH_PIVOTED:
    case VMR_TRUTH_RETURNING:
        return disk->disk->mirror;
    case VMR_TRUTH_ENDING:
    case VMR_TRUTH_OTHER:
    case VMR_TRUTH_LAST:
        break;
    }
    return NULL;
}

/* What somebody else has put there is not ours to change: the proof of the end
 * will tell. */
static gboolean
is_ours(const VmrDisk *disk, const char *path)
{
    return g_strcmp0(path, disk->source->path) == 0 ||
           g_strcmp0(path, disk->overlay->path) == 0 ||
           g_strcmp0(path, disk->mirror->path) == 0;
}

static gboolean
is_disk_behind(const VmrDiskInspection *disk)
{
    const VmrFile *file = agreed_file(disk);

    return file && g_strcmp0(disk->persistent, file->path) != 0 &&
           is_ours(disk->disk, disk->persistent);
}

gboolean
vmr_recover_is_behind(const VmrInspection *now)
{
    for (guint i = 0; now->persistent && i < now->disks->len; i++) {
        if (is_disk_behind(g_ptr_array_index(now->disks, i)))
            return TRUE;
    }
    return FALSE;
}

VmrStep
vmr_recover_catch_up(VmrRecover *what, const VmrWait *wait, GError **error)
{
    for (guint i = 0; i < what->now->disks->len; i++) {
        const VmrDiskInspection *disk = g_ptr_array_index(what->now->disks, i);

        if (is_disk_behind(disk) &&
            !save_source(what, disk, agreed_file(disk), wait, error))
            return VMR_STEP_FAILED;
    }
    return VMR_STEP_AGAIN;
}
