/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * diskspec: what is wanted of one disk, and its textual form
 *
 *   disk[,snapshot=type][,driver=type][,file=name][,mirror=name]
 *
 * in which a comma within a value is doubled. Pure: no file is looked at.
 */

#include <glib.h>

G_BEGIN_DECLS

typedef struct {
    char *name;          /* target ("vda") or path of its source */
    char *snapshot;      /* "external", "no", ..., or NULL */
    char *driver;        /* format of the overlay, or NULL */
    char *file;          /* path of the overlay, or NULL */
    char *mirror;        /* path of the mirror, or NULL */
    char *mirror_format; /* format of the mirror, or NULL: as the overlay */
    gboolean file_is_block;   /* said to be block devices; only XML can say */
    gboolean mirror_is_block; /* so, without it the images decide */
} VmrDiskSpec;

/* Parse @text. Every key at most once, no empty value, no unknown key.
 * Errors: INVALID_SPEC, which quotes @text. */
VmrDiskSpec *vmr_diskspec_parse(const char *text, GError **error);

/* The text that vmr_diskspec_parse() turns into the same struct; owned.
 * mirror_format and the two flags have no textual form and are left out. */
char *vmr_diskspec_format(const VmrDiskSpec *spec);

/* Free @spec; NULL is fine. */
void vmr_diskspec_free(VmrDiskSpec *spec);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrDiskSpec, vmr_diskspec_free)

G_END_DECLS
