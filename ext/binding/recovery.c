/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "recovery.h"

#include "args.h"
#include "call.h"
#include "convert.h"
#include "errors.h"
#include "snapshot_tuples.h"

#include "../core/recover.h"

static PyObject *
disk_to_dict(const VmrDiskInspection *one)
{
    const VmrDisk *disk = one->disk;
    const VmrFile *written = vmr_disk_inspection_written(one);

    return Py_BuildValue(
        "{sssssssssOsNsNsNsNsNsssssssN}", "target", disk->target, "verdict",
        vmr_verdict_name(one->verdict), "meant",
        vmr_disk_state_name(disk->state), "truth", vmr_truth_name(one->truth),
        "job", one->job ? Py_True : Py_False, "live", convert_text(one->live),
        "persistent", convert_text(one->persistent), "source",
        convert_text(disk->source->path), "overlay",
        convert_text(disk->overlay->path), "mirror",
        convert_text(disk->mirror->path), "source_lock",
        vmr_lock_name(one->source), "overlay_lock",
        vmr_lock_name(one->overlay), "mirror_lock", vmr_lock_name(one->mirror),
        "written", convert_text(written ? written->path : NULL));
}

static PyObject *
disks_to_tuple(const GPtrArray *disks)
{
    g_autoptr(PyObject) tuple = PyTuple_New(disks->len);

    for (guint i = 0; tuple && i < disks->len; i++) {
        PyObject *disk = disk_to_dict(disks->pdata[i]);

        if (!disk || PyTuple_SetItem(tuple, i, disk) < 0)
            return NULL;
    }
    return g_steal_pointer(&tuple);
}

PyDoc_STRVAR(
    recovery_inspect_doc,
    "_inspect($module, /, dom, timeout=None)\n"
    "--\n\n"
    "What virmirror.inspect makes its value of: a dict, its *disks* dicts, too.\n"
    "\n"
    "*dom* and *timeout* as there. Raises JournalError, MirrorTimeoutError,\n"
    "MirrorError. Calls virDomainGetXMLDesc and virDomainGetBlockJobInfo.");

static PyObject *
recovery_inspect(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom", "timeout", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autoptr(VmrInspection) found = NULL;
    const VmrRecord *record;
    double timeout = -1;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&|O&:_inspect", names,
                                     arg_domain, &dom, arg_timeout, &timeout))
        return NULL;
    call_enter(&call, state, timeout);
    found = vmr_inspect(dom.domain->hv, dom.domain->ptr, &call.wait,
                        &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    record = found->record;
    return Py_BuildValue(
        "{sssssOsOsOsOsNsNsNsN}", "verdict", vmr_verdict_name(found->verdict),
        "advice", vmr_verdict_advice(found->verdict), "running",
        found->running ? Py_True : Py_False, "paused",
        found->paused ? Py_True : Py_False, "paused_by_us",
        record && record->paused ? Py_True : Py_False, "persistent",
        found->persistent ? Py_True : Py_False, "snapshot",
        convert_text(record ? record->snapshot : NULL), "meant",
        convert_text(record ? vmr_state_name(record->state) : NULL), "disks",
        disks_to_tuple(found->disks), "commits",
        tuples_from_lines(found->commits));
}

PyDoc_STRVAR(
    recovery_recover_doc,
    "_recover($module, /, dom, policy, timeout=None)\n"
    "--\n\n"
    "What virmirror.recover makes its value of: a dict.\n"
    "\n"
    "*dom*, *policy* and *timeout* as there. Raises SpecError for another\n"
    "*policy*, and what `MirrorSnapshot.pivot` and `MirrorSnapshot.abort` do.");

static PyObject *
recovery_recover(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom", "policy", "timeout", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autoptr(VmrRecovery) recovery = NULL;
    g_autoptr(GError) wrong = NULL;
    const char *name;
    VmrPolicy policy;
    double timeout = -1;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&s|O&:_recover", names,
                                     arg_domain, &dom, &name, arg_timeout,
                                     &timeout))
        return NULL;
    if (!vmr_policy_parse(name, &policy, &wrong)) {
        errors_raise(state, wrong);
        return NULL;
    }
    call_enter(&call, state, timeout);
    recovery = vmr_recover(dom.domain->hv, dom.domain->ptr, policy, &call.wait,
                           &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return Py_BuildValue("{sssssNsN}", "found",
                         vmr_verdict_name(recovery->found), "verdict",
                         vmr_verdict_name(recovery->verdict), "done",
                         tuples_from_lines(recovery->done), "left",
                         tuples_from_lines(recovery->left));
}

PyMethodDef recovery_table[] = {
    {"_inspect", (PyCFunction)(void (*)(void))recovery_inspect,
     METH_VARARGS | METH_KEYWORDS, recovery_inspect_doc},
    {"_recover", (PyCFunction)(void (*)(void))recovery_recover,
     METH_VARARGS | METH_KEYWORDS, recovery_recover_doc},
    {NULL, NULL, 0, NULL},
};
