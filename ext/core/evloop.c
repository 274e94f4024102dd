/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "evloop.h"

#include <libvirt/libvirt.h>
#include <pthread.h>

#include "error.h"
#include "worker.h"

static pthread_mutex_t evloop_mutex = PTHREAD_MUTEX_INITIALIZER;
static gboolean evloop_running; /* guarded by evloop_mutex */

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

gboolean
vmr_evloop_start(GError **error)
{
    gboolean ok = TRUE;

    /* the one mutex that is held over libvirt calls: they only set up tables
     * of this process, and nothing else takes it */
    pthread_mutex_lock(&evloop_mutex);
    if (!evloop_running) {
        if (virEventRegisterDefaultImpl() < 0 ||
            virEventAddTimeout(TICK, on_tick, NULL, NULL) < 0) {
            vmr_error_set_from_libvirt(error);
            ok = FALSE;
        } else {
            ok = evloop_start_thread(error);
        }
        evloop_running = ok;
    }
    pthread_mutex_unlock(&evloop_mutex);
    return ok;
}
