/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * call: one call of the engine without the GIL, which signal handlers (Ctrl-C)
 * can end.
 *
 *   Call call;
 *
 *   call_enter(&call, state, timeout);
 *   vmr_...(..., &call.wait, &call.error);
 *   if (call_leave(&call) < 0)
 *       return NULL;
 */

#include "module.h"

#include "../core/wait.h"

G_BEGIN_DECLS

typedef struct {
    const ModuleState *state;
    VmrWait wait;          /* for the engine */
    GError *error;         /* for the engine: &call.error */
    PyThreadState *thread; /* of the caller, while the GIL is released */
    PyObject *raised;      /* by the first signal handler that did; owned */
    int interruptions;     /* how many did */
    int (*tick)(gpointer data); /* see call_watch(), or NULL */
    gpointer tick_data;
} Call;

/* Release the GIL for a call that may take @timeout seconds, negative: any
 * time. From here to call_leave() nothing of Python may be touched. @call must
 * stay where it is. */
void call_enter(Call *call, const ModuleState *state, double timeout);

/* Have @tick(@data) called, with the GIL, at least every VMR_WAIT_SLICE_MS while the
 * engine waits: 0, or -1 with an exception, which ends the wait. After
 * call_enter(). */
void call_watch(Call *call, int (*tick)(gpointer data), gpointer data);

/* Take the GIL back; 0, or -1 with the exception for what went wrong: what a
 * signal handler raised comes first, and what the engine says besides is its
 * context. A call that succeeded all the same is -1, too, after a signal. */
int call_leave(Call *call);

/* Prepare @module for calls; 0, or -1 with an exception. */
int call_setup(PyObject *module);

G_END_DECLS
