/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "functions.h"

#include "args.h"
#include "call.h"
#include "errors.h"
#include "snapshot_type.h"

#include "../core/collapse.h"
#include "../core/evloop.h"
#include "../core/prepare.h"
#include "../core/snapshot.h"
#include "../core/snapxml.h"

PyDoc_STRVAR(
    snapshot_create_xml_doc,
    "snapshotCreateXML($module, /, dom, xml, flags=0)\n"
    "--\n\n"
    "Take a snapshot of a domain, mirrored where the XML says so.\n"
    "\n"
    "*dom* is a libvirt.virDomain; *xml* a <domainsnapshot>, in which each\n"
    "<disk> may have a <mirror>; *flags* are libvirt's\n"
    "VIR_DOMAIN_SNAPSHOT_CREATE_*, of which a mirrored snapshot takes\n"
    "DISK_ONLY and ATOMIC (both are implied), VALIDATE (nothing in addition: the\n"
    "XML is read strictly anyway), REUSE_EXT and QUIESCE.\n"
    "\n"
    "Returns the libvirt.virDomainSnapshot. XML without <mirror> is passed on to\n"
    "virDomainSnapshotCreateXML; with it see `MirrorSnapshot.create` for what is\n"
    "done and the errors that are raised.");

static PyObject *
function_snapshot_create_xml(PyObject *module, PyObject *args,
                             PyObject *keywords)
{
    static char *names[] = {"dom", "xml", "flags", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autofree char *name = NULL;
    const char *xml;
    guint flags = 0;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&s|O&:snapshotCreateXML",
                                     names, arg_domain, &dom, &xml, arg_flags,
                                     &flags))
        return NULL;
    call_enter(&call, state, -1);
    vmr_snapshot_create_xml(dom.domain->hv, dom.domain->ptr, xml, flags, &name,
                            &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    if (!name)
        return PyObject_CallMethod(dom.object, "snapshotCreateXML", "sI", xml,
                                   flags);
    return PyObject_CallMethod(dom.object, "snapshotLookupByName", "s", name);
}

PyDoc_STRVAR(
    snapshot_delete_doc,
    "snapshotDelete($module, /, snap, flags=0)\n"
    "--\n\n"
    "Delete a snapshot; a mirrored one after the mirror was ended.\n"
    "\n"
    "*snap* is a libvirt.virDomainSnapshot. For a mirrored one *flags* must have\n"
    "either VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_PIVOT (go on with the mirrors) or\n"
    "VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_ABORT (go on with the primary files).\n"
    "\n"
    "Returns 0. Any other snapshot is passed on to virDomainSnapshotDelete; see\n"
    "`MirrorSnapshot.pivot` and `MirrorSnapshot.abort` for the errors. SpecError\n"
    "(VIR_ERR_INVALID_ARG): flags that exclude each other; StateError\n"
    "(VIR_ERR_OPERATION_INVALID): no mirror flag, or one without a mirror.");

static PyObject *
function_snapshot_delete(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"snap", "flags", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(SnapshotArg) snap = {.dom = {.state = state}};
    gboolean done = FALSE;
    guint flags = 0;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&|O&:snapshotDelete",
                                     names, arg_snapshot, &snap, arg_flags,
                                     &flags))
        return NULL;
    call_enter(&call, state, -1);
    vmr_snapshot_delete(snap.dom.domain->hv, snap.dom.domain->ptr, snap.name,
                        flags, &done, &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    if (!done)
        return PyObject_CallMethod(snap.object, "delete", "I", flags);
    return PyLong_FromLong(0);
}

PyDoc_STRVAR(
    snapshot_get_xml_desc_doc,
    "snapshotGetXMLDesc($module, /, snap, flags=0)\n"
    "--\n\n"
    "The XML of a snapshot, with its <mirror> elements while it is mirrored.\n"
    "\n"
    "*snap* is a libvirt.virDomainSnapshot; *flags* must be 0. Raises\n"
    "MirrorError. Calls virDomainSnapshotGetXMLDesc.");

static PyObject *
function_snapshot_get_xml_desc(PyObject *module, PyObject *args,
                               PyObject *keywords)
{
    static char *names[] = {"snap", "flags", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(SnapshotArg) snap = {.dom = {.state = state}};
    g_autofree char *xml = NULL;
    guint flags = 0;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&|O&:snapshotGetXMLDesc",
                                     names, arg_snapshot, &snap, arg_flags,
                                     &flags))
        return NULL;
    if (flags != 0) {
        errors_raise_code(state, VMR_ERROR_NOT_SUPPORTED,
                          "flags 0x%x are not supported here: call "
                          "getXMLDesc() of the snapshot with them",
                          flags);
        return NULL;
    }
    call_enter(&call, state, -1);
    xml = vmr_snapshot_get_xml(snap.dom.domain->hv, snap.dom.domain->ptr,
                               snap.name, &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return PyUnicode_FromString(xml);
}

PyDoc_STRVAR(
    adopt_doc,
    "adopt($module, /, dom, name=None)\n"
    "--\n\n"
    "The `MirrorSnapshot` that is in progress on a domain, whoever began it.\n"
    "\n"
    "*dom* is a libvirt.virDomain; *name*, where given, must be the snapshot's.\n"
    "Raises NotFoundError (VIR_ERR_OPERATION_INVALID), JournalError,\n"
    "StateError, MirrorError. Calls virDomainGetMetadata.");

static PyObject *
function_adopt(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom", "name", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    const char *name = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&|z:adopt", names,
                                     arg_domain, &dom, &name))
        return NULL;
    return snapshot_adopt(state, &dom, name);
}

/* @paths as a list of str; NULL: exception. */
static PyObject *
paths_to_list(char **paths)
{
    g_autoptr(PyObject) list = PyList_New(0);

    for (; list && *paths; paths++) {
        g_autoptr(PyObject) path = PyUnicode_DecodeFSDefault(*paths);

        if (!path || PyList_Append(list, path) < 0)
            return NULL;
    }
    return g_steal_pointer(&list);
}

PyDoc_STRVAR(
    prepare_chain_doc,
    "prepare_chain($module, /, dom, disk, folder, *, timeout=60.0)\n"
    "--\n\n"
    "Make the skeleton of a disk's backing chain in another folder.\n"
    "\n"
    "For each layer of the chain in use an image of its name, format and virtual\n"
    "size is made in *folder* (str or os.PathLike), with its owner, group and mode,\n"
    "relative backing names and no data: what libvirt wants to find when a mirror\n"
    "starts, and where the layers are copied to, in place. An image that is\n"
    "there already is kept if it fits.\n"
    "\n"
    "*dom* is a libvirt.virDomain that runs; *disk* the target ('vda') or the\n"
    "path of the source; *timeout*: seconds, or None. Returns the paths, top\n"
    "first. Raises NotFoundError, StateError, SpecError, ExistsError, ImageError,\n"
    "NotSupportedError, StorageError, MirrorTimeoutError. Calls\n"
    "virDomainGetXMLDesc, and qemu-img.");

static PyObject *
function_prepare_chain(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom", "disk", "folder", "timeout", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autofree char *folder = NULL;
    g_auto(GStrv) paths = NULL;
    const char *disk;
    double timeout = 60.0;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&sO&|$O&:prepare_chain",
                                     names, arg_domain, &dom, &disk, arg_path,
                                     &folder, arg_timeout, &timeout))
        return NULL;
    call_enter(&call, state, timeout);
    paths =
        vmr_prepare_chain(dom.domain, disk, folder, &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return paths_to_list(paths);
}

PyDoc_STRVAR(
    block_pull_doc,
    "block_pull($module, /, dom, disk, base=None, *, bandwidth=0, wait=True,\n"
    "           timeout=None)\n"
    "--\n\n"
    "Shorten a disk's backing chain by pulling layers into its top.\n"
    "\n"
    "What lies between the top and *base* (a path of the chain, str or\n"
    "os.PathLike; None: all layers) is pulled, at most *bandwidth* bytes per\n"
    "second (0: no limit); backing names stay relative. A pull that runs already\n"
    "is gone on with. With *wait* false the job is started only.\n"
    "\n"
    "*dom* is a libvirt.virDomain that runs; *disk* the target ('vda') or the\n"
    "path of the source; *timeout*: seconds, or None; the job goes on after it.\n"
    "Raises NotFoundError, BusyError, JobFailedError, MirrorTimeoutError,\n"
    "MirrorError. Calls virDomainBlockRebase.");

static PyObject *
function_block_pull(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom",  "disk",    "base", "bandwidth",
                            "wait", "timeout", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autofree char *base = NULL;
    const char *disk;
    gulong bandwidth = 0;
    int wait = 1;
    double timeout = -1;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&s|O&$O&pO&:block_pull",
                                     names, arg_domain, &dom, &disk,
                                     arg_path_or_none, &base, arg_bandwidth,
                                     &bandwidth, &wait, arg_timeout, &timeout))
        return NULL;
    call_enter(&call, state, timeout);
    vmr_collapse_pull(dom.domain, disk, base, bandwidth, !wait, &call.wait,
                      &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    block_commit_doc,
    "block_commit($module, /, dom, disk, top=None, *, timeout=None)\n"
    "--\n\n"
    "Shorten a disk's backing chain by committing its top into the layer below.\n"
    "\n"
    "The guest goes on with that layer, whose name it keeps; the former top is\n"
    "left as a file that nobody needs. *top* (str or os.PathLike), where given,\n"
    "must be the path of the top. A commit that runs already is waited for. The\n"
    "end is proven by the live and the persistent definition and QEMU's locks.\n"
    "\n"
    "*dom* is a libvirt.virDomain that runs; *disk* the target ('vda') or the\n"
    "path of the source; *timeout*: seconds, or None; the job goes on after it.\n"
    "Raises NotFoundError, StateError, BusyError, JobFailedError, DivergedError,\n"
    "MirrorTimeoutError, MirrorError. Calls virDomainBlockCommit and\n"
    "virDomainBlockJobAbort.");

static PyObject *
function_block_commit(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom", "disk", "top", "timeout", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autofree char *top = NULL;
    const char *disk;
    double timeout = -1;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&s|O&$O&:block_commit",
                                     names, arg_domain, &dom, &disk,
                                     arg_path_or_none, &top, arg_timeout,
                                     &timeout))
        return NULL;
    call_enter(&call, state, timeout);
    vmr_collapse_commit(dom.domain, disk, top, &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Check @spec if it is a mirrored snapshot's; else it is libvirt's to judge.
 * 0, or -1 with an exception. */
static int
check_spec(const ModuleState *state, const VmrSnapSpec *spec)
{
    g_autoptr(GError) error = NULL;
    gboolean mirrored = FALSE;

    for (guint i = 0; i < spec->disks->len; i++) {
        const VmrDiskSpec *disk = spec->disks->pdata[i];

        mirrored |= disk->mirror != NULL;
    }
    if (!mirrored || vmr_snapspec_check(spec, &error))
        return 0;
    errors_raise(state, error);
    return -1;
}

PyDoc_STRVAR(
    snapshot_xml_doc,
    "snapshot_xml($module, /, name=None, description=None, disks=())\n"
    "--\n\n"
    "The <domainsnapshot> XML for diskspecs, as `snapshotCreateXML` takes it.\n"
    "\n"
    "*disks* is a diskspec or an iterable of them:\n"
    "``disk[,snapshot=type][,driver=type][,file=name][,mirror=name]``, a comma\n"
    "within a name doubled. Raises SpecError.");

static PyObject *
function_snapshot_xml(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"name", "description", "disks", NULL};
    const ModuleState *state = module_get_state(module);
    g_autoptr(VmrSnapSpec) spec = NULL;
    g_autofree char *xml = NULL;
    const char *name = NULL;
    const char *description = NULL;
    PyObject *disks = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|zzO:snapshot_xml", names,
                                     &name, &description, &disks))
        return NULL;
    spec = vmr_snapspec_new(name, description);
    if (disks && !arg_diskspecs(disks, state, spec))
        return NULL;
    if (check_spec(state, spec) < 0)
        return NULL;
    xml = vmr_snapxml_format(spec);
    return PyUnicode_FromString(xml);
}

PyDoc_STRVAR(
    start_event_loop_doc,
    "start_event_loop($module, /)\n"
    "--\n\n"
    "Run libvirt's default event loop in a thread of this process.\n"
    "\n"
    "For programs that have no event loop of their own; with one, waits end at\n"
    "once instead of at the next poll. Call it before the first connection is\n"
    "opened; calling it again does nothing. Importing virmirror does not do it.\n"
    "Raises StateError in a forked child of the process that has called it, whose\n"
    "loop it is; MirrorError, StorageError. Calls virEventRegisterDefaultImpl and\n"
    "virEventRunDefaultImpl.");

static PyObject *
function_start_event_loop(PyObject *module, PyObject *unused)
{
    Call call;

    (void)unused;
    call_enter(&call, module_get_state(module), -1);
    vmr_evloop_start(&call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyMethodDef functions_table[] = {
    MODULE_FUNCTION("snapshotCreateXML", function_snapshot_create_xml,
             snapshot_create_xml_doc),
    MODULE_FUNCTION("snapshotDelete", function_snapshot_delete, snapshot_delete_doc),
    MODULE_FUNCTION("snapshotGetXMLDesc", function_snapshot_get_xml_desc,
             snapshot_get_xml_desc_doc),
    MODULE_FUNCTION("adopt", function_adopt, adopt_doc),
    MODULE_FUNCTION("prepare_chain", function_prepare_chain, prepare_chain_doc),
    MODULE_FUNCTION("block_pull", function_block_pull, block_pull_doc),
    MODULE_FUNCTION("block_commit", function_block_commit, block_commit_doc),
    MODULE_FUNCTION("snapshot_xml", function_snapshot_xml, snapshot_xml_doc),
    {"start_event_loop", function_start_event_loop, METH_NOARGS,
     start_event_loop_doc},
    {NULL, NULL, 0, NULL},
};
