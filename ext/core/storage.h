/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * storage: which file or device something is, and whether two of them end in the
 * same bytes: one is a loop device over the other, a partition of it, a volume
 * made of it, or lies in its file system.
 */

#include <glib.h>
#include <sys/stat.h>

G_BEGIN_DECLS

typedef struct {
    dev_t dev; /* as vmr_imagefile_identify() has it */
    ino_t ino;
    gboolean is_block;
} VmrStorage;

/* What the file or device behind @st is. */
VmrStorage vmr_storage_of(const struct stat *st);

/* Whether both are one and the same file or device. */
gboolean vmr_storage_same(const VmrStorage *a, const VmrStorage *b);

/* Whether what is written to one may change the other: they are the same, or one
 * stands on the other, as the kernel tells. It cannot tell of what goes through
 * another process or host (FUSE, NBD, NFS, iSCSI): FALSE. Two partitions of one
 * disk, or volumes in one group, are apart; two loop devices over one file are not. */
gboolean vmr_storage_overlaps(const VmrStorage *a, const VmrStorage *b);

G_END_DECLS
