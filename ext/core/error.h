/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * error: the one GError domain of the engine.
 *
 * A code says what the caller can do about the failure; the detail beside it
 * keeps the disk, the phase and libvirt's own code, domain and texts. This is
 * also the only place that reads libvirt's thread-local last error.
 */

#include <glib.h>

G_BEGIN_DECLS

#define VMR_ERROR (vmr_error_quark())

typedef enum {
    VMR_ERROR_INVALID_SPEC,  /* what was asked for makes no sense: correct it */
    VMR_ERROR_INVALID_STATE, /* not possible now; the text says what is */
    VMR_ERROR_NOT_FOUND,     /* no such disk, snapshot, file or record */
    VMR_ERROR_EXISTS,        /* a file or record is there already */
    VMR_ERROR_BUSY,          /* somebody is at it: try again later */
    VMR_ERROR_NOT_READY,     /* a mirror is not ready yet: wait for it */
    VMR_ERROR_NOT_SUPPORTED, /* libvirt, QEMU or virmirror cannot do this */
    VMR_ERROR_TIMEOUT,       /* the time given ran out */
    VMR_ERROR_CANCELLED,     /* interrupted by the caller */
    VMR_ERROR_JOB_FAILED,    /* the block job failed */
    VMR_ERROR_IMAGE,         /* an image or its header is not what it must be */
    VMR_ERROR_IO,            /* a system call on a file failed */
    VMR_ERROR_JOURNAL,       /* the record of a mirrored snapshot is unusable */
    VMR_ERROR_DIVERGED,      /* what runs is not what was meant: see recovery */
    VMR_ERROR_VIRT,          /* libvirt said no: see the detail */
    VMR_ERROR_LAST
} VmrErrorCode;

typedef struct {
    int virt_code;    /* virErrorNumber */
    int virt_domain;  /* virErrorDomain, VIR_FROM_DOMAIN for our own errors */
    char *virt_text;  /* libvirt's message, or NULL for our own errors */
    char *virt_str[3];/* libvirt's str1, str2, str3 */
    int virt_int[2];  /* libvirt's int1, int2 */
    char *disk;       /* target name of the disk concerned, or NULL */
    char *phase;      /* "create", "wait", "pivot", "abort", ..., or NULL */
    gboolean partial; /* something was changed and stays changed */
    gboolean unknown; /* a call has not come back: it may still take effect */
} VmrErrorDetail;

/* The quark of the engine's errors. Any thread. */
GQuark vmr_error_quark(void);

/* The lower-case name of @code ("invalid-spec"); static, never NULL. */
const char *vmr_error_code_name(VmrErrorCode code);

/* The detail of @error, borrowed; NULL if @error is of another domain. */
const VmrErrorDetail *vmr_error_get_detail(const GError *error);

/* Like g_set_error() in our domain, with @virt_code (a virErrorNumber) in
 * place of the one that stands for @code by default. */
void vmr_error_set_virt(GError **error, VmrErrorCode code, int virt_code,
                        const char *format, ...) G_GNUC_PRINTF(4, 5);

/* Set @error (VMR_ERROR_IO) from @errnum of a failed system call on @path;
 * @action says what was tried ("open"). */
void vmr_error_set_errno(GError **error, int errnum, const char *action,
                         const char *path);

/* Set @error (VMR_ERROR_VIRT) from the calling thread's last libvirt error:
 * to be called on the line after the libvirt call that failed. */
void vmr_error_set_from_libvirt(GError **error);

/* Name the @disk and @phase of *@error where it has none yet; NULL for what is
 * not known. Nothing happens if no error is set. */
void vmr_error_annotate(GError **error, const char *disk, const char *phase);

/* Append a note to *@error: what a clean-up could not do, what is left. The
 * code stays that of the first error. */
void vmr_error_note(GError **error, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/* Say of *@error that something was changed and stays changed. */
void vmr_error_mark_partial(GError **error);

/* Say of *@error whether a call that has not come back may still take effect. */
void vmr_error_set_unknown(GError **error, gboolean unknown);

/* Whether a call behind @error may still take effect; FALSE for NULL. */
gboolean vmr_error_is_unknown(const GError *error);

G_END_DECLS
