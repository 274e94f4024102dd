/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "wait.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"
#include "worker.h"

/* How long a libvirt call may take unless the caller says otherwise. Calls
 * answer in milliseconds; one that needs this long hangs in a dead target. */
#define DEFAULT_CALL_TIMEOUT (30 * G_TIME_SPAN_SECOND)

/* After an interruption, and beyond the deadline of the whole, a call under way
 * gets this long to come back, so that its outcome is known and can be undone. */
#define CALL_GRACE (2 * G_TIME_SPAN_SECOND)

/* The longest time, in ms, between two looks at what is settling. */
#define SETTLE_MAX_STEP 50

VmrWait
vmr_wait_for(double seconds, const VmrWait *like)
{
    VmrWait wait = {.deadline = VMR_WAIT_FOREVER,
                    .call_timeout = DEFAULT_CALL_TIMEOUT};

    if (like) {
        wait.call_timeout = like->call_timeout;
        wait.interrupted = like->interrupted;
        wait.data = like->data;
        wait.heeded = like->heeded;
    }
    /* a century is for ever, and keeps the sum below from overflowing */
    if (seconds >= 0 && seconds < 100 * 365 * 86400.0)
        wait.deadline = g_get_monotonic_time() + (gint64)(seconds * 1e6);
    return wait;
}

VmrWait
vmr_wait_extended(const VmrWait *wait, double seconds)
{
    VmrWait extended = *wait;

    if (wait->deadline != VMR_WAIT_FOREVER)
        extended.deadline += (gint64)(seconds * 1e6);
    return extended;
}

VmrWait
vmr_wait_at_least(const VmrWait *wait, double seconds)
{
    VmrWait longer = *wait;

    longer.deadline = MAX(longer.deadline, vmr_wait_for(seconds, wait).deadline);
    return longer;
}

/* Have @wait go on in spite of the interruptions so far. */
static void
heed(VmrWait *wait)
{
    if (wait->interrupted)
        wait->heeded = wait->interrupted(wait->data);
}

/* An interruption is remembered until somebody heeds it: one that comes while
 * a call is in its last moments still stops what was to follow. */
static gboolean
check_interrupted(const VmrWait *wait, GError **error)
{
    if (!wait->interrupted || wait->interrupted(wait->data) <= wait->heeded)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_CANCELLED, "interrupted");
    return FALSE;
}

VmrWait
vmr_wait_for_cleanup(const VmrWait *failed)
{
    VmrWait wait = vmr_wait_for(VMR_WAIT_CLEANUP_SECONDS, failed);

    heed(&wait);
    return wait;
}

/* Milliseconds from @now to @end, rounded up, at least 0. */
static gint64
ms_until(gint64 end, gint64 now)
{
    if (end == VMR_WAIT_FOREVER)
        return G_MAXINT64;
    return end > now ? (end - now + 999) / 1000 : 0;
}

gboolean
vmr_wait_fd(const VmrWait *wait, int fd, int timeout_ms, gboolean *ready,
            GError **error)
{
    gint64 now = g_get_monotonic_time();
    gint64 end = timeout_ms < 0 ? VMR_WAIT_FOREVER
                                : now + (gint64)timeout_ms * 1000;
    struct pollfd pfd = {.fd = fd, .events = POLLIN};

    *ready = FALSE;
    for (;;) {
        gint64 slice = MIN(ms_until(end, now), ms_until(wait->deadline, now));
        int n;

        /* without a hook nobody wants to be asked: sleep as long as needed */
        slice = MIN(slice, wait->interrupted ? VMR_WAIT_SLICE_MS : G_MAXINT);
        n = poll(&pfd, 1, (int)slice);
        if (n > 0) {
            *ready = TRUE;
            return TRUE;
        }
        if (n < 0 && errno != EINTR) {
            vmr_error_set_errno(error, errno, "wait for", "event");
            return FALSE;
        }
        if (!check_interrupted(wait, error))
            return FALSE;
        now = g_get_monotonic_time();
        if (now >= end)
            return TRUE;
        if (now >= wait->deadline) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT,
                        "the time given is over");
            return FALSE;
        }
    }
}

/* One call on its own thread. Both threads hold a reference, since either may
 * be the last one to look at it. */
typedef struct {
    gint refs; /* atomic */
    VmrWaitFunc func;
    gpointer data;
    GDestroyNotify destroy;
    pthread_mutex_t mutex; /* guards error and ok */
    GError *error;
    gboolean ok;
    int done_fd; /* eventfd, readable once func has returned */
} Call;

static void
call_unref(Call *call)
{
    if (!g_atomic_int_dec_and_test(&call->refs))
        return;
    call->destroy(call->data);
    g_clear_error(&call->error);
    if (call->done_fd >= 0)
        close(call->done_fd);
    pthread_mutex_destroy(&call->mutex);
    g_free(call);
}

static Call *
call_new(VmrWaitFunc func, gpointer data, GDestroyNotify destroy)
{
    Call *call = g_new0(Call, 1);

    call->refs = 2;
    call->func = func;
    call->data = data;
    call->destroy = destroy;
    call->done_fd = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&call->mutex, NULL);
    return call;
}

static void
call_run(gpointer data)
{
    Call *call = data;
    GError *error = NULL;
    gboolean ok = call->func(call->data, &error);

    pthread_mutex_lock(&call->mutex);
    call->ok = ok;
    call->error = error;
    pthread_mutex_unlock(&call->mutex);
    /* can fail only if the counter were full, and then it is readable */
    (void)eventfd_write(call->done_fd, 1);
    call_unref(call);
}

static gboolean
call_start(Call *call, GError **error)
{
    if (call->done_fd < 0) {
        vmr_error_set_errno(error, EMFILE, "create", "eventfd");
        return FALSE;
    }
    return vmr_worker_run(call_run, call, error);
}

/* Wait until @call is done; TIMEOUT or CANCELLED if it is not in time. */
static gboolean
call_join(Call *call, const VmrWait *wait, const char *what, GError **error)
{
    gint64 now = g_get_monotonic_time();
    VmrWait patience = *wait;
    g_autoptr(GError) local = NULL;
    gboolean ready;

    patience.deadline = MAX(wait->deadline, now + CALL_GRACE);
    if (wait->call_timeout < VMR_WAIT_FOREVER - now)
        patience.deadline = MIN(patience.deadline, now + wait->call_timeout);
    if (vmr_wait_fd(&patience, call->done_fd, -1, &ready, &local))
        return TRUE;
    if (g_error_matches(local, VMR_ERROR, VMR_ERROR_CANCELLED)) {
        VmrWait grace = {.deadline = g_get_monotonic_time() + CALL_GRACE,
                         .interrupted = wait->interrupted,
                         .data = wait->data};

        heed(&grace);
        if (vmr_wait_fd(&grace, call->done_fd, -1, &ready, NULL))
            return TRUE;
        vmr_error_set_virt(error, VMR_ERROR_CANCELLED,
                           VIR_ERR_OPERATION_ABORTED,
                           "interrupted while %s did not return", what);
    } else {
        vmr_error_set_virt(error, VMR_ERROR_TIMEOUT, VIR_ERR_OPERATION_TIMEOUT,
                           "%s did not return in time", what);
    }
    vmr_error_set_unknown(error, TRUE);
    return FALSE;
}

gboolean
vmr_wait_settle(const VmrWait *wait, int code, VmrWaitAttempt attempt,
                gpointer data, GError **error)
{
    gint64 end = g_get_monotonic_time() +
                 (gint64)(VMR_WAIT_SETTLE_SECONDS * G_TIME_SPAN_SECOND);

    for (int step_ms = 1;; step_ms = MIN(2 * step_ms, SETTLE_MAX_STEP)) {
        gboolean is_last = g_get_monotonic_time() >= end;
        g_autoptr(GError) local = NULL;
        gboolean unused;

        if (attempt(data, wait, &local))
            return TRUE;
        if (is_last || !g_error_matches(local, VMR_ERROR, code)) {
            g_propagate_error(error, g_steal_pointer(&local));
            return FALSE;
        }
        if (!vmr_wait_fd(wait, -1, step_ms, &unused, error))
            return FALSE;
    }
}

gboolean
vmr_wait_call(const VmrWait *wait, const char *what, VmrWaitFunc func,
              gpointer data, GDestroyNotify destroy,
              void (*collect)(gpointer data, gpointer into), gpointer into,
              GError **error)
{
    Call *call = call_new(func, data, destroy);
    gboolean ok;

    if (!check_interrupted(wait, error) || !call_start(call, error)) {
        call_unref(call);
        call_unref(call);
        return FALSE;
    }
    ok = call_join(call, wait, what, error);
    if (ok) {
        pthread_mutex_lock(&call->mutex);
        ok = call->ok;
        if (call->error)
            g_propagate_error(error, g_steal_pointer(&call->error));
        pthread_mutex_unlock(&call->mutex);
        if (ok && collect)
            collect(call->data, into);
    }
    call_unref(call);
    return ok;
}
