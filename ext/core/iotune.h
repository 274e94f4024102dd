/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * iotune: the block I/O limits of a disk (<iotune>), as a value. Pure.
 */

#include <glib.h>
#include <libxml/tree.h>

G_BEGIN_DECLS

/* In the order of the table of names in iotune.c. */
typedef enum {
    VMR_IOTUNE_TOTAL_BYTES_SEC,
    VMR_IOTUNE_READ_BYTES_SEC,
    VMR_IOTUNE_WRITE_BYTES_SEC,
    VMR_IOTUNE_TOTAL_IOPS_SEC,
    VMR_IOTUNE_READ_IOPS_SEC,
    VMR_IOTUNE_WRITE_IOPS_SEC,
    VMR_IOTUNE_TOTAL_BYTES_SEC_MAX,
    VMR_IOTUNE_READ_BYTES_SEC_MAX,
    VMR_IOTUNE_WRITE_BYTES_SEC_MAX,
    VMR_IOTUNE_TOTAL_IOPS_SEC_MAX,
    VMR_IOTUNE_READ_IOPS_SEC_MAX,
    VMR_IOTUNE_WRITE_IOPS_SEC_MAX,
    VMR_IOTUNE_TOTAL_BYTES_SEC_MAX_LENGTH,
    VMR_IOTUNE_READ_BYTES_SEC_MAX_LENGTH,
    VMR_IOTUNE_WRITE_BYTES_SEC_MAX_LENGTH,
    VMR_IOTUNE_TOTAL_IOPS_SEC_MAX_LENGTH,
    VMR_IOTUNE_READ_IOPS_SEC_MAX_LENGTH,
    VMR_IOTUNE_WRITE_IOPS_SEC_MAX_LENGTH,
    VMR_IOTUNE_SIZE_IOPS_SEC,
    VMR_IOTUNE_LAST
} VmrIotuneField;

typedef struct {
    guint64 values[VMR_IOTUNE_LAST]; /* 0: no such limit */
    char *group; /* disks with the same one share their limits; NULL: alone */
} VmrIotune;

/* No limits. */
VmrIotune *vmr_iotune_new(void);

/* A copy; NULL for NULL. */
VmrIotune *vmr_iotune_copy(const VmrIotune *tune);

/* Free @tune; NULL is fine. */
void vmr_iotune_free(VmrIotune *tune);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrIotune, vmr_iotune_free)

/* "total_bytes_sec", ...: libvirt's name of it, in XML and in calls; static. */
const char *vmr_iotune_field_name(VmrIotuneField field);

/* The limits of disk @target in a domain's XML; NULL where it has no such disk, with
 * or without @error. Errors: INVALID_SPEC. */
VmrIotune *vmr_iotune_parse(const char *xml, const char *target, GError **error);

/* What limits the bytes that are written: the total, if there is such a limit. */
VmrIotuneField vmr_iotune_write_field(const VmrIotune *tune);

/* A copy of @tune in which no more than @limit bytes/s can be written, and no more at
 * once either; other limits stay as they are. */
VmrIotune *vmr_iotune_lower(const VmrIotune *tune, guint64 limit);

G_END_DECLS
