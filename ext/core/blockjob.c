/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "blockjob.h"

#include <sys/statvfs.h>

#include "error.h"
#include "live.h"

/* Less than this many bytes free: the storage is full. */
#define FULL (1024 * 1024)

void
vmr_blockjob_clear(VmrBlockJob *job)
{
    vmr_domxml_free(job->live);
    *job = (VmrBlockJob){0};
}

static gboolean
read_info(VmrBlockJob *job, const VmrDomain *dom, const char *target,
          const VmrWait *wait, GError **error)
{
    return vmr_hv_block_job_info(dom, target, &job->info, &job->active, wait,
                                 error);
}

/* Whether libvirt ought to show the job as a <mirror>. */
static gboolean
is_mirror(const VmrBlockJob *job)
{
    return job->active &&
           (job->info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY ||
            job->info.type == VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT);
}

gboolean
vmr_blockjob_look(const VmrDomain *dom, const char *target, VmrBlockJob *job,
                  const VmrWait *wait, GError **error)
{
    if (!read_info(job, dom, target, wait, error))
        return FALSE;
    job->live = vmr_live_read(dom, wait, error);
    if (!job->live)
        return FALSE;
    job->disk = vmr_domxml_find(job->live, target);
    if (!job->disk) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND,
                    "domain '%s' has no disk '%s'", job->live->name, target);
        return FALSE;
    }
    if (job->disk->mirror || !is_mirror(job))
        return TRUE;
    /* it may have ended before the definition was read */
    if (!read_info(job, dom, target, wait, error))
        return FALSE;
    job->hidden = is_mirror(job);
    return TRUE;
}

/* In libvirt 9.0 and 11.3 the end of a commit that did not succeed looks into the
 * <mirror>, and so does the beginning of a copy's pivot. */
static gboolean
check_not_hidden(const VmrDomain *dom, const char *target, gboolean pivot,
                 const VmrWait *wait, GError **error)
{
    int fatal = pivot ? VIR_DOMAIN_BLOCK_JOB_TYPE_COPY
                      : VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT;
    VmrBlockJob job = {0};

    if (!read_info(&job, dom, target, wait, error))
        return FALSE;
    if (!job.active || job.info.type != fatal)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "QEMU has a %s on disk '%s' that libvirt does not show, and %s it would "
                "make libvirt crash: recover it",
                pivot ? "copy" : "commit", target,
                pivot ? "pivoting to" : "aborting");
    vmr_error_annotate(error, target, NULL);
    return FALSE;
}

gboolean
vmr_blockjob_end(const VmrDomain *dom, const char *target, guint flags,
                 const VmrWait *wait, GError **error)
{
    gboolean pivot = (flags & VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) != 0;
    g_autoptr(VmrDomXml) live = vmr_live_read(dom, wait, error);
    const VmrDomDisk *disk = live ? vmr_domxml_find(live, target) : NULL;

    if (!live || (disk && !disk->mirror &&
                  !check_not_hidden(dom, target, pivot, wait, error)))
        return FALSE;
    return vmr_hv_block_job_abort(dom, target, flags, wait, error);
}

const char *
vmr_blockjob_reason(const char *path)
{
    struct statvfs fs;
    /* some file systems (FUSE) do not tell, and answer with nothing but 0 */
    gboolean full = statvfs(path, &fs) == 0 && fs.f_blocks > 0 &&
                    (guint64)fs.f_bavail * fs.f_frsize < FULL;

    return full ? "no space is left there"
                : "see the log of its QEMU for the reason";
}
