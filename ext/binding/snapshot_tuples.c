/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "snapshot_tuples.h"

#include "convert.h"

static PyStructSequence_Field disk_fields[] = {
    {"target", PyDoc_STR("target name ('vda')")},
    {"state", PyDoc_STR("'planned', 'overlay', 'mirroring', 'pivoting', "
                        "'pivoted', 'aborting', 'aborted' or 'failed'")},
    {"source", PyDoc_STR("path of the top of the chain before the snapshot")},
    {"overlay", PyDoc_STR("path of the new top on the old storage")},
    {"mirror", PyDoc_STR("path of the new top on the new storage")},
    {NULL, NULL},
};

static PyStructSequence_Desc disk_desc = {
    .name = "virmirror.MirrorDisk",
    .doc = PyDoc_STR("One disk of a mirrored snapshot; paths are None where "
                     "not known yet."),
    .fields = disk_fields,
    .n_in_sequence = 5,
};

static PyStructSequence_Field progress_fields[] = {
    {"target", PyDoc_STR("target name ('vda')")},
    {"active", PyDoc_STR("whether the copy runs")},
    {"ready", PyDoc_STR("whether both sides are the same from here on")},
    {"current", PyDoc_STR("bytes done")},
    {"end", PyDoc_STR("bytes to do, as known by now")},
    {NULL, NULL},
};

static PyStructSequence_Desc progress_desc = {
    .name = "virmirror.DiskProgress",
    .doc = PyDoc_STR("How far the copy of one disk is. Done is not ready: "
                     "what the guest\nwrites is added to end."),
    .fields = progress_fields,
    .n_in_sequence = 5,
};

static PyStructSequence_Field figures_fields[] = {
    {"left", PyDoc_STR("bytes that the mirrors are behind")},
    {"written", PyDoc_STR("bytes/s that the guest adds to that")},
    {"mirrored", PyDoc_STR("bytes/s that are mirrored")},
    {"limit", PyDoc_STR("bytes/s that the guest may write to each disk, lowered "
                        "for the time being, or None")},
    {NULL, NULL},
};

static PyStructSequence_Desc figures_desc = {
    .name = "virmirror.MirrorFigures",
    .doc = PyDoc_STR("How the mirrors of all disks together follow their guest, "
                     "measured over a\nsecond or more. A write can add more than "
                     "itself: QEMU mirrors whole clusters."),
    .fields = figures_fields,
    .n_in_sequence = 4,
};

static PyObject *
path_to_python(const VmrFile *file)
{
    if (!file)
        return Py_NewRef(Py_None);
    return PyUnicode_DecodeFSDefault(file->path);
}

static PyObject *
disk_to_python(const ModuleState *state, const VmrDisk *disk)
{
    g_autoptr(PyObject) tuple = PyStructSequence_New(state->disk_type);
    const char *name = vmr_disk_state_name(disk->state);

    if (tuple && convert_set_item(tuple, 0, PyUnicode_FromString(disk->target)) &&
        convert_set_item(tuple, 1, PyUnicode_FromString(name)) &&
        convert_set_item(tuple, 2, path_to_python(disk->source)) &&
        convert_set_item(tuple, 3, path_to_python(disk->overlay)) &&
        convert_set_item(tuple, 4, path_to_python(disk->mirror)))
        return g_steal_pointer(&tuple);
    return NULL;
}

PyObject *
tuples_from_disks(const ModuleState *state, const GPtrArray *disks)
{
    g_autoptr(PyObject) all = PyTuple_New(disks->len);

    if (!all)
        return NULL;
    for (guint i = 0; i < disks->len; i++) {
        PyObject *item = disk_to_python(state, disks->pdata[i]);

        if (!item || PyTuple_SetItem(all, i, item) < 0)
            return NULL;
    }
    return g_steal_pointer(&all);
}

static PyObject *
progress_to_python(const ModuleState *state, const VmrProgress *figures)
{
    g_autoptr(PyObject) tuple = PyStructSequence_New(state->progress_type);

    if (tuple && convert_set_item(tuple, 0, PyUnicode_FromString(figures->target)) &&
        convert_set_item(tuple, 1, PyBool_FromLong(figures->active)) &&
        convert_set_item(tuple, 2, PyBool_FromLong(figures->ready)) &&
        convert_set_item(tuple, 3, PyLong_FromUnsignedLongLong(figures->current)) &&
        convert_set_item(tuple, 4, PyLong_FromUnsignedLongLong(figures->end)))
        return g_steal_pointer(&tuple);
    return NULL;
}

PyObject *
tuples_from_progress(const ModuleState *state, const GArray *figures)
{
    g_autoptr(PyObject) all = PyTuple_New(figures->len);

    if (!all)
        return NULL;
    for (guint i = 0; i < figures->len; i++) {
        PyObject *item =
            progress_to_python(state, &g_array_index(figures, VmrProgress, i));

        if (!item || PyTuple_SetItem(all, i, item) < 0)
            return NULL;
    }
    return g_steal_pointer(&all);
}

PyObject *
tuples_from_figures(const ModuleState *state, const VmrFigures *figures)
{
    g_autoptr(PyObject) tuple = PyStructSequence_New(state->figures_type);

    if (tuple &&
        convert_set_item(tuple, 0, PyLong_FromUnsignedLongLong(figures->left)) &&
        convert_set_item(tuple, 1, PyFloat_FromDouble(figures->written)) &&
        convert_set_item(tuple, 2, PyFloat_FromDouble(figures->mirrored)) &&
        convert_set_item(tuple, 3,
                         figures->limit > 0
                             ? PyLong_FromUnsignedLongLong(figures->limit)
                             : Py_NewRef(Py_None)))
        return g_steal_pointer(&tuple);
    return NULL;
}

int
tuples_setup_types(PyObject *module)
{
    ModuleState *state = module_get_state(module);

    if (convert_add_type(module, &disk_desc, &state->disk_type) < 0 ||
        convert_add_type(module, &figures_desc, &state->figures_type) < 0)
        return -1;
    return convert_add_type(module, &progress_desc, &state->progress_type);
}

PyObject *
tuples_from_lines(const GPtrArray *lines)
{
    g_autoptr(PyObject) tuple = PyTuple_New(lines->len);

    for (guint i = 0; tuple && i < lines->len; i++) {
        PyObject *line = PyUnicode_DecodeFSDefault(lines->pdata[i]);

        if (!line || PyTuple_SetItem(tuple, i, line) < 0)
            return NULL;
    }
    return g_steal_pointer(&tuple);
}
