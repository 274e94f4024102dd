/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "sparse_sum.h"

#include <string.h>
#include <xxhash.h>

/* Nearly every block has its first difference in the first word that is looked
 * at; one without any is compared with itself, one byte on. */
static gboolean
is_zero(const guint8 *data, gsize len)
{
    return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

static XXH128_hash_t
hash_words(const guint64 words[3])
{
    guint64 little[3];

    for (gsize i = 0; i < G_N_ELEMENTS(little); i++)
        little[i] = GUINT64_TO_LE(words[i]);
    return XXH3_128bits(little, sizeof(little));
}

void
vmr_sparse_sum_merge(VmrSparseSum *sum, VmrSparseSum part)
{
    sum->low += part.low;
    sum->high += part.high + (sum->low < part.low);
}

void
vmr_sparse_sum_add(VmrSparseSum *sum, const guint8 *data, gsize len,
                   guint64 offset)
{
    for (gsize done = 0; done < len; done += VMR_SPARSE_BLOCK) {
        gsize block = MIN(len - done, VMR_SPARSE_BLOCK);
        XXH128_hash_t hash;

        if (is_zero(data + done, block))
            continue;
        hash = XXH3_128bits(data + done, block);
        hash = hash_words((guint64[3]){(offset + done) / VMR_SPARSE_BLOCK,
                                       hash.low64, hash.high64});
        vmr_sparse_sum_merge(sum, (VmrSparseSum){hash.low64, hash.high64});
    }
}

void
vmr_sparse_sum_format(VmrSparseSum sum, guint64 size,
                      char text[VMR_SPARSE_CHECKSUM_LENGTH + 1])
{
    XXH128_hash_t hash = hash_words((guint64[3]){size, sum.low, sum.high});

    g_snprintf(text, VMR_SPARSE_CHECKSUM_LENGTH + 1, "%016" G_GINT64_MODIFIER
               "x%016" G_GINT64_MODIFIER "x", (guint64)hash.high64,
               (guint64)hash.low64);
}
