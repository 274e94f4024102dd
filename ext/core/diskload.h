/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * diskload: how many requests the disks below some files have done, whoever made
 * them, as the kernel counts them in sysfs.
 */

#include <glib.h>
#include <sys/stat.h>

G_BEGIN_DECLS

typedef struct VmrDiskload VmrDiskload;

/* An empty set of disks. */
VmrDiskload *vmr_diskload_new(void);

/* Free @load; NULL is fine. */
void vmr_diskload_free(VmrDiskload *load);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrDiskload, vmr_diskload_free)

/* Add the disk below the file (or the block device) that @st is of. FALSE: it
 * has none that is known here, as on a network's file system. */
gboolean vmr_diskload_add(VmrDiskload *load, const struct stat *st);

/* Add the disk whose counters are in the file @path, of the form of the "stat" files
 * in sysfs. FALSE: there is none. */
gboolean vmr_diskload_add_file(VmrDiskload *load, const char *path);

/* How many requests all of them have done so far, and have under way. FALSE: not
 * known. */
gboolean vmr_diskload_get(const VmrDiskload *load, guint64 *done,
                          guint64 *under_way);

G_END_DECLS
