/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * sides: what python/virmirror/sides.py and migration.py need to tell which side of a
 * migration a domain is on, and to leave it there.
 */

#include "module.h"

G_BEGIN_DECLS

/* virmirror._core's methods for sides, ending with a NULL one. */
extern PyMethodDef sides_table[];

G_END_DECLS
