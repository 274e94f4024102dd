/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * guard: one process at a time changes the mirrored snapshot of a domain.
 *
 * It is a file, locked with flock(), in a folder that only its user may write
 * to: $VIRMIRROR_RUNTIME_DIR if set; /run/virmirror for root; else virmirror in
 * $XDG_RUNTIME_DIR, or /tmp/virmirror-UID. So it holds between the processes of
 * one user on one host. A process that dies loses it.
 */

#include <glib.h>

G_BEGIN_DECLS

typedef struct VmrGuard VmrGuard;

/* Take the guard of the domain with UUID @uuid, without waiting. Any thread;
 * threads of one process exclude each other, too. Errors: BUSY (says who has
 * it), INVALID_SPEC for what is no UUID, IO. */
VmrGuard *vmr_guard_take(const char *uuid, GError **error);

/* The same, in the folder @folder, which is made if it is missing. */
VmrGuard *vmr_guard_take_in(const char *folder, const char *uuid,
                            GError **error);

/* Give the guard back; NULL is fine. */
void vmr_guard_release(VmrGuard *guard);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrGuard, vmr_guard_release)

/* Where the guards are; owned. */
char *vmr_guard_dup_folder(void);

G_END_DECLS
