/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * collapse: makes the backing chain of a running guest's disk shorter; backing
 * names stay relative. The chain is proven afterwards.
 */

#include "hv.h"

G_BEGIN_DECLS

/* Pull what lies between the top of @disk and @base (a path of its chain, or
 * NULL for all) into the top, at most @bandwidth bytes/s (0: no limit), and
 * wait for it (virDomainBlockRebase); a pull that runs already is gone on with, at
 * its own speed. With @start_only just start the job.
 * On TIMEOUT or CANCELLED the job goes on.
 * Errors: NOT_FOUND (disk, base), BUSY, JOB_FAILED, VIRT, TIMEOUT, CANCELLED. */
gboolean vmr_collapse_pull(const VmrDomain *dom, const char *disk,
                           const char *base, gulong bandwidth,
                           gboolean start_only, const VmrWait *wait,
                           GError **error);

/* Commit the top of @disk, which must be @top (NULL: whatever it is), into the
 * layer below it, go on with that one (virDomainBlockCommit, pivot), and prove it:
 * live and persistent definition, and QEMU's locks. A commit that runs already is
 * finished, also one that libvirt does not show since it died as it started it.
 * Where libvirt has missed the end of an earlier one, the persistent definition is
 * set to the file in use, and the error says so (DIVERGED).
 * Errors: as above, INVALID_STATE (no backing file), DIVERGED. */
gboolean vmr_collapse_commit(const VmrDomain *dom, const char *disk,
                             const char *top, const VmrWait *wait,
                             GError **error);

/* Finish the commit of the top of the disk @target that QEMU has and libvirt does not show,
 * into whichever layer that goes; *@path is what the disk runs on then, owned.
 * Errors: as for vmr_collapse_commit(). */
gboolean vmr_collapse_finish(const VmrDomain *dom, const char *target,
                             char **path, const VmrWait *wait,
                             GError **error);

G_END_DECLS
