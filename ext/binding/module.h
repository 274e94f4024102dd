/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * module: what all of the binding includes first: Python's limited API, and
 * the state of the module, which is the only place that keeps anything.
 */

#ifndef Py_LIMITED_API
#error "build with -DPy_LIMITED_API=0x030B0000, see setup.py"
#endif

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <glib.h>

#include "../core/error.h"

G_BEGIN_DECLS

/* A new reference that a local variable owns: g_autoptr(PyObject). */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PyObject, Py_DecRef)

typedef struct {
    PyTypeObject *snapshot_type; /* MirrorSnapshot */
    PyTypeObject *disk_type;     /* MirrorDisk */
    PyTypeObject *progress_type; /* DiskProgress */
    PyTypeObject *figures_type;  /* MirrorFigures */
    PyTypeObject *copy_type;     /* Copy */
    PyTypeObject *copy_progress_type; /* CopyProgress */
    PyTypeObject *copy_report_type;   /* CopyReport */
    PyObject *main_thread; /* threading.main_thread */
    PyObject *ident;       /* "ident" */
    PyObject *error_types[VMR_ERROR_LAST];
} ModuleState;

/* A row of a table of methods that take positional and named arguments. */
#define MODULE_FUNCTION(name, function, doc)           \
    {                                                  \
        name, (PyCFunction)(void (*)(void))(function), \
            METH_VARARGS | METH_KEYWORDS, doc          \
    }

/* The state of @module, borrowed. */
ModuleState *module_get_state(PyObject *module);

G_END_DECLS
