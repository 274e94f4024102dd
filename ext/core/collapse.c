/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "collapse.h"

#include "blockjob.h"
#include "collapse_priv.h"
#include "error.h"
#include "job.h"
#include "live.h"

/* A pull, and what it has to lead to. */
typedef struct {
    const VmrDomain *dom;
    const char *target;
    GPtrArray *expected; /* as for vmr_collapse_expect() */
} Pull;

const char *
vmr_collapse_path(const VmrDomDisk *disk, guint i)
{
    const VmrLayer *layer = g_ptr_array_index(disk->chain, i);

    return layer->path ? layer->path : "";
}

gboolean
vmr_collapse_is(const VmrDomDisk *disk, const GPtrArray *expected)
{
    if (disk->chain->len != expected->len)
        return FALSE;
    for (guint i = 0; i < expected->len; i++) {
        if (!g_str_equal(vmr_collapse_path(disk, i), g_ptr_array_index(expected, i)))
            return FALSE;
    }
    return TRUE;
}

void
vmr_collapse_expect(GPtrArray *expected, const VmrDomDisk *disk, guint from)
{
    for (guint i = from; i < disk->chain->len; i++)
        g_ptr_array_add(expected, g_strdup(vmr_collapse_path(disk, i)));
}

const VmrDomDisk *
vmr_collapse_find(const VmrDomXml *live, const char *name, GError **error)
{
    const VmrDomDisk *disk = vmr_domxml_find(live, name);

    if (!disk)
        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND,
                    "domain '%s' has no disk '%s'", live->name, name);
    return disk;
}

/* Look at the disk @name once libvirt has let go of each job that has ended. */
static gboolean
look_settled(const VmrDomain *dom, const char *name, VmrBlockJob *job,
             const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read_settled(dom, wait, error);
    const VmrDomDisk *disk =
        live ? vmr_collapse_find(live, name, error) : NULL;

    return disk && vmr_blockjob_look(dom, disk->target, job, wait, error);
}

static VmrLook
look_for_end(gpointer data, gboolean last, const VmrWait *wait, GError **error)
{
    const Pull *pull = data;
    g_auto(VmrBlockJob) job = {0};

    if (!vmr_blockjob_look(pull->dom, pull->target, &job, wait, error))
        return VMR_LOOK_FAILED;
    if (job.active)
        return VMR_LOOK_AGAIN;
    if (vmr_collapse_is(job.disk, pull->expected) && !job.disk->mirror)
        return VMR_LOOK_DONE;
    if (!last)
        return VMR_LOOK_SETTLING;
    g_set_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED,
                "the block job of disk '%s' has ended before all was pulled into '%s': %s",
                pull->target, vmr_collapse_path(job.disk, 0),
                vmr_blockjob_reason(vmr_collapse_path(job.disk, 0)));
    return VMR_LOOK_FAILED;
}

/* The index of the layer @base in the chain of @disk; 0 if there is none. */
static guint
find_layer(const VmrDomDisk *disk, const char *base)
{
    g_autofree char *wanted = g_canonicalize_filename(base, "/");

    for (guint i = 1; i < disk->chain->len; i++) {
        g_autofree char *path =
            g_canonicalize_filename(vmr_collapse_path(disk, i), "/");

        if (g_str_equal(path, wanted))
            return i;
    }
    return 0;
}

/* Fill in what the chain has to become; *@base_path is libvirt's name of it. */
static gboolean
plan_pull(Pull *pull, const VmrDomDisk *disk, const char *base,
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
        *base_path = vmr_collapse_path(disk, index);
    }
    g_ptr_array_add(pull->expected, g_strdup(vmr_collapse_path(disk, 0)));
    vmr_collapse_expect(pull->expected, disk, index);
    return TRUE;
}

gboolean
vmr_collapse_pull(const VmrDomain *dom, const char *disk_name,
                  const char *base, gulong bandwidth, gboolean start_only,
                  const VmrWait *wait, GError **error)
{
    g_auto(VmrBlockJob) job = {0};
    g_autoptr(GPtrArray) expected = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(VmrJobs) jobs = NULL;
    Pull pull = {.dom = dom, .expected = expected};
    const char *base_path;
    guint flags = VIR_DOMAIN_BLOCK_REBASE_BANDWIDTH_BYTES;
    gboolean pulling;

    if (!look_settled(dom, disk_name, &job, wait, error) ||
        !plan_pull(&pull, job.disk, base, &base_path, error))
        return FALSE;
    pull.target = job.disk->target;
    if (vmr_collapse_is(job.disk, expected))
        return TRUE;
    if (base_path)
        flags |= VIR_DOMAIN_BLOCK_REBASE_RELATIVE;
    /* one that runs already is waited for: what comes of it is looked at in the end */
    pulling = !start_only && job.active &&
              job.info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_PULL;
    jobs = vmr_jobs_open(dom, wait, error);
    if (!jobs || (!pulling && !vmr_hv_block_rebase(dom, pull.target, base_path,
                                                   bandwidth, flags, wait, error)))
        return FALSE;
    return start_only ||
           vmr_jobs_wait_until(jobs, look_for_end, &pull, wait, error);
}
