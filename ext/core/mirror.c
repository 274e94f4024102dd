/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Locks: none. A VmrMirror belongs to the thread that has entered it (the busy
 * word); what comes in from other threads comes through a VmrJobs. */

#include <libvirt/virterror.h>

#include "blockjob.h"
#include "error.h"
#include "gauge.h"
#include "job.h"
#include "journal.h"
#include "mirror_priv.h"
#include "reach.h"

VmrMirror *
vmr_mirror_new(VmrHv *hv, virDomainPtr dom)
{
    VmrMirror *mirror = g_new0(VmrMirror, 1);

    mirror->dom = vmr_domain_new(hv, dom);
    mirror->leftovers = g_ptr_array_new_with_free_func(g_free);
    return mirror;
}

void
vmr_mirror_free(VmrMirror *mirror)
{
    if (!mirror)
        return;
    vmr_guard_release(mirror->guard);
    vmr_proof_free(mirror->proof);
    vmr_record_free(mirror->record);
    g_ptr_array_unref(mirror->leftovers);
    vmr_domain_free(mirror->dom);
    g_free(mirror);
}

const VmrRecord *
vmr_mirror_get_record(const VmrMirror *mirror)
{
    return mirror->record;
}

const VmrFigures *
vmr_mirror_get_figures(const VmrMirror *mirror)
{
    return &mirror->figures;
}

const GPtrArray *
vmr_mirror_get_leftovers(const VmrMirror *mirror)
{
    return mirror->leftovers;
}

gboolean
vmr_mirror_enter(VmrMirror *mirror, GError **error)
{
    if (!g_atomic_int_compare_and_exchange(&mirror->busy, 0, 1)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                    "another thread is using this mirrored snapshot");
        return FALSE;
    }
    if (mirror->record && mirror->record->state == VMR_STATE_DONE) {
        vmr_mirror_leave(mirror);
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE,
                    "mirrored snapshot '%s' has ended",
                    mirror->record->snapshot);
        return FALSE;
    }
    return TRUE;
}

gboolean
vmr_mirror_enter_to_change(VmrMirror *mirror, GError **error)
{
    if (!vmr_mirror_enter(mirror, error))
        return FALSE;
    if (!mirror->guarded)
        mirror->guard = vmr_guard_take(mirror->record->uuid, error);
    if (mirror->guarded || mirror->guard)
        return TRUE;
    vmr_mirror_leave(mirror);
    return FALSE;
}

void
vmr_mirror_leave(VmrMirror *mirror)
{
    g_clear_pointer(&mirror->guard, vmr_guard_release);
    g_clear_pointer(&mirror->proof, vmr_proof_free);
    g_atomic_int_set(&mirror->busy, 0);
}

gboolean
vmr_mirror_check_chains(VmrMirror *mirror, const VmrDomXml *live,
                        VmrTruth truth, GError **error)
{
    for (guint i = 0; i < mirror->record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(mirror->record->disks, i);
        const VmrDomDisk *now = vmr_domxml_find(live, disk->target);

        if (disk->state == VMR_DISK_STATE_PIVOTED)
            continue;
        if (!now) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                        "the domain has no disk '%s' any more", disk->target);
            return FALSE;
        }
        if (!vmr_proof_check_chain(disk, now, truth, error)) {
            vmr_error_annotate(error, disk->target, NULL);
            return FALSE;
        }
    }
    return TRUE;
}

gboolean
vmr_mirror_save(VmrMirror *mirror, VmrState state, VmrDiskState disk_state,
                const VmrWait *wait, GError **error)
{
    VmrRecord *record = mirror->record;

    record->state = state;
    for (guint i = 0; disk_state != VMR_DISK_STATE_LAST &&
                      i < record->disks->len; i++) {
        VmrDisk *disk = g_ptr_array_index(record->disks, i);

        disk->state = disk_state;
    }
    return vmr_journal_save(mirror->dom, record, wait, error);
}

gboolean
vmr_mirror_lookup(VmrHv *hv, virDomainPtr ptr, VmrMirror **mirror,
                  const VmrWait *wait, GError **error)
{
    g_autoptr(VmrMirror) found = vmr_mirror_new(hv, ptr);
    g_autofree char *text = vmr_hv_get_xml(found->dom, 0, wait, error);
    g_autoptr(VmrDomXml) xml = NULL;

    *mirror = NULL;
    if (!text)
        return FALSE;
    xml = vmr_domxml_parse(text, error);
    if (!xml || !vmr_journal_load(found->dom, xml->uuid, &found->record, wait,
                                  error))
        return FALSE;
    if (found->record)
        *mirror = g_steal_pointer(&found);
    return TRUE;
}

VmrMirror *
vmr_mirror_open(VmrHv *hv, virDomainPtr dom, const char *name,
                const VmrWait *wait, GError **error)
{
    g_autoptr(VmrMirror) mirror = NULL;

    if (!vmr_mirror_lookup(hv, dom, &mirror, wait, error))
        return NULL;
    if (!mirror) {
        vmr_error_set_virt(error, VMR_ERROR_NOT_FOUND,
                           VIR_ERR_OPERATION_INVALID,
                           "the domain has no mirrored snapshot");
        return NULL;
    }
    if (name && !g_str_equal(name, mirror->record->snapshot)) {
        vmr_error_set_virt(error, VMR_ERROR_NOT_FOUND,
                           VIR_ERR_OPERATION_INVALID,
                           "the domain's mirrored snapshot is '%s', not '%s'",
                           mirror->record->snapshot, name);
        return NULL;
    }
    return g_steal_pointer(&mirror);
}

void
vmr_mirror_mark_ended(const VmrMirror *mirror, GError **error)
{
    const GPtrArray *disks = mirror->record->disks;

    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);

        if (disk->state == VMR_DISK_STATE_PIVOTED ||
            disk->state == VMR_DISK_STATE_ABORTED)
            vmr_error_mark_partial(error);
    }
}

/* libvirt does not tell. */
void
vmr_mirror_set_job_failed(const VmrDisk *disk, GError **error)
{
    g_set_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED,
                "the copy of disk '%s' to '%s' has ended without a pivot: %s; "
                "the guest goes on with '%s', abort the mirrored snapshot",
                disk->target, disk->mirror->path,
                vmr_blockjob_reason(disk->mirror->path), disk->overlay->path);
    vmr_error_annotate(error, disk->target, NULL);
}

static VmrLook
look_at_disk(const VmrDisk *disk, const VmrDomXml *live, gboolean last,
             GError **error)
{
    VmrTruth truth = vmr_truth_of(disk, live);

    switch (truth) {
    case VMR_TRUTH_READY:
    case VMR_TRUTH_PIVOTED:
        return VMR_LOOK_DONE;
    case VMR_TRUTH_MIRRORING:
        return VMR_LOOK_AGAIN;
    case VMR_TRUTH_OVERLAY:
        if (!last)
            return VMR_LOOK_SETTLING;
        vmr_mirror_set_job_failed(disk, error);
        return VMR_LOOK_FAILED;
    case VMR_TRUTH_ENDING:
        if (!last)
            return VMR_LOOK_SETTLING;
        break;
    case VMR_TRUTH_SOURCE:
    case VMR_TRUTH_RETURNING:
    case VMR_TRUTH_UNDOING:
    case VMR_TRUTH_OTHER:
    case VMR_TRUTH_LAST:
        break;
    }
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s' is in state '%s': somebody else has changed it",
                disk->target, vmr_truth_name(truth));
    vmr_error_annotate(error, disk->target, "wait");
    return VMR_LOOK_FAILED;
}

/* What a wait for all mirrors looks at, and for whom it waits. */
typedef struct {
    VmrMirror *mirror;
    const char *pending; /* target of the first disk that is not ready, or NULL */
    VmrGauge gauge;      /* for those who ask why it takes so long */
} ReadyLook;

/* The answer for all disks: the worst of theirs. */
static VmrLook
look_for_ready(gpointer data, gboolean last, const VmrWait *wait,
               GError **error)
{
    ReadyLook *what = data;
    const GPtrArray *disks = what->mirror->record->disks;
    g_autoptr(VmrDomXml) live = vmr_live_read(what->mirror->dom, wait, error);
    VmrLook answer = VMR_LOOK_DONE;

    if (!live)
        return VMR_LOOK_FAILED;
    what->pending = NULL;
    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);
        VmrLook look = look_at_disk(disk, live, last, error);

        if (look == VMR_LOOK_FAILED)
            return look;
        if (look == VMR_LOOK_AGAIN && !what->pending)
            what->pending = disk->target;
        answer = MAX(answer, look);
    }
    if (answer == VMR_LOOK_AGAIN &&
        !vmr_gauge_look(&what->gauge, wait, error))
        return VMR_LOOK_FAILED;
    return answer;
}

gboolean
vmr_mirror_wait_ready(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    ReadyLook what = {.mirror = mirror};
    g_autoptr(VmrJobs) jobs = NULL;
    g_autoptr(GError) local = NULL;
    gboolean ok;

    if (!vmr_mirror_enter(mirror, error))
        return FALSE;
    what.gauge = vmr_gauge_new(mirror, NULL);
    what.gauge.may_end = TRUE; /* the definition tells how */
    jobs = vmr_jobs_open(mirror->dom, wait, &local);
    ok = jobs &&
         vmr_jobs_wait_until(jobs, look_for_ready, &what, wait, &local);
    if (what.pending && g_error_matches(local, VMR_ERROR, VMR_ERROR_TIMEOUT)) {
        g_autofree char *text = g_strdup_printf(
            "the mirror of disk '%s' is not ready yet", what.pending);

        vmr_gauge_note(&what.gauge, text, &local);
        vmr_error_annotate(&local, what.pending, NULL);
    }
    vmr_mirror_leave(mirror);
    vmr_error_annotate(&local, NULL, "wait");
    if (local)
        g_propagate_error(error, g_steal_pointer(&local));
    return ok;
}

static gboolean
add_progress(GArray *progress, VmrMirror *mirror, const VmrDisk *disk,
             const VmrDomXml *live, const VmrWait *wait, GError **error)
{
    VmrProgress one = {.target = disk->target};
    virDomainBlockJobInfo info;

    if (!vmr_hv_block_job_info(mirror->dom, disk->target, &info, &one.active,
                               wait, error))
        return FALSE;
    /* it may have ended after the definition was read */
    one.ready = one.active && vmr_truth_of(disk, live) == VMR_TRUTH_READY;
    one.current = info.cur;
    one.end = info.end;
    g_array_append_val(progress, one);
    return TRUE;
}

GArray *
vmr_mirror_get_progress(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    g_autoptr(GArray) progress =
        g_array_new(FALSE, FALSE, sizeof(VmrProgress));
    g_autoptr(VmrDomXml) live = NULL;
    gboolean ok;

    if (!vmr_mirror_enter(mirror, error))
        return NULL;
    live = vmr_live_read(mirror->dom, wait, error);
    ok = live != NULL;
    for (guint i = 0; ok && i < mirror->record->disks->len; i++)
        ok = add_progress(progress, mirror,
                          g_ptr_array_index(mirror->record->disks, i), live,
                          wait, error);
    vmr_mirror_leave(mirror);
    return ok ? g_steal_pointer(&progress) : NULL;
}

/* The path that @disk runs on when it is as @truth says. */
static const char *
top_path(const VmrDisk *disk, VmrTruth truth)
{
    if (truth == VMR_TRUTH_SOURCE)
        return disk->source->path;
    return truth == VMR_TRUTH_PIVOTED ? disk->mirror->path
                                      : disk->overlay->path;
}

/* What is to be proven: @disk is as @truth says. */
typedef struct {
    VmrMirror *mirror;
    const VmrDisk *disk;
    VmrTruth truth;
} Claim;

/* One look; @error says what does not fit (yet). */
static gboolean
is_proven(gpointer data, const VmrWait *wait, GError **error)
{
    const Claim *claim = data;
    VmrMirror *mirror = claim->mirror;
    const VmrDisk *disk = claim->disk;
    VmrTruth truth = claim->truth;
    g_autoptr(VmrDomXml) live = vmr_live_read(mirror->dom, wait, error);
    g_autoptr(VmrDomXml) inactive = NULL;
    VmrTruth now;

    if (!live ||
        !vmr_live_read_inactive(mirror->dom, &inactive, wait, error) ||
        !vmr_reach_files(mirror->record, wait, error))
        return FALSE;
    now = vmr_truth_of(disk, live);
    if (now != truth) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "disk '%s' is in state '%s', not '%s'", disk->target,
                    vmr_truth_name(now), vmr_truth_name(truth));
        return FALSE;
    }
    return vmr_truth_check_inactive(disk, top_path(disk, truth), inactive,
                                    error) &&
           vmr_truth_check_locks(disk, truth, mirror->leaked, error);
}

gboolean
vmr_mirror_prove(VmrMirror *mirror, const VmrDisk *disk, VmrTruth truth,
                 const VmrWait *wait, GError **error)
{
    Claim claim = {.mirror = mirror, .disk = disk, .truth = truth};
    g_autoptr(GError) local = NULL;

    if (vmr_wait_settle(wait, VMR_ERROR_DIVERGED, is_proven, &claim, &local))
        return TRUE;
    vmr_error_annotate(&local, disk->target, NULL);
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}
