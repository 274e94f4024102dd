/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "convert.h"

PyObject *
convert_text(const char *text)
{
    return text ? PyUnicode_DecodeFSDefault(text) : Py_NewRef(Py_None);
}

gboolean
convert_set_item(PyObject *tuple, Py_ssize_t index, PyObject *value)
{
    if (!value)
        return FALSE;
    PyStructSequence_SetItem(tuple, index, value);
    return TRUE;
}

int
convert_add_type(PyObject *module, PyStructSequence_Desc *desc,
                 PyTypeObject **type)
{
    *type = PyStructSequence_NewType(desc);
    return *type ? PyModule_AddType(module, *type) : -1;
}
