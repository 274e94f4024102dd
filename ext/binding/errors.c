/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "errors.h"

#include <libvirt/virterror.h>
#include <string.h>

static const char *const class_names[VMR_ERROR_LAST] = {
    [VMR_ERROR_INVALID_SPEC] = "SpecError",
    [VMR_ERROR_INVALID_STATE] = "StateError",
    [VMR_ERROR_NOT_FOUND] = "NotFoundError",
    [VMR_ERROR_EXISTS] = "ExistsError",
    [VMR_ERROR_BUSY] = "BusyError",
    [VMR_ERROR_NOT_READY] = "NotReadyError",
    [VMR_ERROR_NOT_SUPPORTED] = "NotSupportedError",
    [VMR_ERROR_TIMEOUT] = "MirrorTimeoutError",
    [VMR_ERROR_CANCELLED] = "CancelledError",
    [VMR_ERROR_JOB_FAILED] = "JobFailedError",
    [VMR_ERROR_IMAGE] = "ImageError",
    [VMR_ERROR_IO] = "StorageError",
    [VMR_ERROR_JOURNAL] = "JournalError",
    [VMR_ERROR_DIVERGED] = "DivergedError",
    [VMR_ERROR_VIRT] = "MirrorError",
};

/* {"invalid-spec": SpecError, ...}, for those who want to look codes up. */
static int
add_table(PyObject *module, const ModuleState *state)
{
    g_autoptr(PyObject) table = PyDict_New();

    if (!table)
        return -1;
    for (int code = 0; code < VMR_ERROR_LAST; code++) {
        if (PyDict_SetItemString(table, vmr_error_code_name(code),
                                 state->error_types[code]) < 0)
            return -1;
    }
    return PyModule_AddObjectRef(module, "_error_types", table);
}

int
errors_setup(PyObject *module)
{
    ModuleState *state = module_get_state(module);
    g_autoptr(PyObject) errors = PyImport_ImportModule("virmirror.errors");

    if (!errors)
        return -1;
    for (int code = 0; code < VMR_ERROR_LAST; code++) {
        state->error_types[code] =
            PyObject_GetAttrString(errors, class_names[code]);
        if (!state->error_types[code])
            return -1;
    }
    return add_table(module, state);
}

/* @text, NULL being None. What is not UTF-8, as in a path that libvirt quotes,
 * stays readable. */
static PyObject *
text_to_python(const char *text)
{
    if (!text)
        return Py_NewRef(Py_None);
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text),
                                "backslashreplace");
}

/* What libvirt-python keeps as libvirtError.err. */
static PyObject *
virt_error_to_tuple(const char *message, const VmrErrorDetail *detail)
{
    return Py_BuildValue("(iiNiNNNii)", detail->virt_code, detail->virt_domain,
                         text_to_python(message), VIR_ERR_ERROR,
                         text_to_python(detail->virt_str[0]),
                         text_to_python(detail->virt_str[1]),
                         text_to_python(detail->virt_str[2]),
                         detail->virt_int[0], detail->virt_int[1]);
}

static PyObject *
detail_to_keywords(const GError *error, const VmrErrorDetail *detail)
{
    return Py_BuildValue("{s:N,s:N,s:N,s:N,s:N,s:s}", "err",
                         virt_error_to_tuple(error->message, detail), "disk",
                         text_to_python(detail->disk), "phase",
                         text_to_python(detail->phase), "partial",
                         PyBool_FromLong(detail->partial), "unknown",
                         PyBool_FromLong(detail->unknown), "reason",
                         vmr_error_code_name(error->code));
}

void
errors_raise(const ModuleState *state, const GError *error)
{
    const VmrErrorDetail *detail = vmr_error_get_detail(error);
    g_autoptr(PyObject) args = NULL;
    g_autoptr(PyObject) keywords = NULL;
    g_autoptr(PyObject) exception = NULL;

    if (!detail) {
        /* the engine promises its own domain only */
        PyErr_Format(PyExc_SystemError, "unexpected error of GLib: %s",
                     error->message);
        return;
    }
    args = Py_BuildValue("(N)", text_to_python(error->message));
    keywords = detail_to_keywords(error, detail);
    if (!args || !keywords)
        return;
    exception = PyObject_Call(state->error_types[error->code], args, keywords);
    if (exception)
        PyErr_SetObject(state->error_types[error->code], exception);
}

void
errors_raise_code(const ModuleState *state, VmrErrorCode code,
                  const char *format, ...)
{
    g_autoptr(GError) error = NULL;
    va_list args;

    va_start(args, format);
    error = g_error_new_valist(VMR_ERROR, code, format, args);
    va_end(args);
    errors_raise(state, error);
}

PyObject *
errors_make(const ModuleState *state, const char *reason, const char *text)
{
    for (int code = 0; code < VMR_ERROR_LAST; code++) {
        if (!g_str_equal(reason, vmr_error_code_name(code)))
            continue;
        errors_raise_code(state, code, "%s", text);
        return errors_take();
    }
    return PyErr_Format(PyExc_ValueError, "no such reason: '%s'", reason);
}

/* PyErr_GetRaisedException() and PyErr_SetRaisedException(), which the limited
 * API has from Python 3.12 on. */
PyObject *
errors_take(void)
{
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *traceback = NULL;

    PyErr_Fetch(&type, &value, &traceback);
    if (!type)
        return NULL;
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(traceback);
    Py_DECREF(type);
    return value;
}

void
errors_restore(PyObject *exception)
{
    PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(exception)), exception,
                  PyException_GetTraceback(exception));
}

void
errors_chain(PyObject *exception, PyObject *context)
{
    PyObject *last = exception;

    /* who handles @exception at this moment has made it the context of
     * @context: that would become a loop */
    PyException_SetContext(context, NULL);
    for (;;) {
        PyObject *next = PyException_GetContext(last);

        Py_XDECREF(next); /* @last keeps it */
        if (!next)
            break;
        last = next;
    }
    PyException_SetContext(last, context);
}
