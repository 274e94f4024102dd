/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * headers: whether two qcow2 images differ, in their headers, in nothing but the names
 * of their backing files: as an image and its copy that was rebased.
 */

#include <glib.h>

G_BEGIN_DECLS

/* The header, with the names, lies in so many bytes of an image; what follows is not
 * looked at. */
#define VMR_HEADERS_BYTES 4096

/* Whether the open images @a and @b, whose paths are for error texts, are such: *@yes.
 * Not so if they are no qcow2 images, or their clusters are smaller than what is looked
 * at. Errors: IO. */
gboolean vmr_headers_differ_in_names(int a, const char *a_path, int b,
                                     const char *b_path, gboolean *yes,
                                     GError **error);

G_END_DECLS
