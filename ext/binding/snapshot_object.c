/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "snapshot_object.h"

#include "errors.h"
#include "snapshot_tuples.h"

const ModuleState *
snapshot_module_state(SnapshotObject *self)
{
    return PyType_GetModuleState(Py_TYPE((PyObject *)self));
}

SnapshotObject *
snapshot_alloc(const ModuleState *state, PyObject *domain)
{
    PyObject *object = PyType_GenericAlloc(state->snapshot_type, 0);
    SnapshotObject *self = (SnapshotObject *)object;

    if (self)
        self->domain = Py_NewRef(domain);
    return self;
}

/* The disks of @record and their states, for people; owned. */
static char *
summarize_disks(const VmrRecord *record)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(record->disks, i);

        g_string_append_printf(text, "%s%s %s", i > 0 ? ", " : "", disk->target,
                               vmr_disk_state_name(disk->state));
    }
    return g_string_free(text, FALSE);
}

int
snapshot_refresh(SnapshotObject *self)
{
    const VmrRecord *record = vmr_mirror_get_record(self->mirror);
    PyObject *disks;
    PyObject *old;

    self->state = record->state;
    g_free(self->summary);
    self->summary = summarize_disks(record);
    if (!self->name) {
        self->name = PyUnicode_FromString(record->snapshot);
        if (!self->name)
            return -1;
    }
    disks = tuples_from_disks(snapshot_module_state(self), record->disks);
    if (!disks)
        return -1;
    old = self->disks;
    self->disks = disks;
    Py_XDECREF(old);
    return 0;
}

int
snapshot_check(SnapshotObject *self)
{
    const ModuleState *state = snapshot_module_state(self);

    if (self->busy)
        errors_raise_code(state, VMR_ERROR_BUSY,
                          "another call of this MirrorSnapshot is running");
    else if (!self->mirror)
        errors_raise_code(state, VMR_ERROR_INVALID_STATE,
                          "this MirrorSnapshot was detached: get another one "
                          "with adopt()");
    else
        return 0;
    return -1;
}

int
snapshot_enter(SnapshotObject *self, Call *call, double timeout)
{
    if (snapshot_check(self) < 0)
        return -1;
    self->busy = TRUE;
    call_enter(call, snapshot_module_state(self), timeout);
    return 0;
}

PyObject *
snapshot_finish(SnapshotObject *self, PyObject *result)
{
    PyObject *raised = result ? NULL : errors_take();
    int rc = snapshot_refresh(self);

    self->busy = FALSE;
    if (raised) {
        PyErr_Clear();
        errors_restore(raised);
    } else if (rc < 0) {
        Py_CLEAR(result);
    }
    return result;
}
