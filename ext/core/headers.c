/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "headers.h"

#include <string.h>

#include "imagefile.h"

/* Of the header (docs/interop/qcow2.txt of QEMU): offset and length of the backing name
 * lie between what must be equal. */
#define MAGIC_END     4
#define VERSION_AT    4
#define NAME_AT       8
#define NAME_END      20
#define CLUSTER_AT    20
#define VERSION_2_END 72
#define VERSION_3_END 100
#define MIN_CLUSTER_BITS 12

static guint32
get32(const guint8 *data)
{
    guint32 value;

    memcpy(&value, data, sizeof(value));
    return GUINT32_FROM_BE(value);
}

static gboolean
is_usable(const guint8 *data)
{
    guint32 version = get32(data + VERSION_AT);

    return memcmp(data, "QFI\xfb", MAGIC_END) == 0 &&
           (version == 2 || version == 3) &&
           get32(data + CLUSTER_AT) >= MIN_CLUSTER_BITS;
}

gboolean
vmr_headers_differ_in_names(int a, const char *a_path, int b, const char *b_path,
                          gboolean *yes, GError **error)
{
    guint8 x[VERSION_3_END];
    guint8 y[VERSION_3_END];
    gsize end;
    gsize got[2];

    *yes = FALSE;
    if (!vmr_imagefile_read(a, a_path, x, sizeof(x), 0, &got[0], error) ||
        !vmr_imagefile_read(b, b_path, y, sizeof(y), 0, &got[1], error))
        return FALSE;
    if (got[0] < sizeof(x) || got[1] < sizeof(y) || !is_usable(x))
        return TRUE;
    end = get32(x + VERSION_AT) == 2 ? VERSION_2_END : VERSION_3_END;
    *yes = memcmp(x, y, NAME_AT) == 0 &&
           memcmp(x + NAME_END, y + NAME_END, end - NAME_END) == 0;
    return TRUE;
}
