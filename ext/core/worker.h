/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * worker: threads that run one function after the other.
 *
 * A call that may hang runs in a thread of its own, which is then left behind. The
 * calls that do not hang, nearly all, find the thread of the one before.
 */

#include <glib.h>
#include <pthread.h>

G_BEGIN_DECLS

/* Start a thread with all signals blocked: they are for the threads of the program
 * that we are part of. It is the caller's to join or to detach. 0, or why not, as
 * an errno. */
int vmr_worker_start_thread(pthread_t *thread, void *(*func)(void *data),
                            void *data);

/* Run @func with @data in a thread (with all signals blocked) that has nothing else
 * to do: an idle one, or a new one. Any thread. Errors: IO. */
gboolean vmr_worker_run(void (*func)(gpointer data), gpointer data,
                        GError **error);

typedef struct VmrWorker VmrWorker;

/* A thread that waits, and does nothing until it is released: then it is idle, and
 * the next vmr_worker_run() finds it, even if no thread can be started by then.
 * Errors: IO. */
VmrWorker *vmr_worker_new(GError **error);

/* Release @worker, which is not the caller's any more; NULL is fine. */
void vmr_worker_release(VmrWorker *worker);

G_END_DECLS
