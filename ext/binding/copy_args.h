/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * copy_args: what Copy.start() and copy() are given, and starting a copy of it.
 */

#include "module.h"

#include "../core/sparse.h"

G_BEGIN_DECLS

typedef struct {
    char *source;
    char *destination;
    const char *pace; /* borrowed from the arguments */
    gulong bandwidth;
    int reflink;
    int verify;
    int overwrite;
    guint deny; /* as in VmrSparseSpec; not given by callers */
    double timeout;        /* of copy() only */
    PyObject *on_progress; /* the same; borrowed */
} CopyArgs;

/* Drop what @args owns. */
void copy_args_clear(CopyArgs *args);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CopyArgs, copy_args_clear)

/* Parse the arguments of Copy.start() into @parsed; 0, or -1 with an exception. */
int copy_args_parse_start(PyObject *args, PyObject *keywords,
                          CopyArgs *parsed);

/* Parse those of copy(), which has two more. */
int copy_args_parse_copy(PyObject *args, PyObject *keywords, CopyArgs *parsed);

/* Start the copy; NULL: exception. */
VmrSparse *copy_args_start(const CopyArgs *parsed, const ModuleState *state);

G_END_DECLS
