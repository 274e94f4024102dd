/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * reach: whether the storage of files answers at all, before they are looked
 * at without a deadline.
 */

#include "record.h"
#include "wait.h"

G_BEGIN_DECLS

/* Open the files of @record and look at them, in a thread of its own: storage
 * that hangs (a dead server) holds up that thread, and not the caller. That
 * a file is missing, or that its storage fails, is no error here.
 * Errors: TIMEOUT, CANCELLED. */
gboolean vmr_reach_files(const VmrRecord *record, const VmrWait *wait,
                         GError **error);

G_END_DECLS
