/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "prepare.h"

#include "chain.h"
#include "error.h"
#include "preflight.h"

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
    if (!vmr_preflight_report(flight, error)) {
        vmr_error_annotate(error, found ? found->target : NULL, "prepare");
        return NULL;
    }
    paths = vmr_chain_prepare(flight->live, found, folder, wait, error);
    if (!paths)
        vmr_error_annotate(error, found->target, "prepare");
    return paths;
}
