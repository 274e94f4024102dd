/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "error.h"

#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <string.h>

typedef struct {
    const char *name;
    int virt_code; /* what a libvirt-shaped call answers by default */
} CodeInfo;

/* VIR_ERR_OPERATION_TIMEOUT means "the VM does not answer" to managers, so a
 * wait that merely ran out does not carry it: see vmr_wait_call(). */
static const CodeInfo code_table[VMR_ERROR_LAST] = {
    [VMR_ERROR_INVALID_SPEC] = {"invalid-spec", VIR_ERR_INVALID_ARG},
    [VMR_ERROR_INVALID_STATE] = {"invalid-state", VIR_ERR_OPERATION_INVALID},
    [VMR_ERROR_NOT_FOUND] = {"not-found", VIR_ERR_INVALID_ARG},
    [VMR_ERROR_EXISTS] = {"exists", VIR_ERR_CONFIG_UNSUPPORTED},
    [VMR_ERROR_BUSY] = {"busy", VIR_ERR_BLOCK_COPY_ACTIVE},
    [VMR_ERROR_NOT_READY] = {"not-ready", VIR_ERR_BLOCK_COPY_ACTIVE},
    [VMR_ERROR_NOT_SUPPORTED] = {"not-supported",
                                 VIR_ERR_OPERATION_UNSUPPORTED},
    [VMR_ERROR_TIMEOUT] = {"timeout", VIR_ERR_BLOCK_COPY_ACTIVE},
    [VMR_ERROR_CANCELLED] = {"cancelled", VIR_ERR_OPERATION_ABORTED},
    [VMR_ERROR_JOB_FAILED] = {"job-failed", VIR_ERR_OPERATION_FAILED},
    [VMR_ERROR_IMAGE] = {"image", VIR_ERR_CONFIG_UNSUPPORTED},
    [VMR_ERROR_IO] = {"io", VIR_ERR_SYSTEM_ERROR},
    [VMR_ERROR_JOURNAL] = {"journal", VIR_ERR_OPERATION_INVALID},
    [VMR_ERROR_DIVERGED] = {"diverged", VIR_ERR_OPERATION_INVALID},
    [VMR_ERROR_VIRT] = {"virt", VIR_ERR_INTERNAL_ERROR},
};

/* the names that GLib's macro builds upon */
typedef VmrErrorDetail VmrErrorPrivate;

static void
vmr_error_private_init(VmrErrorDetail *detail)
{
    memset(detail, 0, sizeof(*detail));
    detail->virt_domain = VIR_FROM_DOMAIN;
}

static void
vmr_error_private_copy(const VmrErrorDetail *src, VmrErrorDetail *dest)
{
    *dest = *src;
    dest->virt_text = g_strdup(src->virt_text);
    for (gsize i = 0; i < G_N_ELEMENTS(src->virt_str); i++)
        dest->virt_str[i] = g_strdup(src->virt_str[i]);
    dest->disk = g_strdup(src->disk);
    dest->phase = g_strdup(src->phase);
}

static void
vmr_error_private_clear(VmrErrorDetail *detail)
{
    g_free(detail->virt_text);
    for (gsize i = 0; i < G_N_ELEMENTS(detail->virt_str); i++)
        g_free(detail->virt_str[i]);
    g_free(detail->disk);
    g_free(detail->phase);
}

G_DEFINE_EXTENDED_ERROR(VmrError, vmr_error)

const char *
vmr_error_code_name(VmrErrorCode code)
{
    g_return_val_if_fail((unsigned)code < VMR_ERROR_LAST, "unknown");
    return code_table[code].name;
}

static VmrErrorDetail *
error_detail(const GError *error)
{
    if (!error || error->domain != VMR_ERROR)
        return NULL;
    return vmr_error_get_private(error);
}

const VmrErrorDetail *
vmr_error_get_detail(const GError *error)
{
    VmrErrorDetail *detail = error_detail(error);

    /* g_set_error() knows nothing of libvirt's codes: fill in the default */
    if (detail && detail->virt_code == 0)
        detail->virt_code = code_table[error->code].virt_code;
    return detail;
}

void
vmr_error_set_virt(GError **error, VmrErrorCode code, int virt_code,
                   const char *format, ...)
{
    va_list args;

    if (!error)
        return;
    va_start(args, format);
    *error = g_error_new_valist(VMR_ERROR, code, format, args);
    va_end(args);
    error_detail(*error)->virt_code = virt_code;
}

void
vmr_error_set_errno(GError **error, int errnum, const char *action,
                    const char *path)
{
    VmrErrorCode code = errnum == ENOENT ? VMR_ERROR_NOT_FOUND : VMR_ERROR_IO;

    vmr_error_set_virt(error, code, VIR_ERR_SYSTEM_ERROR,
                       "cannot %s '%s': %s", action, path, g_strerror(errnum));
}

void
vmr_error_set_from_libvirt(GError **error)
{
    virErrorPtr last = virGetLastError();
    VmrErrorDetail *detail;

    if (!error)
        return;
    if (!last || last->code == VIR_ERR_OK) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_VIRT,
                    "libvirt failed without saying why");
        return;
    }
    *error = g_error_new_literal(VMR_ERROR, VMR_ERROR_VIRT,
                                 last->message ? last->message : "unknown");
    detail = error_detail(*error);
    detail->virt_code = last->code;
    detail->virt_domain = last->domain;
    detail->virt_text = g_strdup(last->message);
    detail->virt_str[0] = g_strdup(last->str1);
    detail->virt_str[1] = g_strdup(last->str2);
    detail->virt_str[2] = g_strdup(last->str3);
    detail->virt_int[0] = last->int1;
    detail->virt_int[1] = last->int2;
}

void
vmr_error_annotate(GError **error, const char *disk, const char *phase)
{
    VmrErrorDetail *detail = error ? error_detail(*error) : NULL;

    if (!detail)
        return;
    if (!detail->disk)
        detail->disk = g_strdup(disk);
    if (!detail->phase)
        detail->phase = g_strdup(phase);
}

void
vmr_error_note(GError **error, const char *format, ...)
{
    g_autofree char *note = NULL;
    g_autofree char *message = NULL;
    va_list args;

    if (!error || !*error)
        return;
    va_start(args, format);
    note = g_strdup_vprintf(format, args);
    va_end(args);
    message = g_steal_pointer(&(*error)->message);
    (*error)->message = g_strdup_printf("%s; %s", message, note);
}

void
vmr_error_mark_partial(GError **error)
{
    VmrErrorDetail *detail = error ? error_detail(*error) : NULL;

    if (detail)
        detail->partial = TRUE;
}

void
vmr_error_set_unknown(GError **error, gboolean unknown)
{
    VmrErrorDetail *detail = error ? error_detail(*error) : NULL;

    if (detail)
        detail->unknown = unknown;
}

gboolean
vmr_error_is_unknown(const GError *error)
{
    const VmrErrorDetail *detail = error_detail(error);

    return detail && detail->unknown;
}
