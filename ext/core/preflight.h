/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * preflight: what is looked at, and what can be found wrong with a domain and
 * its disks, before anything is planned for them. Nothing is changed.
 */

#include "chain.h"
#include "findings.h"
#include "hv.h"

G_BEGIN_DECLS

typedef struct {
    const VmrDomain *dom; /* borrowed */
    VmrDomXml *live;
    VmrDomXml *inactive;  /* NULL: transient domain */
    VmrFindings *findings;
    VmrErrorCode code;    /* that all findings have, or INVALID_SPEC */
    GHashTable *folders;  /* of char *: those that were looked at */
} VmrPreflight;

/* Read the definitions of @dom, which must outlive the result.
 * Errors: INVALID_STATE (it does not run), VIRT, TIMEOUT, CANCELLED. */
VmrPreflight *vmr_preflight_open(const VmrDomain *dom, const VmrWait *wait,
                                 GError **error);

/* Free @flight; NULL is fine. */
void vmr_preflight_free(VmrPreflight *flight);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrPreflight, vmr_preflight_free)

/* Note a finding on the disk @target (NULL: on the whole). */
void vmr_preflight_found(VmrPreflight *flight, const char *target,
                         VmrErrorCode code, int virt_code, const char *format,
                         ...) G_GNUC_PRINTF(5, 6);

/* The same for what a function found; takes @error. */
void vmr_preflight_found_error(VmrPreflight *flight, const char *target,
                               GError *error);

/* TRUE if nothing was found; else all of it in one error. */
gboolean vmr_preflight_report(const VmrPreflight *flight, GError **error);

/* libvirt and QEMU are new enough, no mirrored snapshot is under way, and no
 * snapshot has the name @snapshot; a job on the whole domain is found. Errors: NOT_SUPPORTED, BUSY, EXISTS, JOURNAL,
 * VIRT, TIMEOUT, CANCELLED. */
gboolean vmr_preflight_check_domain(VmrPreflight *flight,
                                    const char *snapshot, const VmrWait *wait,
                                    GError **error);

/* The disk @name (target, or path of its source), borrowed, and its chain as
 * headers and libvirt agree on it into *@frozen (of VmrImage, owned, NULL if
 * they do not). What is wrong with them is found; NULL: no such disk. */
const VmrDomDisk *vmr_preflight_disk(VmrPreflight *flight, const char *name,
                                     GPtrArray **frozen);

/* @path is to be created for the disk @target as its @role: it must not be
 * there, and its folder must, and be such that files can be made in it. */
void vmr_preflight_absent(VmrPreflight *flight, const char *target,
                          const char *path, const char *role);

/* @path is to be written for the disk @target: no disk of the domain may use
 * that file, nor what it stands on. */
void vmr_preflight_unused(VmrPreflight *flight, const char *target,
                          const char *path);

/* Files are to be made in @folder for the disk @target, and QEMU is to open them. What
 * is wrong with a folder is told once. */
void vmr_preflight_writable(VmrPreflight *flight, const char *target,
                            const char *folder);

/* @path is to be written for the disk @target, on @source, as its @role: that must
 * not last less than what it stands for, unless the caller has @named the place;
 * and nothing lasts among device nodes. TRUE: it does last less. */
gboolean vmr_preflight_lasts_less(VmrPreflight *flight, const char *target,
                                  const char *source, const char *path,
                                  const char *role, gboolean named);

/* @path is to be a frozen layer of the disk @target: disks of the domain may use
 * that file below their tops, since nobody writes to it there. */
void vmr_preflight_shareable(VmrPreflight *flight, const char *target,
                             const char *path);

/* Whether two paths are, or would be, the same file. */
gboolean vmr_preflight_same_place(const char *a, const char *b);

/* What two paths have in common that must not both be written to: "the same file
 * as", "on the same storage as" (static), or NULL. */
const char *vmr_preflight_clash(const char *a, const char *b);

G_END_DECLS
