/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * moving: what python/virmirror/planning.py and migration.py need of the engine
 * and nobody else: the plan of a move as dicts, and the files of one.
 */

#include "module.h"

G_BEGIN_DECLS

/* virmirror._core's methods for a migration, ending with a NULL one. */
extern PyMethodDef moving_table[];

G_END_DECLS
