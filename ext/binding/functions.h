/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * functions: the functions of the module: those of libvirt's shape, and those
 * that need no object of their own.
 */

#include "module.h"

G_BEGIN_DECLS

extern PyMethodDef functions_table[];

G_END_DECLS
