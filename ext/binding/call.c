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

/* Signal handlers run in the main thread only: any other one can wait without
 * coming up to ask. When in doubt it is the main one. */
static gboolean
is_main_thread(const ModuleState *state)
{
    g_autoptr(PyObject) thread = PyObject_CallNoArgs(state->main_thread);
    g_autoptr(PyObject) ident =
        thread ? PyObject_GetAttr(thread, state->ident) : NULL;
    unsigned long number = ident ? PyLong_AsUnsignedLong(ident) : 0;

    if (!PyErr_Occurred())
        return number == PyThread_get_thread_ident();
    PyErr_Clear();
    return TRUE;
}

void
call_enter(Call *call, const ModuleState *state, double timeout)
{
    *call = (Call){.state = state, .wait = vmr_wait_for(timeout, NULL)};
    call->wait.interrupted = is_main_thread(state) ? call_interruptions : NULL;
    call->wait.data = call;
    call->thread = PyEval_SaveThread();
}

void
call_watch(Call *call, int (*tick)(gpointer data), gpointer data)
{
    call->tick = tick;
    call->tick_data = data;
    call->wait.interrupted = call_interruptions;
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
call_leave(Call *call)
{
    g_autoptr(GError) error = g_steal_pointer(&call->error);
    g_autoptr(PyObject) raised = NULL;

    PyEval_RestoreThread(call->thread);
    raised = g_steal_pointer(&call->raised);
    if (!error && !raised)
        return 0;
    if (!raised) {
        errors_raise(call->state, error);
        return -1;
    }
    if (!error || !says_more(error)) {
        PyErr_SetObject((PyObject *)Py_TYPE(raised), raised);
        return -1;
    }
    errors_raise(call->state, error);
    PyException_SetContext(raised, errors_take());
    errors_restore(g_steal_pointer(&raised));
    return -1;
}

int
call_setup(PyObject *module)
{
    ModuleState *state = module_get_state(module);
    g_autoptr(PyObject) threading = PyImport_ImportModule("threading");

    if (!threading)
        return -1;
    state->main_thread = PyObject_GetAttrString(threading, "main_thread");
    state->ident = PyUnicode_InternFromString("ident");
    return state->main_thread && state->ident ? 0 : -1;
}
