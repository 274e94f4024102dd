/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * copy_tuples: the named tuples that copying hands out: CopyProgress and
 * CopyReport.
 */

#include "module.h"

#include "../core/sparse.h"

G_BEGIN_DECLS

/* Make the types and add them to @module; 0, or -1 with an exception. */
int copy_tuples_setup_types(PyObject *module);

/* How far @copy is, as a CopyProgress; NULL: exception. */
PyObject *copy_tuples_from_progress(const ModuleState *state, VmrSparse *copy);

/* @report on the copy of @source to @destination (str) as a CopyReport; NULL:
 * exception. */
PyObject *copy_tuples_from_report(const ModuleState *state, PyObject *source,
                                  PyObject *destination,
                                  const VmrSparseReport *report);

G_END_DECLS
