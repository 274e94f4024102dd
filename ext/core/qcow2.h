/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * qcow2: the header of a qcow2 image, versions 2 and 3, from bytes that
 * anybody may have written. Pure: no file is looked at.
 */

#include <glib.h>

G_BEGIN_DECLS

/* Of the largest cluster, which is as far as a header can reach. */
#define VMR_QCOW2_MAX_HEADER (2 * 1024 * 1024)

/* Bytes at the beginning that tell how large the header can be. */
#define VMR_QCOW2_MIN_HEADER 512

typedef struct {
    guint version;          /* 2 or 3 */
    guint64 virtual_size;   /* bytes, a multiple of 512 */
    guint64 l1_offset;      /* of the table of L2 tables, bytes */
    guint64 l1_size;        /* of that table, bytes */
    char *backing_name;     /* UTF-8 without control characters, or NULL */
    char *backing_format;   /* or NULL; never without backing_name */
    gboolean data_file;
    gboolean encrypted;
    gboolean dirty;         /* or corrupt */
    gboolean has_snapshots;
    gboolean has_bitmaps;
} VmrQcow2;

/* How many bytes vmr_qcow2_parse() wants, going by the first @len ones: those
 * of the first cluster, or @len if these are no header anyway. */
gsize vmr_qcow2_header_size(const guint8 *data, gsize len);

/* Parse the @len bytes at the beginning of an image. @header is overwritten,
 * and needs vmr_qcow2_clear() on success only. What QEMU refuses in these
 * fields is refused. Errors: IMAGE, text to be prefixed by the file's name. */
gboolean vmr_qcow2_parse(const guint8 *data, gsize len, VmrQcow2 *header,
                         GError **error);

/* Free what @header holds. */
void vmr_qcow2_clear(VmrQcow2 *header);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(VmrQcow2, vmr_qcow2_clear)

G_END_DECLS
