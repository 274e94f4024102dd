/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "copy_args.h"

#include "args.h"
#include "call.h"
#include "errors.h"

void
copy_args_clear(CopyArgs *args)
{
    g_clear_pointer(&args->source, g_free);
    g_clear_pointer(&args->destination, g_free);
}

static void
set_defaults(CopyArgs *parsed)
{
    *parsed = (CopyArgs){.pace = "auto", .reflink = 1, .timeout = -1};
}

int
copy_args_parse_start(PyObject *args, PyObject *keywords, CopyArgs *parsed)
{
    static char *names[] = {"source",  "destination", "pace",      "bandwidth",
                            "reflink", "verify",      "overwrite", NULL};

    set_defaults(parsed);
    return PyArg_ParseTupleAndKeywords(
               args, keywords, "O&O&|$sO&ppp:start", names, arg_path,
               &parsed->source, arg_path, &parsed->destination, &parsed->pace,
               arg_bandwidth, &parsed->bandwidth, &parsed->reflink,
               &parsed->verify, &parsed->overwrite)
               ? 0
               : -1;
}

int
copy_args_parse_copy(PyObject *args, PyObject *keywords, CopyArgs *parsed)
{
    static char *names[] = {"source",    "destination", "pace",
                            "bandwidth", "reflink",     "verify",
                            "overwrite", "timeout",     "on_progress",
                            NULL};

    set_defaults(parsed);
    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "O&O&|$sO&pppO&O:copy", names, arg_path,
            &parsed->source, arg_path, &parsed->destination, &parsed->pace,
            arg_bandwidth, &parsed->bandwidth, &parsed->reflink,
            &parsed->verify, &parsed->overwrite, arg_timeout, &parsed->timeout,
            &parsed->on_progress))
        return -1;
    if (parsed->on_progress == Py_None)
        parsed->on_progress = NULL;
    if (!parsed->on_progress || PyCallable_Check(parsed->on_progress))
        return 0;
    PyErr_SetString(PyExc_TypeError,
                    "on_progress must be None or something to call");
    return -1;
}

VmrSparse *
copy_args_start(const CopyArgs *parsed, const ModuleState *state)
{
    VmrSparseSpec spec = {
        .source = parsed->source,
        .destination = parsed->destination,
        .bandwidth = parsed->bandwidth,
        .reflink = parsed->reflink != 0,
        .verify = parsed->verify != 0,
        .overwrite = parsed->overwrite != 0,
        .deny = parsed->deny,
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrSparse) copy = NULL;
    Call call;

    if (!vmr_sparse_pace_parse(parsed->pace, &spec.pace, &error)) {
        errors_raise(state, error);
        return NULL;
    }
    call_enter(&call, state, -1);
    copy = vmr_sparse_start(&spec, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return g_steal_pointer(&copy);
}
