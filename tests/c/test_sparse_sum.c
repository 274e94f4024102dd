/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "sparse_sum.h"

#include <string.h>

#define KNOWN_CHECKSUM "bf81933ddf7b30488fb9d5e32dd1725c"

#define LENGTH (3 * VMR_SPARSE_BLOCK + 100) /* the last block is a short one */

static guint8 *
make_data(void)
{
    guint8 *data = g_malloc(LENGTH);

    for (gsize i = 0; i < LENGTH; i++)
        data[i] = (guint8)(i * 7 + i / 251);
    return data;
}

static char *
format(VmrSparseSum sum, guint64 size)
{
    char *text = g_malloc(VMR_SPARSE_CHECKSUM_LENGTH + 1);

    vmr_sparse_sum_format(sum, size, text);
    return text;
}

/* The checksum of @data as a whole. */
static char *
checksum(const guint8 *data, gsize len)
{
    VmrSparseSum sum = {0, 0};

    vmr_sparse_sum_add(&sum, data, len, 0);
    return format(sum, len);
}

/* Worked out with the Python package xxhash, so that files
 * of today can be compared with those of another version and machine. */
static void
test_checksum_of_known_data_known(void)
{
    g_autofree guint8 *data = make_data();
    g_autofree char *found = checksum(data, LENGTH);

    g_assert_cmpstr(found, ==, KNOWN_CHECKSUM);
}

static void
test_add_in_parts_and_any_order_same(void)
{
    g_autofree guint8 *data = make_data();
    g_autofree char *whole = checksum(data, LENGTH);
    g_autofree char *parts = NULL;
    VmrSparseSum sum = {0, 0};
    VmrSparseSum other = {0, 0};

    vmr_sparse_sum_add(&sum, data + 2 * VMR_SPARSE_BLOCK,
                       VMR_SPARSE_BLOCK + 100, 2 * VMR_SPARSE_BLOCK);
    vmr_sparse_sum_add(&other, data, 2 * VMR_SPARSE_BLOCK, 0);
    vmr_sparse_sum_merge(&sum, other);
    parts = format(sum, LENGTH);
    g_assert_cmpstr(parts, ==, whole);
}

static void
test_add_zeros_same_as_hole(void)
{
    g_autofree guint8 *zeros = g_malloc0(LENGTH);
    VmrSparseSum sum = {0, 0};

    vmr_sparse_sum_add(&sum, zeros, LENGTH, 0);
    g_assert_cmpuint(sum.low, ==, 0);
    g_assert_cmpuint(sum.high, ==, 0);
}

static void
test_format_other_size_differs(void)
{
    g_autofree char *one = format((VmrSparseSum){0, 0}, 4096);
    g_autofree char *two = format((VmrSparseSum){0, 0}, 8192);

    g_assert_cmpstr(one, !=, two);
    g_assert_cmpuint(strlen(one), ==, VMR_SPARSE_CHECKSUM_LENGTH);
}

static void
test_add_blocks_exchanged_differs(void)
{
    g_autofree guint8 *data = make_data();
    g_autofree guint8 *exchanged = g_memdup2(data, LENGTH);
    g_autofree char *one = checksum(data, LENGTH);
    g_autofree char *two = NULL;

    memcpy(exchanged, data + VMR_SPARSE_BLOCK, VMR_SPARSE_BLOCK);
    memcpy(exchanged + VMR_SPARSE_BLOCK, data, VMR_SPARSE_BLOCK);
    two = checksum(exchanged, LENGTH);
    g_assert_cmpstr(one, !=, two);
}

static void
test_add_each_bit_counts(void)
{
    g_autofree guint8 *data = make_data();
    g_autofree char *whole = checksum(data, LENGTH);

    for (gsize i = 0; i < LENGTH; i += 509) {
        g_autofree char *changed = NULL;

        data[i] ^= 1u << (i % 8);
        changed = checksum(data, LENGTH);
        g_assert_cmpstr(changed, !=, whole);
        data[i] ^= 1u << (i % 8);
    }
}

/* The sum of 128 bits carries from its lower half to its upper one. */
static void
test_merge_carries(void)
{
    VmrSparseSum sum = {G_MAXUINT64, 1};

    vmr_sparse_sum_merge(&sum, (VmrSparseSum){2, 3});
    g_assert_cmpuint(sum.low, ==, 1);
    g_assert_cmpuint(sum.high, ==, 5);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sparse_sum/checksum_of_known_data_known",
                    test_checksum_of_known_data_known);
    g_test_add_func("/sparse_sum/add_in_parts_and_any_order_same",
                    test_add_in_parts_and_any_order_same);
    g_test_add_func("/sparse_sum/add_zeros_same_as_hole",
                    test_add_zeros_same_as_hole);
    g_test_add_func("/sparse_sum/format_other_size_differs",
                    test_format_other_size_differs);
    g_test_add_func("/sparse_sum/add_blocks_exchanged_differs",
                    test_add_blocks_exchanged_differs);
    g_test_add_func("/sparse_sum/add_each_bit_counts", test_add_each_bit_counts);
    g_test_add_func("/sparse_sum/merge_carries", test_merge_carries);
    return g_test_run();
}
