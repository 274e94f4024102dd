/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "layer.h"

#include <string.h>

#include "xmlutil.h"

/* Where <source> has its path, by the type of the disk; the types that are not
 * here (network, volume, nvme, ...) have none. */
static const struct {
    const char *type;
    const char *attr;
} path_attrs[] = {
    {"file", "file"},
    {"block", "dev"},
    {"dir", "dir"},
};

static void
label_free(gpointer data)
{
    VmrSecLabel *label = data;

    g_free(label->model);
    g_free(label->relabel);
    g_free(label->label);
    g_free(label);
}

VmrLayer *
vmr_layer_new(const char *type, const char *path, const char *format)
{
    VmrLayer *layer = g_new0(VmrLayer, 1);

    layer->type = g_strdup(type);
    layer->path = g_strdup(path);
    layer->format = g_strdup(format);
    return layer;
}

void
vmr_layer_free(VmrLayer *layer)
{
    if (!layer)
        return;
    g_free(layer->type);
    g_free(layer->path);
    g_free(layer->format);
    g_clear_pointer(&layer->labels, g_ptr_array_unref);
    g_free(layer->cache_size);
    g_free(layer->cache_unit);
    g_free(layer);
}

static const char *
path_attr(const char *type)
{
    for (gsize i = 0; i < G_N_ELEMENTS(path_attrs); i++)
        if (strcmp(path_attrs[i].type, type) == 0)
            return path_attrs[i].attr;
    return NULL;
}

static void
add_label(VmrLayer *layer, const char *model, const char *relabel,
          const char *text)
{
    VmrSecLabel *label = g_new0(VmrSecLabel, 1);

    label->model = g_strdup(model);
    label->relabel = g_strdup(relabel);
    label->label = g_strdup(text);
    if (!layer->labels)
        layer->labels = g_ptr_array_new_with_free_func(label_free);
    g_ptr_array_add(layer->labels, label);
}

/* libvirt itself notes by labelskip='yes' that a file could not be labelled; that is
 * nobody's wish. */
static void
read_labels(VmrLayer *layer, const xmlNode *source)
{
    const xmlNode *node = vmr_xml_child(source, "seclabel");

    for (; node; node = vmr_xml_next(node)) {
        g_autofree char *skip = vmr_xml_dup_attr(node, "labelskip");
        g_autofree char *model = vmr_xml_dup_attr(node, "model");
        g_autofree char *relabel = vmr_xml_dup_attr(node, "relabel");
        g_autofree char *text = vmr_xml_dup_child_text(node, "label");

        if (!skip)
            add_label(layer, model, relabel, text);
    }
}

static void
read_cache(VmrLayer *layer, const xmlNode *format)
{
    const xmlNode *cache = vmr_xml_child(format, "metadata_cache");
    const xmlNode *size = cache ? vmr_xml_child(cache, "max_size") : NULL;

    if (!size)
        return;
    layer->cache_size = vmr_xml_dup_child_text(cache, "max_size");
    layer->cache_unit = vmr_xml_dup_attr(size, "unit");
}

VmrLayer *
vmr_layer_read(const xmlNode *node, const char *format)
{
    const xmlNode *format_node = vmr_xml_child(node, format);
    const xmlNode *source = vmr_xml_child(node, "source");
    g_autofree char *type = vmr_xml_dup_attr(node, "type");
    VmrLayer *layer = vmr_layer_new(type ? type : "file", NULL, NULL);
    const char *attr = path_attr(layer->type);

    if (format_node) {
        layer->format = vmr_xml_dup_attr(format_node, "type");
        read_cache(layer, format_node);
    }
    if (source) {
        layer->path = attr ? vmr_xml_dup_attr(source, attr) : NULL;
        read_labels(layer, source);
    }
    return layer;
}

gboolean
vmr_layer_wants_path(const VmrLayer *layer)
{
    return path_attr(layer->type) != NULL;
}

gboolean
vmr_layer_has_settings(const VmrLayer *layer)
{
    return layer->labels || layer->cache_size;
}

static gboolean
same_labels(const GPtrArray *a, const GPtrArray *b)
{
    if (!a || !b)
        return a == b;
    if (a->len != b->len)
        return FALSE;
    for (guint i = 0; i < a->len; i++) {
        const VmrSecLabel *x = g_ptr_array_index(a, i);
        const VmrSecLabel *y = g_ptr_array_index(b, i);

        if (g_strcmp0(x->model, y->model) != 0 ||
            g_strcmp0(x->relabel, y->relabel) != 0 ||
            g_strcmp0(x->label, y->label) != 0)
            return FALSE;
    }
    return TRUE;
}

gboolean
vmr_layer_same_settings(const VmrLayer *a, const VmrLayer *b)
{
    return g_strcmp0(a->cache_size, b->cache_size) == 0 &&
           g_strcmp0(a->cache_unit, b->cache_unit) == 0 &&
           same_labels(a->labels, b->labels);
}

void
vmr_layer_copy_settings(VmrLayer *layer, const VmrLayer *other)
{
    g_clear_pointer(&layer->labels, g_ptr_array_unref);
    g_free(layer->cache_size);
    g_free(layer->cache_unit);
    layer->cache_size = g_strdup(other->cache_size);
    layer->cache_unit = g_strdup(other->cache_unit);
    for (guint i = 0; other->labels && i < other->labels->len; i++) {
        const VmrSecLabel *label = g_ptr_array_index(other->labels, i);

        add_label(layer, label->model, label->relabel, label->label);
    }
}

void
vmr_layer_write_settings(const VmrLayer *layer, xmlNode *format,
                         xmlNode *source)
{
    if (layer->cache_size) {
        xmlNode *cache = vmr_xml_add(format, "metadata_cache", NULL);

        vmr_xml_set(vmr_xml_add(cache, "max_size", layer->cache_size), "unit",
                    layer->cache_unit);
    }
    for (guint i = 0; layer->labels && i < layer->labels->len; i++) {
        const VmrSecLabel *label = g_ptr_array_index(layer->labels, i);
        xmlNode *node = vmr_xml_add(source, "seclabel", NULL);

        vmr_xml_set(node, "model", label->model);
        vmr_xml_set(node, "relabel", label->relabel);
        if (label->label)
            vmr_xml_add(node, "label", label->label);
    }
}

char *
vmr_layers_format_disk(const GPtrArray *layers)
{
    g_autoptr(xmlDoc) doc = vmr_xml_new("disk");
    xmlNode *node = doc ? xmlDocGetRootElement(doc) : NULL;

    for (guint i = 0; i < layers->len; i++) {
        const VmrLayer *layer = g_ptr_array_index(layers, i);
        xmlNode *format;
        xmlNode *source;

        if (i > 0)
            node = vmr_xml_add(node, "backingStore", NULL);
        vmr_xml_set(node, "type", layer->type);
        format = vmr_xml_add(node, i == 0 ? "driver" : "format", NULL);
        vmr_xml_set(format, "type", layer->format);
        source = vmr_xml_add(node, "source", NULL);
        vmr_xml_set(source, path_attr(layer->type), layer->path);
        vmr_layer_write_settings(layer, format, source);
    }
    if (layers->len > 1)
        vmr_xml_add(node, "backingStore", NULL);
    return doc ? vmr_xml_format(xmlDocGetRootElement(doc)) : NULL;
}
