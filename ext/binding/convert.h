/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * convert: what the engine returns, as objects of Python; what several files of
 * the binding need for it.
 */

#include "module.h"

G_BEGIN_DECLS

/* @text (a path, as the file system encodes) as str, or None; new reference. */
PyObject *convert_text(const char *text);

/* Put @value (stolen) into the structseq @tuple; FALSE: exception. */
gboolean convert_set_item(PyObject *tuple, Py_ssize_t index, PyObject *value);

/* Make the structseq type of @desc and add it to @module; 0, or -1 with an
 * exception. */
int convert_add_type(PyObject *module, PyStructSequence_Desc *desc,
                     PyTypeObject **type);

G_END_DECLS
