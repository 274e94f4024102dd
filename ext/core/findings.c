/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "findings.h"

struct VmrFindings {
    GString *text;
    guint n;
    int virt_code;    /* of the first finding */
    gboolean differs; /* another finding has another code */
};

VmrFindings *
vmr_findings_new(void)
{
    VmrFindings *findings = g_new0(VmrFindings, 1);

    findings->text = g_string_new(NULL);
    return findings;
}

void
vmr_findings_free(VmrFindings *findings)
{
    if (!findings)
        return;
    g_string_free(findings->text, TRUE);
    g_free(findings);
}

void
vmr_findings_add(VmrFindings *findings, int virt_code, const char *format, ...)
{
    va_list args;

    if (findings->n == 0)
        findings->virt_code = virt_code;
    else if (findings->virt_code != virt_code)
        findings->differs = TRUE;
    if (findings->n++ >= VMR_FINDINGS_MAX)
        return;
    if (findings->text->len > 0)
        g_string_append(findings->text, "; ");
    va_start(args, format);
    g_string_append_vprintf(findings->text, format, args);
    va_end(args);
}

gboolean
vmr_findings_is_empty(const VmrFindings *findings)
{
    return findings->n == 0;
}

gboolean
vmr_findings_report(const VmrFindings *findings, VmrErrorCode code,
                    int virt_code, GError **error)
{
    guint untold = 0;

    if (findings->n == 0)
        return TRUE;
    vmr_error_set_virt(error, code,
                       findings->differs ? virt_code : findings->virt_code,
                       "%s", findings->text->str);
    if (findings->n > VMR_FINDINGS_MAX)
        untold = findings->n - VMR_FINDINGS_MAX;
    if (untold > 0)
        vmr_error_note(error, "and %u more", untold);
    return FALSE;
}
