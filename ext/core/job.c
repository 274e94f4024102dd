/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Threads: on_event() runs in the thread of the event loop and touches only
 * the Bell, which counts its owners and has no lock: its one word is the
 * eventfd's. The Bell outlives the VmrJobs until libvirt has let go of it. */

#include "job.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"

/* When to look again without an event, in ms. Without events that is all there
 * is. With them it is a precaution that somebody waits for: an event may be lost, or
 * come late because another domain holds up the one thread in which libvirt handles
 * those of all. So it begins soon, and becomes as rare as costs nothing. */
#define POLL_WITHOUT_EVENTS 250
#define POLL_FIRST 1000
#define POLL_MAX 10000

/* libvirt handles the end of a job after QEMU has dropped it: for so long a
 * look that fits neither is looked at again. */
#define SETTLE_STEP 50 /* ms */
#define SETTLE_TIME (2 * G_TIME_SPAN_SECOND)

typedef struct {
    gint refs; /* atomic */
    int fd;    /* eventfd */
} Bell;

struct VmrJobs {
    VmrDomain *dom;
    Bell *bell;
    int events[VMR_HV_N_EVENTS];
    gboolean have_events;
    int poll_ms;
};

static Bell *
bell_new(GError **error)
{
    Bell *bell = NULL;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0) {
        vmr_error_set_errno(error, errno, "create", "eventfd");
        return NULL;
    }
    bell = g_new0(Bell, 1);
    bell->refs = 1;
    bell->fd = fd;
    return bell;
}

static void
bell_unref(gpointer data)
{
    Bell *bell = data;

    if (!g_atomic_int_dec_and_test(&bell->refs))
        return;
    close(bell->fd);
    g_free(bell);
}

static void
on_event(const VmrHvEvent *event G_GNUC_UNUSED, gpointer data)
{
    Bell *bell = data;

    /* a full counter is readable, which is all that matters */
    (void)eventfd_write(bell->fd, 1);
}

VmrJobs *
vmr_jobs_open(const VmrDomain *dom, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrJobs) jobs = g_new0(VmrJobs, 1);
    g_autoptr(GError) local = NULL;

    jobs->dom = vmr_domain_new(dom->hv, dom->ptr);
    jobs->bell = bell_new(error);
    if (!jobs->bell)
        return NULL;
    g_atomic_int_inc(&jobs->bell->refs);
    jobs->have_events =
        vmr_hv_events_open(dom, on_event, jobs->bell, bell_unref,
                           jobs->events, wait, &local);
    if (!jobs->have_events &&
        !g_error_matches(local, VMR_ERROR, VMR_ERROR_VIRT)) {
        g_propagate_error(error, g_steal_pointer(&local));
        return NULL;
    }
    jobs->poll_ms = jobs->have_events ? POLL_FIRST : POLL_WITHOUT_EVENTS;
    return g_steal_pointer(&jobs);
}

void
vmr_jobs_close(VmrJobs *jobs)
{
    if (!jobs)
        return;
    if (jobs->have_events) {
        /* nobody waits for the answer, and a hanging daemon must not hold
         * the caller here */
        VmrWait no_wait = {.call_timeout = 0};

        (void)vmr_hv_events_close(jobs->dom, jobs->events, &no_wait, NULL);
    }
    if (jobs->bell)
        bell_unref(jobs->bell);
    vmr_domain_free(jobs->dom);
    g_free(jobs);
}

/* Wait for an event, but not longer than @poll_ms. */
static gboolean
jobs_wait(VmrJobs *jobs, int poll_ms, const VmrWait *wait, GError **error)
{
    eventfd_t count;
    gboolean rang = FALSE;

    if (!vmr_wait_fd(wait, jobs->bell->fd, poll_ms, &rang, error))
        return FALSE;
    if (rang) {
        (void)eventfd_read(jobs->bell->fd, &count);
    } else if (poll_ms == jobs->poll_ms && jobs->have_events) {
        jobs->poll_ms = MIN(2 * poll_ms, POLL_MAX);
    }
    return TRUE;
}

gboolean
vmr_jobs_wait_until(VmrJobs *jobs, VmrLookFunc look, gpointer data,
                    const VmrWait *wait, GError **error)
{
    gint64 settled = 0; /* when it has to be; 0: nothing is settling */

    for (;;) {
        int poll_ms = jobs->poll_ms;
        gboolean last = settled != 0 && g_get_monotonic_time() >= settled;

        switch (look(data, last, wait, error)) {
        case VMR_LOOK_DONE:
            return TRUE;
        case VMR_LOOK_FAILED:
            return FALSE;
        case VMR_LOOK_SETTLING:
            if (settled == 0)
                settled = g_get_monotonic_time() + SETTLE_TIME;
            poll_ms = SETTLE_STEP;
            break;
        case VMR_LOOK_AGAIN:
            settled = 0;
            break;
        }
        if (!jobs_wait(jobs, poll_ms, wait, error))
            return FALSE;
    }
}

int
vmr_jobs_get_fd(const VmrJobs *jobs)
{
    return jobs->bell->fd;
}
