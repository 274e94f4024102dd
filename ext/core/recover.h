/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * recover: puts right what somebody's death has left of a mirrored snapshot. It
 * acts on what vmr_inspect() finds, again and again until nothing is left to
 * do; it never starts a guest, never takes a live disk away, never pivots what
 * QEMU is not proven to mirror; and it can itself die and be run again.
 */

#include "inspect.h"

G_BEGIN_DECLS

/* What to do with mirrors that run. */
typedef enum {
    VMR_POLICY_RESUME, /* leave them running; go on where a pivot had begun */
    VMR_POLICY_ABORT,
    VMR_POLICY_PIVOT,
    VMR_POLICY_LAST
} VmrPolicy;

typedef struct {
    VmrVerdict found;  /* when it began */
    VmrVerdict verdict;/* now */
    GPtrArray *done;   /* of char *: what was done, one line each */
    GPtrArray *left;   /* of char *: what a person has to do */
} VmrRecovery;

/* Recover @dom. What cannot be put right is no error but is told in
 * VmrRecovery.left. Errors: as vmr_inspect(), vmr_mirror_pivot() and
 * vmr_mirror_abort() when they fail. */
VmrRecovery *vmr_recover(VmrHv *hv, virDomainPtr dom, VmrPolicy policy,
                         const VmrWait *wait, GError **error);

/* Free @recovery; NULL is fine. */
void vmr_recovery_free(VmrRecovery *recovery);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrRecovery, vmr_recovery_free)

/* The policy named @name ("resume", "abort", "pivot"). Errors: INVALID_SPEC. */
gboolean vmr_policy_parse(const char *name, VmrPolicy *policy, GError **error);

G_END_DECLS
