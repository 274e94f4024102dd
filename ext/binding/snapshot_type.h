/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * snapshot_type: MirrorSnapshot, a mirrored snapshot as a Python object, and
 * the two named tuples that it hands out.
 */

#include "args.h"

G_BEGIN_DECLS

/* Make the types and add them to @module; 0, or -1 with an exception. */
int snapshot_setup_types(PyObject *module);

/* The MirrorSnapshot that the journal of @dom tells of (@name NULL: any), a
 * new reference; NULL: exception. */
PyObject *snapshot_adopt(const ModuleState *state, const DomainArg *dom,
                         const char *name);

G_END_DECLS
