/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * record: a mirrored snapshot as data: its disks, their files, how far it
 * got; and its XML form, which the journal stores. Pure.
 */

#include <glib.h>

#include "iotune.h"

G_BEGIN_DECLS

#define VMR_RECORD_VERSION 1
#define VMR_RECORD_MAX_SIZE (256 * 1024)

/* How far the whole snapshot got: the step that was begun last. */
typedef enum {
    VMR_STATE_CREATING,
    VMR_STATE_MIRRORING,
    VMR_STATE_PIVOTING,
    VMR_STATE_ABORTING,
    VMR_STATE_DONE, /* never stored: the journal is gone by then */
    VMR_STATE_LAST
} VmrState;

/* How far one disk got. */
typedef enum {
    VMR_DISK_STATE_PLANNED,   /* nothing but plans, and files to be made */
    VMR_DISK_STATE_OVERLAY,   /* the snapshot is being, or was taken */
    VMR_DISK_STATE_MIRRORING, /* the copy is being, or was started */
    VMR_DISK_STATE_PIVOTING,
    VMR_DISK_STATE_PIVOTED,
    VMR_DISK_STATE_ABORTING,
    VMR_DISK_STATE_ABORTED,
    VMR_DISK_STATE_FAILED,    /* the copy ended by itself */
    VMR_DISK_STATE_LAST
} VmrDiskState;

/* An image file, and which file of that name was meant. */
typedef struct {
    char *path;
    char *format;
    gboolean created; /* by this mirrored snapshot */
    guint64 dev;
    guint64 ino;
    guint64 born;     /* when it was made, ns, or 0 where nobody knows */
} VmrFile;

/* Limits of a disk that are being, or were lowered by us. */
typedef struct {
    VmrIotune *before; /* what they were */
    guint64 limit;     /* bytes/s that can be written now */
    guint64 last;      /* the limit before that one, 0: there was none */
} VmrThrottle;

typedef struct {
    char *target;        /* "vda" */
    VmrDiskState state;
    VmrFile *source;     /* top of the chain before */
    GPtrArray *backing;  /* of VmrFile: the layers below source, top first */
    VmrFile *overlay;    /* new top on the old side */
    VmrFile *mirror;     /* new top on the new side */
    GPtrArray *copies;   /* of VmrFile: the layers below mirror, top first */
    VmrThrottle *throttle; /* NULL: its limits are its own */
} VmrDisk;

typedef struct {
    guint64 sequence;    /* counts up with each save */
    char *snapshot;      /* name */
    char *uuid;          /* of the domain */
    VmrState state;
    gboolean paused;     /* the guest's CPUs are being, or were stopped by us */
    GPtrArray *disks;    /* of VmrDisk */
} VmrRecord;

/* A file; @path and @format are copied. */
VmrFile *vmr_file_new(const char *path, const char *format);

/* Whether @file is known to be a block device (dev is its number, ino 0). */
gboolean vmr_file_is_block(const VmrFile *file);

/* Free @file; NULL is fine. */
void vmr_file_free(VmrFile *file);

/* The layer of the chain before for which @disk->copies[@i] stands; borrowed. NULL:
 * there is none. */
const VmrFile *vmr_disk_get_frozen(const VmrDisk *disk, guint i);

/* Limits that were @before (handed over) and are not lowered yet. */
VmrThrottle *vmr_throttle_new(VmrIotune *before);

/* Free @throttle; NULL is fine. */
void vmr_throttle_free(VmrThrottle *throttle);

/* A disk without files in state PLANNED. */
VmrDisk *vmr_disk_new(const char *target);

/* Free @disk; NULL is fine. */
void vmr_disk_free(VmrDisk *disk);

/* A record without disks in state CREATING. */
VmrRecord *vmr_record_new(const char *snapshot, const char *uuid);

/* Free @record; NULL is fine. */
void vmr_record_free(VmrRecord *record);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrFile, vmr_file_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrThrottle, vmr_throttle_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrDisk, vmr_disk_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrRecord, vmr_record_free)

/* @record as an XML element <mirror> without namespace; owned. */
char *vmr_record_format(const VmrRecord *record);

/* What vmr_record_format() wrote, read as hostile input: version, size, every
 * member present and in range, paths absolute. Errors: JOURNAL. */
VmrRecord *vmr_record_parse(const char *xml, GError **error);

/* "creating", "mirroring", ...; static. */
const char *vmr_state_name(VmrState state);

/* "planned", "overlay", ...; static. */
const char *vmr_disk_state_name(VmrDiskState state);

G_END_DECLS
