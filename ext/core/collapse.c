/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "collapse.h"

#include <string.h>

#include "error.h"
#include "job.h"
#include "live.h"
#include "lockprobe.h"

/* A job that shortens the chain of one disk, and what it has to lead to. */
typedef struct {
    const VmrDomain *dom;
    const char *target;
    GPtrArray *expected; /* of char *, paths of the chain to be, top first */
} Shorten;

static const char *
layer_path(const VmrDomDisk *disk, guint i)
{
    const VmrLayer *layer = g_ptr_array_index(disk->chain, i);

    return layer->path ? layer->path : "";
}

static gboolean
chain_is(const VmrDomDisk *disk, const GPtrArray *expected)
{
    if (disk->chain->len != expected->len)
        return FALSE;
    for (guint i = 0; i < expected->len; i++) {
        if (!g_str_equal(layer_path(disk, i), g_ptr_array_index(expected, i)))
            return FALSE;
    }
    return TRUE;
}

static void
expect_layers(GPtrArray *expected, const VmrDomDisk *disk, guint from)
{
    for (guint i = from; i < disk->chain->len; i++)
        g_ptr_array_add(expected, g_strdup(layer_path(disk, i)));
}

static VmrDomDisk *
find_disk(const VmrDomXml *live, const char *name, GError **error)
{
    VmrDomDisk *disk = vmr_domxml_find(live, name);

    if (!disk)
        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND,
                    "domain '%s' has no disk '%s'", live->name, name);
    return disk;
}

/* The live disk, and whether a job works on it. */
static gboolean
look_at(const Shorten *what, VmrDomXml **live, VmrDomDisk **disk,
        gboolean *active, const VmrWait *wait, GError **error)
{
    virDomainBlockJobInfo info;

    /* the job first: when it is gone, the XML read after it is final, but for
     * the moment that libvirt needs */
    if (!vmr_hv_block_job_info(what->dom, what->target, &info, active, wait,
                               error))
        return FALSE;
    *live = vmr_live_read(what->dom, wait, error);
    if (!*live)
        return FALSE;
    *disk = find_disk(*live, what->target, error);
    return *disk != NULL;
}

static VmrLook
job_lost(const Shorten *what, gboolean last, GError **error)
{
    if (!last)
        return VMR_LOOK_SETTLING;
    g_set_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED,
                "the block job of disk '%s' ended, but its chain is not as "
                "planned; see the log of its QEMU",
                what->target);
    return VMR_LOOK_FAILED;
}

static VmrLook
look_for_end(gpointer data, gboolean last, const VmrWait *wait, GError **error)
{
    const Shorten *what = data;
    g_autoptr(VmrDomXml) live = NULL;
    VmrDomDisk *disk;
    gboolean active;

    if (!look_at(what, &live, &disk, &active, wait, error))
        return VMR_LOOK_FAILED;
    if (active)
        return VMR_LOOK_AGAIN;
    if (chain_is(disk, what->expected) && !disk->mirror)
        return VMR_LOOK_DONE;
    return job_lost(what, last, error);
}

static VmrLook
look_for_ready(gpointer data, gboolean last, const VmrWait *wait,
               GError **error)
{
    const Shorten *what = data;
    g_autoptr(VmrDomXml) live = NULL;
    VmrDomDisk *disk;
    gboolean active;

    if (!look_at(what, &live, &disk, &active, wait, error))
        return VMR_LOOK_FAILED;
    if (!active || g_strcmp0(disk->mirror_job, "active-commit") != 0)
        return job_lost(what, last, error);
    return disk->ready == VMR_READY_YES ? VMR_LOOK_DONE : VMR_LOOK_AGAIN;
}

/* The index of the layer @base in the chain of @disk; 0 if there is none. */
static guint
find_layer(const VmrDomDisk *disk, const char *base)
{
    g_autofree char *wanted = g_canonicalize_filename(base, "/");

    for (guint i = 1; i < disk->chain->len; i++) {
        g_autofree char *path =
            g_canonicalize_filename(layer_path(disk, i), "/");

        if (g_str_equal(path, wanted))
            return i;
    }
    return 0;
}

/* Fill in what the chain has to become; *@base_path is libvirt's name of it. */
static gboolean
plan_pull(Shorten *what, const VmrDomDisk *disk, const char *base,
          const char **base_path, GError **error)
{
    guint index = disk->chain->len;

    *base_path = NULL;
    if (disk->chain->len == 0) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                    "disk '%s' has no medium", disk->target);
        return FALSE;
    }
    if (base) {
        index = find_layer(disk, base);
        if (index == 0) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND,
                        "'%s' is no backing file of disk '%s'", base,
                        disk->target);
            return FALSE;
        }
        *base_path = layer_path(disk, index);
    }
    g_ptr_array_add(what->expected, g_strdup(layer_path(disk, 0)));
    expect_layers(what->expected, disk, index);
    return TRUE;
}

/* Whether a pull runs already, which is then gone on with: what it comes to is
 * looked at in the end. */
static gboolean
is_pulling(const Shorten *what, gboolean *pulling, const VmrWait *wait,
           GError **error)
{
    virDomainBlockJobInfo info;
    gboolean active;

    if (!vmr_hv_block_job_info(what->dom, what->target, &info, &active, wait,
                               error))
        return FALSE;
    *pulling = active && info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_PULL;
    return TRUE;
}

gboolean
vmr_collapse_pull(const VmrDomain *dom, const char *disk_name,
                  const char *base, gulong bandwidth, gboolean start_only,
                  const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read_settled(dom, wait, error);
    g_autoptr(GPtrArray) expected = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(VmrJobs) jobs = NULL;
    Shorten what = {.dom = dom, .expected = expected};
    const char *base_path;
    VmrDomDisk *disk;
    guint flags = VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES;
    gboolean pulling = FALSE;

    if (!live)
        return FALSE;
    disk = find_disk(live, disk_name, error);
    if (!disk || !plan_pull(&what, disk, base, &base_path, error))
        return FALSE;
    what.target = disk->target;
    if (chain_is(disk, expected))
        return TRUE;
    if (base_path)
        flags |= VIR_DOMAIN_BLOCK_REBASE_RELATIVE;
    jobs = vmr_jobs_open(dom, wait, error);
    if (!jobs || (!start_only && !is_pulling(&what, &pulling, wait, error)) ||
        (!pulling && !vmr_hv_block_rebase(dom, disk->target, base_path,
                                          bandwidth, flags, wait, error)))
        return FALSE;
    return start_only ||
           vmr_jobs_wait_until(jobs, look_for_end, &what, wait, error);
}

/* Whether QEMU has the layers of a disk open as @top and @below tell; what cannot
 * be told fits. */
static gboolean
probe_pair(const char *top, const char *below, VmrLock *top_lock,
           VmrLock *below_lock, GError **error)
{
    return vmr_lock_probe(top, top_lock, error) &&
           vmr_lock_probe(below, below_lock, error);
}

/* A commit whose end libvirt missed (it died just then) leaves QEMU writing to
 * the lower layer. Nothing can tell libvirt so, while the guest runs; what is in
 * the upper one is old by now, and must not be started from. */
static gboolean
save_missed_end(const Shorten *what, const VmrDomDisk *disk,
                const VmrWait *wait, GError **error)
{
    const VmrLayer *below = g_ptr_array_index(disk->chain, 1);
    gboolean persistent;

    if (!vmr_hv_is_persistent(what->dom, &persistent, wait, error) ||
        (persistent && !vmr_live_set_source(what->dom, disk->target,
                                            below->path, below->format, wait,
                                            error)))
        return FALSE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s': the guest writes to '%s', which libvirt does not "
                "know: shut it down and start it %s when its owner agrees",
                disk->target, below->path,
                persistent ? "again, which will use that file"
                           : "anew from that file");
    return FALSE;
}

/* Before anything is done: QEMU must write to the layer that is the top by
 * libvirt's word. */
static gboolean
check_top_in_use(const Shorten *what, const VmrDomDisk *disk,
                 const VmrWait *wait, GError **error)
{
    VmrLock top;
    VmrLock below;

    if (!probe_pair(layer_path(disk, 0), layer_path(disk, 1), &top, &below,
                    error))
        return FALSE;
    if (top != VMR_LOCK_FREE)
        return TRUE;
    if (below == VMR_LOCK_WRITER)
        return save_missed_end(what, disk, wait, error);
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s' runs on '%s' by libvirt, but no QEMU writes to it",
                disk->target, layer_path(disk, 0));
    return FALSE;
}

/* What has to be so after a commit. */
typedef struct {
    const Shorten *what;
    const char *top;   /* committed, and not in use any more */
    const char *below; /* the top now */
} Committed;

static gboolean
is_committed(gpointer data, const VmrWait *wait, GError **error)
{
    const Committed *end = data;
    g_autoptr(VmrDomXml) inactive = NULL;
    const VmrDomDisk *disk;
    VmrLock top;
    VmrLock below;

    if (!vmr_live_read_inactive(end->what->dom, &inactive, wait, error) ||
        !probe_pair(end->top, end->below, &top, &below, error))
        return FALSE;
    disk = inactive ? vmr_domxml_find(inactive, end->what->target) : NULL;
    if (inactive &&
        (!disk || g_strcmp0(vmr_domdisk_source(disk), end->below) != 0)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "the persistent definition of disk '%s' did not follow to "
                    "'%s'", end->what->target, end->below);
        return FALSE;
    }
    if (top != VMR_LOCK_WRITER && below != VMR_LOCK_FREE)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s' was committed from '%s' into '%s', but QEMU's locks "
                "say '%s' and '%s'",
                end->what->target, end->top, end->below, vmr_lock_name(top),
                vmr_lock_name(below));
    return FALSE;
}

/* A job that has just failed may have a node of its own above the top still, which
 * QEMU then takes for no top. */
static gboolean
start_commit(gpointer data, const VmrWait *wait, GError **error)
{
    const Shorten *what = data;
    g_autoptr(GError) local = NULL;

    if (vmr_hv_block_commit(what->dom, what->target, NULL, NULL,
                            VIR_DOMAIN_BLOCK_COMMIT_SHALLOW |
                                VIR_DOMAIN_BLOCK_COMMIT_ACTIVE,
                            wait, &local))
        return TRUE;
    if (strstr(local->message, "Need a root block node"))
        g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                    "QEMU has not let go of an earlier block job of disk '%s'",
                    what->target);
    else
        g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

/* Commit the top of @disk, to the end; one that runs already is gone on with. */
static gboolean
commit_top(Shorten *what, const VmrDomDisk *disk, const VmrWait *wait,
           GError **error)
{
    Committed end = {.what = what,
                     .top = layer_path(disk, 0),
                     .below = layer_path(disk, 1)};
    gboolean runs = g_strcmp0(disk->mirror_job, "active-commit") == 0 &&
                    g_strcmp0(disk->mirror->path, end.below) == 0;
    g_autoptr(VmrJobs) jobs = NULL;

    if (!check_top_in_use(what, disk, wait, error))
        return FALSE;
    jobs = vmr_jobs_open(what->dom, wait, error);
    return jobs &&
           (runs || vmr_wait_settle(wait, VMR_ERROR_BUSY, start_commit, what,
                                    error)) &&
           vmr_jobs_wait_until(jobs, look_for_ready, what, wait, error) &&
           vmr_hv_block_job_abort(what->dom, disk->target,
                                  VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT, wait,
                                  error) &&
           vmr_jobs_wait_until(jobs, look_for_end, what, wait, error) &&
           vmr_wait_settle(wait, VMR_ERROR_DIVERGED, is_committed, &end, error);
}

static gboolean
check_top(const VmrDomDisk *disk, const char *top, GError **error)
{
    if (top && (disk->chain->len == 0 ||
                !g_str_equal(layer_path(disk, 0), top))) {
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

gboolean
vmr_collapse_commit(const VmrDomain *dom, const char *disk_name,
                    const char *top, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read_settled(dom, wait, error);
    g_autoptr(GPtrArray) expected = g_ptr_array_new_with_free_func(g_free);
    Shorten what = {.dom = dom, .expected = expected};
    VmrDomDisk *disk;

    if (!live)
        return FALSE;
    disk = find_disk(live, disk_name, error);
    if (!disk)
        return FALSE;
    if (!check_top(disk, top, error)) {
        vmr_error_annotate(error, disk->target, NULL);
        return FALSE;
    }
    what.target = disk->target;
    expect_layers(expected, disk, 1);
    if (commit_top(&what, disk, wait, error))
        return TRUE;
    vmr_error_annotate(error, disk->target, NULL);
    return FALSE;
}
