/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * chainutil: a disk's chain as libvirt would tell it, for the chain tests.
 */

#include "chain.h"
#include "error.h"
#include "imgutil.h"

static inline void
chain_layer_free(VmrLayer *layer)
{
    g_free(layer->type);
    g_free(layer->path);
    g_free(layer->format);
    g_free(layer);
}

static inline GPtrArray *
chain_layers_new(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)chain_layer_free);
}

/* Append the file @path of @format to @layers. */
static inline void
chain_add(GPtrArray *layers, const char *path, const char *format)
{
    VmrLayer *layer = g_new0(VmrLayer, 1);

    layer->type = g_strdup("file");
    layer->path = g_strdup(path);
    layer->format = g_strdup(format);
    g_ptr_array_add(layers, layer);
}

/* @error must be one with @code, in one line that has @text in it. */
static inline void
chain_check_error(const GError *error, VmrErrorCode code, const char *text)
{
    g_assert_error(error, VMR_ERROR, (int)code);
    g_assert_null(strchr(error->message, '\n'));
    if (!strstr(error->message, text))
        g_error("'%s' is not in: %s", text, error->message);
}

/* The folder path1 with the chain old.qcow2 -> common, and the folder path2
 * beside it. */
typedef struct {
    char *root;
    char *path1;
    char *path2;
    char *old;
    char *common;
    GPtrArray *layers;
} Pair;

static inline Pair *
pair_new(const char *backing, const char *format)
{
    Pair *pair = g_new0(Pair, 1);

    pair->root = img_folder_new();
    pair->path1 = img_path(pair->root, "path1");
    pair->path2 = img_path(pair->root, "path2");
    g_assert_cmpint(mkdir(pair->path1, 0700), ==, 0);
    g_assert_cmpint(mkdir(pair->path2, 0700), ==, 0);
    pair->common = g_str_equal(format, "raw")
                       ? img_make_raw(pair->path1, "common", IMG_SIZE)
                       : img_make(pair->path1, "common", NULL);
    pair->old = img_make_over(pair->path1, "old.qcow2", backing, format);
    pair->layers = chain_layers_new();
    chain_add(pair->layers, pair->old, "qcow2");
    chain_add(pair->layers, pair->common, format);
    return pair;
}

static inline void
pair_free(Pair *pair)
{
    img_folder_free(pair->root);
    g_free(pair->path1);
    g_free(pair->path2);
    g_free(pair->old);
    g_free(pair->common);
    g_ptr_array_unref(pair->layers);
    g_free(pair);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Pair, pair_free)
