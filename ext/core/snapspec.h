/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * snapspec: what is wanted of a mirrored snapshot, however it was said (XML,
 * diskspecs), and the rules that it must obey. Pure.
 */

#include "diskspec.h"
#include "findings.h"

G_BEGIN_DECLS

/* Bytes: libvirt writes a snapshot as NAME.xml.new, and a file name has 255. */
#define VMR_SNAPSPEC_MAX_NAME 247

typedef struct {
    char *name;        /* NULL: to be chosen */
    char *description; /* or NULL */
    GPtrArray *disks;  /* of VmrDiskSpec */
} VmrSnapSpec;

/* An empty spec; @name and @description may be NULL. */
VmrSnapSpec *vmr_snapspec_new(const char *name, const char *description);

/* Free @spec; NULL is fine. */
void vmr_snapspec_free(VmrSnapSpec *spec);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrSnapSpec, vmr_snapspec_free)

/* Whether @disk is to be left out of the snapshot (snapshot='no'). */
gboolean vmr_diskspec_is_excluded(const VmrDiskSpec *disk);

/* Check @spec by itself: names, paths and formats, every disk mirrored or
 * excluded, at least one mirrored, nothing twice. No file is looked at.
 * Errors: INVALID_SPEC, all findings in one text, joined by "; ", with
 * VIR_ERR_XML_DETAIL, or VIR_ERR_CONFIG_UNSUPPORTED where all that is wrong
 * is not supported. */
gboolean vmr_snapspec_check(const VmrSnapSpec *spec, GError **error);

/* The same, adding to @findings. */
void vmr_snapspec_review(const VmrSnapSpec *spec, VmrFindings *findings);

/* The path of the overlay of @source where none is given, as libvirt chooses it:
 * the name of the snapshot in place of the suffix; owned. */
char *vmr_snapspec_overlay_path(const char *source, const char *snapshot);

G_END_DECLS
