/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * inspect: what is going on with a domain's mirrored snapshot: the journal
 * (what was meant) held against live XML, persistent definition, block jobs and
 * QEMU's locks (what is). Nothing is changed.
 */

#include "lockprobe.h"
#include "mirror.h"
#include "truth.h"

G_BEGIN_DECLS

/* From harmless to bad; of several disks the worst one counts. */
typedef enum {
    VMR_VERDICT_NOTHING,   /* no mirrored snapshot, no journal */
    VMR_VERDICT_READY,     /* all mirrors are in step */
    VMR_VERDICT_MIRRORING, /* mirrors run, not all are ready */
    VMR_VERDICT_PIVOTED,   /* the guest is on the mirrors, records are left */
    VMR_VERDICT_ABORTED,   /* mirrors ended, the guest is on the old side */
    VMR_VERDICT_CREATING,  /* creating was broken off */
    VMR_VERDICT_CUT_OVER,  /* some disks are pivoted, or just being so */
    VMR_VERDICT_OFF,       /* the domain does not run, and no QEMU does */
    /* what only the death of libvirt or QEMU in the wrong moment leaves: */
    VMR_VERDICT_LEAKED,    /* no mirror, but QEMU still holds its files */
    VMR_VERDICT_HIDDEN,    /* QEMU commits, libvirt does not know */
    VMR_VERDICT_ORPHANED,  /* QEMU copies, libvirt does not know */
    VMR_VERDICT_STUCK,     /* libvirt believes in a job that QEMU has not */
    VMR_VERDICT_LYING,     /* QEMU writes to another file than libvirt says */
    VMR_VERDICT_LOST,      /* a QEMU runs that libvirt believes dead */
    VMR_VERDICT_FOREIGN,   /* somebody else changed the disk */
    VMR_VERDICT_LAST
} VmrVerdict;

typedef struct {
    const VmrDisk *disk; /* borrowed from the record */
    VmrVerdict verdict;
    VmrTruth truth;
    gboolean job;        /* QEMU has a block job for it */
    gboolean copying;    /* and that is a copy */
    gboolean committing; /* or a commit of the top layer */
    VmrLock source;
    VmrLock overlay;
    VmrLock mirror;
    char *live;          /* path of the top layer, or NULL */
    char *persistent;    /* the same of the persistent definition, or NULL */
    const VmrFile *used; /* borrowed: what QEMU says it runs on, where it had to
                          * be asked */
} VmrDiskInspection;

typedef struct {
    VmrVerdict verdict;
    gboolean running;    /* libvirt says that the domain runs (or is paused) */
    gboolean paused;     /* its CPUs are stopped, by somebody's request */
    gboolean persistent; /* it has a persistent definition */
    char *uuid;          /* of the domain */
    VmrRecord *record;   /* NULL: NOTHING, or HIDDEN or STUCK for a commit */
    GPtrArray *disks;    /* of VmrDiskInspection, none without a record */
    GPtrArray *commits;  /* of char *: targets of the disks with a commit that libvirt
                          * does not show, or has missed the end of */
} VmrInspection;

/* Look at @dom. Errors: JOURNAL, VIRT, TIMEOUT, CANCELLED. */
VmrInspection *vmr_inspect(VmrHv *hv, virDomainPtr dom, const VmrWait *wait,
                           GError **error);

/* Free @inspection; NULL is fine. */
void vmr_inspection_free(VmrInspection *inspection);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrInspection, vmr_inspection_free)

/* "nothing", "mirroring", "cut-over", ...; static. */
const char *vmr_verdict_name(VmrVerdict verdict);

/* What the verdict means and what can be done about it, one line; static. */
const char *vmr_verdict_advice(VmrVerdict verdict);

/* The file that QEMU writes to instead of what libvirt says, borrowed; NULL
 * unless the verdict on @disk is STUCK, LYING or LOST and it can be told. */
const VmrFile *vmr_disk_inspection_written(const VmrDiskInspection *disk);

G_END_DECLS
