/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * moveplan: what moving disks of a running domain into other folders comes to:
 * which files there are, and which are to be made. Nothing is changed.
 */

#include "chain.h"
#include "hv.h"

G_BEGIN_DECLS

typedef struct {
    char *target;       /* "vda" */
    char *folder;       /* where it is to go */
    char *overlay;      /* path of the new top on the old side */
    char *mirror;       /* path of the new top on the new side */
    GPtrArray *sources; /* of VmrImage: the chain in use, top first */
    GPtrArray *layers;  /* of VmrLayerPlan: what is to become of each */
} VmrMoveDisk;

typedef struct {
    char *domain;     /* name */
    char *uuid;
    GPtrArray *disks; /* of VmrMoveDisk */
    GPtrArray *notes; /* of char *: what is worth knowing */
} VmrMovePlan;

/* How disks are to be moved. */
typedef struct {
    const char *snapshot;       /* its name */
    const char *overlay_folder; /* for all overlays; NULL: beside the sources */
    gboolean keep_snapshots;    /* those of libvirt, which lead back */
    gboolean remove_source;     /* the old tops are to go in the end */
} VmrMoveOptions;

/* Plan to move each disk @disks[2n] of the running @dom (target, or path of its
 * source) into the folder @disks[2n+1], as @options say; @disks
 * is NULL-terminated. Everything that is wrong is in one error: the domain, the
 * disks, their definitions and chains, the folders, names that are taken, the space.
 * Errors: INVALID_SPEC, INVALID_STATE, NOT_FOUND, EXISTS, BUSY, NOT_SUPPORTED,
 * IMAGE, IO, JOURNAL, VIRT, TIMEOUT, CANCELLED. */
VmrMovePlan *vmr_move_plan(const VmrDomain *dom, const char *const *disks,
                           const VmrMoveOptions *options, const VmrWait *wait,
                           GError **error);

/* Free @plan; NULL is fine. */
void vmr_move_plan_free(VmrMovePlan *plan);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrMovePlan, vmr_move_plan_free)

G_END_DECLS
