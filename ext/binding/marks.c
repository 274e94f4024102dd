/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "marks.h"

#include "args.h"
#include "call.h"

#include "../core/autofd.h"
#include "../core/copyfit.h"
#include "../core/copymark.h"
#include "../core/imagefile.h"
#include "../core/share.h"
#include "../core/trust.h"

/* What is asked, and answered, about one copy. */
typedef struct {
    const char *source; /* or NULL */
    const char *destination;
    VmrStamp source_stamp;
    VmrStamp destination_stamp;
    const char *checksum; /* of the source; NULL: the one in the mark */
    VmrCopymark mark;     /* of the destination */
} Marked;

/* Open the destination, and look at both; -1 is an error. */
static int
marked_open(Marked *marked, GError **error)
{
    struct stat st;
    vmr_autofd fd = -1;

    if (marked->source &&
        !vmr_stamp_take(marked->source, &marked->source_stamp, error))
        return -1;
    fd = vmr_imagefile_open(marked->destination, &st, error);
    if (fd < 0 ||
        !vmr_stamp_take_fd(fd, marked->destination,
                           &marked->destination_stamp, error) ||
        !vmr_copymark_get(fd, marked->destination, &marked->mark, error))
        return -1;
    return vmr_fd_steal(&fd);
}

PyDoc_STRVAR(
    marks_state_doc,
    "_copy_state($module, /, source, destination)\n"
    "--\n\n"
    "What the mark of a file says: 'fits', 'incomplete', 'other' or 'none'.\n"
    "\n"
    "'fits': *destination* is a complete copy of *source*, and neither has changed\n"
    "since; the source is read where only its checksum can tell that. Raises\n"
    "ExistsError (others may write *destination*), NotFoundError, ImageError,\n"
    "StorageError, BusyError, DivergedError.");

/* The mark of a file that somebody else can write is anybody's word. */
static gboolean
look(const char *source, const char *destination, VmrCopyFit *fit,
     const VmrWait *wait, GError **error)
{
    VmrTrust trust = vmr_trust_new_for_copy(NULL, source);

    return vmr_trust_check_path(&trust, destination, error) &&
           vmr_copyfit_look(source, destination, fit, wait, error);
}

static PyObject *
marks_state(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"source", "destination", NULL};
    g_autofree char *source = NULL;
    g_autofree char *destination = NULL;
    VmrCopyFit fit = VMR_COPYFIT_UNMARKED;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&O&:_copy_state", names,
                                     arg_path, &source, arg_path,
                                     &destination))
        return NULL;
    call_enter(&call, module_get_state(module), -1);
    look(source, destination, &fit, &call.wait, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return PyUnicode_FromString(vmr_copyfit_name(fit));
}

/* Put a mark on the destination: with a source the one that is there, as COMPLETE,
 * for the destination as it is now; else INCOMPLETE, or (@unmark) none. */
static gboolean
mark(Marked *marked, gboolean unmark, GError **error)
{
    vmr_autofd fd = marked_open(marked, error);
    VmrCopymark then = {.state = unmark ? VMR_COPYMARK_NONE
                                        : VMR_COPYMARK_INCOMPLETE};

    if (fd < 0)
        return FALSE;
    if (marked->source)
        vmr_copymark_complete(&then, &marked->source_stamp,
                              &marked->destination_stamp,
                              marked->checksum ? marked->checksum
                                               : marked->mark.checksum);
    return vmr_copymark_set(fd, marked->destination, &then, error);
}

PyDoc_STRVAR(
    marks_stamp_doc,
    "_file_stamp($module, /, path)\n"
    "--\n\n"
    "Which file *path* is, and in which state.\n"
    "\n"
    "A tuple of device, inode (of a block device its number and 0), when it was made\n"
    "(0: not known), size in bytes, and when its data were changed last; times in ns\n"
    "since 1970, 0 for a device. Raises ImageError, NotFoundError, StorageError.");

static PyObject *
marks_stamp(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"path", NULL};
    g_autofree char *path = NULL;
    VmrStamp stamp = {0};
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&:_file_stamp", names,
                                     arg_path, &path))
        return NULL;
    call_enter(&call, module_get_state(module), -1);
    vmr_stamp_take(path, &stamp, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return Py_BuildValue("(KKKKL)", stamp.dev, stamp.ino, stamp.born,
                         stamp.size, stamp.mtime);
}

PyDoc_STRVAR(
    marks_mark_doc,
    "_mark_copy($module, /, destination, source=None, checksum=None, unmark=False)\n"
    "--\n\n"
    "Mark *destination* as a copy: a complete one of *source*, or else one to be made.\n"
    "\n"
    "*checksum* is that of *source*; None leaves the one in the mark that is there.\n"
    "*unmark* takes the mark away. Raises NotFoundError, ImageError, StorageError.");

static PyObject *
marks_mark(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"destination", "source", "checksum", "unmark", NULL};
    g_autofree char *source = NULL;
    g_autofree char *destination = NULL;
    Marked marked = {0};
    int unmark = 0;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&|O&zp:_mark_copy",
                                     names, arg_path, &destination,
                                     arg_path_or_none, &source,
                                     &marked.checksum, &unmark))
        return NULL;
    marked.source = source;
    marked.destination = destination;
    call_enter(&call, module_get_state(module), -1);
    mark(&marked, unmark != 0, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    marks_is_rebased_doc,
    "_is_rebased_copy($module, /, source, destination)\n"
    "--\n\n"
    "Whether *source* and *destination*, two qcow2 images, differ in nothing but the\n"
    "names of their backing files.\n"
    "\n"
    "Both are read. Raises NotFoundError, ImageError, StorageError, BusyError,\n"
    "DivergedError.");

static PyObject *
marks_is_rebased(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"source", "destination", NULL};
    g_autofree char *source = NULL;
    g_autofree char *destination = NULL;
    gboolean same = FALSE;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O&O&:_is_rebased_copy",
                                     names, arg_path, &source, arg_path,
                                     &destination))
        return NULL;
    call_enter(&call, module_get_state(module), -1);
    vmr_copyfit_compare_rebased(source, destination, &same, &call.wait,
                                &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return PyBool_FromLong(same);
}

PyDoc_STRVAR(
    marks_note_user_doc,
    "_note_user($module, /, fd, path, domain, snapshot)\n"
    "--\n\n"
    "Note on a copy that the move of a domain relies on it, for good.\n"
    "\n"
    "*fd* is open on the copy, whose *path* is for error texts, and whose lock the\n"
    "caller has; *domain* is a UUID, *snapshot* the name of the snapshot of the move.\n"
    "Raises StorageError.");

static PyObject *
marks_note_user(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", "path", "domain", "snapshot", NULL};
    g_autofree char *path = NULL;
    g_autofree char *user = NULL;
    const char *domain;
    const char *snapshot;
    int fd;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO&ss:_note_user", names,
                                     &fd, arg_path, &path, &domain, &snapshot))
        return NULL;
    user = vmr_share_user(domain, snapshot);
    call_enter(&call, module_get_state(module), -1);
    vmr_share_note(fd, path, user, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(
    marks_has_other_users_doc,
    "_has_other_users($module, /, fd, path, domain, snapshot=None)\n"
    "--\n\n"
    "Whether others than a move of a domain have noted that they rely on a copy.\n"
    "\n"
    "*fd* is open on the copy, whose *path* is for error texts; *domain* is a UUID,\n"
    "*snapshot* the name of the snapshot of the move, None: of any move. Raises\n"
    "StorageError.");

static PyObject *
marks_has_other_users(PyObject *module, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"fd", "path", "domain", "snapshot", NULL};
    g_autofree char *path = NULL;
    const char *domain;
    const char *snapshot = NULL;
    gboolean others = FALSE;
    int fd;
    Call call;

    if (!PyArg_ParseTupleAndKeywords(args, keywords, "iO&s|z:_has_other_users",
                                     names, &fd, arg_path, &path, &domain,
                                     &snapshot))
        return NULL;
    call_enter(&call, module_get_state(module), -1);
    vmr_share_has_others(fd, path, domain, snapshot, &others, &call.error);
    if (call_leave(&call) < 0)
        return NULL;
    return PyBool_FromLong(others);
}

PyMethodDef marks_table[] = {
    MODULE_FUNCTION("_is_rebased_copy", marks_is_rebased, marks_is_rebased_doc),
    MODULE_FUNCTION("_note_user", marks_note_user, marks_note_user_doc),
    MODULE_FUNCTION("_has_other_users", marks_has_other_users,
                    marks_has_other_users_doc),
    MODULE_FUNCTION("_copy_state", marks_state, marks_state_doc),
    MODULE_FUNCTION("_file_stamp", marks_stamp, marks_stamp_doc),
    MODULE_FUNCTION("_mark_copy", marks_mark, marks_mark_doc),
    {NULL, NULL, 0, NULL},
};
