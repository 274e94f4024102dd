/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * backingname: the backing name in a header as QEMU and libvirt read it. A
 * colon before the first slash makes it a protocol ("nbd:", "json:"), else it
 * is a path, relative to the folder of the file that holds the name. Pure.
 */

#include <glib.h>

G_BEGIN_DECLS

/* Whether @name is read as a protocol and its address. */
gboolean vmr_backing_name_has_protocol(const char *name);

/* Whether @name is a path that starts in the folder of its file; it may well
 * leave that folder by "..". */
gboolean vmr_backing_name_is_relative(const char *name);

/* Whether @name is relative and goes down only: no "..", no "." but one in
 * front, no empty component. (Symbolic links on the way are not looked at.) */
gboolean vmr_backing_name_stays_inside(const char *name);

/* @name without the "./" in front; borrowed. */
const char *vmr_backing_name_skip_dot(const char *name);

/* The relative path @name as it must stand in a header: with "./" in front if
 * it would be read as a protocol, else without; owned. */
char *vmr_backing_name_protect(const char *name);

/* The path that @name means in the header of @path; owned; NULL where it is a
 * protocol. */
char *vmr_backing_name_resolve(const char *path, const char *name);

G_END_DECLS
