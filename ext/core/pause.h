/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * pause: a guest that is suspended for a moment, and is resumed whatever happens.
 *
 * That it was us is journalled first, so that whoever comes after us can resume it;
 * what the resuming needs is set aside first, so that we can.
 */

#include "mirror_priv.h"
#include "reserve.h"

G_BEGIN_DECLS

typedef struct {
    VmrMirror *mirror;
    VmrReserve *reserve;
    gint64 begun; /* µs, 0: the guest was paused before */
    gint64 ended; /* µs */
} VmrPause;

/* Suspend the guest of @mirror, unless it is paused already, with the record in state
 * @state. vmr_pause_end() has to follow, also when this fails. Errors: IO (nothing
 * to set aside), VIRT, TIMEOUT, CANCELLED. */
gboolean vmr_pause_begin(VmrPause *pause, VmrMirror *mirror, VmrState state,
                         const VmrWait *wait, GError **error);

/* Resume the guest, if it was us, and add to *@failure, which is set already or is set
 * by this, if that cannot be done. While a call may still take effect (it may be the
 * one that suspends), the journal goes on to say that it was us. */
void vmr_pause_end(VmrPause *pause, const VmrWait *wait, GError **failure);

/* How long it was, in seconds. */
double vmr_pause_seconds(const VmrPause *pause);

G_END_DECLS
