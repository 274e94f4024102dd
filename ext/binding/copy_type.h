/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * copy_type: Copy, a copy of a file as a Python object; and the functions copy()
 * and checksum().
 */

#include "module.h"

G_BEGIN_DECLS

/* Make Copy and its named tuples and add them to @module; 0, or -1 with an
 * exception. */
int copy_setup_types(PyObject *module);

/* For the module's list of functions. */
extern PyMethodDef copy_functions[];

G_END_DECLS
