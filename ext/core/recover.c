/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "recover.h"

#include "error.h"
#include "journal.h"
#include "mirror_priv.h"

/* How often to look again: each look either acts or waits for a job to end. */
#define MAX_LOOKS 600
#define LOOK_STEP 100 /* ms */

/* libvirt hears of a job's end after QEMU, and QEMU drops its locks after that: a
 * bad verdict counts when it is still the same after so many looks. */
#define BAD_LOOKS 10

typedef struct {
    VmrHv *hv;
    virDomainPtr dom;
    VmrPolicy policy;
    VmrInspection *now;
    VmrMirror *mirror;
    VmrGuard *guard; /* NULL until something is found */
    VmrRecovery *recovery;
    VmrVerdict bad; /* the bad verdict of the last look, or NOTHING */
    int bad_looks;  /* so many in a row had it */
} Recover;

/* What came of acting on one look. */
typedef enum {
    STEP_AGAIN,  /* something was done or is under way: look again */
    STEP_END,    /* nothing more to do */
    STEP_FAILED, /* the error is set */
} Step;

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

static void G_GNUC_PRINTF(2, 3)
tell(GPtrArray *lines, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(lines, g_strdup_vprintf(format, args));
    va_end(args);
}

static Step
step_of(gboolean ok)
{
    return ok ? STEP_AGAIN : STEP_FAILED;
}

static void
tell_leftovers(Recover *what)
{
    const GPtrArray *leftovers = vmr_mirror_get_leftovers(what->mirror);

    for (guint i = 0; i < leftovers->len; i++)
        tell(what->recovery->left,
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
resume_after(Recover *what, const VmrWait *wait, GError **failure)
{
    VmrWait cleanup = vmr_wait_for_cleanup(wait);
    g_autoptr(GError) local = NULL;

    if (!vmr_mirror_resume_guest(what->mirror, &cleanup, &local))
        vmr_error_note(failure, "resuming the guest failed, too: %s",
                       local->message);
}

static Step
do_pivot(Recover *what, const VmrWait *wait, GError **error)
{
    gboolean fresh = what->now->verdict != VMR_VERDICT_PIVOTED;

    /* the overlay may be open still, in a QEMU that does not use it */
    what->mirror->leaked = has_asked(what->now);
    if (fresh && !vmr_mirror_wait_ready(what->mirror, wait, error))
        return STEP_FAILED;
    if (!vmr_mirror_pivot(what->mirror, wait, error)) {
        /* what was not pivoted is mirrored still: the guest need not stand */
        if (!vmr_error_is_unknown(*error))
            resume_after(what, wait, error);
        return STEP_FAILED;
    }
    tell(what->recovery->done,
         fresh ? "pivoted to the mirrors"
               : "removed the records of the pivot that had been made");
    tell_leftovers(what);
    return STEP_AGAIN;
}

static Step
do_abort(Recover *what, const VmrWait *wait, GError **error)
{
    what->mirror->leaked = what->now->verdict >= VMR_VERDICT_LEAKED;
    if (!vmr_mirror_abort(what->mirror, wait, error))
        return STEP_FAILED;
    tell(what->recovery->done, "ended the mirrors: the guest goes on with the "
         "overlays");
    tell_leftovers(what);
    return STEP_AGAIN;
}

/* Tell of a file that was to be made, and is there, but is not known to be the
 * one that was made: its maker died before it could say so. */
static void
tell_unknown(Recover *what, const VmrFile *file)
{
    if (file->created && file->ino == 0 &&
        g_file_test(file->path, G_FILE_TEST_EXISTS))
        tell(what->recovery->left,
             "'%s' may have been made for the mirrored snapshot, and is left: "
             "remove it if nobody else has made it",
             file->path);
}

static Step
do_undo(Recover *what, const VmrWait *wait, GError **error)
{
    const GPtrArray *disks = what->now->record->disks;

    if (!vmr_mirror_undo_create(what->mirror, wait, error))
        return STEP_FAILED;
    tell(what->recovery->done,
         "undid the creation that had been broken off");
    tell_leftovers(what);
    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);

        tell_unknown(what, disk->overlay);
        tell_unknown(what, disk->mirror);
    }
    return STEP_AGAIN;
}

/* The guest was suspended by us, for a pivot that did not begin. */
static Step
do_go_on(Recover *what, const VmrWait *wait, GError **error)
{
    if (what->now->record->paused) {
        if (!vmr_mirror_resume_guest(what->mirror, wait, error))
            return STEP_FAILED;
        tell(what->recovery->done, "resumed the guest");
    }
    return STEP_END;
}

/* A job that is just ending, or a disk on its way back: wait or end that. */
static Step
do_settle(Recover *what, gboolean *settled, const VmrWait *wait,
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
        return STEP_AGAIN;
    return step_of(vmr_wait_fd(wait, -1, LOOK_STEP, &unused, error));
}

static Step
do_cut_over(Recover *what, const VmrWait *wait, GError **error)
{
    gboolean settled;
    Step step = do_settle(what, &settled, wait, error);

    if (!settled || step != STEP_AGAIN)
        return step;
    return what->policy == VMR_POLICY_ABORT ? do_abort(what, wait, error)
                                            : do_pivot(what, wait, error);
}

/* The next start of @disk is to use the file that QEMU writes to now. */
static gboolean
save_truth_of(Recover *what, const VmrDiskInspection *disk, VmrDisk *record,
              const VmrWait *wait, GError **error)
{
    const VmrFile *written = vmr_disk_inspection_written(disk);

    record->state = written == disk->disk->mirror ? VMR_DISK_STATE_PIVOTED
                                                  : VMR_DISK_STATE_ABORTED;
    if (!what->now->persistent ||
        g_strcmp0(disk->persistent, written->path) == 0)
        return TRUE;
    if (!vmr_live_set_source(what->mirror->dom, record->target, written->path,
                             written->format, wait, error))
        return FALSE;
    tell(what->recovery->done,
         "set '%s' as the source of disk '%s' in the persistent definition, "
         "since QEMU writes to it",
         written->path, record->target);
    return TRUE;
}

/* The same for all disks; *@clear tells whether it is known of all of them. */
static gboolean
save_truth(Recover *what, gboolean *clear, const VmrWait *wait,
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
            tell(what->recovery->left,
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
static Step
do_save_truth(Recover *what, const VmrWait *wait, GError **error)
{
    gboolean clear;

    if (!save_truth(what, &clear, wait, error))
        return STEP_FAILED;
    for (guint i = 0; i < what->now->disks->len; i++) {
        const VmrDiskInspection *disk =
            g_ptr_array_index(what->now->disks, i);
        const VmrFile *written = vmr_disk_inspection_written(disk);

        if (written)
            tell(what->recovery->left,
                 "disk '%s': the guest writes to '%s', which libvirt does not "
                 "know: shut it down and start it %s when its owner agrees, "
                 "then recover again",
                 disk->disk->target, written->path,
                 what->now->persistent ? "again" : "anew from that file");
    }
    return clear ? do_go_on(what, wait, error) : STEP_END;
}

/* A QEMU that libvirt knows nothing of. With the definition on the file that it
 * writes to, its lock on that keeps a second one from starting. */
static Step
do_lost(Recover *what, const VmrWait *wait, GError **error)
{
    gboolean clear;

    if (!save_truth(what, &clear, wait, error))
        return STEP_FAILED;
    tell(what->recovery->left, "%s", vmr_verdict_advice(VMR_VERDICT_LOST));
    return STEP_END;
}

/* Which side the next start will use, as the record of @disk is to say it;
 * FALSE when it cannot be told whether that is the newer one. */
static gboolean
decide_off(const VmrRecord *record, const VmrDiskInspection *one,
           VmrDiskState *state)
{
    const VmrDisk *disk = one->disk;

    if (g_strcmp0(one->persistent, disk->mirror->path) == 0) {
        *state = VMR_DISK_STATE_PIVOTED;
        return TRUE;
    }
    if (g_strcmp0(one->persistent, disk->overlay->path) == 0) {
        *state = VMR_DISK_STATE_ABORTED;
        /* with the guest suspended both sides have the same content; without,
         * QEMU may have pivoted and written to the mirror before it died */
        return disk->state != VMR_DISK_STATE_PIVOTING || record->paused;
    }
    if (g_strcmp0(one->persistent, disk->source->path) == 0) {
        *state = VMR_DISK_STATE_PLANNED;
        return record->state == VMR_STATE_CREATING;
    }
    return FALSE;
}

static Step
do_off(Recover *what, const VmrWait *wait, GError **error)
{
    VmrRecord *record = what->mirror->record;

    for (guint i = 0; i < what->now->disks->len; i++) {
        const VmrDiskInspection *one = g_ptr_array_index(what->now->disks, i);
        VmrDisk *disk = g_ptr_array_index(record->disks, i);
        VmrDiskState state = VMR_DISK_STATE_FAILED;

        if (!decide_off(what->now->record, one, &state)) {
            tell(what->recovery->left,
                 "disk '%s': the domain would start from '%s', but QEMU may "
                 "have written to '%s' last: compare them before it is "
                 "started, nothing was removed",
                 disk->target, one->persistent ? one->persistent : "nothing",
                 disk->state == VMR_DISK_STATE_PIVOTING ? disk->mirror->path
                                                        : disk->overlay->path);
            return STEP_END;
        }
        disk->state = state;
    }
    record->paused = FALSE; /* there is no guest to be resumed */
    if (!vmr_mirror_finish(what->mirror, wait, error))
        return STEP_FAILED;
    tell(what->recovery->done,
         "removed the records: the domain can be started");
    tell_leftovers(what);
    return STEP_AGAIN;
}

static Step
do_running(Recover *what, const VmrWait *wait, GError **error)
{
    switch (what->policy) {
    case VMR_POLICY_RESUME:
        return do_go_on(what, wait, error);
    case VMR_POLICY_ABORT:
        return do_abort(what, wait, error);
    case VMR_POLICY_PIVOT:
        return do_pivot(what, wait, error);
    case VMR_POLICY_LAST:
        break;
    }
    g_return_val_if_reached(STEP_END);
}

static Step
act(Recover *what, const VmrWait *wait, GError **error)
{
    switch (what->now->verdict) {
    case VMR_VERDICT_READY:
    case VMR_VERDICT_MIRRORING:
        return do_running(what, wait, error);
    case VMR_VERDICT_PIVOTED:
        return do_pivot(what, wait, error);
    case VMR_VERDICT_ABORTED:
    case VMR_VERDICT_LEAKED:
    case VMR_VERDICT_ORPHANED:
        return do_abort(what, wait, error);
    case VMR_VERDICT_CREATING:
        return do_undo(what, wait, error);
    case VMR_VERDICT_CUT_OVER:
        return do_cut_over(what, wait, error);
    case VMR_VERDICT_OFF:
        return do_off(what, wait, error);
    case VMR_VERDICT_STUCK:
    case VMR_VERDICT_LYING:
        return do_save_truth(what, wait, error);
    case VMR_VERDICT_LOST:
        return do_lost(what, wait, error);
    case VMR_VERDICT_FOREIGN:
        tell(what->recovery->left, "%s",
             vmr_verdict_advice(what->now->verdict));
        return STEP_END;
    case VMR_VERDICT_NOTHING:
    case VMR_VERDICT_LAST:
        break;
    }
    return STEP_END;
}

/* Whether the verdict is a bad one that may pass. */
static gboolean
may_pass(Recover *what, VmrVerdict verdict)
{
    if (verdict < VMR_VERDICT_LEAKED) {
        what->bad = VMR_VERDICT_NOTHING;
        return FALSE;
    }
    what->bad_looks = verdict == what->bad ? what->bad_looks + 1 : 1;
    what->bad = verdict;
    return what->bad_looks < BAD_LOOKS;
}

/* One look, and what it calls for. */
static Step
look_and_act(Recover *what, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrInspection) now =
        vmr_inspect(what->hv, what->dom, wait, error);
    g_autoptr(VmrMirror) mirror = NULL;
    Step step;

    if (!now)
        return STEP_FAILED;
    what->recovery->verdict = now->verdict;
    if (now->verdict == VMR_VERDICT_NOTHING)
        return STEP_END;
    if (!what->guard) {
        /* whoever had it until now may have changed what was found */
        what->guard = vmr_guard_take(now->record->uuid, error);
        return step_of(what->guard != NULL);
    }
    if (may_pass(what, now->verdict)) {
        gboolean unused;

        return step_of(vmr_wait_fd(wait, -1, LOOK_STEP, &unused, error));
    }
    mirror = vmr_mirror_open(what->hv, what->dom, NULL, wait, error);
    if (!mirror)
        return STEP_FAILED;
    mirror->guarded = TRUE;
    what->now = now;
    what->mirror = mirror;
    step = act(what, wait, error);
    what->now = NULL;
    what->mirror = NULL;
    return step;
}

VmrRecovery *
vmr_recover(VmrHv *hv, virDomainPtr dom, VmrPolicy policy, const VmrWait *wait,
            GError **error)
{
    g_autoptr(VmrRecovery) recovery = g_new0(VmrRecovery, 1);
    Recover what = {
        .hv = hv, .dom = dom, .policy = policy, .recovery = recovery};
    Step step = STEP_AGAIN;

    recovery->done = g_ptr_array_new_with_free_func(g_free);
    recovery->left = g_ptr_array_new_with_free_func(g_free);
    for (int look = 0; step == STEP_AGAIN && look < MAX_LOOKS; look++) {
        step = look_and_act(&what, wait, error);
        if (look == 0)
            recovery->found = recovery->verdict;
    }
    vmr_guard_release(what.guard);
    if (step == STEP_FAILED) {
        vmr_error_annotate(error, NULL, "recover");
        return NULL;
    }
    return g_steal_pointer(&recovery);
}
