/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * mirror_priv: what the parts of the mirror share: plan (look, and refuse),
 * create (or undo), end (pivot or abort).
 *
 * All of them follow one rule: what is meant is saved to the journal before a
 * call that changes something, and what became of it is read from the live
 * XML and the locks after it, whatever the call returned.
 */

#include "guard.h"
#include "live.h"
#include "mirror.h"
#include "proof.h"

G_BEGIN_DECLS

struct VmrMirror {
    VmrDomain *dom;
    VmrRecord *record; /* NULL until planned */
    gint busy;         /* atomic: a thread is inside a function */
    VmrGuard *guard;   /* while it is being changed */
    gboolean guarded;  /* the caller has the guard */
    gboolean leaked;   /* QEMU may hold files that it does not use */
    gboolean blocked;  /* it holds layers that keep a pivot from working */
    VmrProof *proof;   /* that the copies fit, while they are about to be used */
    GPtrArray *leftovers; /* of char *: see vmr_mirror_get_leftovers() */
    VmrFigures figures;   /* see vmr_mirror_get_figures() */
};

/* A mirror without a record. */
VmrMirror *vmr_mirror_new(VmrHv *hv, virDomainPtr dom);

/* Enter a function. Errors: BUSY if another thread is inside one, INVALID_STATE
 * if the mirrored snapshot has ended. */
gboolean vmr_mirror_enter(VmrMirror *mirror, GError **error);

/* The same for one that changes something: no other process may, meanwhile.
 * Errors: also BUSY, IO of the guard. */
gboolean vmr_mirror_enter_to_change(VmrMirror *mirror, GError **error);

/* Leave it again. */
void vmr_mirror_leave(VmrMirror *mirror);

/* Look at @spec, the domain and the files, and fill in the record; nothing is
 * changed. All findings in one error. */
gboolean vmr_mirror_plan(VmrMirror *mirror, const VmrSnapSpec *spec,
                         guint flags, const VmrWait *wait, GError **error);

/* Whether each disk that is not pivoted runs on the files that the record names, as
 * @truth says. Errors: DIVERGED, IMAGE, NOT_FOUND, IO. */
gboolean vmr_mirror_check_chains(VmrMirror *mirror, const VmrDomXml *live,
                                 VmrTruth truth, GError **error);

/* Save the record, all of it in state @state and (unless LAST) each of its
 * disks in @disk_state. */
gboolean vmr_mirror_save(VmrMirror *mirror, VmrState state,
                         VmrDiskState disk_state, const VmrWait *wait,
                         GError **error);

/* Prove that @disk is as @truth says: live XML, persistent definition, locks,
 * no job; libvirt and QEMU get a moment for it. Errors: DIVERGED, and as for
 * the calls made. */
gboolean vmr_mirror_prove(VmrMirror *mirror, const VmrDisk *disk,
                          VmrTruth truth, const VmrWait *wait, GError **error);

/* Set @error (JOB_FAILED) to say that the copy of @disk has ended by itself, and why
 * where that can be told. */
void vmr_mirror_set_job_failed(const VmrDisk *disk, GError **error);

/* End the copy of @disk, which runs, and prove that the guest goes on with the
 * overlay alone; @how as for vmr_mirror_abort(). */
gboolean vmr_mirror_abort_copy(VmrMirror *mirror, const VmrDisk *disk,
                               const VmrCutOver *how, const VmrWait *wait,
                               GError **error);

/* Remove @file if this mirrored snapshot created it; QEMU gets a moment to let
 * go of it. One that cannot be removed is left, and is a leftover. */
gboolean vmr_mirror_drop_file(VmrMirror *mirror, const VmrFile *file,
                              const VmrWait *wait, GError **error);

/* The last step of both ends: remove the files that were made for what is not
 * in use now (of a pivoted disk the overlay, of an aborted one the mirror), and
 * forget the mirrored snapshot. */
gboolean vmr_mirror_finish(VmrMirror *mirror, const VmrWait *wait,
                           GError **error);

/* Say of *@error that it is partial if some disk has come to its end, on
 * either side. */
void vmr_mirror_mark_ended(const VmrMirror *mirror, GError **error);

/* pause.c: resume the guest if it was us who had suspended it; the journal goes on to
 * say so. What the process lacks for it is waited for. */
gboolean vmr_mirror_resume_cpus(VmrMirror *mirror, const VmrWait *wait,
                                GError **error);

/* The same, and have the journal say that it is done. */
gboolean vmr_mirror_resume_guest(VmrMirror *mirror, const VmrWait *wait,
                                 GError **error);

/* Undo a creation that was broken off, in another process perhaps: what was
 * written since is committed back, what was created is removed. */
gboolean vmr_mirror_undo_create(VmrMirror *mirror, const VmrWait *wait,
                                GError **error);

/* Whether all disks can be pivoted, or are so already (their state tells). With
 * @early they need not be ready yet, but be mirrored. */
gboolean vmr_mirror_check_pivotable(VmrMirror *mirror, gboolean early,
                                    const VmrWait *wait, GError **error);

/* Have the copied layers on stable storage before the guest depends on them, since
 * whoever copied them may not have seen to it, and prove that they hold what the
 * frozen layers hold; see vmr_proof_new(). */
gboolean vmr_mirror_prove_copies(VmrMirror *mirror, const VmrWait *wait,
                                 GError **error);

/* How long to wait for a pivot: once begun it cannot be taken back, so only the
 * caller's own deadline, if there is one, may leave it alone. */
VmrWait vmr_mirror_patience(const VmrWait *wait);

/* Pivot the disks that are not yet pivoted, one after the other, if what was proven
 * of their copies still holds. */
gboolean vmr_mirror_pivot_disks(VmrMirror *mirror, const VmrWait *wait,
                                GError **error);

/* End the copy of @disk from its mirror back to its overlay. */
gboolean vmr_mirror_abort_return(VmrMirror *mirror, const VmrDisk *disk,
                                 const VmrWait *wait, GError **error);

/* Start copying the top of @disk, whatever it is now, to @file. */
gboolean vmr_mirror_start_copy(VmrMirror *mirror, const VmrDisk *disk,
                               const VmrFile *file, const VmrWait *wait,
                               GError **error);

/* Remove libvirt's record of the snapshot (only that), and the journal. */
gboolean vmr_mirror_forget(VmrMirror *mirror, const VmrWait *wait,
                           GError **error);

G_END_DECLS
