/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * journal: keeps the record of a mirrored snapshot in the domain's metadata,
 * live and persistent, where it outlives this process. What is about to be
 * done is saved before it is done.
 */

#include "hv.h"
#include "record.h"

G_BEGIN_DECLS

#define VMR_JOURNAL_URI "urn:virmirror:journal"
#define VMR_JOURNAL_KEY "virmirror"

/* Read the newer of the two copies into *@record; NULL if there is none.
 * Errors: JOURNAL (a copy that cannot be understood, or of another domain
 * than @uuid), VIRT, TIMEOUT, CANCELLED. */
gboolean vmr_journal_load(const VmrDomain *dom, const char *uuid,
                          VmrRecord **record, const VmrWait *wait,
                          GError **error);

/* Count @record's sequence up and store it. */
gboolean vmr_journal_save(const VmrDomain *dom, VmrRecord *record,
                          const VmrWait *wait, GError **error);

/* Remove both copies. */
gboolean vmr_journal_clear(const VmrDomain *dom, const VmrWait *wait,
                           GError **error);

G_END_DECLS
