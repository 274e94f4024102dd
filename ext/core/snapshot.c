/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "snapshot.h"

#include <libvirt/virterror.h>

#include "error.h"
#include "mirror.h"

#define MIRROR_FLAGS                                                          \
    (VMR_SNAPSHOT_DELETE_MIRROR_ABORT | VMR_SNAPSHOT_DELETE_MIRROR_PIVOT)
#define CHILDREN_FLAGS                                                        \
    (VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN |                                    \
     VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY)
#define DELETE_FLAGS                                                          \
    (MIRROR_FLAGS | CHILDREN_FLAGS | VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
#define CREATE_FLAGS                                                          \
    (VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY |                                   \
     VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT |                                   \
     VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE | VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC | \
     VIR_DOMAIN_SNAPSHOT_CREATE_VALIDATE)

/* Flags that libvirt knows and that cannot go with a mirror, and why. */
static const struct {
    guint flag;
    const char *why;
} refused_flags[] = {
    {VIR_DOMAIN_SNAPSHOT_CREATE_HALT,
     "a mirrored snapshot cannot halt the domain: only a running one has a "
     "mirror"},
    {VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA,
     "a mirrored snapshot needs its metadata until it is ended"},
    {VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE,
     "a mirrored snapshot cannot be redefined"},
    {VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT,
     "a mirrored snapshot is always the current one"},
    {VIR_DOMAIN_SNAPSHOT_CREATE_LIVE,
     "a mirrored snapshot holds no memory to be saved live"},
};

static gboolean
check_create_flags(guint flags, GError **error)
{
    for (gsize i = 0; i < G_N_ELEMENTS(refused_flags); i++) {
        if (flags & refused_flags[i].flag) {
            g_set_error_literal(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                                refused_flags[i].why);
            return FALSE;
        }
    }
    if (flags & ~(guint)CREATE_FLAGS) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "unsupported flags (0x%x) for a mirrored snapshot",
                    flags & ~(guint)CREATE_FLAGS);
        return FALSE;
    }
    return TRUE;
}

/* A plain snapshot: fine, unless the domain has a mirrored one. */
static gboolean
check_plain(VmrHv *hv, virDomainPtr dom, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrMirror) mirror = NULL;

    if (!vmr_mirror_lookup(hv, dom, &mirror, wait, error))
        return FALSE;
    if (!mirror)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                "the domain has the mirrored snapshot '%s': pivot or abort it "
                "before another snapshot is taken",
                vmr_mirror_get_record(mirror)->snapshot);
    return FALSE;
}

gboolean
vmr_snapshot_create_xml(VmrHv *hv, virDomainPtr dom, const char *xml,
                        guint flags, char **name, const VmrWait *wait,
                        GError **error)
{
    g_autoptr(VmrSnapSpec) spec = NULL;
    g_autoptr(VmrMirror) mirror = NULL;
    gboolean mirrored = FALSE;
    guint mirror_flags = 0;

    *name = NULL;
    if (!vmr_snapxml_has_mirror(xml, &mirrored, error))
        return FALSE;
    if (!mirrored)
        return check_plain(hv, dom, wait, error);
    if (!check_create_flags(flags, error))
        return FALSE;
    spec = vmr_snapxml_parse(xml, error);
    if (!spec)
        return FALSE;
    if (flags & VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT)
        mirror_flags |= VMR_MIRROR_REUSE_EXTERNAL;
    if (flags & VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE)
        mirror_flags |= VMR_MIRROR_QUIESCE;
    mirror = vmr_mirror_create(hv, dom, spec, mirror_flags, wait, error);
    if (!mirror)
        return FALSE;
    *name = g_strdup(vmr_mirror_get_record(mirror)->snapshot);
    return TRUE;
}

static gboolean
check_delete_flags(guint flags, GError **error)
{
    const char *why = NULL;

    if ((flags & MIRROR_FLAGS) == MIRROR_FLAGS)
        why = "delete mirror flags are mutually exclusive";
    else if ((flags & CHILDREN_FLAGS) == CHILDREN_FLAGS)
        why = "delete children flags are mutually exclusive";
    if (why)
        g_set_error_literal(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC, why);
    else if (flags & ~(guint)DELETE_FLAGS)
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "unsupported flags (0x%x)", flags & ~(guint)DELETE_FLAGS);
    else
        return TRUE;
    return FALSE;
}

/* A snapshot that is not mirrored, of a domain that may have one that is. */
static gboolean
check_other(const VmrMirror *mirror, const char *name, guint flags,
            GError **error)
{
    if (flags & MIRROR_FLAGS) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE,
                    "snapshot '%s' is not mirrored, so there is no mirror to "
                    "%s",
                    name,
                    flags & VMR_SNAPSHOT_DELETE_MIRROR_PIVOT ? "pivot to"
                                                             : "abort");
        return FALSE;
    }
    if (mirror && (flags & CHILDREN_FLAGS)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE,
                    "the mirrored snapshot '%s' may be among the children of "
                    "'%s': pivot or abort it first",
                    vmr_mirror_get_record(mirror)->snapshot, name);
        return FALSE;
    }
    return TRUE;
}

/* Whether the mirrored snapshot @name is the current one, as it has to be. The
 * end of one removes libvirt's record first, and the journal then: where that
 * was cut short only the journal is left, and has to be enough. */
static gboolean
check_current(const VmrDomain *dom, const char *name, const VmrWait *wait,
              GError **error)
{
    g_autoptr(GError) local = NULL;
    const VmrErrorDetail *detail;
    gboolean current = FALSE;

    if (!vmr_hv_snapshot_is_current(dom, name, &current, wait, &local)) {
        detail = vmr_error_get_detail(local);
        if (detail && detail->virt_code == VIR_ERR_NO_DOMAIN_SNAPSHOT)
            return TRUE;
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    if (!current)
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE,
                    "snapshot '%s' is mirrored, but not the current one of "
                    "its domain",
                    name);
    return current;
}

static gboolean
check_mirrored(VmrHv *hv, virDomainPtr ptr, const char *name, guint flags,
               const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomain) dom = vmr_domain_new(hv, ptr);

    if (!(flags & MIRROR_FLAGS)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE,
                    "snapshot '%s' is mirrored: say whether to abandon its "
                    "mirror (VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_ABORT, "
                    "--mirror-abort) or to pivot to it "
                    "(VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_PIVOT, "
                    "--mirror-pivot)",
                    name);
        return FALSE;
    }
    if (flags & VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "the mirror of snapshot '%s' cannot be ended while the "
                    "snapshot itself is kept",
                    name);
        return FALSE;
    }
    return check_current(dom, name, wait, error);
}

gboolean
vmr_snapshot_delete(VmrHv *hv, virDomainPtr dom, const char *name, guint flags,
                    gboolean *done, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrMirror) mirror = NULL;

    *done = FALSE;
    if (!check_delete_flags(flags, error) ||
        !vmr_mirror_lookup(hv, dom, &mirror, wait, error))
        return FALSE;
    if (!mirror ||
        !g_str_equal(vmr_mirror_get_record(mirror)->snapshot, name))
        return check_other(mirror, name, flags, error);
    if (!check_mirrored(hv, dom, name, flags, wait, error))
        return FALSE;
    *done = TRUE;
    return flags & VMR_SNAPSHOT_DELETE_MIRROR_PIVOT
               ? vmr_mirror_pivot(mirror, wait, error)
               : vmr_mirror_abort(mirror, NULL, wait, error);
}

/* The mirrors of @record as snapxml wants them. */
static GPtrArray *
mirrors_of(const VmrRecord *record)
{
    GPtrArray *specs =
        g_ptr_array_new_with_free_func((GDestroyNotify)vmr_diskspec_free);

    for (guint i = 0; i < record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(record->disks, i);
        VmrDiskSpec *spec = g_new0(VmrDiskSpec, 1);

        spec->name = g_strdup(disk->target);
        spec->mirror = g_strdup(disk->mirror->path);
        spec->mirror_format = g_strdup(disk->mirror->format);
        g_ptr_array_add(specs, spec);
    }
    return specs;
}

char *
vmr_snapshot_get_xml(VmrHv *hv, virDomainPtr ptr, const char *name,
                     const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomain) dom = vmr_domain_new(hv, ptr);
    g_autoptr(VmrMirror) mirror = NULL;
    g_autoptr(GPtrArray) specs = NULL;
    g_autofree char *xml = vmr_hv_snapshot_get_xml(dom, name, wait, error);

    if (!xml || !vmr_mirror_lookup(hv, ptr, &mirror, wait, error))
        return NULL;
    if (!mirror ||
        !g_str_equal(vmr_mirror_get_record(mirror)->snapshot, name))
        return g_steal_pointer(&xml);
    specs = mirrors_of(vmr_mirror_get_record(mirror));
    return vmr_snapxml_add_mirrors(xml, specs, error);
}
