/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "throttle.h"

#include "error.h"
#include "journal.h"

/* A guest may write this part of what is mirrored without being held back; its first
 * limit is the second part, each further one half of the one before. A write can make
 * QEMU mirror much more than itself (whole clusters), so that it may take some. */
#define FAST_ENOUGH 0.75
#define FIRST_LIMIT 0.5

/* bytes/s; with less a guest would think that its disk is broken */
#define LEAST_LIMIT (16 * 1024)

/* The next limit to try, or 0: the present one will do, or is the last. */
static guint64
next_limit(const VmrFigures *figures)
{
    guint64 limit = figures->limit > 0
                        ? figures->limit / 2
                        : (guint64)(figures->mirrored * FIRST_LIMIT);

    /* where nothing at all is mirrored no limit helps */
    if (figures->mirrored <= 0 ||
        figures->written <= FAST_ENOUGH * figures->mirrored)
        return 0;
    limit = MAX(limit, LEAST_LIMIT);
    return figures->limit > 0 && limit >= figures->limit ? 0 : limit;
}

static gboolean
is_mirrored(const VmrDisk *disk)
{
    return disk->state != VMR_DISK_STATE_PIVOTED &&
           disk->state != VMR_DISK_STATE_ABORTED;
}

/* Note down, of each disk, what its limits were and what they are to be. */
static gboolean
note_limits(VmrMirror *mirror, guint64 limit, const VmrWait *wait,
            GError **error)
{
    g_autofree char *xml = vmr_hv_get_xml(mirror->dom, 0, wait, error);
    const GPtrArray *disks = mirror->record->disks;

    for (guint i = 0; xml && i < disks->len; i++) {
        VmrDisk *disk = g_ptr_array_index(disks, i);
        g_autoptr(GError) local = NULL;

        if (!is_mirrored(disk))
            continue;
        if (!disk->throttle) {
            g_autoptr(VmrIotune) before =
                vmr_iotune_parse(xml, disk->target, &local);

            if (local) {
                g_propagate_error(error, g_steal_pointer(&local));
                return FALSE;
            }
            if (before)
                disk->throttle = vmr_throttle_new(g_steal_pointer(&before));
        }
        if (disk->throttle) {
            disk->throttle->last = disk->throttle->limit;
            disk->throttle->limit = limit;
        }
    }
    return xml && vmr_journal_save(mirror->dom, mirror->record, wait, error);
}

static gboolean
set_limits(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    const GPtrArray *disks = mirror->record->disks;

    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);
        g_autoptr(VmrIotune) lowered = NULL;

        if (!disk->throttle || !is_mirrored(disk))
            continue;
        lowered = vmr_iotune_lower(disk->throttle->before,
                                   disk->throttle->limit);
        if (!vmr_hv_set_iotune(mirror->dom, disk->target, lowered, wait,
                               error))
            return FALSE;
    }
    return TRUE;
}

gboolean
vmr_throttle_adjust(VmrMirror *mirror, gboolean *changed, const VmrWait *wait,
                    GError **error)
{
    guint64 limit = next_limit(&mirror->figures);

    *changed = limit > 0;
    if (!*changed)
        return TRUE;
    if (!note_limits(mirror, limit, wait, error) ||
        !set_limits(mirror, wait, error))
        return FALSE;
    mirror->figures.limit = limit;
    return TRUE;
}

/* Whether @now is what we had set, rather than what somebody else has set since. The
 * last limit may not have been set when we died. */
static gboolean
is_ours(const VmrThrottle *throttle, const VmrIotune *now)
{
    VmrIotuneField field = vmr_iotune_write_field(throttle->before);
    g_autoptr(VmrIotune) lowered =
        vmr_iotune_lower(throttle->before, throttle->limit);
    g_autoptr(VmrIotune) last =
        vmr_iotune_lower(throttle->before, throttle->last);

    return now->values[field] == lowered->values[field] ||
           (throttle->last > 0 && now->values[field] == last->values[field]);
}

static gboolean
put_back(VmrMirror *mirror, const VmrDisk *disk, const char *xml,
         const VmrWait *wait, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(VmrIotune) now = vmr_iotune_parse(xml, disk->target, &local);

    if (local) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    return !now || !is_ours(disk->throttle, now) ||
           vmr_hv_set_iotune(mirror->dom, disk->target, disk->throttle->before,
                             wait, error);
}

gboolean
vmr_throttle_is_on(const VmrMirror *mirror)
{
    const GPtrArray *disks = mirror->record->disks;

    for (guint i = 0; i < disks->len; i++) {
        if (((VmrDisk *)g_ptr_array_index(disks, i))->throttle)
            return TRUE;
    }
    return FALSE;
}

static gboolean
put_all_back(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    const GPtrArray *disks = mirror->record->disks;
    g_autofree char *xml = vmr_hv_get_xml(mirror->dom, 0, wait, error);

    for (guint i = 0; xml && i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);

        if (disk->throttle && !put_back(mirror, disk, xml, wait, error))
            return FALSE;
    }
    return xml != NULL;
}

gboolean
vmr_throttle_put_back(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    if (!vmr_throttle_is_on(mirror))
        return TRUE;
    if (!put_all_back(mirror, wait, error))
        return FALSE;
    vmr_throttle_forget(mirror);
    return vmr_journal_save(mirror->dom, mirror->record, wait, error);
}

gboolean
vmr_throttle_end(VmrMirror *mirror, gboolean ok, const VmrWait *wait,
                 GError **error)
{
    VmrWait cleanup = vmr_wait_for_cleanup(wait);
    gboolean unknown = !ok && vmr_error_is_unknown(*error);
    g_autoptr(GError) local = NULL;

    if (!vmr_throttle_is_on(mirror))
        return ok;
    /* a call that is yet to come back may lower them: the journal goes on to say so */
    if (unknown ? put_all_back(mirror, &cleanup, &local)
                : vmr_throttle_put_back(mirror, &cleanup, &local)) {
        if (unknown)
            vmr_error_mark_partial(error);
        return ok;
    }
    if (ok)
        g_propagate_error(error, g_steal_pointer(&local));
    else
        vmr_error_note(error, "putting the limits of the guest's disks back "
                       "failed, too: %s; recover() does it", local->message);
    vmr_error_mark_partial(error);
    return FALSE;
}

void
vmr_throttle_forget(VmrMirror *mirror)
{
    const GPtrArray *disks = mirror->record->disks;

    for (guint i = 0; i < disks->len; i++) {
        VmrDisk *disk = g_ptr_array_index(disks, i);

        g_clear_pointer(&disk->throttle, vmr_throttle_free);
    }
    mirror->figures.limit = 0;
}
