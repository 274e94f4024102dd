/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * disklist: what a <disk> may hold for its disk to be moved. All else is refused:
 * what changes the meaning of the image's bytes, what block jobs cannot bear, and
 * what is not known here. Pure.
 */

#include <glib.h>
#include <libxml/tree.h>

G_BEGIN_DECLS

#define VMR_DISKLIST_MAX 16 /* refusals that are told of one disk */

/* Look through the <disk> @node and the layers of its backing chain. What <mirror>
 * holds is not looked at: it is there only while a job is. Returns of char *, for
 * each thing that is refused its path ("<source><slices>") and why; owned; empty
 * if all is fine. */
GPtrArray *vmr_disklist_review(const xmlNode *node);

G_END_DECLS
