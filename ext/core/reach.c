/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "reach.h"

#include <sys/stat.h>

#include "autofd.h"
#include "error.h"
#include "imagefile.h"

static gboolean
look_at_files(gpointer data, GError **error G_GNUC_UNUSED)
{
    char **paths = data;

    for (guint i = 0; paths[i]; i++) {
        struct stat st;
        vmr_autofd fd = vmr_imagefile_open(paths[i], &st, NULL);

        (void)fd;
    }
    return TRUE;
}

static void
free_strv(gpointer paths)
{
    g_strfreev(paths);
}

gboolean
vmr_reach_call(const char *what, VmrWaitFunc func, GPtrArray *paths,
               const VmrWait *wait, GError **error)
{
    g_autoptr(GError) local = NULL;

    g_ptr_array_add(paths, NULL);
    if (vmr_wait_call(wait, what, func, g_ptr_array_steal(paths, NULL),
                      free_strv, NULL, NULL, &local))
        return TRUE;
    /* whenever it comes back, nothing of the guest will have changed */
    vmr_error_set_unknown(&local, FALSE);
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

static void
add_paths(GPtrArray *paths, const GPtrArray *files)
{
    for (guint i = 0; i < files->len; i++) {
        const VmrFile *file = g_ptr_array_index(files, i);

        g_ptr_array_add(paths, g_strdup(file->path));
    }
}

gboolean
vmr_reach_files(const VmrRecord *record, const VmrWait *wait, GError **error)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new();

    for (guint i = 0; i < record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(record->disks, i);

        g_ptr_array_add(paths, g_strdup(disk->source->path));
        g_ptr_array_add(paths, g_strdup(disk->overlay->path));
        g_ptr_array_add(paths, g_strdup(disk->mirror->path));
        add_paths(paths, disk->backing);
        add_paths(paths, disk->copies);
    }
    return vmr_reach_call("open", look_at_files, paths, wait, error);
}
