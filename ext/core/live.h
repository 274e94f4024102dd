/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * live: what libvirt says of a domain at this moment, read anew each time.
 */

#include "domxml.h"
#include "hv.h"

G_BEGIN_DECLS

/* The live XML of a running (or paused) domain. Errors: INVALID_STATE when the
 * domain does not run, VIRT, TIMEOUT, CANCELLED. */
VmrDomXml *vmr_live_read(const VmrDomain *dom, const VmrWait *wait,
                         GError **error);

/* The same once libvirt has let go of each block job that has ended, which takes a
 * moment: the job then is still there, of no kind any more. Errors: DIVERGED (it does
 * not let go), too. */
VmrDomXml *vmr_live_read_settled(const VmrDomain *dom, const VmrWait *wait,
                                 GError **error);

/* The persistent definition into *@xml, NULL for a transient domain. */
gboolean vmr_live_read_inactive(const VmrDomain *dom, VmrDomXml **xml,
                                const VmrWait *wait, GError **error);

/* Have the persistent definition of @dom name @path, of @format, as the source
 * of the disk @target; the running domain stays as it is. */
gboolean vmr_live_set_source(const VmrDomain *dom, const char *target,
                             const char *path, const char *format,
                             const VmrWait *wait, GError **error);

/* Whether @info (QEMU's "info block") has a disk that runs on the file at @path. */
gboolean vmr_live_names_file(const char *info, const char *path);

/* Before @path is removed: have the persistent definition of the running @dom name
 * what a disk runs on where it names @path still, since libvirt died before it had
 * saved that. Errors: INVALID_STATE (a disk runs on @path), and the usual ones. */
gboolean vmr_live_leave(const VmrDomain *dom, const char *path,
                        const VmrWait *wait, GError **error);

G_END_DECLS
