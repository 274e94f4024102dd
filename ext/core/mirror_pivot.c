/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Pivoting. Neither a call's return nor an event is taken for the outcome: it
 * is read from the live XML, the persistent definition and QEMU's locks. */

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "autofd.h"
#include "blockjob.h"
#include "chain.h"
#include "error.h"
#include "imagefile.h"
#include "lockprobe.h"
#include "mirror_priv.h"
#include "reach.h"
#include "share.h"

/* The layers that @now runs on below its top. */
static GPtrArray *
frozen_layers(const VmrDomDisk *now)
{
    GPtrArray *layers = g_ptr_array_new();

    for (guint i = 1; i < now->chain->len; i++)
        g_ptr_array_add(layers, g_ptr_array_index(now->chain, i));
    return layers;
}

/* The header of a copy must lead to the file that was recorded, under that name. */
static gboolean
check_link(const VmrImage *image, const VmrFile *file, GError **error)
{
    VmrStamp stamp;

    if (g_str_equal(image->path, file->path))
        return vmr_proof_check_file(file, &stamp, error);
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "the backing chain of the mirror leads to '%s' now, and led to "
                "'%s' when it started", image->path, file->path);
    return FALSE;
}

/* The chain that a pivot would open must still be the one that was checked
 * when the mirror started, and fit the layers in use now: QEMU and libvirt
 * do not look again. */
static gboolean
check_destination(const VmrDisk *disk, const VmrDomDisk *now, GError **error)
{
    g_autoptr(GPtrArray) layers = frozen_layers(now);
    g_autoptr(GPtrArray) frozen = vmr_chain_read_live(layers, error);
    g_autoptr(GPtrArray) chain = NULL;
    VmrStamp stamp;

    if (!frozen)
        return FALSE;
    chain = vmr_chain_read(disk->mirror->path, disk->mirror->format, error);
    if (!chain || !vmr_proof_check_file(disk->mirror, &stamp, error))
        return FALSE;
    if (chain->len != disk->copies->len + 1) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "the backing chain of '%s' has %u layers now and had %u "
                    "when the mirror started",
                    disk->mirror->path, chain->len, disk->copies->len + 1);
        return FALSE;
    }
    for (guint i = 0; i < disk->copies->len; i++) {
        const VmrImage *image = g_ptr_array_index(chain, i + 1);

        if (!check_link(image, g_ptr_array_index(disk->copies, i), error))
            return FALSE;
    }
    g_ptr_array_remove_index(chain, 0);
    return vmr_chain_check_copy(frozen, chain, error);
}

static gboolean
check_not_written(const VmrFile *copy, GError **error)
{
    VmrLock lock;

    if (!vmr_lock_probe(copy->path, &lock, error))
        return FALSE;
    if (lock != VMR_LOCK_WRITER)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                "'%s' is open for writing in another process", copy->path);
    return FALSE;
}

typedef struct {
    VmrMirror *mirror;
    const VmrDisk *disk;
} Mirrored;

/* An attempt to find that libvirt, too, knows of the end of a copy. */
static gboolean
is_known_to_have_ended(gpointer data, const VmrWait *wait, GError **error)
{
    const Mirrored *what = data;
    g_autoptr(VmrDomXml) live = vmr_live_read(what->mirror->dom, wait, error);
    VmrTruth truth;

    if (!live)
        return FALSE;
    truth = vmr_truth_of(what->disk, live);
    if (truth != VMR_TRUTH_READY && truth != VMR_TRUTH_ENDING)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "libvirt says that the mirror of disk '%s' is ready, but QEMU "
                "has no copy job for it",
                what->disk->target);
    return FALSE;
}

/* A job that is READY in QEMU, too, not only in libvirt's memory. */
static gboolean
check_job(VmrMirror *mirror, const VmrDisk *disk, const VmrWait *wait,
          GError **error)
{
    Mirrored what = {.mirror = mirror, .disk = disk};
    virDomainBlockJobInfo info;
    gboolean active;

    if (!vmr_hv_block_job_info(mirror->dom, disk->target, &info, &active, wait,
                               error))
        return FALSE;
    if (active && info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY)
        return TRUE;
    /* it may have ended after the definition was read */
    if (vmr_wait_settle(wait, VMR_ERROR_DIVERGED, is_known_to_have_ended, &what,
                        error))
        vmr_mirror_set_job_failed(disk, error);
    return FALSE;
}

/* The chain that the guest runs on now must be the mirror and its copies. */
static gboolean
prove_pivoted(VmrMirror *mirror, const VmrDisk *disk, const VmrWait *wait,
              GError **error)
{
    g_autoptr(VmrDomXml) live = NULL;
    const VmrDomDisk *now;

    if (!vmr_mirror_prove(mirror, disk, VMR_TRUTH_PIVOTED, wait, error))
        return FALSE;
    live = vmr_live_read(mirror->dom, wait, error);
    now = live ? vmr_domxml_find(live, disk->target) : NULL;
    if (live && !now)
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "the domain has no disk '%s' any more", disk->target);
    return now && vmr_proof_check_chain(disk, now, VMR_TRUTH_PIVOTED, error);
}

/* Whether @disk may be pivoted (@early: as soon as it is ready), or was already. */
static gboolean
check_pivotable(VmrMirror *mirror, VmrDisk *disk, const VmrDomXml *live,
                gboolean early, const VmrWait *wait, GError **error)
{
    VmrTruth truth = vmr_truth_of(disk, live);

    switch (truth) {
    case VMR_TRUTH_PIVOTED:
        return prove_pivoted(mirror, disk, wait, error);
    case VMR_TRUTH_READY:
        break;
    case VMR_TRUTH_MIRRORING:
        if (early)
            break;
        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_READY,
                    "the mirror of disk '%s' is not ready yet: wait for it",
                    disk->target);
        return FALSE;
    case VMR_TRUTH_OVERLAY:
        vmr_mirror_set_job_failed(disk, error);
        return FALSE;
    case VMR_TRUTH_SOURCE:
    case VMR_TRUTH_ENDING:
    case VMR_TRUTH_RETURNING:
    case VMR_TRUTH_UNDOING:
    case VMR_TRUTH_OTHER:
    case VMR_TRUTH_LAST:
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "disk '%s' is in state '%s', so it is not pivoted",
                    disk->target, vmr_truth_name(truth));
        return FALSE;
    }
    for (guint i = 0; i < disk->copies->len; i++) {
        const VmrFile *copy = g_ptr_array_index(disk->copies, i);

        if (!check_not_written(copy, error) ||
            !vmr_proof_check_complete(copy, error))
            return FALSE;
    }
    return check_job(mirror, disk, wait, error) &&
           vmr_truth_check_locks(disk, truth, FALSE, error) &&
           vmr_proof_check_chain(disk, vmr_domxml_find(live, disk->target),
                                 truth, error) &&
           check_destination(disk, vmr_domxml_find(live, disk->target),
                             error);
}

/* Have the copies on the storage, and noted on them that the guest relies on them:
 * who has made them must not take them away again, even while it is shut off. The
 * first of the paths is who notes it. */
static gboolean
sync_paths(gpointer data, GError **error)
{
    char **paths = data;

    for (guint i = 1; paths[i]; i++) {
        struct stat st;
        vmr_autofd fd = vmr_imagefile_open(paths[i], &st, error);

        if (fd < 0 || !vmr_share_note_locked(fd, paths[i], paths[0], error))
            return FALSE;
        if (fsync(fd) != 0) {
            vmr_error_set_errno(error, errno, "write back", paths[i]);
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean
sync_copies(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    const VmrRecord *record = mirror->record;
    g_autoptr(GPtrArray) paths = g_ptr_array_new();
    VmrWait patient = *wait;

    g_ptr_array_add(paths, vmr_share_user(record->uuid, record->snapshot));
    for (guint i = 0; i < record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(record->disks, i);

        for (guint j = 0; j < disk->copies->len; j++) {
            const VmrFile *copy = g_ptr_array_index(disk->copies, j);

            g_ptr_array_add(paths, g_strdup(copy->path));
        }
    }
    patient.call_timeout = VMR_WAIT_FOREVER;
    return vmr_reach_call("fsync", sync_paths, paths, &patient, error);
}

gboolean
vmr_mirror_prove_copies(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    if (!sync_copies(mirror, wait, error))
        return FALSE;
    g_clear_pointer(&mirror->proof, vmr_proof_free);
    mirror->proof = vmr_proof_new(mirror->record, wait, error);
    return mirror->proof != NULL;
}

/* The last look before the first disk goes over; it opens files, and reads none. */
static gboolean
check_proof(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read(mirror->dom, wait, error);

    g_assert(mirror->proof);
    return live && vmr_reach_files(mirror->record, wait, error) &&
           vmr_mirror_check_chains(mirror, live, VMR_TRUTH_READY, error) &&
           vmr_proof_still_holds(mirror->proof, error);
}

/* libvirt opens the layers one by one. When one cannot be opened it leaves those
 * before it in QEMU, under names that it would use again: no second attempt can
 * get past them. */
static void
note_leftovers(VmrMirror *mirror, GError **error)
{
    mirror->blocked = strstr((*error)->message, "Duplicate nodes") != NULL;
    if (mirror->blocked)
        vmr_error_note(error, "an earlier attempt has left layers open in "
                       "QEMU, so that this mirror cannot be pivoted to any "
                       "more: abort it");
}

/* The guest may run on the mirror after a call that failed, and on the overlay
 * after one that did not. */
static gboolean
pivot_disk(VmrMirror *mirror, VmrDisk *disk, const VmrWait *wait,
           GError **error)
{
    g_autoptr(VmrDomXml) live = NULL;
    g_autoptr(GError) refused = NULL;

    disk->state = VMR_DISK_STATE_PIVOTING;
    if (!vmr_mirror_save(mirror, VMR_STATE_PIVOTING, VMR_DISK_STATE_LAST, wait,
                         error))
        return FALSE;
    if (!vmr_blockjob_end(mirror->dom, disk->target,
                          VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT, wait,
                          &refused)) {
        if (!vmr_error_is_unknown(refused))
            live = vmr_live_read(mirror->dom, wait, NULL);
        if (!live || vmr_truth_of(disk, live) != VMR_TRUTH_PIVOTED) {
            note_leftovers(mirror, &refused);
            g_propagate_error(error, g_steal_pointer(&refused));
            return FALSE;
        }
    }
    if (prove_pivoted(mirror, disk, wait, error)) {
        disk->state = VMR_DISK_STATE_PIVOTED;
        if (vmr_mirror_save(mirror, VMR_STATE_PIVOTING, VMR_DISK_STATE_LAST,
                            wait, error))
            return TRUE;
    }
    vmr_error_mark_partial(error);
    return FALSE;
}

VmrWait
vmr_mirror_patience(const VmrWait *wait)
{
    VmrWait patient = *wait;

    if (wait->deadline != VMR_WAIT_FOREVER)
        patient.call_timeout = VMR_WAIT_FOREVER;
    return patient;
}

gboolean
vmr_mirror_check_pivotable(VmrMirror *mirror, gboolean early,
                           const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read_settled(mirror->dom, wait, error);

    if (!live || !vmr_reach_files(mirror->record, wait, error))
        return FALSE;
    for (guint i = 0; i < mirror->record->disks->len; i++) {
        VmrDisk *disk = g_ptr_array_index(mirror->record->disks, i);

        if (!check_pivotable(mirror, disk, live, early, wait, error)) {
            vmr_error_annotate(error, disk->target, NULL);
            return FALSE;
        }
        if (vmr_truth_of(disk, live) == VMR_TRUTH_PIVOTED)
            disk->state = VMR_DISK_STATE_PIVOTED;
    }
    return TRUE;
}

gboolean
vmr_mirror_pivot_disks(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    GPtrArray *disks = mirror->record->disks;

    if (!check_proof(mirror, wait, error))
        return FALSE;
    for (guint i = 0; i < disks->len; i++) {
        VmrDisk *disk = g_ptr_array_index(disks, i);

        if (disk->state != VMR_DISK_STATE_PIVOTED &&
            !pivot_disk(mirror, disk, wait, error)) {
            vmr_error_annotate(error, disk->target, NULL);
            return FALSE;
        }
    }
    return TRUE;
}

gboolean
vmr_mirror_pivot(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    VmrWait patient = vmr_mirror_patience(wait);
    gboolean ok;

    if (!vmr_mirror_enter_to_change(mirror, error))
        return FALSE;
    ok = vmr_mirror_check_pivotable(mirror, FALSE, wait, error) &&
         vmr_mirror_prove_copies(mirror, wait, error) &&
         vmr_mirror_pivot_disks(mirror, &patient, error) &&
         vmr_mirror_finish(mirror, wait, error);
    if (!ok)
        vmr_mirror_mark_ended(mirror, error);
    vmr_mirror_leave(mirror);
    vmr_error_annotate(error, NULL, "pivot");
    return ok;
}
