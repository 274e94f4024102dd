/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "snapshot_watch.h"

#include <string.h>

#include "errors.h"
#include "snapshot_tuples.h"

#define STEP G_TIME_SPAN_SECOND

static int
tick(gpointer data)
{
    SnapshotWatch *watch = data;
    gint64 now = g_get_monotonic_time();
    g_autoptr(PyObject) figures = NULL;
    g_autoptr(PyObject) result = NULL;

    if (now < watch->next)
        return 0;
    watch->next = now + STEP;
    figures =
        tuples_from_figures(snapshot_module_state(watch->self),
                            vmr_mirror_get_figures(watch->self->mirror));
    if (figures)
        result = PyObject_CallFunctionObjArgs(watch->on_progress, figures,
                                              NULL);
    return result ? 0 : -1;
}

void
snapshot_watch(SnapshotWatch *watch, Call *call)
{
    if (!watch->on_progress || watch->on_progress == Py_None)
        return;
    /* by then there is something to tell */
    watch->next = g_get_monotonic_time() + STEP;
    call_watch(call, tick, watch);
}

int
snapshot_parse_converge(const ModuleState *state, const char *converge,
                        gboolean *throttle)
{
    *throttle = converge && strcmp(converge, "throttle") == 0;
    if (!converge || *throttle || strcmp(converge, "wait") == 0)
        return 1;
    errors_raise_code(state, VMR_ERROR_INVALID_SPEC,
                      "converge must be 'wait' or 'throttle'");
    return 0;
}
