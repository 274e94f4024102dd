/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "evloop.h"

#include <libvirt/libvirt.h>
#include <pthread.h>
#include <unistd.h>

#include "error.h"
#include "worker.h"

static pthread_mutex_t evloop_mutex = PTHREAD_MUTEX_INITIALIZER;
static gboolean evloop_running; /* guarded by evloop_mutex */
static gint evloop_pid;         /* atomic: of the process that it turns in */

#define TICK (3600 * 1000) /* ms */

/* It is there to have the loop wait: one without any handle or timer does not. */
static void
on_tick(int timer G_GNUC_UNUSED, void *opaque G_GNUC_UNUSED)
{
}

static void *
evloop_run(void *opaque G_GNUC_UNUSED)
{
    for (;;) {
        /* fails only when a handler made it: the others go on */
        (void)virEventRunDefaultImpl();
    }
    return NULL;
}

static gboolean
evloop_start_thread(GError **error)
{
    pthread_t thread;
    int rc = vmr_worker_start_thread(&thread, evloop_run, NULL);

    if (rc != 0) {
        vmr_error_set_errno(error, rc, "start", "event loop thread");
        return FALSE;
    }
    pthread_detach(thread);
    return TRUE;
}

/* A forked child has neither the thread nor a loop of its own: libvirt's has the
 * parent's connections in it, whose data the child must not take away. */
static gboolean
is_of_parent(void)
{
    gint pid = g_atomic_int_get(&evloop_pid);

    return pid != 0 && pid != getpid();
}

gboolean
vmr_evloop_start(GError **error)
{
    gboolean ok = TRUE;

    if (is_of_parent()) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE,
                    "the event loop is that of the process which has forked this one: "
                    "fork before it is started, or start a new program");
        return FALSE;
    }
    /* the one mutex that is held over libvirt calls: they only set up tables
     * of this process, and nothing else takes it */
    pthread_mutex_lock(&evloop_mutex);
    if (!evloop_running) {
        if (virEventRegisterDefaultImpl() < 0 ||
            virEventAddTimeout(TICK, on_tick, NULL, NULL) < 0) {
            vmr_error_set_from_libvirt(error);
            ok = FALSE;
        } else {
            g_atomic_int_set(&evloop_pid, getpid());
            ok = evloop_start_thread(error);
        }
        evloop_running = ok;
    }
    pthread_mutex_unlock(&evloop_mutex);
    return ok;
}
