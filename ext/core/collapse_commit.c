/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Committing the top of a disk. What is done next is decided by one look at a time:
 * someone who died may have begun it, libvirt may not show it, and it may end between
 * two calls. */

#include <libvirt/virterror.h>
#include <string.h>

#include "collapse.h"
#include "collapse_priv.h"
#include "error.h"
#include "job.h"
#include "live.h"
#include "lockprobe.h"

typedef struct {
    const VmrDomain *dom;
    const char *target;
    const char *top;     /* to be committed, and not in use afterwards */
    const char *below;   /* the top then, */
    const char *format;  /* of this format */
    GPtrArray *expected; /* the chain then, as for vmr_collapse_expect() */
    gboolean begun;      /* a job was started, or seen */
    gboolean stuck;      /* libvirt shows a job that QEMU has not */
    GError *refused;     /* what libvirt said to the last pivot, or NULL */
} Commit;

/* How far it is. */
typedef enum {
    STAGE_IDLE,   /* the disk is on the top, and no commit runs */
    STAGE_RUNS,   /* a commit runs, or is just being ended */
    STAGE_READY,  /* both layers are the same: it is to be pivoted */
    STAGE_HIDDEN, /* a commit runs, ready or not, and libvirt does not show it */
    STAGE_ENDED,  /* the disk is on the layer below, and no job runs */
    STAGE_UNCLEAR /* libvirt and QEMU do not agree, which may pass */
} Stage;

/* What cannot be told is taken for a layer that may be in use. */
static gboolean
is_free(const char *path)
{
    VmrLock lock;

    return vmr_lock_probe(path, &lock, NULL) && lock == VMR_LOCK_FREE;
}

static Stage
stage_of_mirror(const Commit *commit, const VmrBlockJob *job)
{
    const VmrDomDisk *disk = job->disk;

    if (!job->active || vmr_domdisk_job_has_ended(disk))
        return STAGE_UNCLEAR;
    /* libvirt refuses to start another one, and says why */
    if (g_strcmp0(disk->mirror_job, "active-commit") != 0 ||
        g_strcmp0(disk->mirror->path, commit->below) != 0)
        return STAGE_IDLE;
    return disk->ready == VMR_READY_YES ? STAGE_READY : STAGE_RUNS;
}

static Stage
stage_of(const Commit *commit, const VmrBlockJob *job)
{
    if (job->disk->mirror)
        return stage_of_mirror(commit, job);
    /* QEMU writes to the layer that it commits into */
    if (job->hidden)
        return job->info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT &&
                       !is_free(commit->below)
                   ? STAGE_HIDDEN
                   : STAGE_IDLE;
    if (!job->active && vmr_collapse_is(job->disk, commit->expected))
        return STAGE_ENDED;
    return g_strcmp0(vmr_domdisk_source(job->disk), commit->top) == 0
               ? STAGE_IDLE
               : STAGE_UNCLEAR;
}

/* A commit whose end libvirt missed (it died just then) leaves QEMU writing to
 * the lower layer. Nothing can tell libvirt so, while the guest runs; what is in
 * the upper one is old by now, and must not be started from. */
static gboolean
save_missed_end(const Commit *commit, const VmrWait *wait, GError **error)
{
    gboolean persistent;

    if (!vmr_hv_is_persistent(commit->dom, &persistent, wait, error) ||
        (persistent &&
         !vmr_live_set_source(commit->dom, commit->target, commit->below,
                              commit->format, wait, error)))
        return FALSE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s': the guest writes to '%s', which libvirt does not "
                "know: shut it down and start it %s when its owner agrees",
                commit->target, commit->below,
                persistent ? "again, which will use that file"
                           : "anew from that file");
    return FALSE;
}

/* Ask QEMU which of the two layers it uses, which has both open: a libvirt that dies
 * after a pivot may not have had it close the top. */
static gboolean
ask_qemu(const Commit *commit, gboolean *is_below, const VmrWait *wait,
         GError **error)
{
    g_autofree char *info = NULL;
    gboolean is_top;

    if (!vmr_hv_query_block(commit->dom, &info, wait, error))
        return FALSE;
    is_top = vmr_live_names_file(info, commit->top);
    *is_below = vmr_live_names_file(info, commit->below);
    if (is_top != *is_below)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s': cannot tell which of '%s' and '%s' QEMU writes to: "
                "look at the running QEMU before it is ended",
                commit->target, commit->top, commit->below);
    return FALSE;
}

/* While no commit runs, QEMU must write to the layer that is the top by libvirt's
 * word. */
static gboolean
check_top_in_use(const Commit *commit, const VmrWait *wait, GError **error)
{
    VmrLock top;
    VmrLock below;
    gboolean is_below;

    if (!vmr_lock_probe(commit->top, &top, error) ||
        !vmr_lock_probe(commit->below, &below, error))
        return FALSE;
    is_below = top == VMR_LOCK_FREE && below == VMR_LOCK_WRITER;
    if (top == VMR_LOCK_WRITER && below == VMR_LOCK_WRITER &&
        !ask_qemu(commit, &is_below, wait, error))
        return FALSE;
    if (is_below)
        return save_missed_end(commit, wait, error);
    if (top != VMR_LOCK_FREE)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s' runs on '%s' by libvirt, but no QEMU writes to it",
                commit->target, commit->top);
    return FALSE;
}

/* How long QEMU may take to let go of a job that has failed: on a busy machine some
 * seconds. */
#define LET_GO_TIME (30 * G_TIME_SPAN_SECOND)

/* A job that has just failed may have a node of its own above the top still, which
 * QEMU then takes for no top. */
static gboolean
start(gpointer data, const VmrWait *wait, GError **error)
{
    const Commit *commit = data;
    g_autoptr(GError) local = NULL;

    if (vmr_hv_block_commit(commit->dom, commit->target, NULL, NULL,
                            VIR_DOMAIN_BLOCK_COMMIT_SHALLOW |
                                VIR_DOMAIN_BLOCK_COMMIT_ACTIVE,
                            wait, &local))
        return TRUE;
    if (strstr(local->message, "Need a root block node"))
        g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                    "QEMU has not let go of an earlier block job of disk '%s'",
                    commit->target);
    else
        g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

static gboolean
begin(Commit *commit, const VmrWait *wait, GError **error)
{
    const gint64 last =
        MIN(wait->deadline, g_get_monotonic_time() + LET_GO_TIME);

    if (!check_top_in_use(commit, wait, error))
        return FALSE;
    while (!commit->begun) {
        g_autoptr(GError) local = NULL;

        commit->begun =
            vmr_wait_settle(wait, VMR_ERROR_BUSY, start, commit, &local);
        if (!commit->begun &&
            (!g_error_matches(local, VMR_ERROR, VMR_ERROR_BUSY) ||
             g_get_monotonic_time() >= last)) {
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
    }
    return TRUE;
}

/* Say that the guest stands still for want of space, or another error of its
 * storage, if that is so. */
static void
note_io_error(const Commit *commit, const VmrWait *wait, GError **error)
{
    int state;
    int reason;

    if (vmr_hv_get_state(commit->dom, &state, &reason, wait, NULL) &&
        state == VIR_DOMAIN_PAUSED && reason == VIR_DOMAIN_PAUSED_IOERROR)
        vmr_error_note(error, "the guest is paused for an I/O error of its own: make "
                              "room, or mend its storage, and resume it");
}

/* The job has ended, and the disk is still on the top. */
static VmrLook
tell_failed(Commit *commit, gboolean last, const VmrWait *wait, GError **error)
{
    if (!last)
        return VMR_LOOK_SETTLING;
    if (commit->refused)
        g_propagate_error(error, g_steal_pointer(&commit->refused));
    else
        g_set_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED,
                    "the commit of disk '%s' from '%s' into '%s' has ended before all was "
                    "committed: %s; the guest goes on with '%s'",
                    commit->target, commit->top, commit->below,
                    vmr_blockjob_reason(commit->below), commit->top);
    note_io_error(commit, wait, error);
    return VMR_LOOK_FAILED;
}

static VmrLook
tell_unclear(Commit *commit, gboolean last, const VmrWait *wait, GError **error)
{
    if (!last)
        return VMR_LOOK_SETTLING;
    if (!check_top_in_use(commit, wait, error))
        return VMR_LOOK_FAILED;
    if (commit->stuck)
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "disk '%s': libvirt waits for a block job that is gone, and the guest "
                    "goes on with '%s': shut it down and start it again when its owner "
                    "agrees", commit->target, commit->top);
    else
        g_set_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED,
                    "the block job of disk '%s' ended, but its chain is not as "
                    "planned; see the log of its QEMU",
                    commit->target);
    return VMR_LOOK_FAILED;
}

/* Have QEMU and libvirt go over to the layer below. What libvirt says to it counts
 * only if the next look finds the commit as it is now. */
static gboolean
pivot(Commit *commit, const VmrWait *wait, GError **error)
{
    g_clear_error(&commit->refused);
    if (vmr_blockjob_end(commit->dom, commit->target,
                         VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT, wait,
                         &commit->refused) ||
        !vmr_error_is_unknown(commit->refused))
        return TRUE;
    g_propagate_error(error, g_steal_pointer(&commit->refused));
    return FALSE;
}

/* Whether libvirt refused a pivot because the commit is not ready yet, which is all
 * that can be known of a hidden one. */
static gboolean
is_not_ready(const Commit *commit)
{
    const VmrErrorDetail *detail = vmr_error_get_detail(commit->refused);

    return detail && detail->virt_code == VIR_ERR_BLOCK_COPY_ACTIVE;
}

/* Pivot, unless that was tried on the commit as it is now. */
static VmrLook
end(Commit *commit, gboolean *again, const VmrWait *wait, GError **error)
{
    commit->begun = TRUE;
    if (!commit->refused) {
        *again = pivot(commit, wait, error);
        return *again ? VMR_LOOK_AGAIN : VMR_LOOK_FAILED;
    }
    g_propagate_error(error, g_steal_pointer(&commit->refused));
    return VMR_LOOK_FAILED;
}

/* Do what @stage calls for; *@again asks for another look at once. */
static VmrLook
act(Commit *commit, Stage stage, gboolean last, gboolean *again,
    const VmrWait *wait, GError **error)
{
    switch (stage) {
    case STAGE_ENDED:
        return VMR_LOOK_DONE;
    case STAGE_UNCLEAR:
        return tell_unclear(commit, last, wait, error);
    case STAGE_IDLE:
        if (commit->begun)
            return tell_failed(commit, last, wait, error);
        *again = begin(commit, wait, error);
        return *again ? VMR_LOOK_AGAIN : VMR_LOOK_FAILED;
    case STAGE_RUNS:
        commit->begun = TRUE;
        return VMR_LOOK_AGAIN;
    case STAGE_HIDDEN:
        if (is_not_ready(commit)) {
            g_clear_error(&commit->refused);
            return VMR_LOOK_AGAIN;
        }
        return end(commit, again, wait, error);
    case STAGE_READY:
        return end(commit, again, wait, error);
    }
    g_return_val_if_reached(VMR_LOOK_FAILED);
}

static VmrLook
go_on(gpointer data, gboolean last, const VmrWait *wait, GError **error)
{
    Commit *commit = data;
    VmrLook look;
    gboolean again;

    do {
        g_auto(VmrBlockJob) job = {0};

        again = FALSE;
        if (!vmr_blockjob_look(commit->dom, commit->target, &job, wait, error))
            return VMR_LOOK_FAILED;
        commit->stuck = job.disk->mirror && !job.active;
        look = act(commit, stage_of(commit, &job), last, &again, wait, error);
    } while (again);
    return look;
}

static gboolean
is_committed(gpointer data, const VmrWait *wait, GError **error)
{
    const Commit *commit = data;
    g_autoptr(VmrDomXml) inactive = NULL;
    const VmrDomDisk *disk;
    VmrLock top;
    VmrLock below;

    if (!vmr_live_read_inactive(commit->dom, &inactive, wait, error) ||
        !vmr_lock_probe(commit->top, &top, error) ||
        !vmr_lock_probe(commit->below, &below, error))
        return FALSE;
    disk = inactive ? vmr_domxml_find(inactive, commit->target) : NULL;
    if (inactive &&
        (!disk || g_strcmp0(vmr_domdisk_source(disk), commit->below) != 0)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "the persistent definition of disk '%s' did not follow to "
                    "'%s'", commit->target, commit->below);
        return FALSE;
    }
    if (top != VMR_LOCK_WRITER && below != VMR_LOCK_FREE)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s' was committed from '%s' into '%s', but QEMU's locks "
                "say '%s' and '%s'",
                commit->target, commit->top, commit->below, vmr_lock_name(top),
                vmr_lock_name(below));
    return FALSE;
}

static gboolean
check_top(const VmrDomDisk *disk, const char *top, GError **error)
{
    if (top && (disk->chain->len == 0 ||
                !g_str_equal(vmr_collapse_path(disk, 0), top))) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "disk '%s' does not run on '%s'", disk->target, top);
        return FALSE;
    }
    if (disk->chain->len < 2) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE,
                    "disk '%s' has no backing file to be committed into",
                    disk->target);
        return FALSE;
    }
    return TRUE;
}

/* Commit layer 0 of @disk into the layer @base, to the end. */
static gboolean
commit_into(const VmrDomain *dom, const VmrDomDisk *disk, guint base,
            gboolean begun, const VmrWait *wait, GError **error)
{
    const VmrLayer *below = g_ptr_array_index(disk->chain, base);
    g_autoptr(GPtrArray) expected = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(VmrJobs) jobs = vmr_jobs_open(dom, wait, error);
    Commit commit = {.dom = dom,
                     .target = disk->target,
                     .top = vmr_collapse_path(disk, 0),
                     .below = vmr_collapse_path(disk, base),
                     .format = below->format,
                     .expected = expected,
                     .begun = begun};
    gboolean ok;

    vmr_collapse_expect(expected, disk, base);
    ok = jobs && vmr_jobs_wait_until(jobs, go_on, &commit, wait, error) &&
         vmr_wait_settle(wait, VMR_ERROR_DIVERGED, is_committed, &commit,
                         error);
    g_clear_error(&commit.refused);
    return ok;
}

gboolean
vmr_collapse_commit(const VmrDomain *dom, const char *disk_name,
                    const char *top, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read(dom, wait, error);
    const VmrDomDisk *disk =
        live ? vmr_collapse_find(live, disk_name, error) : NULL;

    if (!disk)
        return FALSE;
    if (check_top(disk, top, error) &&
        commit_into(dom, disk, 1, FALSE, wait, error))
        return TRUE;
    vmr_error_annotate(error, disk->target, NULL);
    return FALSE;
}

/* The layer of @disk that QEMU commits into: it writes to no other one below the top.
 * 0 if there is none. */
static guint
find_base(const VmrDomDisk *disk, GError **error)
{
    for (guint i = 1; i < disk->chain->len; i++) {
        if (!is_free(vmr_collapse_path(disk, i)))
            return i;
    }
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s': QEMU commits its top layer, but writes to none of those "
                "below: shut the guest down and start it again when its owner agrees",
                disk->target);
    return 0;
}

gboolean
vmr_collapse_finish(const VmrDomain *dom, const char *target, char **path,
                    const VmrWait *wait, GError **error)
{
    g_auto(VmrBlockJob) job = {0};
    guint base;

    *path = NULL;
    if (!vmr_blockjob_look(dom, target, &job, wait, error))
        return FALSE;
    base = find_base(job.disk, error);
    if (base == 0 || !commit_into(dom, job.disk, base, TRUE, wait, error)) {
        vmr_error_annotate(error, target, NULL);
        return FALSE;
    }
    *path = g_strdup(vmr_collapse_path(job.disk, base));
    return TRUE;
}
