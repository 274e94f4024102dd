/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * guard: one at a time changes the mirrored snapshot of a domain, on this host.
 *
 * The lock is the abstract Unix socket with the domain's UUID in its name. So it is the
 * same for all users and all processes (of a network namespace), cannot be left behind,
 * and the kernel tells whose it is. Any thread may call these.
 *
 * $VIRMIRROR_LOCK_PREFIX, part of the name, is for test runs side by side, whose domains
 * have the same UUIDs; whoever sets it otherwise has a lock of his own.
 */

#include <glib.h>
#include <sys/types.h>

G_BEGIN_DECLS

typedef struct VmrGuard VmrGuard;

/* Take the guard of the domain with UUID @uuid for one change, without waiting.
 * Threads of one process exclude each other, too; but the thread that holds the guard
 * for a job (vmr_guard_hold()) may take it for each step of that.
 * Errors: BUSY (says which process has it), INVALID_SPEC for what is no UUID, IO. */
VmrGuard *vmr_guard_take(const char *uuid, GError **error);

/* The same for a job of many steps, all in the calling thread. */
VmrGuard *vmr_guard_hold(const char *uuid, GError **error);

/* Whether @guard still keeps others out: in a forked child the parent's do not. */
gboolean vmr_guard_is_held(const VmrGuard *guard);

/* Give the guard back; NULL is fine. */
void vmr_guard_release(VmrGuard *guard);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrGuard, vmr_guard_release)

/* The process that has the guard of the domain: its pid, 0 if there is none, -1 if it
 * cannot be told which one it is. */
pid_t vmr_guard_find_holder(const char *uuid);

G_END_DECLS
