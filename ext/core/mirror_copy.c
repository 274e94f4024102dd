/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Starting the copy of a disk's top, to either side. */

#include <errno.h>

#include "error.h"
#include "mirror_priv.h"

static void
add_layer(GPtrArray *layers, const VmrFile *file, const VmrLayer *like)
{
    VmrLayer *layer = vmr_layer_new(vmr_file_is_block(file) ? "block" : "file",
                                    file->path, file->format);

    vmr_layer_copy_settings(layer, like);
    g_ptr_array_add(layers, layer);
}

/* The layers that a copy of the disk @now to @file goes to; the caller's. libvirt reads
 * those below from the headers; only where they are tuned with something are they
 * named to it, and only all of them: where they end, the disk would. */
static GPtrArray *
find_destination(const VmrDisk *disk, const VmrFile *file,
                 const VmrDomDisk *now)
{
    GPtrArray *layers =
        g_ptr_array_new_with_free_func((GDestroyNotify)vmr_layer_free);
    guint n = now->chain->len;

    add_layer(layers, file, g_ptr_array_index(now->chain, 0));
    if (!vmr_domdisk_has_settings(now) || n != disk->copies->len + 1 ||
        !vmr_disk_get_frozen(disk, n - 2))
        return layers;
    for (guint i = 0; i + 1 < n; i++)
        add_layer(layers,
                  file == disk->mirror ? g_ptr_array_index(disk->copies, i)
                                       : vmr_disk_get_frozen(disk, i),
                  g_ptr_array_index(now->chain, i + 1));
    return layers;
}

/* The <disk> that is the destination of a copy of @disk to @file; owned. */
static char *
format_destination(VmrMirror *mirror, const VmrDisk *disk, const VmrFile *file,
                   const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read(mirror->dom, wait, error);
    g_autoptr(GPtrArray) layers = NULL;
    const VmrDomDisk *now;
    char *xml;

    if (!live)
        return NULL;
    now = vmr_domxml_find(live, disk->target);
    if (!now || now->chain->len == 0) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "disk '%s' is gone", disk->target);
        return NULL;
    }
    layers = find_destination(disk, file, now);
    xml = vmr_layers_format_disk(layers);
    if (!xml)
        vmr_error_set_errno(error, ENOMEM, "write", "the XML of a copy");
    return xml;
}

gboolean
vmr_mirror_start_copy(VmrMirror *mirror, const VmrDisk *disk,
                      const VmrFile *file, const VmrWait *wait, GError **error)
{
    /* never SYNCHRONOUS_WRITES with these: the destination has no backing file
     * until the pivot, so a cluster written in part would be zero-filled */
    guint flags = VIR_DOMAIN_BLOCK_COPY_SHALLOW |
                  VIR_DOMAIN_BLOCK_COPY_REUSE_EXT |
                  VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB;
    g_autofree char *xml =
        format_destination(mirror, disk, file, wait, error);

    return xml && vmr_hv_block_copy(mirror->dom, disk->target, xml, flags,
                                    wait, error);
}
