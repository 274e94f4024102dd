/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * snapshot_tuples: the named tuples that MirrorSnapshot hands out: MirrorDisk,
 * DiskProgress and MirrorFigures.
 */

#include "module.h"

#include "../core/mirror.h"

G_BEGIN_DECLS

/* Make the types and add them to @module; 0, or -1 with an exception. */
int tuples_setup_types(PyObject *module);

/* @disks (of VmrDisk) as a tuple of MirrorDisk; NULL: exception. */
PyObject *tuples_from_disks(const ModuleState *state, const GPtrArray *disks);

/* @figures (of VmrProgress) as a tuple of DiskProgress; NULL: exception. */
PyObject *tuples_from_progress(const ModuleState *state, const GArray *figures);

/* @figures as a MirrorFigures; NULL: exception. */
PyObject *tuples_from_figures(const ModuleState *state,
                              const VmrFigures *figures);

/* @lines (of char *, as the file system encodes) as a tuple of str; NULL:
 * exception. */
PyObject *tuples_from_lines(const GPtrArray *lines);

G_END_DECLS
