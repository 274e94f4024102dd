/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * blockjob: the block job of a disk, as QEMU has it and as libvirt shows it, and the
 * one place that ends jobs. A libvirt that dies while it starts a copy or an active
 * commit has no <mirror> for it afterwards, and there the wrong way to end the job
 * makes libvirt crash.
 */

#include "domxml.h"
#include "hv.h"

G_BEGIN_DECLS

/* One look at a disk. The job is asked for first: a libvirt that was just restarted
 * shows old XML until it has spoken with QEMU, and waits for that to answer. */
typedef struct {
    VmrDomXml *live;
    const VmrDomDisk *disk;     /* the disk in @live */
    gboolean active;            /* it has a job */
    gboolean hidden;            /* a copy or an active commit without a <mirror> */
    virDomainBlockJobInfo info; /* of the job, zeroed without one */
} VmrBlockJob;

/* Look at the disk @target of the running @dom. @job must be zeroed or cleared.
 * Errors: NOT_FOUND (the disk), INVALID_STATE (it does not run), VIRT, TIMEOUT,
 * CANCELLED. */
gboolean vmr_blockjob_look(const VmrDomain *dom, const char *target,
                           VmrBlockJob *job, const VmrWait *wait,
                           GError **error);

/* Free what @job holds, and zero it. */
void vmr_blockjob_clear(VmrBlockJob *job);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VmrBlockJob, vmr_blockjob_clear)

/* End the job of @target (virDomainBlockJobAbort with @flags), unless that would
 * make libvirt crash: the pivot of a hidden copy, and the abort of a hidden commit.
 * Errors: DIVERGED for these, and as for vmr_blockjob_look(). */
gboolean vmr_blockjob_end(const VmrDomain *dom, const char *target,
                          guint flags, const VmrWait *wait, GError **error);

/* Why a job that wrote to @path may have failed, which libvirt does not tell: a clause
 * for an error text; static. */
const char *vmr_blockjob_reason(const char *path);

G_END_DECLS
