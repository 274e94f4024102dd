/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * findings: everything that is wrong with a request, told in one error instead
 * of one error per attempt.
 */

#include "error.h"

G_BEGIN_DECLS

#define VMR_FINDINGS_MAX 16 /* told in full; the rest is only counted */

typedef struct VmrFindings VmrFindings;

/* An empty list. */
VmrFindings *vmr_findings_new(void);

/* Free @findings; NULL is fine. */
void vmr_findings_free(VmrFindings *findings);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrFindings, vmr_findings_free)

/* Add one finding, for which libvirt's code would be @virt_code. */
void vmr_findings_add(VmrFindings *findings, int virt_code,
                      const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Whether nothing was found. */
gboolean vmr_findings_is_empty(const VmrFindings *findings);

/* TRUE if nothing was found; else set @error to @code with all findings,
 * joined by "; ". libvirt's code is the one that all findings share, or
 * @virt_code where they differ. */
gboolean vmr_findings_report(const VmrFindings *findings, VmrErrorCode code,
                             int virt_code, GError **error);

G_END_DECLS
