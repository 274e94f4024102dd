/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * sparse_pace: how much a copy may have under way at a moment, so that a guest
 * on the same storage is not starved, and how much per second at most.
 *
 * What a guest suffers from is what it has to wait behind. So in pace "auto", while
 * there is anybody else on the disks, there is one request under way, as long as
 * the storage does it in half a millisecond, and then none for a part of what that
 * took: half of the time is the guest's. Whether there is anybody is found out by
 * keeping still for some milliseconds, every now and then, and seeing whether the
 * disks do. Where the disks cannot be seen the queue is kept short while requests
 * take longer than they did.
 */

#include "diskload.h"
#include "sparse.h"

G_BEGIN_DECLS

#define VMR_SPARSE_MAX_BLOCK (1024u * 1024u)

typedef struct VmrSparsePacer VmrSparsePacer;

/* A pacer for @pace, and for the disks of @load (handed over; NULL: not known). */
VmrSparsePacer *vmr_sparse_pacer_new(VmrSparsePace pace, VmrDiskload *load);

/* Free @pacer; NULL is fine. */
void vmr_sparse_pacer_free(VmrSparsePacer *pacer);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrSparsePacer, vmr_sparse_pacer_free)

/* For how many µs nothing may be started yet at @now (µs, monotonic); and how many
 * requests of how many bytes may be under way. Any thread. */
gint64 vmr_sparse_pacer_get(VmrSparsePacer *pacer, gint64 now, guint *depth,
                            guint *block);

/* Tell that a request is made at @now. Any thread. */
void vmr_sparse_pacer_begin(VmrSparsePacer *pacer, gint64 now);

/* Tell that a request for @bytes, which took @latency µs, has ended at @now, well
 * or not. Any thread. */
void vmr_sparse_pacer_end(VmrSparsePacer *pacer, guint bytes, gint64 latency,
                          gint64 now);

/* Whether others were seen on the disks. Any thread. */
gboolean vmr_sparse_pacer_has_company(VmrSparsePacer *pacer);

typedef struct VmrSparseLimit VmrSparseLimit;

/* A limit of @rate bytes per second, 0 being none. */
VmrSparseLimit *vmr_sparse_limit_new(guint64 rate);

/* Free @limit; NULL is fine. */
void vmr_sparse_limit_free(VmrSparseLimit *limit);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrSparseLimit, vmr_sparse_limit_free)

/* Change the rate; what waits for the old one may go on. Any thread. */
void vmr_sparse_limit_set(VmrSparseLimit *limit, guint64 rate);

/* The rate. Any thread. */
guint64 vmr_sparse_limit_get(VmrSparseLimit *limit);

/* For how many µs nothing may be started yet at @now (µs, monotonic); and how
 * many bytes the next request should have at most, into *@block. Any thread. */
gint64 vmr_sparse_limit_delay(VmrSparseLimit *limit, gint64 now, guint *block);

/* Tell that a request for @bytes was started at @now. Any thread. */
void vmr_sparse_limit_charge(VmrSparseLimit *limit, guint64 bytes, gint64 now);

G_END_DECLS
