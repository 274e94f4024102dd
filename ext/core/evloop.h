/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * evloop: libvirt's default event loop in a thread of this process, on
 * request only: a program has one event loop, and it may have its own.
 */

#include <glib.h>

G_BEGIN_DECLS

/* Register libvirt's default event loop and run it in a thread
 * (virEventRegisterDefaultImpl, virEventRunDefaultImpl); to be called before
 * the first connection is opened. Calling it again does nothing.
 * Errors: VIRT, IO, INVALID_STATE (in a forked child of who has started it). */
gboolean vmr_evloop_start(GError **error);

G_END_DECLS
