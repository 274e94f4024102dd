/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "live.h"

#include <string.h>

#include "error.h"

VmrDomXml *
vmr_live_read(const VmrDomain *dom, const VmrWait *wait, GError **error)
{
    g_autofree char *text = vmr_hv_get_xml(dom, 0, wait, error);
    g_autoptr(VmrDomXml) xml = NULL;

    if (!text)
        return NULL;
    xml = vmr_domxml_parse(text, error);
    if (!xml)
        return NULL;
    if (!xml->running) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE,
                    "domain '%s' is not running", xml->name);
        return NULL;
    }
    return g_steal_pointer(&xml);
}

/* A reading that may be repeated. */
typedef struct {
    const VmrDomain *dom;
    VmrDomXml *live;
} Reading;

static gboolean
read_settled(gpointer data, const VmrWait *wait, GError **error)
{
    Reading *reading = data;
    g_autoptr(VmrDomXml) live = vmr_live_read(reading->dom, wait, error);

    if (!live)
        return FALSE;
    for (guint i = 0; i < live->disks->len; i++) {
        const VmrDomDisk *disk = g_ptr_array_index(live->disks, i);

        if (!vmr_domdisk_job_has_ended(disk))
            continue;
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "libvirt does not let go of the block job of disk '%s', "
                    "which has ended",
                    disk->target);
        return FALSE;
    }
    reading->live = g_steal_pointer(&live);
    return TRUE;
}

VmrDomXml *
vmr_live_read_settled(const VmrDomain *dom, const VmrWait *wait,
                      GError **error)
{
    Reading reading = {.dom = dom};

    vmr_wait_settle(wait, VMR_ERROR_DIVERGED, read_settled, &reading, error);
    return reading.live;
}

gboolean
vmr_live_read_inactive(const VmrDomain *dom, VmrDomXml **xml,
                       const VmrWait *wait, GError **error)
{
    g_autofree char *text = NULL;
    gboolean persistent = FALSE;

    *xml = NULL;
    if (!vmr_hv_is_persistent(dom, &persistent, wait, error))
        return FALSE;
    if (!persistent)
        return TRUE;
    text = vmr_hv_get_xml(dom, VIR_DOMAIN_XML_INACTIVE, wait, error);
    if (!text)
        return FALSE;
    *xml = vmr_domxml_parse(text, error);
    return *xml != NULL;
}

gboolean
vmr_live_set_source(const VmrDomain *dom, const char *target, const char *path,
                    const char *format, const VmrWait *wait, GError **error)
{
    g_autofree char *now =
        vmr_hv_get_xml(dom, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE,
                       wait, error);
    g_autofree char *then = NULL;

    if (!now)
        return FALSE;
    then = vmr_domxml_set_source(now, target, path, format, error);
    return then && vmr_hv_define(dom, then, wait, error);
}

gboolean
vmr_live_names_file(const char *info, const char *path)
{
    g_autofree char *plain = g_strdup_printf(": %s (", path);
    /* how QEMU names an image that was not opened as its header says: with all that
     * is below it, its own file last; a path with characters that are escaped in it
     * is not found, which is harmless */
    g_autofree char *json = g_strdup_printf("\"filename\": \"%s\"}} (", path);
    g_auto(GStrv) lines = g_strsplit(info, "\n", -1);

    for (char **line = lines; *line; line++) {
        /* the others tell more of a disk, such as its backing file */
        if (!g_ascii_isspace(**line) &&
            (strstr(*line, plain) || strstr(*line, json)))
            return TRUE;
    }
    return FALSE;
}

/* The disk of @dom that has @path as its source; borrowed. */
static const VmrDomDisk *
find_user(const VmrDomXml *dom, const char *path)
{
    for (guint i = 0; dom && i < dom->disks->len; i++) {
        const VmrDomDisk *disk = g_ptr_array_index(dom->disks, i);

        if (g_strcmp0(vmr_domdisk_source(disk), path) == 0)
            return disk;
    }
    return NULL;
}

gboolean
vmr_live_leave(const VmrDomain *dom, const char *path, const VmrWait *wait,
               GError **error)
{
    g_autoptr(VmrDomXml) inactive = NULL;
    g_autoptr(VmrDomXml) live = NULL;
    const VmrDomDisk *behind;
    const VmrDomDisk *now;
    const VmrLayer *top;

    if (!vmr_live_read_inactive(dom, &inactive, wait, error))
        return FALSE;
    behind = find_user(inactive, path);
    if (!behind)
        return TRUE;
    live = vmr_live_read(dom, wait, error);
    if (!live)
        return FALSE;
    now = vmr_domxml_find(live, behind->target);
    if (find_user(live, path) || !now || now->chain->len == 0) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE,
                    "'%s' is wanted by disk '%s' of domain '%s'", path,
                    behind->target, live->name);
        return FALSE;
    }
    top = g_ptr_array_index(now->chain, 0);
    return vmr_live_set_source(dom, behind->target, top->path, top->format,
                               wait, error);
}
