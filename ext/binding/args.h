/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * args: what callers pass: libvirt-python's objects, timeouts, flags, paths.
 *
 * The arg_* functions with a void pointer are converters for "O&" of
 * PyArg_ParseTupleAndKeywords(): 1, or 0 with an exception. What they store is
 * owned by the variable that they store it in: make it g_auto.
 */

#include "module.h"

#include "../core/hv.h"
#include "../core/snapspec.h"

G_BEGIN_DECLS

/* A domain. Objects are taken by what they have, never by their class: `_o`,
 * libvirt-python's capsule, on the object itself or on its `.dom`. */
typedef struct {
    const ModuleState *state; /* to be set before the parsing */
    PyObject *given;          /* by the caller */
    PyObject *object;         /* that has `_o`: libvirt-python's methods */
    VmrDomain *domain;        /* a reference: the GIL may be released */
} DomainArg;

/* Drop what @arg owns. */
void domain_arg_clear(DomainArg *arg);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(DomainArg, domain_arg_clear)

/* A snapshot as domain and name: the engine makes no use of its capsule. */
typedef struct {
    DomainArg dom;    /* its state is to be set before the parsing */
    PyObject *object; /* the caller's */
    char *name;
} SnapshotArg;

/* Drop what @arg owns. */
void snapshot_arg_clear(SnapshotArg *arg);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(SnapshotArg, snapshot_arg_clear)

/* Into a DomainArg. Raises TypeError, or SpecError for a freed object. */
int arg_domain(PyObject *object, void *into);

/* Into a SnapshotArg; errors as above, and those of libvirt-python. */
int arg_snapshot(PyObject *object, void *into);

/* Into a double: None (-1) or seconds >= 0. */
int arg_timeout(PyObject *object, void *into);

/* Into a guint. */
int arg_flags(PyObject *object, void *into);

/* Into a gulong: bytes per second, 0 for no limit. */
int arg_bandwidth(PyObject *object, void *into);

/* Into a char *: str, bytes or os.PathLike. */
int arg_path(PyObject *object, void *into);

/* The same, None being NULL. */
int arg_path_or_none(PyObject *object, void *into);

/* Append @disks, a diskspec or an iterable of them, to @spec; 1 or 0. */
int arg_diskspecs(PyObject *disks, const ModuleState *state, VmrSnapSpec *spec);

G_END_DECLS
