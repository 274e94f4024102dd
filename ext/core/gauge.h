/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * gauge: how fast the guest writes, how fast mirrors follow, and what is left:
 * the figures of a mirrored snapshot, from the progress of its block jobs.
 */

#include "mirror_priv.h"

G_BEGIN_DECLS

typedef struct {
    VmrMirror *mirror;   /* whose figures are kept up to date */
    const VmrDisk *disk; /* only this one; NULL: all that are not pivoted */
    gboolean may_end;    /* a job that has ended has nothing left */
    guint64 current;     /* bytes mirrored, as of the last look */
    guint64 end;         /* bytes to be mirrored by then */
    gboolean is_new;     /* the last look has brought new rates */
    /* where the rates are measured from */
    gint64 since;        /* µs */
    guint64 current_then;
    guint64 end_then;
    gboolean is_measured; /* there are rates of a full period */
} VmrGauge;

/* A gauge for the mirrors of @mirror, or only for the one of @disk. */
VmrGauge vmr_gauge_new(VmrMirror *mirror, const VmrDisk *disk);

/* Look at the jobs (virDomainGetBlockJobInfo). QEMU reports its work in lumps, so
 * that rates are measured over a second or more.
 * Errors: JOB_FAILED when one has ended (unless it may), VIRT, TIMEOUT, CANCELLED. */
gboolean vmr_gauge_look(VmrGauge *gauge, const VmrWait *wait, GError **error);

/* Measure the rates anew from now on: something has changed. */
void vmr_gauge_restart(VmrGauge *gauge);

/* Append @what and the figures to *@error. */
void vmr_gauge_note(const VmrGauge *gauge, const char *what, GError **error);

G_END_DECLS
