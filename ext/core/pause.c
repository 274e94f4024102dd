/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "pause.h"

#include <libvirt/virterror.h>

#include "error.h"
#include "journal.h"

/* What fails on the way to a guest that runs again is tried again after so many ms, then
 * after twice as many ...; where the process, or libvirt, lacks something that others
 * will give back, for as long as one may wait, else so often. */
#define FIRST_STEP 10
#define MAX_STEP 500
#define ATTEMPTS 3

gboolean
vmr_pause_begin(VmrPause *pause, VmrMirror *mirror, VmrState state,
                const VmrWait *wait, GError **error)
{
    int run;

    *pause = (VmrPause){.mirror = mirror};
    if (!vmr_hv_get_state(mirror->dom, &run, NULL, wait, error))
        return FALSE;
    if (run != VIR_DOMAIN_RUNNING)
        return TRUE;
    pause->reserve = vmr_reserve_new(error);
    if (!pause->reserve)
        return FALSE;
    mirror->record->paused = TRUE;
    if (!vmr_mirror_save(mirror, state, VMR_DISK_STATE_LAST, wait, error))
        return FALSE;
    pause->begun = g_get_monotonic_time();
    return vmr_hv_suspend(mirror->dom, wait, error);
}

void
vmr_pause_end(VmrPause *pause, const VmrWait *wait, GError **failure)
{
    gboolean unknown = vmr_error_is_unknown(*failure);
    g_autoptr(GError) local = NULL;
    gboolean ok;

    g_clear_pointer(&pause->reserve, vmr_reserve_free);
    ok = unknown ? vmr_mirror_resume_cpus(pause->mirror, wait, &local)
                 : vmr_mirror_resume_guest(pause->mirror, wait, &local);
    pause->ended = g_get_monotonic_time();
    if (!ok && !*failure)
        g_propagate_error(failure, g_steal_pointer(&local));
    else if (!ok)
        vmr_error_note(failure, "resuming the guest failed, too: %s",
                       local->message);
    if (!ok)
        vmr_error_note(failure, "it may stay suspended until it is recovered");
    if (!ok || unknown)
        vmr_error_mark_partial(failure);
}

double
vmr_pause_seconds(const VmrPause *pause)
{
    return pause->begun > 0 ? (double)(pause->ended - pause->begun) / 1e6 : 0;
}

static gboolean
try_resume(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    int state;
    int reason;

    if (!vmr_hv_get_state(mirror->dom, &state, &reason, wait, error))
        return FALSE;
    /* paused for any other reason, it was not us, or not us alone */
    return state != VIR_DOMAIN_PAUSED || reason != VIR_DOMAIN_PAUSED_USER ||
           vmr_hv_resume(mirror->dom, wait, error);
}

/* Whether what was wrong ends when others give something back: descriptors, threads,
 * memory, the domain's own lock. */
static gboolean
is_shortage(const GError *error)
{
    const VmrErrorDetail *detail = vmr_error_get_detail(error);

    return g_error_matches(error, VMR_ERROR, VMR_ERROR_IO) ||
           (detail && (detail->virt_code == VIR_ERR_SYSTEM_ERROR ||
                       detail->virt_code == VIR_ERR_NO_MEMORY ||
                       detail->virt_code == VIR_ERR_OPERATION_TIMEOUT));
}

typedef gboolean (*Attempt)(VmrMirror *mirror, const VmrWait *wait,
                            GError **error);

/* Try @attempt until it succeeds or there is no point in it any more. */
static gboolean
persist(VmrMirror *mirror, Attempt attempt, const VmrWait *wait, GError **error)
{
    int step_ms = FIRST_STEP;

    for (int n = 1;; n++) {
        g_autoptr(GError) local = NULL;
        gboolean unused;

        if (attempt(mirror, wait, &local))
            return TRUE;
        if (vmr_error_is_unknown(local) ||
            (n >= ATTEMPTS && !is_shortage(local)) ||
            !vmr_wait_fd(wait, -1, step_ms, &unused, NULL)) {
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
        step_ms = MIN(2 * step_ms, MAX_STEP);
    }
}

static gboolean
try_save(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    return vmr_journal_save(mirror->dom, mirror->record, wait, error);
}

gboolean
vmr_mirror_resume_cpus(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    return !mirror->record->paused || persist(mirror, try_resume, wait, error);
}

gboolean
vmr_mirror_resume_guest(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    if (!mirror->record->paused)
        return TRUE;
    if (!vmr_mirror_resume_cpus(mirror, wait, error))
        return FALSE;
    mirror->record->paused = FALSE;
    return persist(mirror, try_save, wait, error);
}
