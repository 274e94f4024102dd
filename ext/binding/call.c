/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "call.h"

#include "errors.h"

/* What Python has to say while the engine waits; once it has raised something
 * only signal handlers are asked. 0, or -1 with an exception. */
static int
ask_python(Call *call)
{
    if (PyErr_CheckSignals() < 0)
        return -1;
    return call->tick && !call->raised ? call->tick(call->tick_data) : 0;
}

/* The engine asks, in the thread that called it, how many signal handlers have
 * raised something. Outside of the main thread none ever runs. */
static int
call_interruptions(gpointer data)
{
    Call *call = data;

    PyEval_RestoreThread(call->thread);
    if (ask_python(call) < 0) {
        call->interruptions++;
        if (call->raised)
            PyErr_Clear();
        else
            call->raised = errors_take();
    }
    call->thread = PyEval_SaveThread();
    return call->interruptions;
}

void
call_enter(Call *call, double timeout)
{
    *call = (Call){.wait = vmr_wait_for(timeout, NULL)};
    call->wait.interrupted = call_interruptions;
    call->wait.data = call;
    call->thread = PyEval_SaveThread();
}

/* Whether @error says more than that there was an interruption. */
static gboolean
says_more(const GError *error)
{
    const VmrErrorDetail *detail = vmr_error_get_detail(error);

    return !g_error_matches(error, VMR_ERROR, VMR_ERROR_CANCELLED) ||
           (detail && (detail->partial || detail->unknown));
}

int
call_leave(Call *call, const ModuleState *state)
{
    g_autoptr(GError) error = g_steal_pointer(&call->error);
    g_autoptr(PyObject) raised = NULL;

    PyEval_RestoreThread(call->thread);
    raised = g_steal_pointer(&call->raised);
    if (!error && !raised)
        return 0;
    if (!raised) {
        errors_raise(state, error);
        return -1;
    }
    if (!error || !says_more(error)) {
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
        return -1;
    }
    errors_raise(state, error);
    PyException_SetContext(raised, errors_take());
    errors_restore(g_steal_pointer(&raised));
    return -1;
}
