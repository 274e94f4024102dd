/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hold.h"

#include "call.h"

#include "../core/guard.h"

#define HOLD_NAME "virmirror._core.hold"

/* What the capsule holds, until it is released. */
typedef struct {
    VmrGuard *guard;
} Hold;

static void
hold_destroy(PyObject *capsule)
{
    Hold *hold = PyCapsule_GetPointer(capsule, HOLD_NAME);

    vmr_guard_release(hold->guard);
    g_free(hold);
}

/* "O&": what _hold() has returned; borrowed. */
static int
arg_hold(PyObject *object, void *address)
{
    *(Hold **)address = PyCapsule_GetPointer(object, HOLD_NAME);
    return *(Hold **)address != NULL;
}

PyDoc_STRVAR(hold_hold_doc,
             "_hold($module, /, uuid)\n"
             "--\n\n"
             "Keep everybody else from changing the disks of a domain on this host.\n"
             "\n"
             "*uuid* is the domain's. Returns what _release() wants; the engine's calls of\n"
             "this thread are let through. Raises BusyError (says which process is at\n"
             "work), SpecError, StorageError.");

static PyObject *
hold_hold(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"uuid", NULL};
    g_autoptr(VmrGuard) guard = NULL;
    const char *uuid;
    PyObject *capsule;
    Hold *hold;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s:_hold", names, &uuid))
        return NULL;
    call_enter(&call, module_get_state(module), -1);
    guard = vmr_guard_hold(uuid, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    hold = g_new0(Hold, 1);
    capsule = PyCapsule_New(hold, HOLD_NAME, hold_destroy);
    if (!capsule) {
        g_free(hold);
        return NULL;
    }
    hold->guard = g_steal_pointer(&guard);
    return capsule;
}

PyDoc_STRVAR(hold_release_doc,
             "_release($module, /, hold)\n"
             "--\n\n"
             "Let others at the domain again.\n"
             "\n"
             "*hold* is what _hold() has returned; once more is fine. Raises no errors.");

static PyObject *
hold_release(PyObject *module G_GNUC_UNUSED, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"hold", NULL};
    Hold *hold;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&:_release", names,
                                     arg_hold, &hold))
        return NULL;
    g_clear_pointer(&hold->guard, vmr_guard_release);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(hold_is_held_doc,
             "_is_held($module, /, hold)\n"
             "--\n\n"
             "Whether others are still kept out.\n"
             "\n"
             "*hold* is what _hold() has returned. It is not once it was released, and in a\n"
             "forked child it never was. Raises no errors.");

static PyObject *
hold_is_held(PyObject *module G_GNUC_UNUSED, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"hold", NULL};
    Hold *hold;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&:_is_held", names,
                                     arg_hold, &hold))
        return NULL;
    return PyBool_FromLong(hold->guard && vmr_guard_is_held(hold->guard));
}

PyDoc_STRVAR(hold_find_doc,
             "_find_holder($module, /, uuid)\n"
             "--\n\n"
             "The pid of the process that keeps others from a domain, or None.\n"
             "\n"
             "*uuid* is the domain's. 0 stands for a process that cannot be told. Raises no\n"
             "errors.");

static PyObject *
hold_find(PyObject *module G_GNUC_UNUSED, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"uuid", NULL};
    const char *uuid;
    pid_t pid;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "s:_find_holder", names,
                                     &uuid))
        return NULL;
    pid = vmr_guard_find_holder(uuid);
    if (pid == 0)
        Py_RETURN_NONE;
    return PyLong_FromLong(MAX(pid, 0));
}

PyMethodDef hold_table[] = {
    MODULE_FUNCTION("_hold", hold_hold, hold_hold_doc),
    MODULE_FUNCTION("_release", hold_release, hold_release_doc),
    MODULE_FUNCTION("_is_held", hold_is_held, hold_is_held_doc),
    MODULE_FUNCTION("_find_holder", hold_find, hold_find_doc),
    {NULL, NULL, 0, NULL},
};
