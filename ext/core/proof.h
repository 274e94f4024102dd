/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * proof: that the disks of a mirrored snapshot are on the files that its record
 * names, and that each layer that a pivot brings holds what the layer holds that is
 * frozen now.
 *
 * Identity is cheap and is asked at each step: when the mirrors run, before the
 * pivot, and while the guest stands still for it. Contents can take long, so they are
 * proven before that pause; within it, it is enough that no file has changed since.
 */

#include "stamp.h"
#include "truth.h"
#include "wait.h"

G_BEGIN_DECLS

/* Whether @now, of the live XML, runs on the very files that the record has for
 * @disk when it is as @truth says: each layer of its chain, by identity and not by
 * name. Errors: DIVERGED, IMAGE, NOT_FOUND, IO. */
gboolean vmr_proof_check_chain(const VmrDisk *disk, const VmrDomDisk *now,
                               VmrTruth truth, GError **error);

/* Whether @file still is the file that was recorded: *@stamp is what it is now.
 * Errors: DIVERGED, IMAGE, NOT_FOUND, IO. */
gboolean vmr_proof_check_file(const VmrFile *file, VmrStamp *stamp,
                              GError **error);

/* Whether no copy into @copy was begun and not ended, by its mark: its header need not
 * be there yet. Errors: IMAGE, NOT_FOUND, IO. */
gboolean vmr_proof_check_complete(const VmrFile *copy, GError **error);

/* What was proven of copies, and when: see vmr_proof_still_holds(). */
typedef struct VmrProof VmrProof;

/* Prove for each disk of @record that is not pivoted that its copies hold what its
 * frozen layers hold: each by its mark, or byte by byte, or all of a disk together by
 * what a guest would read of them (qemu-img compare). Files without a proper mark
 * are read. Errors: IMAGE (names the copy that does not fit), DIVERGED (a file
 * changed meanwhile), NOT_FOUND, BUSY, IO, NOT_SUPPORTED (no qemu-img), TIMEOUT,
 * CANCELLED. */
VmrProof *vmr_proof_new(const VmrRecord *record, const VmrWait *wait,
                        GError **error);

/* Whether no file of @proof was replaced or changed since. Reads nothing of them.
 * Errors: DIVERGED, IMAGE, NOT_FOUND, IO. */
gboolean vmr_proof_still_holds(const VmrProof *proof, GError **error);

/* Free @proof; NULL is fine. */
void vmr_proof_free(VmrProof *proof);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrProof, vmr_proof_free)

G_END_DECLS
