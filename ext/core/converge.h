/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * converge: bring mirrors that the guest keeps behind so near to it that the rest can
 * be mirrored while it is suspended.
 */

#include "gauge.h"

G_BEGIN_DECLS

/* What has begun is carried through: so many seconds are left to the calls that belong to
 * it, besides the pause budget, whatever the deadline of the caller. */
#define VMR_CONVERGE_GRACE 5.0

/* Wait until what is left on @gauge can be mirrored in half of @how's budget. Where the
 * guest writes nearly as fast as is mirrored, or faster, and @how says so, lower its
 * limits.
 * Errors: TIMEOUT with the figures, and those of vmr_gauge_look(). */
gboolean vmr_converge(VmrGauge *gauge, const VmrCutOver *how,
                      const VmrWait *wait, GError **error);

G_END_DECLS
