/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * snapshot: virDomainSnapshotCreateXML() and virDomainSnapshotDelete() as they
 * would be if libvirt knew mirrored snapshots; what has nothing to do with a
 * mirror is for libvirt itself.
 */

#include <libvirt/libvirt.h>

#include "hv.h"

G_BEGIN_DECLS

/* Two flags of virDomainSnapshotDelete() that libvirt does not have. */
#define VMR_SNAPSHOT_DELETE_MIRROR_ABORT (1 << 3)
#define VMR_SNAPSHOT_DELETE_MIRROR_PIVOT (1 << 4)

/* Take the snapshot @xml of @dom if it has a <mirror>; *@name, owned, is the
 * name it got. Without a <mirror>, *@name is NULL, nothing was done, and the
 * caller passes @xml and @flags on to libvirt; that a mirrored snapshot of the
 * domain forbids this, too, is an error (BUSY). @flags: DISK_ONLY (implied),
 * REUSE_EXT, QUIESCE, ATOMIC (implied), VALIDATE (adds nothing: @xml is read
 * strictly anyway).
 * Errors: as vmr_mirror_create(). */
gboolean vmr_snapshot_create_xml(VmrHv *hv, virDomainPtr dom, const char *xml,
                                 guint flags, char **name,
                                 const VmrWait *wait, GError **error);

/* Delete the snapshot @name of @dom if it is mirrored, after pivoting to or
 * aborting the mirror as @flags say. For any other snapshot *@done is FALSE,
 * nothing was done, and the caller passes it on to libvirt.
 * Errors: INVALID_SPEC (flags), INVALID_STATE (no mirror flag, or one without
 * a mirror), and as vmr_mirror_pivot() and vmr_mirror_abort(). */
gboolean vmr_snapshot_delete(VmrHv *hv, virDomainPtr dom, const char *name,
                             guint flags, gboolean *done, const VmrWait *wait,
                             GError **error);

/* virDomainSnapshotGetXMLDesc() of the snapshot @name of @dom, with its
 * <mirror> elements while it is mirrored; owned. */
char *vmr_snapshot_get_xml(VmrHv *hv, virDomainPtr dom, const char *name,
                           const VmrWait *wait, GError **error);

G_END_DECLS
