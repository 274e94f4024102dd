/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A program with a data race, which ThreadSanitizer must report. It has the
 * engine's means (GLib's threads and mutexes, which are not instrumented) and
 * forgets the mutex on one side. */

#include <glib.h>

static GMutex mutex;
static int counter;

static gpointer
careless(gpointer data)
{
    counter++;
    return data;
}

int
main(void)
{
    GThread *thread = g_thread_new("careless", careless, NULL);

    g_mutex_lock(&mutex);
    counter++;
    g_mutex_unlock(&mutex);
    g_thread_join(thread);
    return counter == 2 ? 0 : 1;
}
