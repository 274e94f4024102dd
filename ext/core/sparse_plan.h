/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * sparse_plan: which parts of a file have data, handed out piece by piece.
 *
 * Nothing is kept but a position, so that a file may have any number of extents.
 * Ranges are aligned to VMR_SPARSE_BLOCK, as O_DIRECT and the checksum want it.
 */

#include <glib.h>

G_BEGIN_DECLS

typedef struct VmrSparsePlan VmrSparsePlan;

typedef struct {
    guint64 offset;
    guint64 length;
} VmrSparseRange;

/* A plan of the data of @fd (borrowed; its file position is used) from @begin
 * to @end, which are aligned to VMR_SPARSE_BLOCK, or @end is the file's. */
VmrSparsePlan *vmr_sparse_plan_new(int fd, guint64 begin, guint64 end);

/* Free @plan; NULL is fine. */
void vmr_sparse_plan_free(VmrSparsePlan *plan);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrSparsePlan, vmr_sparse_plan_free)

/* How many bytes the plan hands out from where it is now on, into *@total. It
 * is walked through for that; with no other thread at it. @stop, asked now and
 * then with @data, may end that early. FALSE: errno says why (ECANCELED). */
gboolean vmr_sparse_plan_count(VmrSparsePlan *plan,
                               gboolean (*stop)(gpointer data), gpointer data,
                               guint64 *total);

/* Take the next range, of @max bytes (a multiple of VMR_SPARSE_BLOCK) at most;
 * length 0: there is none left. Any thread. FALSE: errno says why. */
gboolean vmr_sparse_plan_claim(VmrSparsePlan *plan, guint64 max,
                               VmrSparseRange *range);

/* Put back a @range that was claimed and could not be copied. Any thread. */
void vmr_sparse_plan_give_back(VmrSparsePlan *plan, VmrSparseRange range);

/* Whether all there is was handed out, nothing of it was put back since, and how
 * many bytes that was (each counted once). Any thread. */
gboolean vmr_sparse_plan_is_empty(VmrSparsePlan *plan, guint64 *found);

/* The next extent of data of @fd between @from and @end, not aligned: length 0
 * if there is none. What cannot tell (a block device) is all data. FALSE: errno
 * says why. */
gboolean vmr_sparse_next_data(int fd, guint64 from, guint64 end,
                              VmrSparseRange *extent);

G_END_DECLS
