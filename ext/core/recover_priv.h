/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * recover_priv: what the parts of recovery share: one look at the domain, and
 * the steps that it may call for.
 */

#include "mirror_priv.h"
#include "recover.h"

G_BEGIN_DECLS

/* ms between two looks; less in the C tests, whose hypervisor is a fake */
#ifndef VMR_RECOVER_LOOK_STEP
#define VMR_RECOVER_LOOK_STEP 100
#endif

typedef struct {
    VmrHv *hv;
    virDomainPtr dom;
    VmrPolicy policy;
    VmrInspection *now;
    VmrMirror *mirror;
    VmrGuard *guard; /* NULL until something is found */
    VmrRecovery *recovery;
    VmrVerdict bad; /* the bad verdict of the last look, or NOTHING */
    int bad_looks;  /* so many in a row had it */
} VmrRecover;

/* What came of acting on one look. */
typedef enum {
    VMR_STEP_AGAIN,  /* something was done or is under way: look again */
    VMR_STEP_END,    /* nothing more to do */
    VMR_STEP_FAILED, /* the error is set */
} VmrStep;

/* Add a line to @lines, of what was done or is left. */
void vmr_recover_tell(GPtrArray *lines, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/* Resume the guest if it was suspended by us, for a pivot that did not begin. */
VmrStep vmr_recover_go_on(VmrRecover *what, const VmrWait *wait,
                          GError **error);

/* For STUCK and LYING. */
VmrStep vmr_recover_save_truth(VmrRecover *what, const VmrWait *wait,
                               GError **error);

/* For LOST. */
VmrStep vmr_recover_lost(VmrRecover *what, const VmrWait *wait,
                         GError **error);

/* Without a mirrored snapshot: finish the commits of the disks @targets (of char *) that
 * libvirt does not show, or see to the next start where it has missed the end. */
VmrStep vmr_recover_hidden(VmrRecover *what, const GPtrArray *targets,
                           const VmrWait *wait, GError **error);

/* Whether the persistent definition has another file of ours for some disk than
 * the one that it is proven to run on: libvirt died in between. */
gboolean vmr_recover_is_behind(const VmrInspection *now);

/* Have the persistent definition follow where it is behind. */
VmrStep vmr_recover_catch_up(VmrRecover *what, const VmrWait *wait,
                             GError **error);

G_END_DECLS
