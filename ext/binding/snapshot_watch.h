/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * snapshot_watch: telling the caller of a method of MirrorSnapshot, while it waits, how
 * its mirrors converge.
 */

#include "snapshot_object.h"

G_BEGIN_DECLS

typedef struct {
    SnapshotObject *self;
    PyObject *on_progress; /* borrowed, or NULL */
    gint64 next;           /* µs, when to call it again */
} SnapshotWatch;

/* Have @watch->on_progress, if any, called with a MirrorFigures about once a second
 * during @call: after snapshot_enter(). What it raises ends the call. */
void snapshot_watch(SnapshotWatch *watch, Call *call);

/* 1 and *@throttle if @converge (NULL: not given) says how to converge, or 0 with an
 * exception. */
int snapshot_parse_converge(const ModuleState *state, const char *converge,
                            gboolean *throttle);

G_END_DECLS
