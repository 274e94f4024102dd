/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * chain: a backing chain on disk, as its headers tell it; comparing the chain
 * at the destination with the one in use; making its skeleton.
 */

#include "domxml.h"
#include "image.h"

G_BEGIN_DECLS

#define VMR_CHAIN_MAX_DEPTH 200

/* Read the headers from @path (of @format) down, following only backing names
 * that are relative and plain, each resolved against the folder of the file
 * that names it, and which stay in the folder of @path or below it; of
 * VmrImage, top first. Errors: IMAGE (a loop, a missing
 * backing format, an absolute name, a protocol, ...), NOT_FOUND, IO. */
GPtrArray *vmr_chain_read(const char *path, const char *format,
                          GError **error);

/* Read the headers of the live chain @layers (of VmrLayer), and compare each
 * with what libvirt believes: format and backing file. Absolute names are fine
 * here. Errors: IMAGE, NOT_SUPPORTED (network, dir, ...), IO. */
GPtrArray *vmr_chain_read_live(const GPtrArray *layers, GError **error);

/* Check that @copy (of VmrImage, from the layer below the mirror down) can
 * stand in for @frozen (the frozen layers in use, top first): as many layers,
 * equal formats and virtual sizes, none of them one of @frozen's files, unless it is
 * the same layer there, below the top, and so are all below it.
 * Errors: IMAGE, all findings in one text, joined by "; ". */
gboolean vmr_chain_check_copy(const GPtrArray *frozen, const GPtrArray *copy,
                              GError **error);

/* One layer of a chain, and what its copy is to be. */
typedef struct {
    const VmrImage *source; /* borrowed from the chain that was planned for */
    char *path;             /* of the copy */
    gboolean in_place;      /* the source lies there already: there is no copy */
    char *backing_name;     /* that its header is to have, or NULL */
    const char *backing_format; /* with backing_name; borrowed from a source */
    VmrImage *made;         /* the skeleton that was made, or NULL */
} VmrLayerPlan;

/* Where in @folder the copy of each layer of a disk of @dom (NULL: not known),
 * @sources (of VmrImage, top first, to outlive the result) is to be, and by which
 * relative names they are linked; of VmrLayerPlan, owned. Nothing is changed.
 * Errors: INVALID_SPEC (also: others may write to a folder), NOT_FOUND (a folder),
 * NOT_SUPPORTED, IO. */
GPtrArray *vmr_chain_plan(const VmrDomXml *dom, const GPtrArray *sources,
                          const char *folder, GError **error);

/* Make the skeleton for a copy of the whole chain of @disk, of @dom (NULL: not
 * known), in @folder: for each layer an image of its name, format and virtual
 * size, with relative backing names. A file that is already there is kept if it fits
 * and others cannot write it, and is an error if not; a layer that lies there itself
 * stays. @folder must be absolute and must exist, as must those below it that
 * backing names lead to. The paths are returned, top first, NULL-terminated,
 * owned (g_strfreev()). On failure what was created is removed again.
 * Errors: INVALID_SPEC, IMAGE, EXISTS, BUSY (a QEMU writes to what is there),
 * NOT_FOUND (a folder), NOT_SUPPORTED, IO, TIMEOUT, CANCELLED. */
char **vmr_chain_prepare(const VmrDomXml *dom, const VmrDomDisk *disk,
                         const char *folder, const VmrWait *wait,
                         GError **error);

G_END_DECLS
