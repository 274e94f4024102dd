/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "fake_priv.h"

#include <string.h>

void
fake_listener_unref(gpointer data)
{
    FakeListener *listener = data;

    if (!g_atomic_int_dec_and_test(&listener->refs))
        return;
    listener->destroy(listener->data);
    g_free(listener);
}

void
fake_event_free(gpointer data)
{
    VmrHvEvent *event = data;

    g_free((char *)event->disk);
    g_free(event);
}

void
fake_emit(FakeHv *fake, const char *target, int type, int status)
{
    VmrHvEvent *event;

    if (fake->knobs.events == FAKE_EVENTS_LOST)
        return;
    event = g_new0(VmrHvEvent, 1);
    event->kind = target ? VMR_HV_EVENT_BLOCK_JOB : VMR_HV_EVENT_LIFECYCLE;
    event->disk = g_strdup(target);
    event->type = type;
    event->status = status;
    g_queue_push_tail(&fake->events, event);
    pthread_cond_broadcast(&fake->cond);
}

/* Deliver what is queued; the mutex is held, but not while it is done. */
void
fake_deliver(FakeHv *fake)
{
    VmrHvEvent *event;

    while ((event = g_queue_pop_head(&fake->events))) {
        g_autoptr(GPtrArray) listeners =
            g_ptr_array_new_with_free_func(fake_listener_unref);

        for (guint i = 0; i < fake->listeners->len; i++) {
            FakeListener *listener = g_ptr_array_index(fake->listeners, i);

            g_atomic_int_inc(&listener->refs);
            g_ptr_array_add(listeners, listener);
        }
        pthread_mutex_unlock(&fake->mutex);
        for (guint i = 0; i < listeners->len; i++) {
            FakeListener *listener = g_ptr_array_index(listeners, i);

            listener->func(event, listener->data);
        }
        fake_event_free(event);
        g_ptr_array_set_size(listeners, 0);
        pthread_mutex_lock(&fake->mutex);
    }
}

void *
fake_run_events(void *opaque)
{
    FakeHv *fake = opaque;

    pthread_mutex_lock(&fake->mutex);
    while (!fake->stop) {
        fake_deliver(fake);
        if (!fake->stop)
            pthread_cond_wait(&fake->cond, &fake->mutex);
    }
    pthread_mutex_unlock(&fake->mutex);
    return NULL;
}

gboolean
fake_events_open(FakeHv *fake, VmrHvCall *call, GError **error)
{
    FakeListener *listener;

    if (fake->knobs.events == FAKE_EVENTS_NONE) {
        call->event_destroy(call->event_data);
        return fake_refuse(error, VIR_ERR_NO_SUPPORT,
                           "this function is not supported by the connection "
                           "driver: virConnectDomainEventRegisterAny");
    }
    listener = g_new0(FakeListener, 1);
    listener->refs = 1;
    listener->func = call->event_func;
    listener->data = call->event_data;
    listener->destroy = call->event_destroy;
    for (gsize i = 0; i < VMR_HV_N_EVENTS; i++)
        listener->ids[i] = call->events[i] = fake->next_id++;
    g_ptr_array_add(fake->listeners, listener);
    return TRUE;
}

gboolean
fake_events_close(FakeHv *fake, VmrHvCall *call, GError **error)
{
    for (guint i = 0; i < fake->listeners->len; i++) {
        FakeListener *listener = g_ptr_array_index(fake->listeners, i);

        if (memcmp(listener->ids, call->events, sizeof(call->events)) == 0) {
            g_ptr_array_remove_index(fake->listeners, i);
            return TRUE;
        }
    }
    return fake_refuse(error, VIR_ERR_INVALID_ARG,
                       "invalid argument: no callback %d", call->events[0]);
}
