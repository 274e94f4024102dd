/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * throttle: a guest that writes faster than its mirrors follow, held back by its own
 * block I/O limits.
 *
 * What the limits were is journalled before they are lowered, so that whoever ends the
 * mirrored snapshot can put them back.
 */

#include "mirror_priv.h"

G_BEGIN_DECLS

/* Lower the limits of the disks that are mirrored where the figures of @mirror say that
 * the guest writes nearly as fast as is mirrored, or faster; *@changed tells whether
 * (virDomainSetBlockIoTune, live only). Errors: VIRT, TIMEOUT, CANCELLED. */
gboolean vmr_throttle_adjust(VmrMirror *mirror, gboolean *changed,
                             const VmrWait *wait, GError **error);

/* Put the limits back that were lowered, by whomever, and have the journal say so; those
 * that somebody else has changed since, or whose disk is gone, are left.
 * Errors: the same. */
gboolean vmr_throttle_put_back(VmrMirror *mirror, const VmrWait *wait,
                               GError **error);

/* The same at the end of something that went well (@ok) or has set *@error already,
 * which is told of a failure then; whether all went well. */
gboolean vmr_throttle_end(VmrMirror *mirror, gboolean ok, const VmrWait *wait,
                          GError **error);

/* Whether some limits are lowered. */
gboolean vmr_throttle_is_on(const VmrMirror *mirror);

/* Forget of limits that were lowered: with its QEMU they are gone. */
void vmr_throttle_forget(VmrMirror *mirror);

G_END_DECLS
