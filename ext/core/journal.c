/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "journal.h"

#include "error.h"
#include "text.h"

static gboolean
load_copy(const VmrDomain *dom, guint impact, const char *uuid,
          VmrRecord **record, const VmrWait *wait, GError **error)
{
    g_autofree char *text = NULL;

    if (!vmr_hv_get_metadata(dom, VMR_JOURNAL_URI, impact, &text, wait, error))
        return FALSE;
    if (!text)
        return TRUE;
    *record = vmr_record_parse(text, error);
    if (!*record)
        return FALSE;
    /* a domain defined from the XML of another one brings its metadata */
    if (!g_str_equal((*record)->uuid, uuid)) {
        g_autofree char *clean = vmr_text_clean((*record)->uuid);

        g_set_error(error, VMR_ERROR, VMR_ERROR_JOURNAL,
                    "journal belongs to the domain with UUID '%s'; "
                    "remove the metadata element '%s' if this one is a copy",
                    clean, VMR_JOURNAL_URI);
        return FALSE;
    }
    return TRUE;
}

gboolean
vmr_journal_load(const VmrDomain *dom, const char *uuid, VmrRecord **record,
                 const VmrWait *wait, GError **error)
{
    g_autoptr(VmrRecord) live = NULL;
    g_autoptr(VmrRecord) config = NULL;
    gboolean persistent = FALSE;

    *record = NULL;
    if (!load_copy(dom, VIR_DOMAIN_AFFECT_LIVE, uuid, &live, wait, error) ||
        !vmr_hv_is_persistent(dom, &persistent, wait, error))
        return FALSE;
    if (persistent &&
        !load_copy(dom, VIR_DOMAIN_AFFECT_CONFIG, uuid, &config, wait, error))
        return FALSE;
    if (config && (!live || config->sequence > live->sequence))
        *record = g_steal_pointer(&config);
    else
        *record = g_steal_pointer(&live);
    return TRUE;
}

/* Store @xml (NULL: remove) wherever the domain has a place for it. */
static gboolean
store(const VmrDomain *dom, const char *xml, const VmrWait *wait,
      GError **error)
{
    guint impact = 0;
    gboolean persistent = FALSE;
    int state;

    if (!vmr_hv_is_persistent(dom, &persistent, wait, error) ||
        !vmr_hv_get_state(dom, &state, NULL, wait, error))
        return FALSE;
    if (state != VIR_DOMAIN_SHUTOFF)
        impact |= VIR_DOMAIN_AFFECT_LIVE;
    if (persistent)
        impact |= VIR_DOMAIN_AFFECT_CONFIG;
    return vmr_hv_set_metadata(dom, xml, xml ? VMR_JOURNAL_KEY : NULL,
                               VMR_JOURNAL_URI, impact, wait, error);
}

gboolean
vmr_journal_save(const VmrDomain *dom, VmrRecord *record, const VmrWait *wait,
                 GError **error)
{
    g_autofree char *xml = NULL;

    record->sequence++;
    xml = vmr_record_format(record);
    return store(dom, xml, wait, error);
}

gboolean
vmr_journal_clear(const VmrDomain *dom, const VmrWait *wait, GError **error)
{
    return store(dom, NULL, wait, error);
}
