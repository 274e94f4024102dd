/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "moving.h"

#include "args.h"
#include "call.h"
#include "convert.h"
#include "errors.h"

#include "../core/autofd.h"
#include "../core/imagefile.h"
#include "../core/live.h"
#include "../core/moveplan.h"

static PyObject *
layer_to_dict(const VmrLayerPlan *layer)
{
    const VmrImage *source = layer->source;

    return Py_BuildValue(
        "{sNsssKsKsKsKsKsNsNsNsNsOsO}", "source", convert_text(source->path),
        "format", source->format, "virtual_size", source->virtual_size, "size",
        source->file_size, "dev", (guint64)source->dev, "ino",
        (guint64)source->ino, "born", source->born, "destination",
        convert_text(layer->path),
        "backing_name", convert_text(layer->backing_name), "backing_format",
        convert_text(layer->backing_name ? layer->backing_format : NULL),
        "header_name", convert_text(source->backing_name), "snapshots",
        source->has_snapshots ? Py_True : Py_False, "bitmaps",
        source->has_bitmaps ? Py_True : Py_False);
}

/* @items as a list, each made by @convert; new reference. */
static PyObject *
list_of(const GPtrArray *items, PyObject *(*convert)(const void *item))
{
    g_autoptr(PyObject) list = PyList_New(0);

    for (guint i = 0; list && i < items->len; i++) {
        g_autoptr(PyObject) item = convert(g_ptr_array_index(items, i));

        if (!item || PyList_Append(list, item) < 0)
            return NULL;
    }
    return g_steal_pointer(&list);
}

static PyObject *
convert_layer(const void *item)
{
    return layer_to_dict(item);
}

static PyObject *
convert_disk(const void *item)
{
    const VmrMoveDisk *disk = item;

    return Py_BuildValue("{sssNsNsNsN}", "target", disk->target, "folder",
                         convert_text(disk->folder), "overlay",
                         convert_text(disk->overlay), "mirror",
                         convert_text(disk->mirror), "layers",
                         list_of(disk->layers, convert_layer));
}

static PyObject *
convert_note(const void *item)
{
    return convert_text(item);
}

/* [(disk, folder), ...] as {disk, folder, ..., NULL}; NULL: exception. */
static char **
pairs_from_python(PyObject *pairs)
{
    g_autoptr(GPtrArray) flat = g_ptr_array_new_with_free_func(g_free);
    Py_ssize_t n = PyList_Size(pairs);

    if (n < 0)
        return NULL;
    for (Py_ssize_t i = 0; i < n; i++) {
        char *folder = NULL;
        const char *disk;

        if (!PyArg_ParseTuple(PyList_GetItem(pairs, i), "sO&", &disk, arg_path,
                              &folder))
            return NULL;
        g_ptr_array_add(flat, g_strdup(disk));
        g_ptr_array_add(flat, folder);
    }
    g_ptr_array_add(flat, NULL);
    return (char **)g_ptr_array_steal(flat, NULL);
}

PyDoc_STRVAR(
    moving_plan_doc,
    "_plan_move($module, /, dom, disks, snapshot, overlay_folder=None,\n"
    "           keep_snapshots=False, remove_source=False, timeout=None)\n"
    "--\n\n"
    "What virmirror.plan makes its Plan of: a dict, with disks, layers and notes.\n"
    "\n"
    "*dom*, *overlay_folder*, *remove_source* and *timeout* as there; *disks*: a list\n"
    "of (disk, folder); *snapshot*: the name; *keep_snapshots*: those of libvirt. Raises what virmirror.plan does. Calls virDomainGetXMLDesc,\n"
    "virDomainGetMetadata and virDomainListAllSnapshots.");

static PyObject *
moving_plan(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom",           "disks",
                            "snapshot",      "overlay_folder",
                            "keep_snapshots", "remove_source",
                            "timeout",       NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_auto(GStrv) pairs = NULL;
    g_autofree char *overlay_folder = NULL;
    g_autoptr(VmrMovePlan) plan = NULL;
    VmrMoveOptions options = {0};
    double timeout = -1;
    PyObject *disks;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&Os|O&ppO&:_plan_move", names, arg_domain,
                                     &dom, &disks, &options.snapshot,
                                     arg_path_or_none, &overlay_folder,
                                     &options.keep_snapshots,
                                     &options.remove_source, arg_timeout, &timeout))
        return NULL;
    options.overlay_folder = overlay_folder;
    pairs = pairs_from_python(disks);
    if (!pairs)
        return NULL;
    call_enter(&call, state, timeout);
    plan = vmr_move_plan(dom.domain, (const char *const *)pairs, &options,
                         &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return Py_BuildValue("{sssssNsN}", "domain", plan->domain, "uuid",
                         plan->uuid, "disks",
                         list_of(plan->disks, convert_disk), "notes",
                         list_of(plan->notes, convert_note));
}

PyDoc_STRVAR(
    moving_create_doc,
    "_create_image($module, /, path, format, size, backing_name=None,\n"
    "              backing_format=None, like=None)\n"
    "--\n\n"
    "Make an image without data where nothing is yet.\n"
    "\n"
    "*path* is the file, *format* 'qcow2' or 'raw', *size* its virtual size in\n"
    "bytes; *backing_name* and *backing_format* are for its header; owner, group and mode are those of the\n"
    "image *like* (None: ours, 0600). Raises\n"
    "ExistsError, NotFoundError, NotSupportedError, SpecError, ImageError,\n"
    "StorageError. Calls qemu-img.");

static PyObject *
moving_create(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path",           "format", "size", "backing_name",
                            "backing_format", "like",   NULL};
    g_autofree char *path = NULL;
    g_autofree char *backing_name = NULL;
    g_autofree char *like = NULL;
    VmrImageNew image = {0};
    Call call;

    if (!PyArg_ParseTupleAndKeywords(
            args, keywords, "O&sK|O&zO&:_create_image", names, arg_path, &path,
            &image.format, &image.virtual_size, arg_path_or_none,
            &backing_name, &image.backing_format, arg_path_or_none, &like))
        return NULL;
    image.path = path;
    image.like = like;
    image.backing_name = backing_name;
    call_enter(&call, module_get_state(module), -1);
    vmr_image_create(&image, NULL, &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    moving_rebase_doc,
    "_rebase_image($module, /, path, backing_name, backing_format)\n"
    "--\n\n"
    "Have a qcow2 image name another backing file; no data is looked at.\n"
    "\n"
    "*path* is the image, which no QEMU may have open; *backing_name* and\n"
    "*backing_format* are for its header. Raises BusyError, NotFoundError,\n"
    "ImageError, NotSupportedError, StorageError. Calls qemu-img.");

static PyObject *
moving_rebase(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path", "backing_name", "backing_format", NULL};
    g_autofree char *path = NULL;
    g_autofree char *backing_name = NULL;
    const char *backing_format;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&O&s:_rebase_image",
                                     names, arg_path, &path, arg_path,
                                     &backing_name, &backing_format))
        return NULL;
    call_enter(&call, module_get_state(module), -1);
    vmr_image_rebase(path, backing_name, backing_format, &call.wait,
                     &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    moving_identity_doc,
    "_file_identity($module, /, path)\n"
    "--\n\n"
    "The device and the inode of a file, and when it was made.\n"
    "\n"
    "*path* is a regular file. The last is in ns since 1970, 0 where the file system\n"
    "does not know. Raises ImageError, NotFoundError, StorageError. Calls statx.");

static PyObject *
moving_identity(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path", NULL};
    g_autofree char *path = NULL;
    vmr_autofd fd = -1;
    guint64 born = 0;
    struct stat st;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&:_file_identity", names,
                                     arg_path, &path))
        return NULL;
    call_enter(&call, module_get_state(module), -1);
    fd = vmr_imagefile_open(path, &st, &call.error);
    if (fd >= 0)
        born = vmr_imagefile_get_birth(fd);
    if (call_leave(&call) < 0)
        return NULL;
    return Py_BuildValue("(KKK)", (guint64)st.st_dev, (guint64)st.st_ino, born);
}

PyDoc_STRVAR(
    moving_remove_doc,
    "_remove_file($module, /, path, dev, ino, born)\n"
    "--\n\n"
    "Remove a file if it is still the one that is meant.\n"
    "\n"
    "*path* is removed if it has the device *dev* and the inode *ino*, was made at\n"
    "*born* (ns since 1970, 0: whenever), and no QEMU has it open, or lets go of it in a\n"
    "moment; one that is gone is fine. Raises DivergedError, BusyError, StorageError.");

typedef struct {
    const char *path;
    unsigned long long dev;
    unsigned long long ino;
    unsigned long long born;
} Removal;

static gboolean
try_removal(gpointer data, const VmrWait *wait G_GNUC_UNUSED, GError **error)
{
    const Removal *removal = data;

    return vmr_image_remove(removal->path, (dev_t)removal->dev,
                            (ino_t)removal->ino, removal->born, error);
}

static PyObject *
moving_remove(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path", "dev", "ino", "born", NULL};
    g_autofree char *path = NULL;
    Removal removal;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&KKK:_remove_file",
                                     names, arg_path, &path, &removal.dev,
                                     &removal.ino, &removal.born))
        return NULL;
    removal.path = path;
    call_enter(&call, module_get_state(module), -1);
    /* a QEMU that has just been told to let go of it takes a moment */
    vmr_wait_settle(&call.wait, VMR_ERROR_BUSY, try_removal, &removal,
                    &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    moving_leave_doc,
    "_leave_file($module, /, dom, path)\n"
    "--\n\n"
    "See to it that the next start of a domain does not want a file.\n"
    "\n"
    "*dom* is a libvirt.virDomain that runs, *path* the file, which is about to be\n"
    "removed: a disk that has it as its persistent source gets the one that it runs\n"
    "on. Raises StateError (a disk runs on it), MirrorError. Calls\n"
    "virDomainGetXMLDesc and virDomainDefineXMLFlags.");

static PyObject *
moving_leave(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom", "path", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autofree char *path = NULL;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&O&:_leave_file", names,
                                     arg_domain, &dom, arg_path, &path))
        return NULL;
    call_enter(&call, state, -1);
    vmr_live_leave(dom.domain, path, &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Paths of a disk's chain as a list, top first; new reference. */
static PyObject *
chain_to_list(const VmrDomDisk *disk)
{
    g_autoptr(PyObject) list = PyList_New(0);

    for (guint i = 0; list && i < disk->chain->len; i++) {
        const VmrLayer *layer = g_ptr_array_index(disk->chain, i);
        g_autoptr(PyObject) path = convert_text(layer->path);

        if (!path || PyList_Append(list, path) < 0)
            return NULL;
    }
    return g_steal_pointer(&list);
}

PyDoc_STRVAR(
    moving_chains_doc,
    "_disk_chains($module, /, dom)\n"
    "--\n\n"
    "The paths of each disk's chain, top first, by target name.\n"
    "\n"
    "*dom* is a libvirt.virDomain that runs. Raises StateError, MirrorError.\n"
    "Calls virDomainGetXMLDesc.");

static PyObject *
moving_chains(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"dom", NULL};
    const ModuleState *state = module_get_state(module);
    g_auto(DomainArg) dom = {.state = state};
    g_autoptr(VmrDomXml) live = NULL;
    g_autoptr(PyObject) chains = NULL;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&:_disk_chains", names,
                                     arg_domain, &dom))
        return NULL;
    call_enter(&call, state, -1);
    live = vmr_live_read(dom.domain, &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    chains = PyDict_New();
    for (guint i = 0; chains && i < live->disks->len; i++) {
        const VmrDomDisk *disk = g_ptr_array_index(live->disks, i);
        g_autoptr(PyObject) chain = chain_to_list(disk);

        if (!chain || PyDict_SetItemString(chains, disk->target, chain) < 0)
            return NULL;
    }
    return g_steal_pointer(&chains);
}

PyDoc_STRVAR(
    moving_backing_doc,
    "_image_backing($module, /, path, format)\n"
    "--\n\n"
    "The backing name and its format, as the header of an image has them.\n"
    "\n"
    "*path* is the image, *format* 'qcow2' or 'raw'. Both are None where there is\n"
    "no backing file. Raises ImageError, NotFoundError, StorageError.");

static PyObject *
moving_backing(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path", "format", NULL};
    g_autofree char *path = NULL;
    g_autoptr(VmrImage) image = NULL;
    const char *format;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&s:_image_backing",
                                     names, arg_path, &path, &format))
        return NULL;
    call_enter(&call, module_get_state(module), -1);
    image = vmr_image_read(path, format, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return Py_BuildValue("(NN)", convert_text(image->backing_name),
                         convert_text(image->backing_format));
}

PyDoc_STRVAR(moving_error_doc,
             "_make_error($module, /, reason, text)\n"
             "--\n\n"
             "The exception that the engine would raise, with libvirt's code.\n"
             "\n"
             "*reason* is the kind of failure ('busy'), *text* what it says. Raises\n"
             "ValueError for another reason.");

static PyObject *
moving_error(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"reason", "text", NULL};
    const char *reason;
    const char *text;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "ss:_make_error", names,
                                     &reason, &text))
        return NULL;
    return errors_make(module_get_state(module), reason, text);
}

PyMethodDef moving_table[] = {
    MODULE_FUNCTION("_plan_move", moving_plan, moving_plan_doc),
    MODULE_FUNCTION("_create_image", moving_create, moving_create_doc),
    MODULE_FUNCTION("_rebase_image", moving_rebase, moving_rebase_doc),
    MODULE_FUNCTION("_file_identity", moving_identity, moving_identity_doc),
    MODULE_FUNCTION("_remove_file", moving_remove, moving_remove_doc),
    MODULE_FUNCTION("_leave_file", moving_leave, moving_leave_doc),
    MODULE_FUNCTION("_disk_chains", moving_chains, moving_chains_doc),
    MODULE_FUNCTION("_image_backing", moving_backing, moving_backing_doc),
    MODULE_FUNCTION("_make_error", moving_error, moving_error_doc),
    {NULL, NULL, 0, NULL},
};
