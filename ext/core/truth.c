/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "truth.h"

#include "error.h"
#include "lockprobe.h"

static const char *const truth_names[VMR_TRUTH_LAST] = {
    [VMR_TRUTH_SOURCE] = "source",   [VMR_TRUTH_OVERLAY] = "overlay",
    [VMR_TRUTH_MIRRORING] = "mirroring", [VMR_TRUTH_READY] = "ready",
    [VMR_TRUTH_ENDING] = "ending",   [VMR_TRUTH_PIVOTED] = "pivoted",
    [VMR_TRUTH_RETURNING] = "returning", [VMR_TRUTH_UNDOING] = "undoing",
    [VMR_TRUTH_OTHER] = "other",
};

const char *
vmr_truth_name(VmrTruth truth)
{
    g_return_val_if_fail((unsigned)truth < VMR_TRUTH_LAST, "unknown");
    return truth_names[truth];
}

/* Whether @now has a job @kind that goes from @top to @file. */
static gboolean
has_job(const VmrDomDisk *now, const char *kind, const VmrFile *top,
        const VmrFile *file)
{
    return g_strcmp0(vmr_domdisk_source(now), top->path) == 0 &&
           g_strcmp0(now->mirror->path, file->path) == 0 &&
           g_strcmp0(now->mirror_job, kind) == 0;
}

static VmrTruth
truth_of_job(const VmrDisk *disk, const VmrDomDisk *now)
{
    gboolean undoing =
        has_job(now, "active-commit", disk->overlay, disk->source);

    if (vmr_domdisk_job_has_ended(now))
        return VMR_TRUTH_ENDING;
    if (has_job(now, "copy", disk->mirror, disk->overlay))
        return VMR_TRUTH_RETURNING;
    if (!undoing && !has_job(now, "copy", disk->overlay, disk->mirror))
        return VMR_TRUTH_OTHER;
    switch (now->ready) {
    case VMR_READY_NO:
        return undoing ? VMR_TRUTH_UNDOING : VMR_TRUTH_MIRRORING;
    case VMR_READY_YES:
        return undoing ? VMR_TRUTH_UNDOING : VMR_TRUTH_READY;
    case VMR_READY_PIVOT:
    case VMR_READY_ABORT:
        return VMR_TRUTH_ENDING;
    case VMR_READY_LAST:
        break;
    }
    return VMR_TRUTH_OTHER;
}

VmrTruth
vmr_truth_of(const VmrDisk *disk, const VmrDomXml *live)
{
    const VmrDomDisk *now = vmr_domxml_find(live, disk->target);
    const char *top = now ? vmr_domdisk_source(now) : NULL;

    if (!top)
        return VMR_TRUTH_OTHER;
    if (now->mirror)
        return truth_of_job(disk, now);
    if (g_str_equal(top, disk->source->path))
        return VMR_TRUTH_SOURCE;
    if (g_str_equal(top, disk->overlay->path))
        return VMR_TRUTH_OVERLAY;
    if (g_str_equal(top, disk->mirror->path))
        return VMR_TRUTH_PIVOTED;
    return VMR_TRUTH_OTHER;
}

static gboolean
check_lock(const VmrDisk *disk, const VmrFile *file, gboolean written,
           GError **error)
{
    VmrLock wrong = written ? VMR_LOCK_FREE : VMR_LOCK_WRITER;
    g_autoptr(GError) local = NULL;
    VmrLock lock;

    if (!vmr_lock_probe(file->path, &lock, &local)) {
        /* what is not in use may be gone, or not be made yet, or be on storage
         * that has failed: that must not hold up those who leave it */
        if (!written &&
            (g_error_matches(local, VMR_ERROR, VMR_ERROR_NOT_FOUND) ||
             g_error_matches(local, VMR_ERROR, VMR_ERROR_IO)))
            return TRUE;
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    if (lock != wrong)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                written ? "no QEMU has '%s' of disk '%s' open for writing, "
                          "though libvirt says so"
                        : "a QEMU still has '%s' of disk '%s' open for "
                          "writing, though libvirt does not say so",
                file->path, disk->target);
    vmr_error_annotate(error, disk->target, NULL);
    return FALSE;
}

gboolean
vmr_truth_check_locks(const VmrDisk *disk, VmrTruth truth, gboolean leaked,
                      GError **error)
{
    gboolean both = truth == VMR_TRUTH_MIRRORING || truth == VMR_TRUTH_READY;
    gboolean overlay = both || truth == VMR_TRUTH_OVERLAY;
    gboolean mirror = both || truth == VMR_TRUTH_PIVOTED;

    return ((leaked && !overlay) ||
            check_lock(disk, disk->overlay, overlay, error)) &&
           ((leaked && !mirror) ||
            check_lock(disk, disk->mirror, mirror, error));
}

gboolean
vmr_truth_check_inactive(const VmrDisk *disk, const char *path,
                         const VmrDomXml *inactive, GError **error)
{
    const VmrDomDisk *persistent;

    if (!inactive)
        return TRUE;
    persistent = vmr_domxml_find(inactive, disk->target);
    if (persistent && g_strcmp0(vmr_domdisk_source(persistent), path) == 0)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "the persistent definition does not have '%s' as the source "
                "of disk '%s': set it before the domain is shut down",
                path, disk->target);
    vmr_error_annotate(error, disk->target, NULL);
    return FALSE;
}
