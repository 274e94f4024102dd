/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "prepare.h"

#include "chain.h"
#include "error.h"
#include "preflight.h"

/* A layer may go to a folder below it; that is found when it is its turn. */
static void
check_folder(VmrPreflight *flight, const VmrDomDisk *disk, const char *folder)
{
    g_autofree char *copy = g_build_filename(folder, "copy", NULL);

    vmr_preflight_writable(flight, disk->target, folder);
    vmr_preflight_lasts_less(flight, disk->target, vmr_domdisk_source(disk),
                             copy, "copy", TRUE);
}

char **
vmr_prepare_chain(const VmrDomain *dom, const char *disk, const char *folder,
                  const VmrWait *wait, GError **error)
{
    g_autoptr(VmrPreflight) flight = vmr_preflight_open(dom, wait, error);
    g_autoptr(GPtrArray) sources = NULL;
    const VmrDomDisk *found;
    char **paths;

    if (!flight)
        return NULL;
    found = vmr_preflight_disk(flight, disk, &sources);
    if (found && g_path_is_absolute(folder))
        check_folder(flight, found, folder);
    if (!vmr_preflight_report(flight, error)) {
        vmr_error_annotate(error, found ? found->target : NULL, "prepare");
        return NULL;
    }
    paths = vmr_chain_prepare(flight->live, found, folder, wait, error);
    if (!paths)
        vmr_error_annotate(error, found->target, "prepare");
    return paths;
}
