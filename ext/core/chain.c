/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "chain.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <sys/stat.h>

#include "backingname.h"
#include "error.h"
#include "findings.h"
#include "imagefile.h"

static GPtrArray *
images_new(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)vmr_image_free);
}

/* The image of @images that is the same file as @image, or on the same storage as
 * that; or NULL. */
static const VmrImage *
find_same(const GPtrArray *images, const VmrImage *image)
{
    for (guint i = 0; i < images->len; i++) {
        if (vmr_image_overlaps(g_ptr_array_index(images, i), image))
            return g_ptr_array_index(images, i);
    }
    return NULL;
}

/* Append @image (handed over) to the chain @images. */
static gboolean
append(GPtrArray *images, VmrImage *image, GError **error)
{
    g_autoptr(VmrImage) owned = image;
    const VmrImage *twin = find_same(images, image);

    if (twin) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "the backing chain is a loop: '%s' is reached again as "
                    "'%s'", twin->path, image->path);
        return FALSE;
    }
    if (images->len >= VMR_CHAIN_MAX_DEPTH) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "the backing chain has more than %d layers",
                    VMR_CHAIN_MAX_DEPTH);
        return FALSE;
    }
    g_ptr_array_add(images, g_steal_pointer(&owned));
    return TRUE;
}

/* Whoever guesses the format of a raw image can be fooled by its guest. */
static gboolean
check_backing_format(const VmrImage *image, GError **error)
{
    if (image->backing_format)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                "'%s' does not say which format its backing file '%s' has: "
                "say so by qemu-img rebase -u -F FORMAT -b NAME while no "
                "guest uses it", image->path, image->backing_name);
    return FALSE;
}

/* Whether the backing name of @image can be followed. */
static gboolean
check_followable(const VmrImage *image, GError **error)
{
    if (!vmr_image_backing_is_relative(image)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "'%s' names its backing file as '%s', which is %s and not "
                    "relative: correct it by qemu-img rebase -u -F FORMAT "
                    "-b NAME",
                    image->path, image->backing_name,
                    vmr_backing_name_has_protocol(image->backing_name)
                        ? "a protocol"
                        : "absolute");
        return FALSE;
    }
    return check_backing_format(image, error);
}

/* The image that the header of @image names; NULL is an error. */
static VmrImage *
read_backing(const VmrImage *image, GError **error)
{
    g_autofree char *path = vmr_image_dup_backing_path(image);
    g_autoptr(GError) local = NULL;
    VmrImage *backing = vmr_image_read(path, image->backing_format, &local);

    if (g_error_matches(local, VMR_ERROR, VMR_ERROR_NOT_FOUND))
        vmr_error_set_virt(error, VMR_ERROR_NOT_FOUND, VIR_ERR_SYSTEM_ERROR,
                           "backing file '%s' of '%s' is missing: create the "
                           "skeleton with prepare_chain() first", path,
                           image->path);
    else if (local)
        g_propagate_error(error, g_steal_pointer(&local));
    return backing;
}

/* Whether @image is in @folder (a real path) or below it, links resolved. */
static gboolean
check_inside(const char *folder, const VmrImage *image, GError **error)
{
    g_autofree char *real = vmr_imagefile_dup_real_path(image->path, error);
    g_autofree char *prefix =
        g_strconcat(folder, g_str_has_suffix(folder, "/") ? "" : "/", NULL);

    if (!real)
        return FALSE;
    if (image->is_block || g_str_has_prefix(real, prefix))
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                "the backing chain leads out of the folder '%s', to '%s': keep "
                "all of it in one folder", folder, real);
    return FALSE;
}

GPtrArray *
vmr_chain_read(const char *path, const char *format, GError **error)
{
    g_autoptr(GPtrArray) images = images_new();
    VmrImage *image = vmr_image_read(path, format, error);
    g_autofree char *given = g_path_get_dirname(path);
    g_autofree char *folder = image ? vmr_imagefile_dup_real_path(given, error) : NULL;

    if (image && !folder)
        vmr_image_free(g_steal_pointer(&image));
    for (;;) {
        if (!image || !append(images, image, error))
            return NULL;
        /* the first one is where the caller said, wherever that leads */
        if (images->len > 1 && !check_inside(folder, image, error))
            return NULL;
        if (!image->backing_name)
            return g_steal_pointer(&images);
        if (!check_followable(image, error))
            return NULL;
        image = read_backing(image, error);
    }
}

static VmrImage *
read_layer(const VmrLayer *layer, GError **error)
{
    if (g_strcmp0(layer->type, "file") != 0 &&
        g_strcmp0(layer->type, "block") != 0) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                    "the disk has a layer of type '%s', only files and block "
                    "devices are supported", layer->type ? layer->type : "");
        return NULL;
    }
    if (!layer->path || !layer->format) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "libvirt does not know the %s of a layer of the disk ('%s')",
                    layer->path ? "format" : "path",
                    layer->path ? layer->path : layer->format);
        return NULL;
    }
    return vmr_image_read(layer->path, layer->format, error);
}

/* Whether @path leads to the very file that @image is, if it leads anywhere. Links
 * are followed, as QEMU does it, and nothing is opened. */
static gboolean
leads_to(const char *path, const VmrImage *image, gboolean *same,
         GError **error)
{
    struct stat st;
    dev_t dev;
    ino_t ino;

    *same = FALSE;
    if (stat(path, &st) < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return TRUE;
        vmr_error_set_errno(error, errno, "look at", path);
        return FALSE;
    }
    vmr_imagefile_identify(&st, &dev, &ino);
    *same = S_ISBLK(st.st_mode) == !!image->is_block && dev == image->dev &&
            ino == image->ino;
    return TRUE;
}

/* Does the header of @upper say what libvirt says: that @lower (NULL: nothing)
 * is below it? A pivot goes by libvirt's word, the next start by the header. */
static gboolean
check_link(const VmrImage *upper, const VmrImage *lower, GError **error)
{
    g_autofree char *path = vmr_image_dup_backing_path(upper);
    gboolean same = FALSE;

    if (!upper->backing_name && !lower)
        return TRUE;
    if (!upper->backing_name || !lower) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "below '%s' there is '%s' by %s, but nothing by %s",
                    upper->path, lower ? lower->path : upper->backing_name,
                    lower ? "libvirt" : "its header",
                    lower ? "its header" : "libvirt");
        return FALSE;
    }
    if (!check_backing_format(upper, error) ||
        (path && !leads_to(path, lower, &same, error)))
        return FALSE;
    if (!same) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "below '%s' there is '%s' by libvirt, but '%s' by its "
                    "header", upper->path, lower->path, upper->backing_name);
        return FALSE;
    }
    if (!g_str_equal(upper->backing_format, lower->format)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "'%s' is %s by libvirt, but %s by the header of '%s'",
                    lower->path, lower->format, upper->backing_format,
                    upper->path);
        return FALSE;
    }
    return TRUE;
}

GPtrArray *
vmr_chain_read_live(const GPtrArray *layers, GError **error)
{
    g_autoptr(GPtrArray) images = images_new();

    if (layers->len == 0) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "the disk has no medium");
        return NULL;
    }
    for (guint i = 0; i < layers->len; i++) {
        VmrImage *image = read_layer(g_ptr_array_index(layers, i), error);

        if (!image || !append(images, image, error))
            return NULL;
    }
    for (guint i = 0; i < images->len; i++) {
        const VmrImage *lower =
            i + 1 < images->len ? g_ptr_array_index(images, i + 1) : NULL;

        if (!check_link(g_ptr_array_index(images, i), lower, error))
            return NULL;
    }
    return g_steal_pointer(&images);
}

static void
compare_layer(const VmrImage *frozen, const VmrImage *copy,
              VmrFindings *findings)
{
    if (!g_str_equal(frozen->format, copy->format))
        vmr_findings_add(findings, VIR_ERR_CONFIG_UNSUPPORTED,
                         "'%s' has format %s, but '%s' has %s", copy->path,
                         copy->format, frozen->path, frozen->format);
    if (frozen->virtual_size != copy->virtual_size)
        vmr_findings_add(findings, VIR_ERR_CONFIG_UNSUPPORTED,
                         "'%s' has %" G_GUINT64_FORMAT " bytes, but '%s' has %"
                         G_GUINT64_FORMAT, copy->path, copy->virtual_size,
                         frozen->path, frozen->virtual_size);
}

/* Whether from number @i on both chains are the same files: these lie where the guest
 * goes to, or are linked to there. The top is to be another one. */
static gboolean
is_shared(const GPtrArray *frozen, const GPtrArray *copy, guint i)
{
    if (i == 0 || frozen->len != copy->len)
        return FALSE;
    for (; i < copy->len; i++) {
        if (!vmr_image_same(g_ptr_array_index(frozen, i),
                            g_ptr_array_index(copy, i)))
            return FALSE;
    }
    return TRUE;
}

gboolean
vmr_chain_check_copy(const GPtrArray *frozen, const GPtrArray *copy,
                     GError **error)
{
    g_autoptr(VmrFindings) findings = vmr_findings_new();

    if (frozen->len != copy->len)
        vmr_findings_add(findings, VIR_ERR_CONFIG_UNSUPPORTED,
                         "the chain of the copy has %u layers, but the chain "
                         "in use has %u", copy->len, frozen->len);
    for (guint i = 0; i < copy->len; i++) {
        const VmrImage *image = g_ptr_array_index(copy, i);
        const VmrImage *twin = find_same(frozen, image);

        if (twin && !is_shared(frozen, copy, i))
            vmr_findings_add(findings, VIR_ERR_CONFIG_UNSUPPORTED,
                             "'%s' is %s '%s' of the chain in use",
                             image->path,
                             vmr_image_same(image, twin)
                                 ? "the very file"
                                 : "on the same storage as",
                             twin->path);
        if (image->data_file)
            vmr_findings_add(findings, VIR_ERR_CONFIG_UNSUPPORTED,
                             "'%s' keeps its data in another file",
                             image->path);
        if (i < frozen->len)
            compare_layer(g_ptr_array_index(frozen, i), image, findings);
    }
    return vmr_findings_report(findings, VMR_ERROR_IMAGE,
                               VIR_ERR_CONFIG_UNSUPPORTED, error);
}
