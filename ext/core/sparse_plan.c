/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* SEEK_DATA */

#include "sparse_plan.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "sparse_sum.h"

/* How many extents are counted between two looks whether to stop. */
#define COUNT_SLICE 1024

struct VmrSparsePlan {
    int fd;
    pthread_mutex_t mutex; /* guards what follows */
    guint64 found;           /* bytes handed out, not counting any twice */
    guint64 position;        /* all before it was handed out */
    guint64 end;
    VmrSparseRange extent;   /* the one at @position, as far as not handed out */
    GArray *returned;        /* of VmrSparseRange */
};

VmrSparsePlan *
vmr_sparse_plan_new(int fd, guint64 begin, guint64 end)
{
    VmrSparsePlan *plan = g_new0(VmrSparsePlan, 1);

    plan->fd = fd;
    plan->position = begin;
    plan->end = end;
    plan->returned = g_array_new(FALSE, FALSE, sizeof(VmrSparseRange));
    pthread_mutex_init(&plan->mutex, NULL);
    return plan;
}

void
vmr_sparse_plan_free(VmrSparsePlan *plan)
{
    if (!plan)
        return;
    g_array_unref(plan->returned);
    pthread_mutex_destroy(&plan->mutex);
    g_free(plan);
}

gboolean
vmr_sparse_next_data(int fd, guint64 from, guint64 end, VmrSparseRange *extent)
{
    off_t data;
    off_t hole;

    *extent = (VmrSparseRange){end, 0};
    if (from >= end)
        return TRUE;
    data = lseek(fd, (off_t)from, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return TRUE;
    if (data < 0 && errno != EINVAL && errno != EOPNOTSUPP)
        return FALSE;
    data = data < 0 ? (off_t)from : data;
    if ((guint64)data >= end)
        return TRUE;
    hole = lseek(fd, data, SEEK_HOLE);
    /* a hole that begins where data was found: somebody has cut the file off
     * in between, which reading it will tell */
    if (hole <= data || (guint64)hole > end)
        hole = (off_t)end;
    *extent = (VmrSparseRange){(guint64)data, (guint64)(hole - data)};
    return TRUE;
}

/* Have the extent at the plan's position ready, if there is one left. */
static gboolean
find_extent(VmrSparsePlan *plan)
{
    const guint64 mask = VMR_SPARSE_BLOCK - 1;
    VmrSparseRange found;
    guint64 begin;
    guint64 end;

    if (plan->extent.length > 0 || plan->position >= plan->end)
        return TRUE;
    if (!vmr_sparse_next_data(plan->fd, plan->position, plan->end, &found))
        return FALSE;
    if (found.length == 0) {
        plan->position = plan->end;
        return TRUE;
    }
    /* a file system may have blocks smaller than ours: take what is around */
    begin = MAX(found.offset & ~mask, plan->position);
    end = MIN((found.offset + found.length + mask) & ~mask, plan->end);
    plan->extent = (VmrSparseRange){begin, end - begin};
    plan->position = end;
    return TRUE;
}

static VmrSparseRange
cut(VmrSparseRange *from, guint64 max)
{
    VmrSparseRange range = {from->offset, MIN(from->length, max)};

    from->offset += range.length;
    from->length -= range.length;
    return range;
}

gboolean
vmr_sparse_plan_claim(VmrSparsePlan *plan, guint64 max, VmrSparseRange *range)
{
    gboolean ok = TRUE;

    *range = (VmrSparseRange){0, 0};
    pthread_mutex_lock(&plan->mutex);
    if (plan->returned->len > 0) {
        guint last = plan->returned->len - 1;
        VmrSparseRange *back = &g_array_index(plan->returned, VmrSparseRange,
                                              last);

        *range = cut(back, max);
        if (back->length == 0)
            g_array_set_size(plan->returned, last);
    } else {
        ok = find_extent(plan);
        if (ok)
            *range = cut(&plan->extent, max);
        plan->found += range->length;
    }
    pthread_mutex_unlock(&plan->mutex);
    return ok;
}

void
vmr_sparse_plan_give_back(VmrSparsePlan *plan, VmrSparseRange range)
{
    pthread_mutex_lock(&plan->mutex);
    g_array_append_val(plan->returned, range);
    pthread_mutex_unlock(&plan->mutex);
}

gboolean
vmr_sparse_plan_is_empty(VmrSparsePlan *plan, guint64 *found)
{
    gboolean empty;

    pthread_mutex_lock(&plan->mutex);
    empty = plan->position >= plan->end && plan->extent.length == 0 &&
            plan->returned->len == 0;
    *found = plan->found;
    pthread_mutex_unlock(&plan->mutex);
    return empty;
}

gboolean
vmr_sparse_plan_count(VmrSparsePlan *plan, gboolean (*stop)(gpointer data),
                      gpointer data, guint64 *total)
{
    const guint64 begin = plan->position;

    *total = 0;
    for (guint i = 1; plan->position < plan->end; i++) {
        if (i % COUNT_SLICE == 0 && stop && stop(data)) {
            errno = ECANCELED;
            return FALSE;
        }
        if (!find_extent(plan))
            return FALSE;
        *total += plan->extent.length;
        plan->extent.length = 0;
    }
    plan->position = begin;
    return TRUE;
}
