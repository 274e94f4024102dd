/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * domxml: a domain's XML, live or inactive, as far as disks are concerned:
 * their sources, backing chains, and <mirror ready=>. Pure.
 */

#include <glib.h>
#include <sys/types.h>

#include "layer.h"

G_BEGIN_DECLS

#define VMR_DOMXML_MAX_SIZE (16 * 1024 * 1024)

/* @ready of <mirror>: what libvirt believes of a copy or active commit */
typedef enum {
    VMR_READY_NO,    /* not ready yet */
    VMR_READY_YES,   /* both sides are the same from here on */
    VMR_READY_PIVOT, /* libvirt asked QEMU to pivot */
    VMR_READY_ABORT, /* libvirt asked QEMU to abort */
    VMR_READY_LAST
} VmrReady;

typedef struct {
    char *target;       /* "vda" */
    char *device;       /* "disk", "cdrom", "floppy", "lun" */
    char *bus;          /* "virtio", ..., or NULL */
    gboolean readonly;
    gboolean shareable;
    gboolean transient;
    GPtrArray *chain;   /* of VmrLayer, top first; empty: no medium */
    gboolean chain_ends;/* the XML says where the chain ends */
    VmrLayer *mirror;   /* destination of a running copy, or NULL */
    char *mirror_job;   /* "copy", "active-commit", NULL without mirror */
    VmrReady ready;     /* of mirror */
    GPtrArray *refusals;/* of char *: see vmr_disklist_review() */
} VmrDomDisk;

typedef struct {
    char *name;
    char *uuid;
    char *type;         /* "qemu", "kvm", ... */
    char *machine;      /* "pc-i440fx-7.2", ..., or NULL */
    gboolean running;   /* it has an id: the XML is the live one */
    GPtrArray *disks;   /* of VmrDomDisk */
    gboolean has_qemu_user; /* the next two are known */
    uid_t qemu_uid;     /* of its QEMU, by the DAC label */
    gid_t qemu_gid;
} VmrDomXml;

/* Parse virDomainGetXMLDesc()'s text. Errors: INVALID_SPEC. */
VmrDomXml *vmr_domxml_parse(const char *xml, GError **error);

/* Free @dom; NULL is fine. */
void vmr_domxml_free(VmrDomXml *dom);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrDomXml, vmr_domxml_free)

/* The element of the domain's <metadata> whose namespace is @uri into *@text,
 * without the namespace (as virDomainGetMetadata() gives it); owned; NULL where
 * there is none. Errors: INVALID_SPEC. */
gboolean vmr_domxml_dup_metadata(const char *xml, const char *uri, char **text,
                                 GError **error);

/* @xml, a persistent definition, with @path of @format as the source of the
 * disk @target and without its backing chain, which libvirt then reads from the
 * headers; owned. Only disks on files and block devices.
 * Errors: INVALID_SPEC, NOT_FOUND, NOT_SUPPORTED. */
char *vmr_domxml_set_source(const char *xml, const char *target,
                            const char *path, const char *format,
                            GError **error);

/* The disk whose target is @name, or whose source path is, as libvirt looks
 * disks up; borrowed, NULL: none. */
VmrDomDisk *vmr_domxml_find(const VmrDomXml *dom, const char *name);

/* The path of the top layer of @disk, borrowed, NULL where it has none. */
const char *vmr_domdisk_source(const VmrDomDisk *disk);

/* Whether a layer of @disk is tuned with what new files must be given. */
gboolean vmr_domdisk_has_settings(const VmrDomDisk *disk);

/* Whether @disk shows a block job that QEMU has ended and libvirt is letting go of:
 * it is of no kind any more. */
gboolean vmr_domdisk_job_has_ended(const VmrDomDisk *disk);

/* "no", "yes", "pivot" or "abort"; static. */
const char *vmr_ready_name(VmrReady ready);

G_END_DECLS
