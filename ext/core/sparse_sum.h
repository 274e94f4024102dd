/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * sparse_sum: the checksum of a file's content, which can be taken of its parts
 * in any order and by several threads, and does not tell a hole from zeros.
 *
 * The file is a row of blocks of VMR_SPARSE_BLOCK bytes, the last one shorter.
 * Each block that is not all zeros adds XXH3-128 of its number and its own
 * XXH3-128 to a sum of 128 bits; the checksum is XXH3-128 of sum and size.
 */

#include <glib.h>

G_BEGIN_DECLS

#define VMR_SPARSE_BLOCK 4096u
#define VMR_SPARSE_CHECKSUM_LENGTH 32 /* characters of its text */

typedef struct {
    guint64 low;
    guint64 high;
} VmrSparseSum;

/* Add the blocks in the @len bytes at @data, which are those from @offset on of
 * the file. @offset is the beginning of a block; @len ends with one or with the
 * file. */
void vmr_sparse_sum_add(VmrSparseSum *sum, const guint8 *data, gsize len,
                        guint64 offset);

/* Add @part, the sum over other blocks of the same file. */
void vmr_sparse_sum_merge(VmrSparseSum *sum, VmrSparseSum part);

/* The checksum of a file of @size bytes, in hexadecimal digits, into @text. */
void vmr_sparse_sum_format(VmrSparseSum sum, guint64 size,
                           char text[VMR_SPARSE_CHECKSUM_LENGTH + 1]);

G_END_DECLS
