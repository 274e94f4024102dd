/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "args.h"
#include "call.h"
#include "copy_args.h"
#include "copy_tuples.h"
#include "copy_type.h"
#include "errors.h"

/* on_progress() is called so often at most. */
#define TICK_INTERVAL (G_USEC_PER_SEC / 10)

typedef struct {
    const ModuleState *state;
    VmrSparse *copy;
    PyObject *on_progress;
    gint64 next; /* µs: when to call it again */
} Ticker;

static int
call_on_progress(const Ticker *ticker)
{
    g_autoptr(PyObject) progress =
        copy_tuples_from_progress(ticker->state, ticker->copy);
    g_autoptr(PyObject) result = NULL;

    if (progress)
        result = PyObject_CallFunctionObjArgs(ticker->on_progress, progress,
                                              NULL);
    return result ? 0 : -1;
}

static int
tick(gpointer data)
{
    Ticker *ticker = data;
    gint64 now = g_get_monotonic_time();

    if (now < ticker->next)
        return 0;
    ticker->next = now + TICK_INTERVAL;
    return call_on_progress(ticker);
}

static PyObject *
report_to_python(const ModuleState *state, const CopyArgs *parsed,
                 const VmrSparseReport *report)
{
    g_autoptr(PyObject) source = PyUnicode_DecodeFSDefault(parsed->source);
    g_autoptr(PyObject) destination =
        source ? PyUnicode_DecodeFSDefault(parsed->destination) : NULL;

    if (!destination)
        return NULL;
    return copy_tuples_from_report(state, source, destination, report);
}

PyDoc_STRVAR(
    function_copy_doc,
    "copy($module, /, source, destination, *, pace='auto', bandwidth=0,\n"
    "     reflink=True, verify=False, overwrite=False, timeout=None,\n"
    "     on_progress=None)\n"
    "--\n\n"
    "Copy an image that nobody writes to: only its data, its holes stay holes.\n"
    "\n"
    "*source* and *destination* (str or os.PathLike) are files or block devices.\n"
    "A destination that exists is filled in place, and keeps its owner, mode and\n"
    "label, if *overwrite* is true, unless it is a complete copy of just this\n"
    "source already; one that does not is created, with the source's owner, group\n"
    "and mode. Everything is on stable storage when the call returns.\n"
    "\n"
    "*pace* 'auto' takes care of guests on the same storage, 'full' is for idle\n"
    "storage; *bandwidth*: bytes per second, 0 for no limit. *reflink*: the files\n"
    "may share their data where the file system can do that. *verify*: read the\n"
    "destination back from storage and compare. *timeout*: seconds, or None.\n"
    "*on_progress* is called with a `CopyProgress`, some times per second and at\n"
    "the end; an exception from it ends the copy.\n"
    "\n"
    "Returns a `CopyReport`. After a failure, a time-out or Ctrl-C nothing runs\n"
    "on; a destination that was created is gone, one that was there is left\n"
    "without its beginning and marked as incomplete, and the error's *partial*\n"
    "is true. Raises SpecError, NotFoundError, ExistsError, ImageError, BusyError\n"
    "(a QEMU has the destination open, or the source for writing), StorageError,\n"
    "DivergedError (the source has changed meanwhile), NotSupportedError,\n"
    "MirrorTimeoutError.");

static PyObject *
function_copy(PyObject *module, PyObject *args, PyObject *keywords)
{
    const ModuleState *state = module_get_state(module);
    g_auto(CopyArgs) parsed = {0};
    g_autoptr(VmrSparse) copy = NULL;
    VmrSparseReport report = {0};
    Ticker ticker;
    Call call;

    if (copy_args_parse_copy(args, keywords, &parsed) < 0)
        return NULL;
    copy = copy_args_start(&parsed, state);
    if (!copy)
        return NULL;
    ticker = (Ticker){state, copy, parsed.on_progress, 0};
    call_enter(&call, state, parsed.timeout);
    if (parsed.on_progress)
        call_watch(&call, tick, &ticker);
    vmr_sparse_finish(copy, &call.wait, &report, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    if (parsed.on_progress && call_on_progress(&ticker) < 0)
        return NULL;
    return report_to_python(state, &parsed, &report);
}

PyDoc_STRVAR(
    function_checksum_doc,
    "checksum($module, /, path)\n"
    "--\n\n"
    "The checksum of a file's content: 32 hexadecimal digits.\n"
    "\n"
    "It is the one of `CopyReport`, and the same for holes and for zeros; not\n"
    "one that other tools know, nor proof against somebody who wants to deceive.\n"
    "*path* (str or os.PathLike) is a file or a block device. Raises\n"
    "NotFoundError, ImageError, BusyError, StorageError, DivergedError.");

static PyObject *
function_checksum(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path", NULL};
    const ModuleState *state = module_get_state(module);
    g_autofree char *path = NULL;
    char text[VMR_SPARSE_CHECKSUM_LENGTH + 1];
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&:checksum", names,
                                     arg_path, &path))
        return NULL;
    call_enter(&call, state, -1);
    vmr_sparse_checksum(path, &call.wait, text, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return PyUnicode_FromString(text);
}

PyDoc_STRVAR(
    function_copy_by_doc,
    "_copy_by($module, /, source, destination, method)\n"
    "--\n\n"
    "Copy by one *method* only (as in `CopyReport`), at full pace; *source* and\n"
    "*destination*, which is filled if it exists, as for copy(). For tests and\n"
    "comparisons. Raises what copy() does.");

static PyObject *
function_copy_by(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"source", "destination", "method", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(CopyArgs) parsed = {.pace = "full", .reflink = 1, .overwrite = 1};
    g_autoptr(VmrSparse) copy = NULL;
    g_autoptr(GError) wrong = NULL;
    VmrSparseReport report = {0};
    VmrSparseMethod method;
    const char *name;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&O&s:_copy_by", names,
                                     arg_path, &parsed.source, arg_path,
                                     &parsed.destination, &name))
        return NULL;
    if (!vmr_sparse_method_parse(name, &method, &wrong)) {
        errors_raise(state, wrong);
        return NULL;
    }
    parsed.deny = ~(1u << method);
    copy = copy_args_start(&parsed, state);
    if (!copy)
        return NULL;
    call_enter(&call, state, -1);
    vmr_sparse_finish(copy, &call.wait, &report, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return report_to_python(state, &parsed, &report);
}

PyMethodDef copy_functions[] = {
    {"_copy_by", (PyCFunction)(void (*)(void))function_copy_by,
     METH_VARARGS | METH_KEYWORDS, function_copy_by_doc},
    {"copy", (PyCFunction)(void (*)(void))function_copy,
     METH_VARARGS | METH_KEYWORDS, function_copy_doc},
    {"checksum", (PyCFunction)(void (*)(void))function_checksum,
     METH_VARARGS | METH_KEYWORDS, function_checksum_doc},
    {NULL, NULL, 0, NULL},
};
