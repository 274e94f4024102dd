/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "sparse_pace.h"

#include <pthread.h>

#include "sparse_sum.h"

/* Requests are cut so that so many go out in a second: a slow copy is even, and
 * a new rate is soon felt. */
#define REQUESTS_PER_SECOND 16

/* What was not used of the rate is lost after so long. */
#define MAX_CREDIT (50 * G_TIME_SPAN_MILLISECOND)

struct VmrSparseLimit {
    pthread_mutex_t mutex;
    guint64 rate; /* bytes/s, 0: none */
    gint64 next;  /* µs: when the next request may be started */
};

VmrSparseLimit *
vmr_sparse_limit_new(guint64 rate)
{
    VmrSparseLimit *limit = g_new0(VmrSparseLimit, 1);

    pthread_mutex_init(&limit->mutex, NULL);
    limit->rate = rate;
    return limit;
}

void
vmr_sparse_limit_free(VmrSparseLimit *limit)
{
    if (!limit)
        return;
    pthread_mutex_destroy(&limit->mutex);
    g_free(limit);
}

void
vmr_sparse_limit_set(VmrSparseLimit *limit, guint64 rate)
{
    pthread_mutex_lock(&limit->mutex);
    if (limit->rate != rate)
        limit->next = 0;
    limit->rate = rate;
    pthread_mutex_unlock(&limit->mutex);
}

guint64
vmr_sparse_limit_get(VmrSparseLimit *limit)
{
    guint64 rate;

    pthread_mutex_lock(&limit->mutex);
    rate = limit->rate;
    pthread_mutex_unlock(&limit->mutex);
    return rate;
}

gint64
vmr_sparse_limit_delay(VmrSparseLimit *limit, gint64 now, guint *block)
{
    gint64 delay = 0;

    *block = VMR_SPARSE_MAX_BLOCK;
    pthread_mutex_lock(&limit->mutex);
    if (limit->rate > 0) {
        guint64 share = limit->rate / REQUESTS_PER_SECOND;

        share -= share % VMR_SPARSE_BLOCK;
        *block = (guint)CLAMP(share, VMR_SPARSE_BLOCK, VMR_SPARSE_MAX_BLOCK);
        delay = MAX(limit->next - now, 0);
    }
    pthread_mutex_unlock(&limit->mutex);
    return delay;
}

void
vmr_sparse_limit_charge(VmrSparseLimit *limit, guint64 bytes, gint64 now)
{
    pthread_mutex_lock(&limit->mutex);
    if (limit->rate > 0)
        limit->next = MAX(limit->next, now - MAX_CREDIT) +
                      (gint64)((double)bytes * 1e6 / (double)limit->rate);
    pthread_mutex_unlock(&limit->mutex);
}
