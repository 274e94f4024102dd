/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * prepare: what is made ready on the new storage before a mirrored snapshot.
 */

#include "hv.h"

G_BEGIN_DECLS

/* Make the skeleton of the chain that @disk (target or path of its source) of
 * the running @dom has in @folder: see vmr_chain_prepare(). The paths are
 * returned, top first, NULL-terminated, owned (g_strfreev()).
 * Errors: NOT_FOUND (disk), INVALID_STATE, VIRT, and those of
 * vmr_chain_prepare(). */
char **vmr_prepare_chain(const VmrDomain *dom, const char *disk,
                         const char *folder, const VmrWait *wait,
                         GError **error);

G_END_DECLS
