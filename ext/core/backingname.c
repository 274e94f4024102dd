/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "backingname.h"

#include <string.h>

gboolean
vmr_backing_name_has_protocol(const char *name)
{
    return name[strcspn(name, ":/")] == ':';
}

gboolean
vmr_backing_name_is_relative(const char *name)
{
    return name[0] != '\0' && name[0] != '/' &&
           !vmr_backing_name_has_protocol(name);
}

const char *
vmr_backing_name_skip_dot(const char *name)
{
    return g_str_has_prefix(name, "./") ? name + 2 : name;
}

gboolean
vmr_backing_name_stays_inside(const char *name)
{
    g_auto(GStrv) parts = NULL;

    if (!vmr_backing_name_is_relative(name))
        return FALSE;
    parts = g_strsplit(vmr_backing_name_skip_dot(name), "/", -1);
    for (guint i = 0; parts[i]; i++) {
        if (g_str_equal(parts[i], "") || g_str_equal(parts[i], ".") ||
            g_str_equal(parts[i], ".."))
            return FALSE;
    }
    return parts[0] != NULL;
}

char *
vmr_backing_name_protect(const char *name)
{
    const char *plain = vmr_backing_name_skip_dot(name);

    if (vmr_backing_name_has_protocol(plain))
        return g_strconcat("./", plain, NULL);
    return g_strdup(plain);
}

char *
vmr_backing_name_resolve(const char *path, const char *name)
{
    g_autofree char *folder = NULL;

    if (vmr_backing_name_has_protocol(name))
        return NULL;
    if (name[0] == '/')
        return g_strdup(name);
    folder = g_path_get_dirname(path);
    return g_build_filename(folder, vmr_backing_name_skip_dot(name), NULL);
}
