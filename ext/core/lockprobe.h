/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * lockprobe: does a QEMU hold this image open for writing? QEMU says so by
 * locking bytes of the file, so the answer needs no libvirt and outlives it.
 */

#include <glib.h>

G_BEGIN_DECLS

typedef enum {
    VMR_LOCK_FREE,    /* nobody has it open for writing */
    VMR_LOCK_WRITER,  /* a QEMU (or qemu-img) has */
    VMR_LOCK_UNKNOWN, /* the file system or file cannot tell: of a device that
                       * is not locked neither, since the lock is on the node, and
                       * libvirt makes nodes of its own for a QEMU */
    VMR_LOCK_LAST
} VmrLock;

/* Probe @path (F_OFD_GETLK on QEMU's permission byte for writing; see
 * QEMU's block/file-posix.c). UNKNOWN where locks are not supported, and for
 * what is no regular file or block device. Errors: IO, e.g. no such file. */
gboolean vmr_lock_probe(const char *path, VmrLock *lock, GError **error);

/* The same on an open @fd (any access mode); @path is for error texts. */
gboolean vmr_lock_probe_fd(int fd, const char *path, VmrLock *lock,
                           GError **error);

/* Whether a QEMU has it open at all, for reading, too: WRITER if one has. */
gboolean vmr_lock_probe_use_fd(int fd, const char *path, VmrLock *lock,
                               GError **error);

/* "free", "writer" or "unknown"; static. */
const char *vmr_lock_name(VmrLock lock);

G_END_DECLS
