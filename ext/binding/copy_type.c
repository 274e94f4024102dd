/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "copy_type.h"

#include "args.h"
#include "call.h"
#include "copy_args.h"
#include "copy_doc.h"
#include "copy_tuples.h"
#include "errors.h"

typedef struct {
    PyObject_HEAD
    VmrSparse *copy;       /* NULL once finalized */
    PyObject *source;      /* str */
    PyObject *destination; /* str */
    gboolean busy;         /* a thread waits; guarded by the GIL */
    gboolean told;         /* somebody knows the outcome */
    PyObject *weakrefs;
} CopyObject;

static const ModuleState *
copy_state(CopyObject *self)
{
    return PyType_GetModuleState(Py_TYPE((PyObject *)self));
}

/* The engine's copy; NULL with an exception: only a finalized object has none. */
static VmrSparse *
copy_get(CopyObject *self)
{
    if (!self->copy)
        errors_raise_code(copy_state(self), VMR_ERROR_INVALID_STATE,
                          "this Copy was finalized");
    return self->copy;
}

static PyObject *
copy_start(PyObject *type, PyObject *args, PyObject *keywords)
{
    const ModuleState *state = PyType_GetModuleState((PyTypeObject *)type);
    g_auto(CopyArgs) parsed = {0};
    g_autoptr(PyObject) object = NULL;
    CopyObject *self;

    if (copy_args_parse_start(args, keywords, &parsed) < 0)
        return NULL;
    object = PyType_GenericAlloc(state->copy_type, 0);
    if (!object)
        return NULL;
    self = (CopyObject *)object;
    self->source = PyUnicode_DecodeFSDefault(parsed.source);
    self->destination = PyUnicode_DecodeFSDefault(parsed.destination);
    if (!self->source || !self->destination)
        return NULL;
    self->copy = copy_args_start(&parsed, state);
    return self->copy ? g_steal_pointer(&object) : NULL;
}

/* Wait for the end @timeout seconds; a CopyReport or NULL. */
static PyObject *
copy_wait_for(CopyObject *self, double timeout)
{
    const ModuleState *state = copy_state(self);
    VmrSparseReport report = {0};
    int rc;
    Call call;

    if (!copy_get(self))
        return NULL;
    if (self->busy) {
        errors_raise_code(state, VMR_ERROR_BUSY,
                          "another thread waits for this Copy");
        return NULL;
    }
    self->busy = TRUE;
    call_enter(&call, state, timeout);
    vmr_sparse_wait(self->copy, &call.wait, &report, &call.error);
    rc = call_leave(&call);
    self->busy = FALSE;
    self->told |= vmr_sparse_is_done(self->copy);
    if (rc < 0)
        return NULL;
    return copy_tuples_from_report(state, self->source, self->destination,
                                   &report);
}

static PyObject *
copy_wait(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"timeout", NULL};
    double timeout = -1;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O&:wait", names,
                                     arg_timeout, &timeout))
        return NULL;
    return copy_wait_for((CopyObject *)self, timeout);
}

static PyObject *
copy_progress(PyObject *object, PyObject *unused)
{
    CopyObject *self = (CopyObject *)object;

    (void)unused;
    if (!copy_get(self))
        return NULL;
    return copy_tuples_from_progress(copy_state(self), self->copy);
}

static PyObject *
copy_cancel(PyObject *object, PyObject *unused)
{
    VmrSparse *copy = copy_get((CopyObject *)object);

    (void)unused;
    if (!copy)
        return NULL;
    vmr_sparse_cancel(copy);
    Py_RETURN_NONE;
}

static PyObject *
copy_context_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

/* Whether what is raised now is the outcome of a cancelled copy, no more. */
static gboolean
is_cancelled_error(CopyObject *self)
{
    return PyErr_ExceptionMatches(
        copy_state(self)->error_types[VMR_ERROR_CANCELLED]);
}

static PyObject *
copy_context_exit(PyObject *object, PyObject *args)
{
    CopyObject *self = (CopyObject *)object;
    g_autoptr(PyObject) report = NULL;
    PyObject *original;
    PyObject *unused;

    if (!PyArg_ParseTuple(args, "OOO:__exit__", &unused, &original, &unused))
        return NULL;
    if (self->told)
        Py_RETURN_FALSE;
    if (!copy_get(self))
        return NULL;
    vmr_sparse_cancel(self->copy);
    report = copy_wait_for(self, -1);
    if (report)
        Py_RETURN_FALSE;
    if (is_cancelled_error(self)) {
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
    if (original == Py_None || !PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    errors_chain(original, errors_take());
    Py_RETURN_FALSE;
}

static PyObject *
copy_reduce(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyErr_SetString(PyExc_TypeError, "cannot pickle or copy a Copy");
    return NULL;
}

/* Getters. */

static PyObject *
copy_member(PyObject *member)
{
    return Py_NewRef(member ? member : Py_None);
}

static PyObject *
copy_get_source(PyObject *self, void *unused)
{
    (void)unused;
    return copy_member(((CopyObject *)self)->source);
}

static PyObject *
copy_get_destination(PyObject *self, void *unused)
{
    (void)unused;
    return copy_member(((CopyObject *)self)->destination);
}

static PyObject *
copy_get_done(PyObject *object, void *unused)
{
    VmrSparse *copy = copy_get((CopyObject *)object);

    (void)unused;
    return copy ? PyBool_FromLong(vmr_sparse_is_done(copy)) : NULL;
}

static PyObject *
copy_get_bandwidth(PyObject *object, void *unused)
{
    VmrSparse *copy = copy_get((CopyObject *)object);

    (void)unused;
    if (!copy)
        return NULL;
    return PyLong_FromUnsignedLongLong(vmr_sparse_get_bandwidth(copy));
}

static int
copy_set_bandwidth(PyObject *object, PyObject *value, void *unused)
{
    VmrSparse *copy = copy_get((CopyObject *)object);
    gulong bandwidth;

    (void)unused;
    if (!copy)
        return -1;
    if (!value) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete bandwidth");
        return -1;
    }
    if (!arg_bandwidth(value, &bandwidth))
        return -1;
    vmr_sparse_set_bandwidth(copy, bandwidth);
    return 0;
}

/* The life of the object. */

static PyObject *
copy_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)type;
    (void)args;
    (void)keywords;
    PyErr_SetString(PyExc_TypeError,
                    "cannot make a Copy directly: use Copy.start()");
    return NULL;
}

static PyObject *
copy_repr(PyObject *object)
{
    CopyObject *self = (CopyObject *)object;
    VmrSparseProgress progress;

    if (!self->copy)
        return PyUnicode_FromString("<Copy, finalized>");
    progress = vmr_sparse_get_progress(self->copy);
    return PyUnicode_FromFormat(
        "<Copy %R to %R, %s: %llu of %llu bytes>", self->source,
        self->destination,
        vmr_sparse_is_done(self->copy) ? "ended" : "running",
        (unsigned long long)progress.current,
        (unsigned long long)progress.end);
}

static int
copy_traverse(PyObject *object, visitproc visit, void *arg)
{
    CopyObject *self = (CopyObject *)object;

    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->source);
    Py_VISIT(self->destination);
    return 0;
}

static int
copy_clear(PyObject *object)
{
    CopyObject *self = (CopyObject *)object;

    Py_CLEAR(self->source);
    Py_CLEAR(self->destination);
    return 0;
}

/* Nobody waits for @object any more: end the copy, if it still runs, and say so.
 * As with MirrorSnapshot there is no tp_dealloc, so all that is owned is let go
 * of here. */
static void
copy_finalize(PyObject *object)
{
    CopyObject *self = (CopyObject *)object;
    PyObject *raised = errors_take();

    if (self->copy && !vmr_sparse_is_done(self->copy) &&
        PyErr_ResourceWarning(object, 1,
                              "the copy to '%U' still runs, and is cancelled",
                              self->destination) < 0)
        PyErr_WriteUnraisable(object);
    g_clear_pointer(&self->copy, vmr_sparse_abandon);
    copy_clear(object);
    if (raised)
        errors_restore(raised);
}

static PyMethodDef copy_methods[] = {
    {"start", (PyCFunction)(void (*)(void))copy_start,
     METH_VARARGS | METH_KEYWORDS | METH_CLASS, copy_start_doc},
    {"progress", copy_progress, METH_NOARGS, copy_progress_doc},
    {"cancel", copy_cancel, METH_NOARGS, copy_cancel_doc},
    {"wait", (PyCFunction)(void (*)(void))copy_wait,
     METH_VARARGS | METH_KEYWORDS, copy_wait_doc},
    {"__enter__", copy_context_enter, METH_NOARGS, copy_enter_doc},
    {"__exit__", copy_context_exit, METH_VARARGS, copy_exit_doc},
    {"__reduce__", copy_reduce, METH_NOARGS,
     PyDoc_STR("Refuse to be pickled or copied.")},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef copy_getset[] = {
    {"source", copy_get_source, NULL, PyDoc_STR("The source's path: str."),
     NULL},
    {"destination", copy_get_destination, NULL,
     PyDoc_STR("The destination's path: str."), NULL},
    {"done", copy_get_done, NULL,
     PyDoc_STR("Whether the copy has come to its end, a good one or not."),
     NULL},
    {"bandwidth", copy_get_bandwidth, copy_set_bandwidth,
     PyDoc_STR("The limit in bytes per second, 0 for none. It can be set while "
               "the copy runs."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef copy_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(CopyObject, weakrefs),
     READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot copy_slots[] = {
    {Py_tp_doc, (void *)copy_doc},     {Py_tp_new, copy_new},
    {Py_tp_repr, copy_repr},           {Py_tp_traverse, copy_traverse},
    {Py_tp_clear, copy_clear},         {Py_tp_finalize, copy_finalize},
    {Py_tp_methods, copy_methods},     {Py_tp_getset, copy_getset},
    {Py_tp_members, copy_members},     {0, NULL},
};

static PyType_Spec copy_spec = {
    .name = "virmirror.Copy",
    .basicsize = sizeof(CopyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = copy_slots,
};

int
copy_setup_types(PyObject *module)
{
    ModuleState *state = module_get_state(module);

    if (copy_tuples_setup_types(module) < 0)
        return -1;
    state->copy_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &copy_spec, NULL);
    if (!state->copy_type)
        return -1;
    return PyModule_AddType(module, state->copy_type);
}
