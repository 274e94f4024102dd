/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "args.h"

#include <libvirt/virterror.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "errors.h"

/* A kind of libvirt-python objects. */
typedef struct {
    const char *class_name;   /* for error texts */
    const char *capsule_name; /* libvirt-python names it after the C type */
    int freed_code;           /* libvirt's code for a pointer that is not one */
} Kind;

static const Kind domain_kind = {"libvirt.virDomain", "virDomainPtr",
                                 VIR_ERR_INVALID_DOMAIN};
static const Kind snapshot_kind = {"libvirt.virDomainSnapshot",
                                   "virDomainSnapshotPtr",
                                   VIR_ERR_INVALID_DOMAIN_SNAPSHOT};

/* The name of the class of @object, a new reference; NULL: exception. */
static PyObject *
class_name(PyObject *object)
{
    return PyObject_GetAttrString((PyObject *)Py_TYPE(object), "__name__");
}

/* Raise TypeError: @what was expected and @object is none. */
static void
raise_type(const char *what, PyObject *object)
{
    g_autoptr(PyObject) name = class_name(object);

    if (name)
        PyErr_Format(PyExc_TypeError, "%s, not %U", what, name);
}

static void
raise_kind(const Kind *kind, PyObject *object)
{
    g_autofree char *what = g_strdup_printf("expected a %s", kind->class_name);

    raise_type(what, object);
}

/* *@value is the attribute @name of @object, a new reference, or NULL where it
 * has none; 0, or -1 with an exception. */
static int
get_optional_attr(PyObject *object, const char *name, PyObject **value)
{
    *value = PyObject_GetAttrString(object, name);
    if (*value)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_AttributeError))
        return -1;
    PyErr_Clear();
    return 0;
}

/* The pointer in @capsule, the `_o` of @object; NULL: exception. */
static void *
capsule_pointer(PyObject *capsule, PyObject *object, const Kind *kind,
                const ModuleState *state)
{
    const char *name;

    if (capsule == Py_None) {
        g_autoptr(GError) error = NULL;

        vmr_error_set_virt(&error, VMR_ERROR_INVALID_SPEC, kind->freed_code,
                           "this %s object was freed", kind->class_name);
        errors_raise(state, error);
        return NULL;
    }
    if (!PyCapsule_CheckExact(capsule)) {
        raise_kind(kind, object);
        return NULL;
    }
    name = PyCapsule_GetName(capsule);
    if (!name || strcmp(name, kind->capsule_name) != 0) {
        PyErr_Format(PyExc_TypeError, "expected a %s (%s), not a %s",
                     kind->class_name, kind->capsule_name,
                     name ? name : "capsule without name");
        return NULL;
    }
    return PyCapsule_GetPointer(capsule, name);
}

/* The pointer of libvirt's that @object, or its `.dom` for a domain, holds.
 * *@holder is the one of the two, a new reference. NULL: exception. */
static void *
find_pointer(PyObject *object, const Kind *kind, const ModuleState *state,
             PyObject **holder)
{
    g_autoptr(PyObject) capsule = NULL;
    g_autoptr(PyObject) inner = NULL;
    void *pointer;

    if (get_optional_attr(object, "_o", &capsule) < 0)
        return NULL;
    if (!capsule && kind == &domain_kind) {
        if (get_optional_attr(object, "dom", &inner) < 0)
            return NULL;
        if (inner && get_optional_attr(inner, "_o", &capsule) < 0)
            return NULL;
    }
    if (!capsule) {
        raise_kind(kind, object);
        return NULL;
    }
    pointer = capsule_pointer(capsule, object, kind, state);
    if (pointer)
        *holder = Py_NewRef(inner ? inner : object);
    return pointer;
}

void
domain_arg_clear(DomainArg *arg)
{
    g_clear_pointer(&arg->domain, vmr_domain_free);
    Py_CLEAR(arg->object);
    Py_CLEAR(arg->given);
}

int
arg_domain(PyObject *object, void *into)
{
    DomainArg *arg = into;
    virDomainPtr pointer =
        find_pointer(object, &domain_kind, arg->state, &arg->object);

    if (!pointer)
        return 0;
    arg->domain = vmr_domain_new(vmr_hv_libvirt(), pointer);
    arg->given = Py_NewRef(object);
    return 1;
}

void
snapshot_arg_clear(SnapshotArg *arg)
{
    domain_arg_clear(&arg->dom);
    Py_CLEAR(arg->object);
    g_clear_pointer(&arg->name, g_free);
}

int
arg_snapshot(PyObject *object, void *into)
{
    SnapshotArg *arg = into;
    g_autoptr(PyObject) holder = NULL;
    g_autoptr(PyObject) domain = NULL;
    g_autoptr(PyObject) name = NULL;
    const char *text;

    if (!find_pointer(object, &snapshot_kind, arg->dom.state, &holder))
        return 0;
    domain = PyObject_CallMethod(object, "domain", NULL);
    if (!domain || !arg_domain(domain, &arg->dom))
        return 0;
    name = PyObject_CallMethod(object, "getName", NULL);
    if (!name)
        return 0;
    text = PyUnicode_AsUTF8AndSize(name, NULL);
    if (!text)
        return 0;
    arg->object = Py_NewRef(object);
    arg->name = g_strdup(text);
    return 1;
}

int
arg_timeout(PyObject *object, void *into)
{
    double *seconds = into;
    double value;

    if (object == Py_None) {
        *seconds = -1;
        return 1;
    }
    if (PyBool_Check(object)) {
        raise_type("timeout must be None or seconds", object);
        return 0;
    }
    value = PyFloat_AsDouble(object);
    if (PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            raise_type("timeout must be None or seconds", object);
        return 0;
    }
    if (isnan(value) || value < 0) {
        PyErr_Format(PyExc_ValueError,
                     "timeout must be None or seconds >= 0, not %R", object);
        return 0;
    }
    *seconds = value;
    return 1;
}

/* An int from 0 to @max into *@value; @what names it in error texts. */
static int
arg_unsigned(PyObject *object, const char *what, gulong max, gulong *value)
{
    g_autoptr(PyObject) number = NULL;

    if (PyBool_Check(object) || !PyIndex_Check(object)) {
        g_autofree char *expected = g_strdup_printf("%s must be an int", what);

        raise_type(expected, object);
        return 0;
    }
    number = PyNumber_Index(object);
    if (!number)
        return 0;
    *value = PyLong_AsUnsignedLong(number);
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_OverflowError))
        return 0;
    if (PyErr_Occurred() || *value > max) {
        PyErr_Format(PyExc_ValueError, "%s must be from 0 to %lu, not %S", what,
                     max, number);
        return 0;
    }
    return 1;
}

int
arg_flags(PyObject *object, void *into)
{
    gulong value;

    if (!arg_unsigned(object, "flags", UINT_MAX, &value))
        return 0;
    *(guint *)into = (guint)value;
    return 1;
}

int
arg_bandwidth(PyObject *object, void *into)
{
    return arg_unsigned(object, "bandwidth", ULONG_MAX, into);
}

int
arg_path(PyObject *object, void *into)
{
    g_autoptr(PyObject) bytes = NULL;
    char *path;

    if (!PyUnicode_FSConverter(object, &bytes))
        return 0;
    path = PyBytes_AsString(bytes);
    if (!path)
        return 0;
    *(char **)into = g_strdup(path);
    return 1;
}

int
arg_path_or_none(PyObject *object, void *into)
{
    return object == Py_None ? 1 : arg_path(object, into);
}

static int
append_diskspec(PyObject *item, const ModuleState *state, VmrSnapSpec *spec)
{
    g_autoptr(GError) error = NULL;
    const char *text;
    VmrDiskSpec *disk;
    Py_ssize_t size;

    if (!PyUnicode_Check(item)) {
        raise_type("a diskspec must be a str", item);
        return 0;
    }
    text = PyUnicode_AsUTF8AndSize(item, &size);
    if (!text)
        return 0;
    if (strlen(text) != (gsize)size) {
        PyErr_SetString(PyExc_ValueError,
                        "a diskspec must not contain a null character");
        return 0;
    }
    disk = vmr_diskspec_parse(text, &error);
    if (!disk) {
        errors_raise(state, error);
        return 0;
    }
    g_ptr_array_add(spec->disks, disk);
    return 1;
}

int
arg_diskspecs(PyObject *disks, const ModuleState *state, VmrSnapSpec *spec)
{
    g_autoptr(PyObject) iterator = NULL;

    if (PyUnicode_Check(disks))
        return append_diskspec(disks, state, spec);
    iterator = PyObject_GetIter(disks);
    if (!iterator) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            raise_type("disks must be a diskspec or an iterable of them",
                       disks);
        return 0;
    }
    for (;;) {
        g_autoptr(PyObject) item = PyIter_Next(iterator);

        if (!item)
            return PyErr_Occurred() ? 0 : 1;
        if (!append_diskspec(item, state, spec))
            return 0;
    }
}
