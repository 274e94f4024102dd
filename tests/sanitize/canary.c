/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* An extension of bugs: each of its functions has one, which the sanitizers
 * must report. It is built and loaded as virmirror's own is, so that a run
 * which reports nothing says something. */

#include <Python.h>

#include <glib.h>

static PyObject *
overflow(PyObject *self, PyObject *arg)
{
    Py_ssize_t len = 0;
    const char *text = PyUnicode_AsUTF8AndSize(arg, &len);
    g_autofree char *copy = text ? g_memdup2(text, len) : NULL;
    volatile char beyond;

    (void)self;
    if (!copy)
        return NULL;
    beyond = copy[len]; /* there is no NUL */
    return PyLong_FromLong(beyond);
}

static PyObject *
use_after_free(PyObject *self, PyObject *arg)
{
    volatile char *copy = g_malloc0(8);

    (void)self;
    (void)arg;
    g_free((char *)copy);
    return PyLong_FromLong(copy[0]);
}

static PyObject *
undefined(PyObject *self, PyObject *arg)
{
    volatile int value = PyLong_AsLong(arg);

    (void)self;
    return PyLong_FromLong(value + 1); /* arg: INT_MAX */
}

static PyObject *
leak(PyObject *self, PyObject *arg)
{
    volatile char *lost = g_malloc(4321);

    (void)self;
    (void)arg;
    lost[0] = 1;
    lost = NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"overflow", overflow, METH_O, NULL},
    {"use_after_free", use_after_free, METH_NOARGS, NULL},
    {"undefined", undefined, METH_O, NULL},
    {"leak", leak, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "vmr_canary",
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit_vmr_canary(void)
{
    return PyModuleDef_Init(&module);
}
