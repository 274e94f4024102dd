/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * qemuimg: running qemu-img: no shell, no environment to speak of, limits on
 * what it may use up, and an end when the caller's wait ends.
 */

#include "wait.h"

G_BEGIN_DECLS

/* What @args call the file behind @fd of vmr_qemuimg_run(). */
#define VMR_QEMUIMG_FILE "/proc/self/fd/3"

/* Longest run of vmr_qemuimg_run(), whatever the wait says: it writes headers only. */
#define VMR_QEMUIMG_SECONDS 30.0

/* Run qemu-img with @args (NULL-terminated, from the sub-command on) on the
 * open file @fd. It is killed when the wait ends first.
 * Errors: NOT_SUPPORTED (not installed), IO (with its own first line), TIMEOUT,
 * CANCELLED. */
gboolean vmr_qemuimg_run(const char *const *args, int fd, const VmrWait *wait,
                         GError **error);

/* Whether a guest would read the same of the images @a and @b, each a file name as
 * qemu-img takes it; nothing is locked or changed. Runs until the wait ends.
 * Errors: the same. */
gboolean vmr_qemuimg_compare(const char *a, const char *b, gboolean *same,
                             const VmrWait *wait, GError **error);

/* @text, which is UTF-8, as a JSON string; owned. */
char *vmr_qemuimg_quote_json(const char *text);

/* @text as part of an option value ("-o key=text"), commas doubled; owned. */
char *vmr_qemuimg_escape(const char *text);

G_END_DECLS
