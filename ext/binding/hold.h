/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * hold: the lock of a domain, for python/virmirror/jobs.py.
 */

#include "module.h"

G_BEGIN_DECLS

/* virmirror._core's methods for the lock, ending with a NULL one. */
extern PyMethodDef hold_table[];

G_END_DECLS
