/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * errors: an error of the engine as a Python exception. The classes are those
 * of virmirror.errors; one table says which stands for which code.
 *
 * All of it needs the GIL.
 */

#include "module.h"

G_BEGIN_DECLS

/* Look the classes up for @module's state; 0, or -1 with an exception. */
int errors_setup(PyObject *module);

/* Raise the exception for @error. */
void errors_raise(const ModuleState *state, const GError *error);

/* Raise the exception for @code with a text of the binding's own. */
void errors_raise_code(const ModuleState *state, VmrErrorCode code,
                       const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Take the exception that is raised at this moment, a new reference; NULL if
 * none is. */
PyObject *errors_take(void);

/* Raise @exception as it is, with its traceback and context; steals it. */
void errors_restore(PyObject *exception);

/* Put @context (stolen) behind the last of @exception's chain of contexts, so
 * that a traceback shows both. */
void errors_chain(PyObject *exception, PyObject *context);

/* The exception that errors_raise_code() would raise, for the reason named
 * @reason ("busy"); NULL with another exception: no such reason. */
PyObject *errors_make(const ModuleState *state, const char *reason,
                      const char *text);

G_END_DECLS
