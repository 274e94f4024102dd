/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * fuzzutil: what the fuzz targets share. A target ends by g_assert*() when a
 * property does not hold, which libFuzzer reports with the input.
 */

#include <glib.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"
#include "text.h"

/* libFuzzer calls this once for each input. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes as a string of exactly their length, so that reading beyond it is
 * seen; what comes after a NUL is lost. Owned. */
static inline char *
fuzz_text(const uint8_t *data, size_t size)
{
    return g_strndup((const char *)data, size);
}

/* What holds of every error: it is there if and only if the call failed, it is
 * of our domain, and it is one line of text that can be shown to anybody. */
static inline void
fuzz_check_error(gboolean ok, const GError *error)
{
    g_assert_true(ok == (error == NULL));
    if (!error)
        return;
    g_assert_true(error->domain == VMR_ERROR);
    g_assert_cmpstr(error->message, !=, "");
    if (!vmr_text_is_plain(error->message, NULL))
        g_error("error text is not plain: %s", error->message);
}
