/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * share: who relies on a copy, as the extended attribute "user.virmirror.shared" of
 * it: for good, since a guest that was moved onto it then need not be running when
 * the migration that made the file gives up and would remove it.
 *
 * The lock on a byte of the file goes with it: shared by who relies on the copy just
 * now, exclusive for who fills it, changes it or removes it.
 */

#include <glib.h>

G_BEGIN_DECLS

#define VMR_SHARE_NAME "user.virmirror.shared"

/* The byte whose lock says so (python/virmirror/layers.py has it, too). Not flock():
 * that is a lock of all bytes on NFS, among them those by which QEMU tells that it has
 * the file open. */
#define VMR_SHARE_LOCK_BYTE (G_GINT64_CONSTANT(1) << 62)

/* Who moves the domain @uuid by the mirrored snapshot @snapshot; owned. */
char *vmr_share_user(const char *uuid, const char *snapshot);

/* Whoever copies by hand, for a guest that is not known. */
#define VMR_SHARE_USER_COPY "copy"

/* Note on the open file @fd that @user relies on it; the caller has the lock. Where
 * nothing can be noted, on devices and some file systems, or on a file of others that
 * no migration has made, nothing happens. Errors: IO. */
gboolean vmr_share_note(int fd, const char *path, const char *user,
                        GError **error);

/* The same under the lock, which is taken for it. Errors: also BUSY (it is being
 * filled, or removed), DIVERGED (it was removed). */
gboolean vmr_share_note_locked(int fd, const char *path, const char *user,
                               GError **error);

/* Whether others than the domain @uuid, under the snapshot @snapshot (NULL: any), have
 * noted on the open file @fd that they rely on it. Errors: IO. */
gboolean vmr_share_has_others(int fd, const char *path, const char *uuid,
                              const char *snapshot, gboolean *others,
                              GError **error);

G_END_DECLS
