/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "live.h"

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
