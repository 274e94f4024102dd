/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "inspect.h"

#include "blockjob.h"
#include "error.h"
#include "journal.h"
#include "live.h"
#include "reach.h"

/* How often to look again because something has moved meanwhile. */
#define MAX_LOOKS 10

static const struct {
    const char *name;
    const char *advice;
} verdict_table[VMR_VERDICT_LAST] = {
    [VMR_VERDICT_NOTHING] = {"nothing", "there is no mirrored snapshot"},
    [VMR_VERDICT_READY] = {"ready", "pivot or abort it"},
    [VMR_VERDICT_MIRRORING] = {"mirroring", "wait until it is ready, or abort"},
    [VMR_VERDICT_PIVOTED] = {"pivoted", "recover to remove its records"},
    [VMR_VERDICT_ABORTED] = {"aborted", "recover to remove its records"},
    [VMR_VERDICT_CREATING] = {"creating",
                              "creating it was broken off: recover undoes it"},
    [VMR_VERDICT_CUT_OVER] = {"cut-over",
                              "some of its disks are pivoted: recover with "
                              "'pivot' or 'abort' for the others"},
    [VMR_VERDICT_OFF] = {"off", "recover before the domain is started"},
    [VMR_VERDICT_LEAKED] = {"leaked",
                            "QEMU keeps files of the mirror open: use new "
                            "file names until the guest is restarted"},
    [VMR_VERDICT_HIDDEN] = {"hidden",
                            "QEMU commits a disk's top layer, and libvirt does "
                            "not show that: never abort it, which would end "
                            "libvirt; recover finishes it"},
    [VMR_VERDICT_ORPHANED] = {"orphaned",
                              "a pivot would end libvirt: only abort, then "
                              "use new file names"},
    [VMR_VERDICT_STUCK] = {"stuck",
                           "libvirt waits for a job that is gone: recover sets "
                           "the persistent definition to the file in use, then "
                           "restart the guest when its owner agrees"},
    [VMR_VERDICT_LYING] = {"lying",
                           "libvirt names a file that QEMU does not write to: "
                           "recover sets the persistent definition, then "
                           "restart the guest when its owner agrees"},
    [VMR_VERDICT_LOST] = {"lost",
                          "a QEMU that libvirt has lost still writes to the "
                          "disks: never start the domain before it has ended"},
    [VMR_VERDICT_FOREIGN] = {"foreign",
                             "somebody else changed the disks: look at them, "
                             "nothing is done"},
};

const char *
vmr_verdict_name(VmrVerdict verdict)
{
    g_return_val_if_fail((unsigned)verdict < VMR_VERDICT_LAST, "unknown");
    return verdict_table[verdict].name;
}

const char *
vmr_verdict_advice(VmrVerdict verdict)
{
    g_return_val_if_fail((unsigned)verdict < VMR_VERDICT_LAST, "unknown");
    return verdict_table[verdict].advice;
}

static void
disk_inspection_free(gpointer data)
{
    VmrDiskInspection *disk = data;

    g_free(disk->live);
    g_free(disk->persistent);
    g_free(disk);
}

void
vmr_inspection_free(VmrInspection *inspection)
{
    if (!inspection)
        return;
    vmr_record_free(inspection->record);
    g_ptr_array_unref(inspection->disks);
    g_ptr_array_unref(inspection->commits);
    g_free(inspection->uuid);
    g_free(inspection);
}

/* A file that is not there, or cannot be looked at, tells nothing. */
static VmrLock
probe(const VmrFile *file)
{
    VmrLock lock;

    return vmr_lock_probe(file->path, &lock, NULL) ? lock : VMR_LOCK_UNKNOWN;
}

static gboolean
is_written(VmrLock lock)
{
    return lock == VMR_LOCK_WRITER;
}

const VmrFile *
vmr_disk_inspection_written(const VmrDiskInspection *disk)
{
    gboolean overlay = is_written(disk->overlay);
    gboolean mirror = is_written(disk->mirror);

    if (disk->verdict != VMR_VERDICT_STUCK &&
        disk->verdict != VMR_VERDICT_LYING &&
        disk->verdict != VMR_VERDICT_LOST)
        return NULL;
    if (disk->used)
        return disk->used;
    if (mirror && !overlay && disk->overlay == VMR_LOCK_FREE)
        return disk->disk->mirror;
    if (overlay && !mirror)
        return disk->disk->overlay;
    return NULL;
}

/* A copy that libvirt believes to be running. */
static VmrVerdict
judge_copy(const VmrDiskInspection *disk)
{
    if (!disk->job || disk->overlay == VMR_LOCK_FREE)
        return VMR_VERDICT_STUCK;
    /* the file of that name is not the one that QEMU has open */
    if (disk->mirror == VMR_LOCK_FREE)
        return VMR_VERDICT_FOREIGN;
    return disk->truth == VMR_TRUTH_READY ? VMR_VERDICT_READY
                                          : VMR_VERDICT_MIRRORING;
}

/* The overlay without a copy, as libvirt believes. */
static VmrVerdict
judge_overlay(const VmrDiskInspection *disk, const VmrRecord *record)
{
    if (disk->committing)
        return disk->source == VMR_LOCK_FREE ? VMR_VERDICT_FOREIGN
                                             : VMR_VERDICT_HIDDEN;
    if (disk->job)
        return VMR_VERDICT_ORPHANED;
    /* if both are open, either was left behind, whatever was meant: somebody
     * else may have had QEMU pivot. Unless QEMU says that it was the mirror,
     * nobody must be told that the mirror can go */
    if (is_written(disk->mirror))
        return disk->used == disk->disk->overlay ? VMR_VERDICT_LEAKED
                                                 : VMR_VERDICT_LYING;
    if (disk->overlay == VMR_LOCK_FREE)
        return VMR_VERDICT_FOREIGN;
    return record->state == VMR_STATE_CREATING ? VMR_VERDICT_CREATING
                                               : VMR_VERDICT_ABORTED;
}

static VmrVerdict
judge_running(const VmrDiskInspection *disk, const VmrRecord *record)
{
    switch (disk->truth) {
    case VMR_TRUTH_READY:
    case VMR_TRUTH_MIRRORING:
        return judge_copy(disk);
    case VMR_TRUTH_ENDING:
        return disk->job ? VMR_VERDICT_CUT_OVER : VMR_VERDICT_STUCK;
    case VMR_TRUTH_OVERLAY:
        return judge_overlay(disk, record);
    case VMR_TRUTH_PIVOTED:
        /* somebody may pull into it by now, which is none of our business */
        if (disk->copying)
            return VMR_VERDICT_ORPHANED;
        if (disk->committing)
            return VMR_VERDICT_FOREIGN;
        if ((is_written(disk->overlay) && disk->used != disk->disk->mirror) ||
            disk->mirror == VMR_LOCK_FREE)
            return VMR_VERDICT_LYING;
        return VMR_VERDICT_PIVOTED;
    case VMR_TRUTH_RETURNING:
        return disk->job ? VMR_VERDICT_CUT_OVER : VMR_VERDICT_STUCK;
    case VMR_TRUTH_SOURCE:
        if (is_written(disk->overlay) || is_written(disk->mirror))
            return VMR_VERDICT_LYING;
        return VMR_VERDICT_CREATING;
    case VMR_TRUTH_UNDOING:
        return VMR_VERDICT_CREATING;
    case VMR_TRUTH_OTHER:
    case VMR_TRUTH_LAST:
        break;
    }
    return VMR_VERDICT_FOREIGN;
}

static VmrVerdict
judge_off(const VmrDiskInspection *disk)
{
    return is_written(disk->source) || is_written(disk->overlay) ||
                   is_written(disk->mirror)
               ? VMR_VERDICT_LOST
               : VMR_VERDICT_OFF;
}

static char *
dup_source(const VmrDomXml *xml, const char *target)
{
    const VmrDomDisk *disk = xml ? vmr_domxml_find(xml, target) : NULL;

    return disk ? g_strdup(vmr_domdisk_source(disk)) : NULL;
}

/* Ask for the jobs of all disks. To be done before the XML is read that is
 * believed: libvirt, just restarted, answers with old XML until it has spoken
 * with QEMU, and to ask for a job waits for that. */
static gboolean
inspect_jobs(VmrInspection *inspection, const VmrDomain *dom,
             const VmrWait *wait, GError **error)
{
    const GPtrArray *disks = inspection->record->disks;

    for (guint i = 0; i < disks->len; i++) {
        VmrDiskInspection *one = g_new0(VmrDiskInspection, 1);
        virDomainBlockJobInfo info = {0};

        g_ptr_array_add(inspection->disks, one);
        one->disk = g_ptr_array_index(disks, i);
        if (inspection->running &&
            !vmr_hv_block_job_info(dom, one->disk->target, &info, &one->job,
                                   wait, error))
            return FALSE;
        one->copying = one->job && info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY;
        one->committing =
            one->job && info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT;
    }
    return TRUE;
}

/* When a daemon dies in the middle of a pivot QEMU keeps the side open that it
 * has left, so the locks do not tell: then it has to be asked. */
static gboolean
needs_asking(const VmrDiskInspection *one)
{
    return (one->verdict == VMR_VERDICT_STUCK ||
            one->verdict == VMR_VERDICT_LYING) &&
           is_written(one->overlay) && is_written(one->mirror);
}

static void
ask_qemu(VmrDiskInspection *one, const VmrDomain *dom, const VmrWait *wait)
{
    g_autofree char *text = NULL;
    gboolean overlay;
    gboolean mirror;

    if (!vmr_hv_query_block(dom, &text, wait, NULL))
        return;
    overlay = vmr_live_names_file(text, one->disk->overlay->path);
    mirror = vmr_live_names_file(text, one->disk->mirror->path);
    if (overlay != mirror)
        one->used = mirror ? one->disk->mirror : one->disk->overlay;
}

static void
inspect_disk(const VmrInspection *inspection, VmrDiskInspection *one,
             const VmrDomXml *live, const VmrDomXml *inactive)
{
    const VmrDisk *disk = one->disk;

    one->truth = vmr_truth_of(disk, live);
    one->live = inspection->running ? dup_source(live, disk->target) : NULL;
    one->persistent = dup_source(inactive, disk->target);
    one->source = probe(disk->source);
    one->overlay = probe(disk->overlay);
    one->mirror = probe(disk->mirror);
    one->verdict = inspection->running ? judge_running(one, inspection->record)
                                       : judge_off(one);
}

/* The verdict on the whole: the worst one, but for disks that are at different
 * points of the same way. */
static VmrVerdict
judge_all(const GPtrArray *disks)
{
    VmrVerdict worst = VMR_VERDICT_NOTHING;
    guint pivoted = 0;

    for (guint i = 0; i < disks->len; i++) {
        const VmrDiskInspection *disk = g_ptr_array_index(disks, i);

        worst = MAX(worst, disk->verdict);
        pivoted += disk->verdict == VMR_VERDICT_PIVOTED;
    }
    if (pivoted > 0 && pivoted < disks->len && worst < VMR_VERDICT_CUT_OVER)
        return VMR_VERDICT_CUT_OVER;
    return worst;
}

static VmrDomXml *
read_xml(const VmrDomain *dom, guint flags, const VmrWait *wait,
         GError **error)
{
    g_autofree char *text = vmr_hv_get_xml(dom, flags, wait, error);

    return text ? vmr_domxml_parse(text, error) : NULL;
}

static gboolean
look_at_disks(VmrInspection *inspection, const VmrDomain *dom,
              const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = NULL;
    g_autoptr(VmrDomXml) inactive = NULL;

    g_ptr_array_set_size(inspection->disks, 0);
    g_ptr_array_set_size(inspection->commits, 0);
    if (!inspect_jobs(inspection, dom, wait, error) ||
        !vmr_reach_files(inspection->record, wait, error))
        return FALSE;
    live = read_xml(dom, 0, wait, error);
    if (!live || !vmr_live_read_inactive(dom, &inactive, wait, error))
        return FALSE;
    inspection->persistent = inactive != NULL;
    for (guint i = 0; i < inspection->disks->len; i++) {
        VmrDiskInspection *one = g_ptr_array_index(inspection->disks, i);

        inspect_disk(inspection, one, live, inactive);
        if (inspection->running && needs_asking(one)) {
            ask_qemu(one, dom, wait);
            one->verdict = judge_running(one, inspection->record);
        }
        if (one->verdict == VMR_VERDICT_HIDDEN)
            g_ptr_array_add(inspection->commits, g_strdup(one->disk->target));
    }
    return TRUE;
}

static gboolean
shows_job(const VmrDiskInspection *one)
{
    return one->truth == VMR_TRUTH_MIRRORING ||
           one->truth == VMR_TRUTH_READY || one->truth == VMR_TRUTH_ENDING ||
           one->truth == VMR_TRUTH_RETURNING ||
           one->truth == VMR_TRUTH_UNDOING;
}

/* Jobs are asked for before the definition is read, and may begin and end in between.
 * Where the two do not fit, the jobs must still be as they were. */
static gboolean
check_unmoved(const VmrInspection *inspection, const VmrDomain *dom,
              gboolean *moved, const VmrWait *wait, GError **error)
{
    *moved = FALSE;
    for (guint i = 0; inspection->running && i < inspection->disks->len; i++) {
        const VmrDiskInspection *one = g_ptr_array_index(inspection->disks, i);
        virDomainBlockJobInfo info;
        gboolean job;

        if (one->truth == VMR_TRUTH_OTHER || one->job == shows_job(one))
            continue;
        if (!vmr_hv_block_job_info(dom, one->disk->target, &info, &job, wait,
                                   error))
            return FALSE;
        *moved = *moved || job != one->job;
    }
    return TRUE;
}

static gboolean
inspect_disks(VmrInspection *inspection, const VmrDomain *dom,
              const VmrWait *wait, GError **error)
{
    gboolean moved = TRUE;

    for (int look = 0; moved && look < MAX_LOOKS; look++) {
        if (!look_at_disks(inspection, dom, wait, error) ||
            !check_unmoved(inspection, dom, &moved, wait, error))
            return FALSE;
    }
    inspection->verdict = judge_all(inspection->disks);
    return TRUE;
}

static VmrVerdict
judge_commit(const VmrBlockJob *job)
{
    if (job->hidden)
        return job->info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT
                   ? VMR_VERDICT_HIDDEN
                   : VMR_VERDICT_NOTHING;
    return !job->active && g_strcmp0(job->disk->mirror_job, "active-commit") == 0
               ? VMR_VERDICT_STUCK
               : VMR_VERDICT_NOTHING;
}

/* Without a mirrored snapshot there still may be the commit by which one that is
 * over was being collapsed. */
static gboolean
find_commits(VmrInspection *inspection, const VmrDomain *dom,
            const VmrDomXml *live, const VmrWait *wait, GError **error)
{
    for (guint i = 0; inspection->running && i < live->disks->len; i++) {
        const VmrDomDisk *disk = g_ptr_array_index(live->disks, i);
        g_auto(VmrBlockJob) job = {0};
        VmrVerdict verdict;

        if (disk->chain->len < 2)
            continue;
        if (!vmr_blockjob_look(dom, disk->target, &job, wait, error))
            return FALSE;
        verdict = judge_commit(&job);
        if (verdict != VMR_VERDICT_NOTHING)
            g_ptr_array_add(inspection->commits, g_strdup(disk->target));
        inspection->verdict = MAX(inspection->verdict, verdict);
    }
    return vmr_hv_is_persistent(dom, &inspection->persistent, wait, error);
}

static gboolean
inspect_all(VmrInspection *inspection, const VmrDomain *dom,
            const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = read_xml(dom, 0, wait, error);
    int state;
    int reason;

    if (!live || !vmr_hv_get_state(dom, &state, &reason, wait, error) ||
        !vmr_journal_load(dom, live->uuid, &inspection->record, wait, error))
        return FALSE;
    inspection->uuid = g_strdup(live->uuid);
    inspection->running = live->running;
    inspection->paused =
        state == VIR_DOMAIN_PAUSED && reason == VIR_DOMAIN_PAUSED_USER;
    return inspection->record
               ? inspect_disks(inspection, dom, wait, error)
               : find_commits(inspection, dom, live, wait, error);
}

VmrInspection *
vmr_inspect(VmrHv *hv, virDomainPtr ptr, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomain) dom = vmr_domain_new(hv, ptr);
    g_autoptr(VmrInspection) inspection = g_new0(VmrInspection, 1);

    inspection->disks = g_ptr_array_new_with_free_func(disk_inspection_free);
    inspection->commits = g_ptr_array_new_with_free_func(g_free);
    if (!inspect_all(inspection, dom, wait, error)) {
        vmr_error_annotate(error, NULL, "inspect");
        return NULL;
    }
    return g_steal_pointer(&inspection);
}
