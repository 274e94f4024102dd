/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * snapshot_object: what a MirrorSnapshot is made of, and how each of its
 * methods calls the engine: enter, one call without the GIL, finish.
 */

#include "call.h"
#include "module.h"

#include "../core/mirror.h"

G_BEGIN_DECLS

/* While a call runs without the GIL the engine's record changes; so everyone
 * reads the copies here, which are as of the end of the last call. */
typedef struct {
    PyObject_HEAD
    VmrMirror *mirror; /* NULL once detached or finalized */
    PyObject *domain;  /* as the caller gave it */
    PyObject *name;    /* str */
    PyObject *disks;   /* tuple of MirrorDisk */
    char *summary;     /* of disks: "vda mirroring, vdb pivoted" */
    VmrState state;
    gboolean busy; /* a call runs; guarded by the GIL */
    PyObject *weakrefs;
} SnapshotObject;

/* The state of the module that @self's type belongs to, borrowed. */
const ModuleState *snapshot_module_state(SnapshotObject *self);

/* A new object for @domain without a mirror; NULL: exception. */
SnapshotObject *snapshot_alloc(const ModuleState *state, PyObject *domain);

/* Copy what the engine knows after a call; 0, or -1 with an exception. */
int snapshot_refresh(SnapshotObject *self);

/* 0 if @self can be used by this thread now, or -1 with an exception. */
int snapshot_check(SnapshotObject *self);

/* Begin a call of the engine on @self's mirror; 0, or -1 with an exception.
 * snapshot_finish() has to follow. */
int snapshot_enter(SnapshotObject *self, Call *call, double timeout);

/* End what snapshot_enter() began, after call_leave(): returns @result, or
 * NULL with the exception that is raised already if it is NULL. */
PyObject *snapshot_finish(SnapshotObject *self, PyObject *result);

G_END_DECLS
