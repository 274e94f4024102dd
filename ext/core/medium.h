/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * medium: how long lasts what is written somewhere, and whether this process may
 * write, and another user read there at all.
 */

#include <glib.h>
#include <sys/types.h>

G_BEGIN_DECLS

typedef enum {
    VMR_MEDIUM_LASTING, /* or nobody can tell */
    VMR_MEDIUM_MEMORY,  /* gone with the host's power */
    VMR_MEDIUM_NODES,   /* devtmpfs: memory, and for device nodes only */
    VMR_MEDIUM_LAST
} VmrMedium;

/* What the file, folder or block device @path is kept on. Seen through are overlayfs
 * (its upper folder, where this process can see it) and loop devices; what goes
 * through another process or host (FUSE, NFS, NBD) is taken for lasting. Errors:
 * NOT_FOUND, IO. */
gboolean vmr_medium_probe(const char *path, VmrMedium *medium, GError **error);

/* Why this process cannot make files in @folder, to be put behind its name; static;
 * NULL: it can. */
const char *vmr_medium_why_unwritable(const char *folder);

/* The first folder on the way to @folder, and in the end that itself, that the user
 * @uid of group @gid cannot go through, as far as the modes tell; owned. NULL: there is
 * none, or nobody can tell: it has an ACL, or is open to a group that the user may be
 * in. */
char *vmr_medium_find_barrier(const char *folder, uid_t uid, gid_t gid);

G_END_DECLS
