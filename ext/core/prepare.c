/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "prepare.h"

#include "chain.h"
#include "error.h"
#include "live.h"
#include "text.h"

char **
vmr_prepare_chain(const VmrDomain *dom, const char *disk, const char *folder,
                  const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read(dom, wait, error);
    const VmrDomDisk *found;
    char **paths;

    if (!live)
        return NULL;
    found = vmr_domxml_find(live, disk);
    if (!found) {
        g_autofree char *clean = vmr_text_clean(disk);

        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND,
                    "domain '%s' has no disk '%s'", live->name, clean);
        return NULL;
    }
    paths = vmr_chain_prepare(found, folder, wait, error);
    if (!paths)
        vmr_error_annotate(error, found->target, "prepare");
    return paths;
}
