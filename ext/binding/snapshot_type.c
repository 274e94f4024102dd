/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "snapshot_type.h"

#include "call.h"
#include "errors.h"
#include "snapshot_doc.h"
#include "snapshot_object.h"
#include "snapshot_tuples.h"
#include "snapshot_watch.h"

#include "../core/mirror.h"

#define CREATE_TIMEOUT 60.0 /* seconds; the docstrings say the same */
#define ABORT_TIMEOUT  30.0
#define PAUSE_BUDGET   VMR_PAUSE_BUDGET

/* Tell in a note of @exception in which state @self is left, and that it could
 * not be aborted because of @failure (may be NULL). */
static void
snapshot_add_note(SnapshotObject *self, PyObject *exception, PyObject *failure)
{
    g_autoptr(PyObject) why =
        failure ? PyUnicode_FromFormat(", its abort failed: %S", failure)
                : PyUnicode_FromString("");
    g_autoptr(PyObject) note = NULL;
    g_autoptr(PyObject) done = NULL;

    if (why)
        note = PyUnicode_FromFormat(
            "mirrored snapshot '%U' is left in state '%s' (%s)%U", self->name,
            vmr_state_name(self->state), self->summary, why);
    if (note)
        done = PyObject_CallMethod(exception, "add_note", "O", note);
    if (!done)
        PyErr_Clear(); /* the exception itself matters more */
}

static PyObject *
snapshot_run_abort(SnapshotObject *self, const VmrCutOver *how, double timeout)
{
    PyObject *result = NULL;
    Call call;

    if (snapshot_enter(self, &call, timeout) < 0)
        return NULL;
    vmr_mirror_abort(self->mirror, how, &call.wait, &call.error);
    if (call_leave(&call) == 0)
        result = Py_NewRef(Py_None);
    return snapshot_finish(self, result);
}

/* Abort what was left behind. When that fails, too, @original (NULL: nobody
 * raised anything) stays the exception that goes on, with the failure as its
 * context and in a note. 0, or -1 with an exception: the failure where there
 * is no @original, or what interrupted the abort. */
static int
snapshot_abandon(SnapshotObject *self, PyObject *original)
{
    const VmrCutOver how = {.pause_budget = PAUSE_BUDGET};
    g_autoptr(PyObject) result =
        snapshot_run_abort(self, &how, ABORT_TIMEOUT);
    g_autoptr(PyObject) failure = NULL;

    if (result)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1; /* Ctrl-C again */
    failure = errors_take();
    if (!original) {
        snapshot_add_note(self, failure, NULL);
        errors_restore(g_steal_pointer(&failure));
        return -1;
    }
    snapshot_add_note(self, original, failure);
    errors_chain(original, g_steal_pointer(&failure));
    return 0;
}

/* Make @self of what a call of the engine has returned: itself, or NULL after
 * undoing it where a signal came in the last moment. */
static PyObject *
snapshot_begin(SnapshotObject *self, VmrMirror *mirror, gboolean created)
{
    g_autoptr(PyObject) raised = errors_take();

    self->mirror = mirror;
    if (mirror && snapshot_refresh(self) == 0) {
        if (!raised)
            return Py_NewRef((PyObject *)self);
        if (created && snapshot_abandon(self, raised) < 0)
            return NULL;
    }
    if (raised) {
        PyErr_Clear();
        errors_restore(g_steal_pointer(&raised));
    }
    return NULL;
}

static PyObject *
snapshot_create(PyObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {
        "dom",     "name",    "disks", "description", "reuse_external",
        "quiesce", "timeout", NULL};
    const ModuleState *state = PyType_GetModuleState((PyTypeObject *)type);
    g_auto(DomainArg) dom = {.state = state};
    g_autoptr(VmrSnapSpec) spec = NULL;
    g_autoptr(PyObject) self = NULL;
    const char *name;
    const char *description = NULL;
    PyObject *disks;
    int reuse = 0;
    int quiesce = 0;
    double timeout = CREATE_TIMEOUT;
    guint flags;
    VmrMirror *mirror;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&sO|$zppO&:create",
                                     names, arg_domain, &dom, &name, &disks,
                                     &description, &reuse, &quiesce,
                                     arg_timeout, &timeout))
        return NULL;
    spec = vmr_snapspec_new(name, description);
    if (!arg_diskspecs(disks, state, spec))
        return NULL;
    self = (PyObject *)snapshot_alloc(state, dom.given);
    if (!self)
        return NULL;
    flags = (reuse ? VMR_MIRROR_REUSE_EXTERNAL : 0) |
            (quiesce ? VMR_MIRROR_QUIESCE : 0);
    call_enter(&call, state, timeout);
    mirror = vmr_mirror_create(dom.domain->hv, dom.domain->ptr, spec, flags,
                               &call.wait, &call.error);
    call_leave(&call);
    return snapshot_begin((SnapshotObject *)self, mirror, TRUE);
}

PyObject *
snapshot_adopt(const ModuleState *state, const DomainArg *dom, const char *name)
{
    g_autoptr(PyObject) self = (PyObject *)snapshot_alloc(state, dom->given);
    VmrMirror *mirror;
    Call call;

    if (!self)
        return NULL;
    call_enter(&call, state, -1);
    mirror = vmr_mirror_open(dom->domain->hv, dom->domain->ptr, name,
                             &call.wait, &call.error);
    call_leave(&call);
    return snapshot_begin((SnapshotObject *)self, mirror, FALSE);
}

static PyObject *
snapshot_wait_ready(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"timeout", "on_progress", NULL};
    SnapshotObject *snapshot = (SnapshotObject *)self;
    SnapshotWatch watch = {.self = snapshot};
    PyObject *result = NULL;
    double timeout = -1;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O&$O:wait_ready", names,
                                     arg_timeout, &timeout,
                                     &watch.on_progress) ||
        snapshot_enter(snapshot, &call, timeout) < 0)
        return NULL;
    snapshot_watch(&watch, &call);
    vmr_mirror_wait_ready(snapshot->mirror, &call.wait, &call.error);
    if (call_leave(&call) == 0)
        result = Py_NewRef(Py_None);
    return snapshot_finish(snapshot, result);
}

static PyObject *
snapshot_pivot(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"atomic",  "pause_budget", "converge",
                            "timeout", "on_progress",  NULL};
    SnapshotObject *snapshot = (SnapshotObject *)self;
    SnapshotWatch watch = {.self = snapshot};
    VmrCutOver how = {.pause_budget = PAUSE_BUDGET};
    const char *converge = NULL;
    PyObject *result = NULL;
    double timeout = -1;
    double pause = 0;
    int atomic = 1;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|$pO&zO&O:pivot", names,
                                     &atomic, arg_timeout, &how.pause_budget,
                                     &converge, arg_timeout, &timeout,
                                     &watch.on_progress) ||
        !snapshot_parse_converge(snapshot_module_state(snapshot), converge,
                                 &how.throttle))
        return NULL;
    how.atomic = atomic != 0;
    if (snapshot_enter(snapshot, &call, timeout) < 0)
        return NULL;
    snapshot_watch(&watch, &call);
    vmr_mirror_cut_over(snapshot->mirror, &how, &pause, &call.wait,
                        &call.error);
    if (call_leave(&call) == 0)
        result = PyFloat_FromDouble(pause);
    return snapshot_finish(snapshot, result);
}

static PyObject *
snapshot_abort(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"timeout", "pause_budget", "converge", NULL};
    SnapshotObject *snapshot = (SnapshotObject *)self;
    VmrCutOver how = {.pause_budget = PAUSE_BUDGET};
    const char *converge = NULL;
    double timeout = ABORT_TIMEOUT;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|O&$O&z:abort", names,
                                     arg_timeout, &timeout, arg_timeout,
                                     &how.pause_budget, &converge) ||
        !snapshot_parse_converge(snapshot_module_state(snapshot), converge,
                                 &how.throttle) ||
        snapshot_check(snapshot) < 0)
        return NULL;
    if (snapshot->state == VMR_STATE_DONE)
        Py_RETURN_NONE;
    return snapshot_run_abort(snapshot, &how, timeout);
}

static PyObject *
snapshot_progress(PyObject *object, PyObject *unused)
{
    SnapshotObject *self = (SnapshotObject *)object;
    const ModuleState *state = snapshot_module_state(self);
    g_autoptr(GArray) figures = NULL;
    PyObject *result = NULL;
    Call call;

    (void)unused;
    if (snapshot_enter(self, &call, -1) < 0)
        return NULL;
    figures = vmr_mirror_get_progress(self->mirror, &call.wait, &call.error);
    if (call_leave(&call) == 0)
        result = tuples_from_progress(state, figures);
    return snapshot_finish(self, result);
}

static PyObject *
snapshot_detach(PyObject *object, PyObject *unused)
{
    SnapshotObject *self = (SnapshotObject *)object;

    (void)unused;
    if (!self->mirror)
        Py_RETURN_NONE;
    if (snapshot_check(self) < 0)
        return NULL;
    g_clear_pointer(&self->mirror, vmr_mirror_free);
    Py_RETURN_NONE;
}

static PyObject *
snapshot_context_enter(PyObject *self, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(self);
}

static PyObject *
snapshot_context_exit(PyObject *object, PyObject *args)
{
    SnapshotObject *self = (SnapshotObject *)object;
    PyObject *original;
    PyObject *unused;

    if (!PyArg_ParseTuple(args, "OOO:__exit__", &unused, &original, &unused))
        return NULL;
    if (!self->mirror || self->state == VMR_STATE_DONE)
        Py_RETURN_FALSE;
    if (snapshot_abandon(self, original == Py_None ? NULL : original) < 0)
        return NULL;
    Py_RETURN_FALSE;
}

static PyObject *
snapshot_reduce(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyErr_SetString(PyExc_TypeError,
                    "cannot pickle or copy a MirrorSnapshot: call adopt(dom, "
                    "name) where another one is needed");
    return NULL;
}

/* Getters. */

/* @member for a getter: only a finalized object has none. */
static PyObject *
snapshot_member(PyObject *member)
{
    return Py_NewRef(member ? member : Py_None);
}

static PyObject *
snapshot_get_name(PyObject *self, void *unused)
{
    (void)unused;
    return snapshot_member(((SnapshotObject *)self)->name);
}

static PyObject *
snapshot_get_domain(PyObject *self, void *unused)
{
    (void)unused;
    return snapshot_member(((SnapshotObject *)self)->domain);
}

static PyObject *
snapshot_get_disks(PyObject *self, void *unused)
{
    (void)unused;
    return snapshot_member(((SnapshotObject *)self)->disks);
}

static PyObject *
snapshot_get_state(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(
        vmr_state_name(((SnapshotObject *)self)->state));
}

static PyObject *
snapshot_get_snapshot(PyObject *object, void *unused)
{
    SnapshotObject *self = (SnapshotObject *)object;
    g_auto(DomainArg) dom = {.state = snapshot_module_state(self)};

    (void)unused;
    if (!self->domain)
        return snapshot_member(NULL);
    if (!arg_domain(self->domain, &dom))
        return NULL;
    if (self->state == VMR_STATE_DONE) {
        /* what libvirt has under that name by now is another one */
        g_autoptr(PyObject) name = PyUnicode_FromFormat(
            "mirrored snapshot '%U' has ended: libvirt's record of it is gone",
            self->name);
        const char *text = name ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
        g_autoptr(PyObject) error =
            text ? errors_make(dom.state, "invalid-state", text) : NULL;

        if (error)
            PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        return NULL;
    }
    return PyObject_CallMethod(dom.object, "snapshotLookupByName", "O",
                               self->name);
}

/* The life of the object. */

static PyObject *
snapshot_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    (void)type;
    (void)args;
    (void)keywords;
    PyErr_SetString(PyExc_TypeError,
                    "cannot make a MirrorSnapshot directly: use "
                    "MirrorSnapshot.create() or adopt()");
    return NULL;
}

static PyObject *
snapshot_repr(PyObject *object)
{
    SnapshotObject *self = (SnapshotObject *)object;

    if (!self->name)
        return PyUnicode_FromString("<MirrorSnapshot, finalized>");
    return PyUnicode_FromFormat("<MirrorSnapshot %R, %s%s: %s>", self->name,
                                vmr_state_name(self->state),
                                self->mirror ? "" : ", detached",
                                self->summary);
}

static int
snapshot_traverse(PyObject *object, visitproc visit, void *arg)
{
    SnapshotObject *self = (SnapshotObject *)object;

    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->domain);
    Py_VISIT(self->name);
    Py_VISIT(self->disks);
    return 0;
}

static int
snapshot_clear(PyObject *object)
{
    SnapshotObject *self = (SnapshotObject *)object;

    Py_CLEAR(self->domain);
    Py_CLEAR(self->name);
    Py_CLEAR(self->disks);
    g_clear_pointer(&self->summary, g_free);
    return 0;
}

/* Nobody can end the mirrored snapshot through @object any more. Say so, free
 * what is local, and leave the rest to adopt(): nothing here may block. There
 * is no tp_dealloc, since the limited API cannot call a finalizer from one; so
 * all that is owned is let go of here. */
static void
snapshot_finalize(PyObject *object)
{
    SnapshotObject *self = (SnapshotObject *)object;
    PyObject *raised = errors_take();

    if (self->mirror && self->name && self->state != VMR_STATE_DONE &&
        PyErr_ResourceWarning(object, 1,
                              "mirrored snapshot '%U' goes on, but its object "
                              "was neither pivoted, aborted nor detached; "
                              "adopt() finds it",
                              self->name) < 0)
        PyErr_WriteUnraisable(object);
    g_clear_pointer(&self->mirror, vmr_mirror_free);
    snapshot_clear(object);
    if (raised)
        errors_restore(raised);
}

static PyMethodDef snapshot_methods[] = {
    {"create", (PyCFunction)(void (*)(void))snapshot_create,
     METH_VARARGS | METH_KEYWORDS | METH_CLASS, snapshot_create_doc},
    {"wait_ready", (PyCFunction)(void (*)(void))snapshot_wait_ready,
     METH_VARARGS | METH_KEYWORDS, snapshot_wait_ready_doc},
    {"progress", snapshot_progress, METH_NOARGS, snapshot_progress_doc},
    {"pivot", (PyCFunction)(void (*)(void))snapshot_pivot,
     METH_VARARGS | METH_KEYWORDS, snapshot_pivot_doc},
    {"abort", (PyCFunction)(void (*)(void))snapshot_abort,
     METH_VARARGS | METH_KEYWORDS, snapshot_abort_doc},
    {"detach", snapshot_detach, METH_NOARGS, snapshot_detach_doc},
    {"__enter__", snapshot_context_enter, METH_NOARGS, snapshot_enter_doc},
    {"__exit__", snapshot_context_exit, METH_VARARGS, snapshot_exit_doc},
    {"__reduce__", snapshot_reduce, METH_NOARGS,
     PyDoc_STR("Refuse to be pickled or copied.")},
    {NULL, NULL, 0, NULL},
};

static PyObject *
snapshot_get_leftovers(PyObject *object, void *unused)
{
    SnapshotObject *self = (SnapshotObject *)object;

    (void)unused;
    if (snapshot_check(self) < 0)
        return NULL;
    return tuples_from_lines(vmr_mirror_get_leftovers(self->mirror));
}

static PyGetSetDef snapshot_getset[] = {
    {"leftovers", snapshot_get_leftovers, NULL,
     PyDoc_STR("Files that virmirror had made and that could not be removed in "
               "the end,\nsince somebody has them open: a tuple of str."),
     NULL},
    {"name", snapshot_get_name, NULL, PyDoc_STR("The snapshot's name: str."),
     NULL},
    {"state", snapshot_get_state, NULL,
     PyDoc_STR("'creating', 'mirroring', 'pivoting', 'aborting' or 'done', as "
               "of the last call."),
     NULL},
    {"disks", snapshot_get_disks, NULL,
     PyDoc_STR("The disks as of the last call: a tuple of `MirrorDisk`."),
     NULL},
    {"domain", snapshot_get_domain, NULL,
     PyDoc_STR("The domain, the very object that was given."), NULL},
    {"snapshot", snapshot_get_snapshot, NULL,
     PyDoc_STR("libvirt's record of the snapshot: a new "
               "libvirt.virDomainSnapshot,\nwhile there is one. Raises "
               "StateError after the end. Calls\nvirDomainSnapshotLookupByName."),
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef snapshot_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SnapshotObject, weakrefs),
     READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot snapshot_slots[] = {
    {Py_tp_doc, (void *)snapshot_doc}, {Py_tp_new, snapshot_new},
    {Py_tp_repr, snapshot_repr},       {Py_tp_traverse, snapshot_traverse},
    {Py_tp_clear, snapshot_clear},     {Py_tp_finalize, snapshot_finalize},
    {Py_tp_methods, snapshot_methods}, {Py_tp_getset, snapshot_getset},
    {Py_tp_members, snapshot_members}, {0, NULL},
};

static PyType_Spec snapshot_spec = {
    .name = "virmirror.MirrorSnapshot",
    .basicsize = sizeof(SnapshotObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = snapshot_slots,
};

int
snapshot_setup_types(PyObject *module)
{
    ModuleState *state = module_get_state(module);

    if (tuples_setup_types(module) < 0)
        return -1;
    state->snapshot_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &snapshot_spec, NULL);
    if (!state->snapshot_type)
        return -1;
    return PyModule_AddType(module, state->snapshot_type);
}
