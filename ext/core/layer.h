/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * layer: one layer of a backing chain as libvirt's XML has it, read from there and
 * written to there. What a layer is tuned with belongs to its <source> for libvirt,
 * and would be lost with that: whoever puts a disk on other files gives it to them.
 * Pure.
 */

#include <glib.h>
#include <libxml/tree.h>

G_BEGIN_DECLS

/* A <seclabel> of one file; each may be NULL. */
typedef struct {
    char *model;   /* "dac", "selinux", ... */
    char *relabel; /* "no": libvirt leaves owner and label of the file alone */
    char *label;   /* that it gets instead of the domain's */
} VmrSecLabel;

typedef struct {
    char *type;        /* "file", "block", "network", ... */
    char *path;        /* NULL where the type has none */
    char *format;      /* "qcow2", "raw", ..., or NULL where not given */
    GPtrArray *labels; /* of VmrSecLabel, or NULL: none */
    char *cache_size;  /* of <metadata_cache>, or NULL */
    char *cache_unit;  /* of that, or NULL */
} VmrLayer;

/* A layer without settings; the strings are copied. */
VmrLayer *vmr_layer_new(const char *type, const char *path, const char *format);

/* Free @layer; NULL is fine. */
void vmr_layer_free(VmrLayer *layer);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrLayer, vmr_layer_free)

/* The image that @node (<disk>, <backingStore>, <mirror>) describes; its format
 * stands in the child @format. */
VmrLayer *vmr_layer_read(const xmlNode *node, const char *format);

/* Whether a layer of that type has a path, if it has a medium. */
gboolean vmr_layer_wants_path(const VmrLayer *layer);

/* Whether @layer is tuned with anything. */
gboolean vmr_layer_has_settings(const VmrLayer *layer);

/* Whether both are tuned with the same. */
gboolean vmr_layer_same_settings(const VmrLayer *a, const VmrLayer *b);

/* Give @layer the settings of @other. */
void vmr_layer_copy_settings(VmrLayer *layer, const VmrLayer *other);

/* Write the settings of @layer into its elements @format (<driver>, <format>) and
 * @source. */
void vmr_layer_write_settings(const VmrLayer *layer, xmlNode *format,
                              xmlNode *source);

/* The <disk> that virDomainBlockCopy() wants, of @layers (of VmrLayer, top first, all
 * files and block devices); owned. With one layer libvirt reads those below from its
 * header; of more than one these are all that there are. NULL: out of memory. */
char *vmr_layers_format_disk(const GPtrArray *layers);

G_END_DECLS
