/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * mirror: a mirrored snapshot: a new top layer for each of some disks of a
 * running domain, kept in step on the old and the new storage, until the guest
 * is pivoted to the new one or the mirror is abandoned.
 *
 * A VmrMirror is used by one thread at a time: while one is in a function, the
 * others get BUSY. No lock is held while libvirt is called.
 */

#include "hv.h"
#include "record.h"
#include "snapxml.h"

G_BEGIN_DECLS

typedef struct VmrMirror VmrMirror;

typedef enum {
    VMR_MIRROR_REUSE_EXTERNAL = 1 << 0, /* both files exist: use them */
    VMR_MIRROR_QUIESCE = 1 << 1,        /* freeze the guest's file systems */
} VmrMirrorFlags;

/* Take the mirrored snapshot @spec of @dom: all of its disks or none. What is
 * wrong with @spec, the disks or the files is found before anything changes.
 * When a later step fails, everything is as it was when this returns, or the
 * error is marked partial and says what is left.
 * Errors: INVALID_SPEC, INVALID_STATE, NOT_FOUND, EXISTS, BUSY,
 * NOT_SUPPORTED, IMAGE, IO, JOURNAL, VIRT, TIMEOUT, CANCELLED. */
VmrMirror *vmr_mirror_create(VmrHv *hv, virDomainPtr dom,
                             const VmrSnapSpec *spec, guint flags,
                             const VmrWait *wait, GError **error);

/* The mirrored snapshot that the journal of @dom tells of; @name (NULL: any)
 * must be its name. Errors: NOT_FOUND (VIR_ERR_OPERATION_INVALID), JOURNAL,
 * INVALID_STATE, VIRT, TIMEOUT, CANCELLED. */
VmrMirror *vmr_mirror_open(VmrHv *hv, virDomainPtr dom, const char *name,
                           const VmrWait *wait, GError **error);

/* The same, but no journal is no error: *@mirror is NULL then. */
gboolean vmr_mirror_lookup(VmrHv *hv, virDomainPtr dom, VmrMirror **mirror,
                           const VmrWait *wait, GError **error);

/* Free @mirror, which ends nothing: the mirrored snapshot goes on. NULL is
 * fine. */
void vmr_mirror_free(VmrMirror *mirror);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrMirror, vmr_mirror_free)

/* What is known of it as of the last call; borrowed, valid until the next. */
const VmrRecord *vmr_mirror_get_record(const VmrMirror *mirror);

/* Paths (of char *) of files that virmirror had created, that are not needed
 * any more, and that could not be removed, since somebody has them open, their
 * storage has failed or another file has the name by now; borrowed. */
const GPtrArray *vmr_mirror_get_leftovers(const VmrMirror *mirror);

/* Wait until all its disks are ready to be pivoted.
 * Errors: JOB_FAILED (names the disk, and why where that can be told),
 * DIVERGED, INVALID_STATE, BUSY, VIRT, TIMEOUT, CANCELLED. */
gboolean vmr_mirror_wait_ready(VmrMirror *mirror, const VmrWait *wait,
                               GError **error);

typedef struct {
    const char *target; /* borrowed from the record */
    gboolean active;    /* the copy runs */
    gboolean ready;     /* both sides are the same from here on */
    guint64 current;    /* bytes done */
    guint64 end;        /* bytes to do, as known by now */
} VmrProgress;

/* How far each disk's copy is (virDomainGetBlockJobInfo); an array of
 * VmrProgress, one a disk, owned (g_array_unref()). */
GArray *vmr_mirror_get_progress(VmrMirror *mirror, const VmrWait *wait,
                                GError **error);

/* What was measured of all mirrors together; rates in bytes/s. */
typedef struct {
    guint64 left;    /* bytes that the mirrors are behind */
    double mirrored;
    double written;  /* what the guest adds to what is left */
    guint64 limit;   /* what the guest may write to each disk, 0: as it likes */
    double budget;   /* seconds that it may be suspended; negative: it is not */
} VmrFigures;

/* The figures of the wait, the pivot or the abort that is under way, or that was the
 * last; borrowed. To be looked at in the thread that waits (VmrWait.interrupted), or
 * after it. */
const VmrFigures *vmr_mirror_get_figures(const VmrMirror *mirror);

/* Let the guest go on with the mirrors and prove that it does; then libvirt's
 * record of the snapshot and the journal are removed. Over several disks this
 * is not atomic: on failure the record tells which disks are on the mirror,
 * and calling this again, or vmr_mirror_abort(), goes on with the rest.
 * Errors: NOT_READY (VIR_ERR_BLOCK_COPY_ACTIVE, names the disk), IMAGE,
 * DIVERGED, JOB_FAILED, INVALID_STATE, BUSY, VIRT, TIMEOUT, CANCELLED. */
gboolean vmr_mirror_pivot(VmrMirror *mirror, const VmrWait *wait,
                          GError **error);

/* How mirrors that the guest keeps behind are brought level with it. */
typedef struct {
    double pause_budget; /* seconds that the guest may be suspended; negative:
                          * it is not suspended at all */
    gboolean throttle;   /* lower what the guest may write until they follow */
    gboolean atomic;     /* for a pivot: all disks or none */
} VmrCutOver;

#define VMR_PAUSE_BUDGET 2.0 /* where nobody has said anything else */

/* The same with the guest suspended meanwhile, so that a crash at any moment
 * leaves both sides with the same content: lift the bandwidth limit, wait until
 * what is left to be mirrored fits into the budget, suspend, let the mirrors get
 * ready if they are not, pivot all disks, prove, resume. With @how->atomic, disks
 * that were pivoted before another one failed are mirrored and pivoted back.
 * *@pause is how long, in seconds, the guest was suspended. A guest that was paused
 * before stays so. With a negative budget all mirrors must be ready.
 *
 * @wait's deadline ends the waiting; a pause that has begun by then is carried
 * through. Without one it ends when what is left has not become less for
 * VMR_CONVERGE_SECONDS.
 * Errors: as vmr_mirror_pivot(); TIMEOUT with the figures when the mirrors do
 * not converge. */
gboolean vmr_mirror_cut_over(VmrMirror *mirror, const VmrCutOver *how,
                             double *pause, const VmrWait *wait,
                             GError **error);

#define VMR_CONVERGE_SECONDS 120.0

/* Drop the mirrors and prove that the guest goes on with the overlays, which
 * stay; mirrors that virmirror created are removed, as are libvirt's record of
 * the snapshot and the journal. Disks that were pivoted before stay so.
 *
 * QEMU ends a mirror that was ready once only when it is level with the guest. One
 * that does not get there by itself is brought there as @how says, NULL: not at all.
 * Errors: DIVERGED, INVALID_STATE, BUSY, VIRT, TIMEOUT (with the figures where a mirror
 * is behind), CANCELLED. */
gboolean vmr_mirror_abort(VmrMirror *mirror, const VmrCutOver *how,
                          const VmrWait *wait, GError **error);

/* Drop the records, and leave the disks as they are: what somebody else has made of
 * them is no mirrored snapshot any more. A guest that was suspended for it is resumed.
 * Errors: BUSY, INVALID_STATE (it has ended), and libvirt's. */
gboolean vmr_mirror_disown(VmrMirror *mirror, const VmrWait *wait,
                           GError **error);

G_END_DECLS
