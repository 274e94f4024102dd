/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * recovery: vmr_inspect() and vmr_recover() as functions that return dicts, of
 * which python/virmirror/recovery.py makes its dataclasses.
 */

#include "module.h"

G_BEGIN_DECLS

/* virmirror._core's methods _inspect and _recover, ending with a NULL one. */
extern PyMethodDef recovery_table[];

G_END_DECLS
