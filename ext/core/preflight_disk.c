/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The part of the preflight that is about a disk: its kind, its definitions, live and
 * persistent, and its chain. */

#include <libvirt/virterror.h>

#include "error.h"
#include "preflight.h"
#include "text.h"

static void
check_kind(VmrPreflight *flight, const VmrDomDisk *now)
{
    const char *why = NULL;

    if (!g_str_equal(now->device, "disk"))
        why = "only devices of type 'disk' can be mirrored";
    else if (now->readonly)
        why = "it is read-only";
    else if (now->shareable)
        why = "it is shareable, so other guests write to it, too";
    else if (now->transient)
        why = "it is transient";
    else if (g_strcmp0(now->bus, "sd") == 0)
        why = "the 'sd' bus cannot change its image while the guest runs";
    else if (now->chain->len == 0)
        why = "it has no medium";
    if (why)
        vmr_preflight_found(flight, now->target, VMR_ERROR_NOT_SUPPORTED,
                            VIR_ERR_CONFIG_UNSUPPORTED, "%s", why);
    if (now->mirror)
        vmr_preflight_found(flight, now->target, VMR_ERROR_BUSY,
                            VIR_ERR_BLOCK_COPY_ACTIVE,
                            "a block job works on it: wait for it or end it "
                            "first");
}

static void
refuse_persistent(VmrPreflight *flight, const VmrDomDisk *now, const char *why)
{
    vmr_preflight_found(flight, now->target, VMR_ERROR_INVALID_STATE,
                        VIR_ERR_OPERATION_INVALID,
                        "the persistent definition has %s than the running "
                        "domain, so it would not follow: make them equal first",
                        why);
}

static gboolean
same_layer(const VmrLayer *a, const VmrLayer *b)
{
    return g_str_equal(a->type, b->type) &&
           g_strcmp0(a->format, b->format) == 0 &&
           (g_strcmp0(a->path, b->path) == 0 ||
            (a->path && b->path && vmr_preflight_same_place(a->path, b->path)));
}

/* What a definition does not say of a backing chain is read from the headers, which
 * are compared with the live one elsewhere. */
static gboolean
same_chain(const VmrDomDisk *persistent, const VmrDomDisk *now)
{
    const GPtrArray *a = persistent->chain;
    const GPtrArray *b = now->chain;

    if (a->len > b->len || (persistent->chain_ends && a->len < b->len))
        return FALSE;
    for (guint i = 1; i < a->len; i++)
        if (!same_layer(g_ptr_array_index(a, i), g_ptr_array_index(b, i)))
            return FALSE;
    return TRUE;
}

/* What the persistent definition has its files tuned with gives way to what the live
 * one has. */
static gboolean
keeps_settings(const VmrDomDisk *persistent, const VmrDomDisk *now)
{
    for (guint i = 0; i < persistent->chain->len; i++) {
        const VmrLayer *layer = g_ptr_array_index(persistent->chain, i);

        if (vmr_layer_has_settings(layer) &&
            !vmr_layer_same_settings(layer, g_ptr_array_index(now->chain, i)))
            return FALSE;
    }
    return TRUE;
}

/* The next start goes by the persistent definition. */
static void
check_persistent(VmrPreflight *flight, const VmrDomDisk *now)
{
    const VmrDomDisk *persistent =
        flight->inactive ? vmr_domxml_find(flight->inactive, now->target)
                         : NULL;

    if (!flight->inactive || now->chain->len == 0)
        return;
    if (!persistent || persistent->chain->len == 0 ||
        g_strcmp0(vmr_domdisk_source(persistent), vmr_domdisk_source(now)) != 0)
        refuse_persistent(flight, now, "another source");
    else if (!same_layer(g_ptr_array_index(persistent->chain, 0),
                         g_ptr_array_index(now->chain, 0)))
        refuse_persistent(flight, now, "another type or format");
    else if (!same_chain(persistent, now))
        refuse_persistent(flight, now, "another backing chain");
    else if (!keeps_settings(persistent, now))
        refuse_persistent(flight, now, "other settings of its files "
                          "(<seclabel>, <metadata_cache>)");
}

static gboolean
has_refusal(const VmrDomDisk *disk, const char *text)
{
    for (guint i = 0; i < disk->refusals->len; i++)
        if (g_str_equal(g_ptr_array_index(disk->refusals, i), text))
            return TRUE;
    return FALSE;
}

/* What stands in the definitions of the disk and may not. */
static void
check_definitions(VmrPreflight *flight, const VmrDomDisk *now)
{
    const VmrDomDisk *persistent =
        flight->inactive ? vmr_domxml_find(flight->inactive, now->target)
                         : NULL;

    for (guint i = 0; i < now->refusals->len; i++)
        vmr_preflight_found(flight, now->target, VMR_ERROR_NOT_SUPPORTED,
                            VIR_ERR_CONFIG_UNSUPPORTED, "%s",
                            (char *)g_ptr_array_index(now->refusals, i));
    for (guint i = 0; persistent && i < persistent->refusals->len; i++) {
        const char *text = g_ptr_array_index(persistent->refusals, i);

        if (!has_refusal(now, text))
            vmr_preflight_found(flight, now->target, VMR_ERROR_NOT_SUPPORTED,
                                VIR_ERR_CONFIG_UNSUPPORTED,
                                "in the persistent definition %s", text);
    }
}

/* Whether all layers are such that there are headers to be read. */
static gboolean
has_paths(const VmrDomDisk *disk)
{
    for (guint i = 0; i < disk->chain->len; i++)
        if (!((const VmrLayer *)g_ptr_array_index(disk->chain, i))->path)
            return FALSE;
    return disk->chain->len > 0;
}

const VmrDomDisk *
vmr_preflight_disk(VmrPreflight *flight, const char *name, GPtrArray **frozen)
{
    const VmrDomDisk *now = vmr_domxml_find(flight->live, name);
    GError *error = NULL;

    *frozen = NULL;
    if (!now) {
        g_autofree char *clean = vmr_text_clean(name);

        vmr_preflight_found(flight, NULL, VMR_ERROR_NOT_FOUND,
                            VIR_ERR_CONFIG_UNSUPPORTED,
                            "domain '%s' has no disk '%s'",
                            flight->live->name, clean);
        return NULL;
    }
    check_kind(flight, now);
    check_definitions(flight, now);
    check_persistent(flight, now);
    if (!has_paths(now))
        return now;
    *frozen = vmr_chain_read_live(now->chain, &error);
    if (!*frozen)
        vmr_preflight_found_error(flight, now->target, error);
    return now;
}
