/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * collapse_priv: what pull and commit share: the chain that a disk has, and the one
 * that it is to have, as paths, top first.
 */

#include "blockjob.h"

G_BEGIN_DECLS

/* The path of layer @i of @disk, "" where it has none; borrowed. */
const char *vmr_collapse_path(const VmrDomDisk *disk, guint i);

/* Whether the chain of @disk has exactly the paths @expected (of char *). */
gboolean vmr_collapse_is(const VmrDomDisk *disk, const GPtrArray *expected);

/* Append the paths of @disk from layer @from on to @expected. */
void vmr_collapse_expect(GPtrArray *expected, const VmrDomDisk *disk,
                         guint from);

/* The disk @name of @live; borrowed. Errors: NOT_FOUND. */
const VmrDomDisk *vmr_collapse_find(const VmrDomXml *live, const char *name,
                                    GError **error);

G_END_DECLS
