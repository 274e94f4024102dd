/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * truth: what is really going on with a disk of a mirrored snapshot, as
 * opposed to what its record says was meant. Pure, but for probing locks.
 */

#include "domxml.h"
#include "record.h"

G_BEGIN_DECLS

typedef enum {
    VMR_TRUTH_SOURCE,    /* the source is the top: no snapshot taken */
    VMR_TRUTH_OVERLAY,   /* the overlay is the top, no copy runs */
    VMR_TRUTH_MIRRORING, /* copying from the overlay to the mirror */
    VMR_TRUTH_READY,     /* the same, and both sides are in step */
    VMR_TRUTH_ENDING,    /* libvirt asked QEMU to pivot or abort, or a job has
                          * ended by itself */
    VMR_TRUTH_PIVOTED,   /* the mirror is the top, no copy runs */
    VMR_TRUTH_RETURNING, /* copying from the mirror back to the overlay */
    VMR_TRUTH_UNDOING,   /* committing the overlay back into the source */
    VMR_TRUTH_OTHER,     /* none of it: somebody else's doing */
    VMR_TRUTH_LAST
} VmrTruth;

/* What @live, a domain's live XML, says of @disk. */
VmrTruth vmr_truth_of(const VmrDisk *disk, const VmrDomXml *live);

/* "source", "overlay", ...; static. */
const char *vmr_truth_name(VmrTruth truth);

/* Whether QEMU's locks fit @truth: who is written to is locked, who is not is
 * free; files that cannot tell fit everything. With MIRRORING and READY the
 * overlay and the mirror are written to, with OVERLAY the overlay, with
 * PIVOTED the mirror. With @leaked, what is not written to may still be open.
 * Errors: DIVERGED, IO, NOT_FOUND. */
gboolean vmr_truth_check_locks(const VmrDisk *disk, VmrTruth truth,
                               gboolean leaked, GError **error);

/* Whether the persistent definition @inactive (NULL: transient domain, TRUE)
 * has @path as the source of @disk. Errors: DIVERGED. */
gboolean vmr_truth_check_inactive(const VmrDisk *disk, const char *path,
                                  const VmrDomXml *inactive, GError **error);

G_END_DECLS
