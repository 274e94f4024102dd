/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * copyfit: whether one file is a copy of another as both are now: by the copy's
 * mark, and where that leaves it open by what they hold.
 */

#include "sparse_sum.h"
#include "stamp.h"
#include "wait.h"

G_BEGIN_DECLS

typedef enum {
    VMR_COPYFIT_FITS,       /* a complete copy of the source as it is now */
    VMR_COPYFIT_INCOMPLETE, /* a copy into it was begun and not ended */
    VMR_COPYFIT_OTHER,      /* marked as a copy of something else, or changed since */
    VMR_COPYFIT_UNMARKED,   /* no mark: only its contents could tell */
    VMR_COPYFIT_LAST
} VmrCopyFit;

/* "fits", "incomplete", "other" or "none"; static. */
const char *vmr_copyfit_name(VmrCopyFit fit);

/* What the mark of @copy says of it as a copy of @source; that of a file which others
 * can write (vmr_trust_holds()) is not believed. Where all but the source's
 * owner and the like is as noted, the source is read, and its checksum compared with
 * the one in the mark. Errors: IMAGE, NOT_FOUND, IO, BUSY (a QEMU writes to the
 * source), DIVERGED (it changed while it was read), TIMEOUT, CANCELLED. */
gboolean vmr_copyfit_look(const char *source, const char *copy, VmrCopyFit *fit,
                          const VmrWait *wait, GError **error);

/* Whether @copy holds the same bytes as @source; both are read, unless their sizes
 * differ. Errors: the same. */
gboolean vmr_copyfit_compare(const char *source, const char *copy,
                             gboolean *same, const VmrWait *wait,
                             GError **error);

/* The same of qcow2 images that may name their backing files differently, but are equal
 * otherwise: @copy was rebased. Errors: the same. */
gboolean vmr_copyfit_compare_rebased(const char *source, const char *copy,
                                     gboolean *same, const VmrWait *wait,
                                     GError **error);

G_END_DECLS
