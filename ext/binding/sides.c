/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "sides.h"

#include "args.h"
#include "call.h"
#include "convert.h"

#include "../core/live.h"
#include "../core/lockprobe.h"
#include "../core/mirror.h"

/* {target: (path, format)} of the disks that have a path; new reference. */
static PyObject *
sources_to_dict(const VmrDomXml *xml)
{
    g_autoptr(PyObject) sources = PyDict_New();

    for (guint i = 0; sources && xml && i < xml->disks->len; i++) {
        const VmrDomDisk *disk = g_ptr_array_index(xml->disks, i);
        const VmrLayer *top =
            disk->chain->len > 0 ? g_ptr_array_index(disk->chain, 0) : NULL;
        g_autoptr(PyObject) source = NULL;

        if (!top || !top->path)
            continue;
        source = Py_BuildValue("(NN)", convert_text(top->path),
                               convert_text(top->format));
        if (!source ||
            PyDict_SetItemString(sources, disk->target, source) < 0)
            return NULL;
    }
    return g_steal_pointer(&sources);
}

PyDoc_STRVAR(
    sides_sources_doc,
    "_persistent_sources($module, /, dom)\n"
    "--\n\n"
    "The path and the format of each disk's source at the next start, by target name.\n"
    "\n"
    "*dom* is a libvirt.virDomain, running or not; nothing is told of a transient\n"
    "one. Raises MirrorError. Calls virDomainGetXMLDesc.");

static PyObject *
sides_sources(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autoptr(VmrDomXml) inactive = NULL;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&:_persistent_sources",
                                     names, arg_domain, &dom))
        return NULL;
    call_enter(&call, state, -1);
    vmr_live_read_inactive(dom.domain, &inactive, &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return sources_to_dict(inactive);
}

PyDoc_STRVAR(
    sides_set_source_doc,
    "_set_source($module, /, dom, target, path, format)\n"
    "--\n\n"
    "Have the next start of a domain use another file for a disk.\n"
    "\n"
    "*dom* is a libvirt.virDomain, *target* the disk, *path* the file and *format* its\n"
    "format. Raises NotFoundError, MirrorError. Calls virDomainDefineXMLFlags.");

static PyObject *
sides_set_source(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom", "target", "path", "format", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autofree char *path = NULL;
    const char *target;
    const char *format;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&sO&s:_set_source",
                                     names, arg_domain, &dom, &target, arg_path,
                                     &path, &format))
        return NULL;
    call_enter(&call, state, -1);
    vmr_live_set_source(dom.domain, target, path, format, &call.wait,
                        &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    sides_written_doc,
    "_is_written($module, /, path)\n"
    "--\n\n"
    "Whether a QEMU is known to have a file open for writing.\n"
    "\n"
    "*path* is an image; one that is not there, or that tells nothing, is not known to\n"
    "be. Raises no errors of its own.");

static PyObject *
sides_written(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path", NULL};
    g_autofree char *path = NULL;
    VmrLock lock = VMR_LOCK_UNKNOWN;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&:_is_written", names,
                                     arg_path, &path))
        return NULL;
    call_enter(&call, module_get_state(module), -1);
    if (!vmr_lock_probe(path, &lock, NULL))
        lock = VMR_LOCK_UNKNOWN;
    if (call_leave(&call) < 0)
        return NULL;
    return PyBool_FromLong(lock == VMR_LOCK_WRITER);
}

PyDoc_STRVAR(
    sides_disown_doc,
    "_disown($module, /, dom, name)\n"
    "--\n\n"
    "Drop the records of a mirrored snapshot, and leave its disks as they are.\n"
    "\n"
    "*dom* is a libvirt.virDomain, *name* the snapshot's. Raises NotFoundError,\n"
    "BusyError, JournalError, MirrorError. Calls virDomainSetMetadata and\n"
    "virDomainSnapshotDelete.");

static PyObject *
sides_disown(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom", "name", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autoptr(VmrMirror) mirror = NULL;
    const char *name;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&s:_disown", names,
                                     arg_domain, &dom, &name))
        return NULL;
    call_enter(&call, state, -1);
    mirror = vmr_mirror_open(dom.domain->hv, dom.domain->ptr, name, &call.wait,
                             &call.error);
    if (mirror)
        vmr_mirror_disown(mirror, &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyMethodDef sides_table[] = {
    MODULE_FUNCTION("_persistent_sources", sides_sources, sides_sources_doc),
    MODULE_FUNCTION("_set_source", sides_set_source, sides_set_source_doc),
    MODULE_FUNCTION("_is_written", sides_written, sides_written_doc),
    MODULE_FUNCTION("_disown", sides_disown, sides_disown_doc),
    {NULL, NULL, 0, NULL},
};
