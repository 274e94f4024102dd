/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "module.h"

#include "call.h"
#include "copy_type.h"
#include "errors.h"
#include "functions.h"
#include "hold.h"
#include "marks.h"
#include "moving.h"
#include "recovery.h"
#include "sides.h"
#include "snapshot_type.h"

#include "../core/snapshot.h"

typedef struct {
    const char *name;
    long value;
} Constant;

/* The delete flags of the seed: libvirt's own three, and the two that libvirt
 * does not have. */
static const Constant constants[] = {
    {"VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN",
     VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN},
    {"VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY",
     VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY},
    {"VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY",
     VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY},
    {"VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_ABORT",
     VMR_SNAPSHOT_DELETE_MIRROR_ABORT},
    {"VIR_DOMAIN_SNAPSHOT_DELETE_MIRROR_PIVOT",
     VMR_SNAPSHOT_DELETE_MIRROR_PIVOT},
};

ModuleState *
module_get_state(PyObject *module)
{
    return PyModule_GetState(module);
}

static int
module_exec(PyObject *module)
{
    if (errors_setup(module) < 0 || call_setup(module) < 0 ||
        snapshot_setup_types(module) < 0 || copy_setup_types(module) < 0 ||
        PyModule_AddFunctions(module, copy_functions) < 0 ||
        PyModule_AddFunctions(module, marks_table) < 0 ||
        PyModule_AddFunctions(module, moving_table) < 0 ||
        PyModule_AddFunctions(module, sides_table) < 0 ||
        PyModule_AddFunctions(module, hold_table) < 0 ||
        PyModule_AddFunctions(module, recovery_table) < 0)
        return -1;
    for (gsize i = 0; i < G_N_ELEMENTS(constants); i++) {
        if (PyModule_AddIntConstant(module, constants[i].name,
                                    constants[i].value) < 0)
            return -1;
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ModuleState *state = module_get_state(module);

    Py_VISIT(state->main_thread);
    Py_VISIT(state->ident);
    Py_VISIT(state->snapshot_type);
    Py_VISIT(state->disk_type);
    Py_VISIT(state->progress_type);
    Py_VISIT(state->figures_type);
    Py_VISIT(state->copy_type);
    Py_VISIT(state->copy_progress_type);
    Py_VISIT(state->copy_report_type);
    for (gsize i = 0; i < G_N_ELEMENTS(state->error_types); i++)
        Py_VISIT(state->error_types[i]);
    return 0;
}

static int
module_clear(PyObject *module)
{
    ModuleState *state = module_get_state(module);

    Py_CLEAR(state->main_thread);
    Py_CLEAR(state->ident);
    Py_CLEAR(state->snapshot_type);
    Py_CLEAR(state->disk_type);
    Py_CLEAR(state->progress_type);
    Py_CLEAR(state->figures_type);
    Py_CLEAR(state->copy_type);
    Py_CLEAR(state->copy_progress_type);
    Py_CLEAR(state->copy_report_type);
    for (gsize i = 0; i < G_N_ELEMENTS(state->error_types); i++)
        Py_CLEAR(state->error_types[i]);
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "virmirror._core",
    .m_doc = PyDoc_STR("The engine of virmirror; its names are documented and "
                       "used as those of virmirror."),
    .m_size = sizeof(ModuleState),
    .m_methods = functions_table,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&module_def);
}
