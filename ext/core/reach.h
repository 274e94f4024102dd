/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * reach: whether the storage of files answers at all, before they are looked
 * at without a deadline.
 */

#include "record.h"
#include "wait.h"

G_BEGIN_DECLS

/* Have @func work on the files @paths (of char *, emptied; handed over to it as a
 * NULL-terminated array), in a thread of its own; @what names it in error texts. It
 * must change nothing of a guest: when the wait ends first, no outcome is unknown.
 * Errors: TIMEOUT, CANCELLED, and those of @func. */
gboolean vmr_reach_call(const char *what, VmrWaitFunc func, GPtrArray *paths,
                        const VmrWait *wait, GError **error);

/* Open the files of @record and look at them, in a thread of its own: storage
 * that hangs (a dead server) holds up that thread, and not the caller. That
 * a file is missing, or that its storage fails, is no error here.
 * Errors: TIMEOUT, CANCELLED. */
gboolean vmr_reach_files(const VmrRecord *record, const VmrWait *wait,
                         GError **error);

G_END_DECLS
