/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * text: names and paths from outside: which characters they may have, and how
 * an error text quotes them.
 */

#include <glib.h>

G_BEGIN_DECLS

#define VMR_TEXT_CLEAN_MAX 160 /* characters of vmr_text_clean()'s answer */

/* Whether @text is UTF-8 and free of control characters (but for those in
 * @allowed, which may be NULL) and of what XML cannot hold. */
gboolean vmr_text_is_plain(const char *text, const char *allowed);

/* @text for use in an error text: one line of valid UTF-8, other bytes and
 * control characters as \xNN, cut where it is very long; owned. */
char *vmr_text_clean(const char *text);

G_END_DECLS
