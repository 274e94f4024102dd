/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * marks: the notes on copied files, for python/virmirror/layers.py.
 */

#include "module.h"

G_BEGIN_DECLS

/* virmirror._core's methods for marks, ending with a NULL one. */
extern PyMethodDef marks_table[];

G_END_DECLS
