/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "converge.h"

#include "error.h"
#include "throttle.h"

/* ms between two looks: as long as it matters when exactly something is mirrored, and
 * once that takes too long anyway. */
#define FINE_STEP 20
#define COARSE_STEP 200

/* Seconds beyond the deadline that are left to a call, so that there is something to
 * tell of the mirrors in the end. */
#define CALL_GRACE 2.0

/* Less than 1/N of what is left is no progress worth waiting for. */
#define PROGRESS 64

/* How mirrors approach the guest. QEMU reports its work in lumps, so nothing is made of
 * a rate over a short time: what counts is how long it takes until all that was left at
 * some time, the mark, is mirrored. */
typedef struct {
    VmrGauge *gauge;
    const VmrCutOver *how;
    guint64 mark;     /* bytes */
    gint64 marked_at; /* µs, 0: not yet */
    guint64 least;    /* bytes that were left, at the best */
    gint64 least_at;  /* µs */
} Approach;

/* Whether what is left fits into the budget; a mark that was reached too late is
 * replaced by a new one. */
static gboolean
is_near(Approach *approach)
{
    const VmrGauge *gauge = approach->gauge;
    gboolean is_marked = approach->marked_at != 0;
    gint64 now = g_get_monotonic_time();
    double lag = (double)(now - approach->marked_at) / 1e6;

    /* a job that has ended has taken its figures along */
    if (gauge->current == gauge->end)
        return TRUE;
    if (is_marked && gauge->current < approach->mark)
        return FALSE;
    if (is_marked && lag <= approach->how->pause_budget / 2)
        return TRUE;
    approach->mark = gauge->end;
    approach->marked_at = now;
    return FALSE;
}

static void
start_patience(Approach *approach)
{
    approach->least = G_MAXUINT64;
}

/* Without a deadline: whether it may still end, as less is left from time to time. */
static gboolean
check_patience(Approach *approach, const VmrWait *wait, GError **error)
{
    guint64 left = approach->gauge->mirror->figures.left;
    gint64 now = g_get_monotonic_time();

    if (left < approach->least - approach->least / PROGRESS) {
        approach->least = left;
        approach->least_at = now;
    }
    if (wait->deadline != VMR_WAIT_FOREVER ||
        now - approach->least_at <
            (gint64)(VMR_CONVERGE_SECONDS * G_TIME_SPAN_SECOND))
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT,
                "no less is left to be mirrored than %.0f s ago",
                VMR_CONVERGE_SECONDS);
    return FALSE;
}

static int
next_step(const Approach *approach, int step_ms)
{
    double age = (double)(g_get_monotonic_time() - approach->marked_at) / 1e6;

    return MIN(2 * step_ms, age > approach->how->pause_budget / 2 ? COARSE_STEP
                                                                  : FINE_STEP);
}

static gboolean
adjust_throttle(Approach *approach, const VmrWait *wait, GError **error)
{
    gboolean changed = FALSE;

    if (!approach->how->throttle || !approach->gauge->is_new)
        return TRUE;
    if (!vmr_throttle_adjust(approach->gauge->mirror, &changed, wait, error))
        return FALSE;
    if (changed) {
        vmr_gauge_restart(approach->gauge);
        start_patience(approach);
    }
    return TRUE;
}

/* Look until it is near; @calls is for the calls made. */
static gboolean
come_near(Approach *approach, const VmrWait *calls, const VmrWait *wait,
          GError **error)
{
    int step_ms = 1;

    for (;;) {
        gint64 before = approach->marked_at;
        gboolean unused;

        if (!vmr_gauge_look(approach->gauge, calls, error))
            return FALSE;
        if (is_near(approach))
            return TRUE;
        if (!adjust_throttle(approach, calls, error) ||
            !check_patience(approach, wait, error))
            return FALSE;
        step_ms = before != approach->marked_at ? 1
                                                : next_step(approach, step_ms);
        if (!vmr_wait_fd(wait, -1, step_ms, &unused, error))
            return FALSE;
    }
}

gboolean
vmr_converge(VmrGauge *gauge, const VmrCutOver *how, const VmrWait *wait,
             GError **error)
{
    Approach approach = {.gauge = gauge, .how = how};
    VmrWait calls = vmr_wait_extended(wait, CALL_GRACE);
    g_autoptr(GError) local = NULL;

    gauge->mirror->figures.budget = how->pause_budget;
    start_patience(&approach);
    if (come_near(&approach, &calls, wait, &local))
        return TRUE;
    if (g_error_matches(local, VMR_ERROR, VMR_ERROR_TIMEOUT))
        vmr_gauge_note(gauge, "the mirrors do not converge", &local);
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}
