/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * reserve: what a few calls need, set aside while there is some: descriptors and a
 * thread. Whoever suspends a guest must be able to resume it, even if the process has
 * run out of both by then.
 */

#include <glib.h>

G_BEGIN_DECLS

typedef struct VmrReserve VmrReserve;

/* Set them aside. Errors: IO. */
VmrReserve *vmr_reserve_new(GError **error);

/* Give them back to the process, just before they are needed. NULL is fine. */
void vmr_reserve_free(VmrReserve *reserve);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrReserve, vmr_reserve_free)

G_END_DECLS
