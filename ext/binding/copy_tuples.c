/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "copy_tuples.h"

#include "convert.h"

static PyStructSequence_Field progress_fields[] = {
    {"current", PyDoc_STR("bytes of data done")},
    {"end", PyDoc_STR("bytes of data to do; 0 until they are counted")},
    {NULL, NULL},
};

static PyStructSequence_Desc progress_desc = {
    .name = "virmirror.CopyProgress",
    .doc = PyDoc_STR("How far a copy is; with *verify* the bytes count twice."),
    .fields = progress_fields,
    .n_in_sequence = 2,
};

static PyStructSequence_Field report_fields[] = {
    {"source", PyDoc_STR("path of the source, as given")},
    {"destination", PyDoc_STR("path of the destination, as given")},
    {"size", PyDoc_STR("bytes of either file, with holes")},
    {"copied", PyDoc_STR("bytes of data that were copied")},
    {"seconds", PyDoc_STR("how long it took")},
    {"checksum", PyDoc_STR("as `checksum` tells it of either file; None where "
                           "the files share their data and nothing was read")},
    {"method", PyDoc_STR("'io_uring', 'copy_file_range', 'threads', 'reflink', "
                         "or 'none' where the copy was there already")},
    {"verified", PyDoc_STR("whether the destination was read back")},
    {NULL, NULL},
};

static PyStructSequence_Desc report_desc = {
    .name = "virmirror.CopyReport",
    .doc = PyDoc_STR("The outcome of a copy."),
    .fields = report_fields,
    .n_in_sequence = 8,
};

PyObject *
copy_tuples_from_progress(const ModuleState *state, VmrSparse *copy)
{
    g_autoptr(PyObject) tuple = PyStructSequence_New(state->copy_progress_type);
    VmrSparseProgress progress = vmr_sparse_get_progress(copy);

    if (tuple &&
        convert_set_item(tuple, 0, PyLong_FromUnsignedLongLong(progress.current)) &&
        convert_set_item(tuple, 1, PyLong_FromUnsignedLongLong(progress.end)))
        return g_steal_pointer(&tuple);
    return NULL;
}

static PyObject *
checksum_to_python(const VmrSparseReport *report)
{
    if (!report->checksum[0])
        return Py_NewRef(Py_None);
    return PyUnicode_FromString(report->checksum);
}

PyObject *
copy_tuples_from_report(const ModuleState *state, PyObject *source,
                        PyObject *destination, const VmrSparseReport *report)
{
    g_autoptr(PyObject) tuple = PyStructSequence_New(state->copy_report_type);
    const char *method = vmr_sparse_method_name(report->method);

    if (tuple && convert_set_item(tuple, 0, Py_NewRef(source)) &&
        convert_set_item(tuple, 1, Py_NewRef(destination)) &&
        convert_set_item(tuple, 2, PyLong_FromUnsignedLongLong(report->size)) &&
        convert_set_item(tuple, 3, PyLong_FromUnsignedLongLong(report->copied)) &&
        convert_set_item(tuple, 4, PyFloat_FromDouble(report->seconds)) &&
        convert_set_item(tuple, 5, checksum_to_python(report)) &&
        convert_set_item(tuple, 6, PyUnicode_FromString(method)) &&
        convert_set_item(tuple, 7, PyBool_FromLong(report->verified)))
        return g_steal_pointer(&tuple);
    return NULL;
}

int
copy_tuples_setup_types(PyObject *module)
{
    ModuleState *state = module_get_state(module);

    if (convert_add_type(module, &progress_desc, &state->copy_progress_type) < 0)
        return -1;
    return convert_add_type(module, &report_desc, &state->copy_report_type);
}
