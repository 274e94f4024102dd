/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The part of the preflight that is about where files are to be made. */

#include <libvirt/virterror.h>
#include <sys/stat.h>

#include "error.h"
#include "medium.h"
#include "preflight.h"

/* libvirt gives the files to QEMU's user, but not the folders that they are in. */
static void
check_reach(VmrPreflight *flight, const char *target, const char *folder)
{
    const VmrDomXml *live = flight->live;
    g_autofree char *barrier =
        live->has_qemu_user ? vmr_medium_find_barrier(folder, live->qemu_uid,
                                                      live->qemu_gid)
                            : NULL;

    if (barrier)
        vmr_preflight_found(flight, target, VMR_ERROR_IO,
                            VIR_ERR_OPERATION_FAILED,
                            "QEMU, which runs as user %u, cannot get to '%s': "
                            "let it through '%s' (chmod o+x)",
                            (guint)live->qemu_uid, folder, barrier);
}

void
vmr_preflight_writable(VmrPreflight *flight, const char *target,
                       const char *folder)
{
    const char *why = vmr_medium_why_unwritable(folder);

    if (!g_hash_table_add(flight->folders, g_strdup(folder)))
        return;
    if (why)
        vmr_preflight_found(flight, target, VMR_ERROR_IO,
                            VIR_ERR_OPERATION_FAILED,
                            "'%s', in which a file is to be made, %s", folder,
                            why);
    else
        check_reach(flight, target, folder);
}

/* Of what is not there yet that of its folder; what cannot be looked at is found by
 * others. */
static VmrMedium
medium_of(const char *path)
{
    g_autofree char *folder = g_path_get_dirname(path);
    VmrMedium medium = VMR_MEDIUM_LASTING;
    struct stat st;

    (void)vmr_medium_probe(stat(path, &st) == 0 ? path : folder, &medium, NULL);
    return medium;
}

gboolean
vmr_preflight_lasts_less(VmrPreflight *flight, const char *target,
                         const char *source, const char *path,
                         const char *role, gboolean named)
{
    switch (medium_of(path)) {
    case VMR_MEDIUM_NODES:
        vmr_preflight_found(flight, target, VMR_ERROR_NOT_SUPPORTED,
                            VIR_ERR_CONFIG_UNSUPPORTED,
                            "its %s '%s' would be among device nodes, in "
                            "memory (devtmpfs): name another place for it",
                            role, path);
        return TRUE;
    case VMR_MEDIUM_MEMORY:
        if (medium_of(source) == VMR_MEDIUM_MEMORY)
            return FALSE;
        if (!named)
            vmr_preflight_found(flight, target, VMR_ERROR_NOT_SUPPORTED,
                                VIR_ERR_CONFIG_UNSUPPORTED,
                                "its %s '%s' would be in memory, and gone with "
                                "the host's power: name a place for it",
                                role, path);
        return TRUE;
    case VMR_MEDIUM_LASTING:
    case VMR_MEDIUM_LAST:
        break;
    }
    return FALSE;
}
