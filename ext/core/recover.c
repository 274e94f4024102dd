/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "recover.h"

#include <sys/stat.h>

#include "blockjob.h"
#include "error.h"
#include "recover_priv.h"
#include "throttle.h"

/* How often to look again: each look either acts or waits for a job to end. */
#define MAX_LOOKS 600

/* libvirt hears of a job's end after QEMU, and QEMU drops its locks after that: a
 * bad verdict counts when it is still the same after so many looks. */
#define BAD_LOOKS 10

/* Seconds between the last writes to two files that tell nothing: mirrors lag, and
 * who resumes a guest that was left suspended takes longer. */
#define ONE_AGE 5

gboolean
vmr_policy_parse(const char *name, VmrPolicy *policy, GError **error)
{
    static const char *const names[VMR_POLICY_LAST] = {
        [VMR_POLICY_RESUME] = "resume",
        [VMR_POLICY_ABORT] = "abort",
        [VMR_POLICY_PIVOT] = "pivot",
    };

    for (guint i = 0; i < VMR_POLICY_LAST; i++) {
        if (g_strcmp0(name, names[i]) == 0) {
            *policy = i;
            return TRUE;
        }
    }
    g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                "policy must be 'resume', 'abort' or 'pivot'");
    return FALSE;
}

void
vmr_recovery_free(VmrRecovery *recovery)
{
    if (!recovery)
        return;
    g_ptr_array_unref(recovery->done);
    g_ptr_array_unref(recovery->left);
    g_free(recovery);
}

void
vmr_recover_tell(GPtrArray *lines, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(lines, g_strdup_vprintf(format, args));
    va_end(args);
}

static VmrStep
step_of(gboolean ok)
{
    return ok ? VMR_STEP_AGAIN : VMR_STEP_FAILED;
}

static void
tell_leftovers(VmrRecover *what)
{
    const GPtrArray *leftovers = vmr_mirror_get_leftovers(what->mirror);

    for (guint i = 0; i < leftovers->len; i++)
        vmr_recover_tell(
            what->recovery->left,
            "'%s' is not needed any more, but could not be removed: look at it "
            "and remove it when the guest was restarted",
            (const char *)g_ptr_array_index(leftovers, i));
}

/* Whether some disk has both sides open, though only one is in use. */
static gboolean
has_asked(const VmrInspection *now)
{
    for (guint i = 0; i < now->disks->len; i++) {
        const VmrDiskInspection *disk = g_ptr_array_index(now->disks, i);

        if (disk->used)
            return TRUE;
    }
    return FALSE;
}

/* After *@failure, which is told of it. */
static void
resume_after(VmrRecover *what, const VmrWait *wait, GError **failure)
{
    VmrWait cleanup = vmr_wait_for_cleanup(wait);
    g_autoptr(GError) local = NULL;

    if (!vmr_mirror_resume_guest(what->mirror, &cleanup, &local))
        vmr_error_note(failure, "resuming the guest failed, too: %s",
                       local->message);
}

/* Nothing is lost, and nothing but an abort is possible; that is not what was
 * asked for, so it is not done. */
static VmrStep
tell_blocked(VmrRecover *what)
{
    vmr_recover_tell(what->recovery->left,
                     "a pivot that failed has left layers of the mirror open "
                     "in QEMU, and no other one can get past them: recover "
                     "with 'abort', and mirror to files of other names");
    return VMR_STEP_END;
}

static VmrStep
do_pivot(VmrRecover *what, const VmrWait *wait, GError **error)
{
    gboolean fresh = what->now->verdict != VMR_VERDICT_PIVOTED;
    g_autoptr(GError) local = NULL;

    /* the overlay may be open still, in a QEMU that does not use it */
    what->mirror->leaked = has_asked(what->now);
    if ((fresh && !vmr_mirror_wait_ready(what->mirror, wait, &local)) ||
        !vmr_mirror_pivot(what->mirror, wait, &local)) {
        /* what was not pivoted is mirrored still: the guest need not stand */
        if (!vmr_error_is_unknown(local))
            resume_after(what, wait, &local);
        if (what->mirror->blocked)
            return tell_blocked(what);
        g_propagate_error(error, g_steal_pointer(&local));
        return VMR_STEP_FAILED;
    }
    vmr_recover_tell(what->recovery->done,
                     fresh ? "pivoted to the mirrors"
                     : "removed the records of the pivot that had been made");
    tell_leftovers(what);
    return VMR_STEP_AGAIN;
}

static gboolean
has_pivoted(const VmrInspection *now)
{
    for (guint i = 0; i < now->disks->len; i++) {
        const VmrDiskInspection *disk = g_ptr_array_index(now->disks, i);

        if (disk->truth == VMR_TRUTH_PIVOTED)
            return TRUE;
    }
    return FALSE;
}

static VmrStep
do_abort(VmrRecover *what, const VmrWait *wait, GError **error)
{
    VmrCutOver how = {.pause_budget = VMR_PAUSE_BUDGET,
                      .throttle = vmr_throttle_is_on(what->mirror)};

    what->mirror->leaked = what->now->verdict >= VMR_VERDICT_LEAKED;
    if (!vmr_mirror_abort(what->mirror, &how, wait, error))
        return VMR_STEP_FAILED;
    vmr_recover_tell(what->recovery->done,
                     "ended the mirrors: the guest goes on with the overlays%s",
                     has_pivoted(what->now)
                         ? ", and with the mirrors of disks that had been pivoted"
                         : "");
    tell_leftovers(what);
    return VMR_STEP_AGAIN;
}

/* Tell of a file that was to be made, and is there, but is not known to be the
 * one that was made: its maker died before it could say so. */
static void
tell_unknown(VmrRecover *what, const VmrFile *file)
{
    if (file->created && file->ino == 0 &&
        g_file_test(file->path, G_FILE_TEST_EXISTS))
        vmr_recover_tell(
            what->recovery->left,
            "'%s' may have been made for the mirrored snapshot, and is left: "
            "remove it if nobody else has made it",
            file->path);
}

static VmrStep
do_undo(VmrRecover *what, const VmrWait *wait, GError **error)
{
    const GPtrArray *disks = what->now->record->disks;

    if (!vmr_mirror_undo_create(what->mirror, wait, error))
        return VMR_STEP_FAILED;
    vmr_recover_tell(what->recovery->done,
                     "undid the creation that had been broken off");
    tell_leftovers(what);
    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);

        tell_unknown(what, disk->overlay);
        tell_unknown(what, disk->mirror);
    }
    return VMR_STEP_AGAIN;
}

/* A job that is just ending, or a disk on its way back: wait or end that. */
static VmrStep
do_settle(VmrRecover *what, gboolean *settled, const VmrWait *wait,
          GError **error)
{
    gboolean unused;

    *settled = TRUE;
    for (guint i = 0; i < what->now->disks->len; i++) {
        const VmrDiskInspection *disk =
            g_ptr_array_index(what->now->disks, i);

        if (disk->truth == VMR_TRUTH_RETURNING) {
            *settled = FALSE;
            return step_of(vmr_mirror_abort_return(what->mirror, disk->disk,
                                                   wait, error));
        }
        if (disk->truth == VMR_TRUTH_ENDING)
            *settled = FALSE;
    }
    if (*settled)
        return VMR_STEP_AGAIN;
    return step_of(vmr_wait_fd(wait, -1, VMR_RECOVER_LOOK_STEP, &unused, error));
}

/* Whether some disk can still be pivoted. */
static gboolean
has_mirror(const VmrInspection *now)
{
    for (guint i = 0; i < now->disks->len; i++) {
        const VmrDiskInspection *disk = g_ptr_array_index(now->disks, i);

        if (disk->truth == VMR_TRUTH_READY ||
            disk->truth == VMR_TRUTH_MIRRORING)
            return TRUE;
    }
    return FALSE;
}

static VmrStep
do_cut_over(VmrRecover *what, const VmrWait *wait, GError **error)
{
    gboolean settled;
    VmrStep step = do_settle(what, &settled, wait, error);

    if (!settled || step != VMR_STEP_AGAIN)
        return step;
    return what->policy == VMR_POLICY_ABORT || !has_mirror(what->now)
               ? do_abort(what, wait, error)
               : do_pivot(what, wait, error);
}

/* A copy back to the overlay that QEMU has and libvirt does not know of: as
 * libvirt was about to start it, nothing is on its way to the overlay that the
 * mirror has not. Others are ended with all that is to be aborted. */
static VmrStep
do_orphaned(VmrRecover *what, const VmrWait *wait, GError **error)
{
    gboolean unused;
    gboolean ended = FALSE;

    for (guint i = 0; i < what->now->disks->len; i++) {
        const VmrDiskInspection *disk = g_ptr_array_index(what->now->disks, i);

        if (disk->truth != VMR_TRUTH_PIVOTED || !disk->copying)
            continue;
        if (!vmr_blockjob_end(what->mirror->dom, disk->disk->target,
                              VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC, wait,
                              error))
            return VMR_STEP_FAILED;
        ended = TRUE;
    }
    if (!ended)
        return do_abort(what, wait, error);
    vmr_recover_tell(what->recovery->done, "ended a copy from the mirror back "
                     "to the overlay, which had just begun");
    return step_of(vmr_wait_fd(wait, -1, VMR_RECOVER_LOOK_STEP, &unused,
                               error));
}

/* Whether both sides of @disk were written to last at the same time. */
static gboolean
are_of_one_age(const VmrDisk *disk)
{
    struct stat overlay;
    struct stat mirror;

    return stat(disk->overlay->path, &overlay) == 0 &&
           stat(disk->mirror->path, &mirror) == 0 &&
           S_ISREG(overlay.st_mode) && S_ISREG(mirror.st_mode) &&
           ABS(overlay.st_mtim.tv_sec - mirror.st_mtim.tv_sec) <= ONE_AGE;
}

/* Which side the next start will use, as the record of @disk is to say it;
 * FALSE when it cannot be told whether that is the newer one. */
static gboolean
decide_off(const VmrRecord *record, const VmrDiskInspection *one,
           VmrDiskState *state)
{
    const VmrDisk *disk = one->disk;
    /* with the guest suspended both sides have the same content; otherwise QEMU
     * may have gone to the other side, and written there, before it died. Somebody
     * may have resumed the guest since: that side is then the younger one */
    gboolean equal = record->paused && are_of_one_age(disk);

    if (g_strcmp0(one->persistent, disk->mirror->path) == 0) {
        *state = VMR_DISK_STATE_PIVOTED;
        return equal || (disk->state != VMR_DISK_STATE_ABORTING &&
                         disk->state != VMR_DISK_STATE_ABORTED);
    }
    if (g_strcmp0(one->persistent, disk->overlay->path) == 0) {
        *state = VMR_DISK_STATE_ABORTED;
        return equal || (disk->state != VMR_DISK_STATE_PIVOTING &&
                         disk->state != VMR_DISK_STATE_PIVOTED);
    }
    if (g_strcmp0(one->persistent, disk->source->path) == 0) {
        *state = VMR_DISK_STATE_PLANNED;
        return record->state == VMR_STATE_CREATING;
    }
    return FALSE;
}

static VmrStep
do_off(VmrRecover *what, const VmrWait *wait, GError **error)
{
    VmrRecord *record = what->mirror->record;

    for (guint i = 0; i < what->now->disks->len; i++) {
        const VmrDiskInspection *one = g_ptr_array_index(what->now->disks, i);
        VmrDisk *disk = g_ptr_array_index(record->disks, i);
        VmrDiskState state = VMR_DISK_STATE_FAILED;

        if (!decide_off(what->now->record, one, &state)) {
            vmr_recover_tell(
                what->recovery->left,
                "disk '%s': the domain would start from '%s', but QEMU may "
                "have written to '%s' last: compare them before it is "
                "started, nothing was removed",
                disk->target, one->persistent ? one->persistent : "nothing",
                state == VMR_DISK_STATE_ABORTED ? disk->mirror->path
                                                : disk->overlay->path);
            return VMR_STEP_END;
        }
        disk->state = state;
    }
    record->paused = FALSE; /* there is no guest to be resumed, or held back */
    vmr_throttle_forget(what->mirror);
    if (!vmr_mirror_finish(what->mirror, wait, error))
        return VMR_STEP_FAILED;
    vmr_recover_tell(what->recovery->done,
                     "removed the records: the domain can be started");
    tell_leftovers(what);
    return VMR_STEP_AGAIN;
}

static VmrStep
do_running(VmrRecover *what, const VmrWait *wait, GError **error)
{
    switch (what->policy) {
    case VMR_POLICY_RESUME:
        return vmr_recover_go_on(what, wait, error);
    case VMR_POLICY_ABORT:
        return do_abort(what, wait, error);
    case VMR_POLICY_PIVOT:
        return do_pivot(what, wait, error);
    case VMR_POLICY_LAST:
        break;
    }
    g_return_val_if_reached(VMR_STEP_END);
}

static VmrStep
act(VmrRecover *what, const VmrWait *wait, GError **error)
{
    switch (what->now->verdict) {
    case VMR_VERDICT_READY:
    case VMR_VERDICT_MIRRORING:
        return do_running(what, wait, error);
    case VMR_VERDICT_PIVOTED:
        return do_pivot(what, wait, error);
    case VMR_VERDICT_ABORTED:
    case VMR_VERDICT_LEAKED:
        return do_abort(what, wait, error);
    case VMR_VERDICT_ORPHANED:
        return do_orphaned(what, wait, error);
    case VMR_VERDICT_CREATING:
    case VMR_VERDICT_HIDDEN: /* it was being undone */
        return do_undo(what, wait, error);
    case VMR_VERDICT_CUT_OVER:
        return do_cut_over(what, wait, error);
    case VMR_VERDICT_OFF:
        return do_off(what, wait, error);
    case VMR_VERDICT_STUCK:
    case VMR_VERDICT_LYING:
        return vmr_recover_save_truth(what, wait, error);
    case VMR_VERDICT_LOST:
        return vmr_recover_lost(what, wait, error);
    case VMR_VERDICT_FOREIGN:
        vmr_recover_tell(what->recovery->left, "%s",
                         vmr_verdict_advice(what->now->verdict));
        return VMR_STEP_END;
    case VMR_VERDICT_NOTHING:
    case VMR_VERDICT_LAST:
        break;
    }
    return VMR_STEP_END;
}

/* Whether what was found is bad, and may pass. */
static gboolean
may_pass(VmrRecover *what, const VmrInspection *now)
{
    VmrVerdict verdict = now->verdict;

    if (verdict < VMR_VERDICT_LEAKED && !vmr_recover_is_behind(now)) {
        what->bad = VMR_VERDICT_NOTHING;
        return FALSE;
    }
    what->bad_looks = verdict == what->bad ? what->bad_looks + 1 : 1;
    what->bad = verdict;
    return what->bad_looks < BAD_LOOKS;
}

/* One look, and what it calls for. */
static VmrStep
look_and_act(VmrRecover *what, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrInspection) now =
        vmr_inspect(what->hv, what->dom, wait, error);
    g_autoptr(VmrMirror) mirror = NULL;
    VmrStep step;

    if (!now)
        return VMR_STEP_FAILED;
    what->recovery->verdict = now->verdict;
    if (now->verdict == VMR_VERDICT_NOTHING)
        return VMR_STEP_END;
    if (!what->guard) {
        /* whoever had it until now may have changed what was found */
        what->guard = vmr_guard_take(now->uuid, error);
        return step_of(what->guard != NULL);
    }
    if (may_pass(what, now)) {
        gboolean unused;

        return step_of(vmr_wait_fd(wait, -1, VMR_RECOVER_LOOK_STEP, &unused, error));
    }
    if (!now->record)
        return vmr_recover_hidden(what, now->commits, wait, error);
    mirror = vmr_mirror_open(what->hv, what->dom, NULL, wait, error);
    if (!mirror)
        return VMR_STEP_FAILED;
    mirror->guarded = TRUE;
    what->now = now;
    what->mirror = mirror;
    step = vmr_recover_is_behind(now) ? vmr_recover_catch_up(what, wait, error)
                                      : act(what, wait, error);
    what->now = NULL;
    what->mirror = NULL;
    return step;
}

VmrRecovery *
vmr_recover(VmrHv *hv, virDomainPtr dom, VmrPolicy policy, const VmrWait *wait,
            GError **error)
{
    g_autoptr(VmrRecovery) recovery = g_new0(VmrRecovery, 1);
    VmrRecover what = {
        .hv = hv, .dom = dom, .policy = policy, .recovery = recovery};
    VmrStep step = VMR_STEP_AGAIN;

    recovery->done = g_ptr_array_new_with_free_func(g_free);
    recovery->left = g_ptr_array_new_with_free_func(g_free);
    for (int look = 0; step == VMR_STEP_AGAIN && look < MAX_LOOKS; look++) {
        step = look_and_act(&what, wait, error);
        if (look == 0)
            recovery->found = recovery->verdict;
    }
    vmr_guard_release(what.guard);
    if (step == VMR_STEP_FAILED) {
        vmr_error_annotate(error, NULL, "recover");
        return NULL;
    }
    return g_steal_pointer(&recovery);
}
