/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "error.h"
#include "qcow2.h"

#define LEN 65536

/* A version 3 header of 1 MiB with 64 KiB clusters over "base" (raw). */
static guint8 *
header_new(void)
{
    static const guint8 fields[] = {
        'Q',  'F',  'I', 0xfb, 0, 0,  0, 3, /* magic, version */
        0,    0,    0,   0,    0, 0,  2, 0, /* backing offset: 0x200 */
        0,    0,    0,   4,    0, 0,  0, 16,/* its length; cluster bits */
        0,    0,    0,   0,    0, 16, 0, 0, /* virtual size */
        0,    0,    0,   0,    0, 0,  0, 1, /* encryption; L1 entries */
        0,    0,    0,   0,    0, 3,  0, 0, /* L1 offset */
    };
    static const guint8 extension[] = {0xe2, 0x79, 0x2a, 0xca, 0,   0,
                                       0,    3,    'r',  'a',  'w', 0};
    guint8 *data = g_malloc0(LEN);

    memcpy(data, fields, sizeof(fields));
    data[99] = 4;    /* reference counts of 16 bits */
    data[103] = 104; /* header length */
    memcpy(data + 104, extension, sizeof(extension));
    memcpy(data + 0x200, "base", 4);
    return data;
}

/* One change of the header above, and what is said about it; NULL: fine. */
typedef struct {
    const char *name;
    gsize at;
    guint len;       /* bytes of @value that are written, big-endian */
    guint64 value;
    const char *text;
} Change;

static const Change change_table[] = {
    {"magic", 0, 4, 0x514649fa, "does not begin"},
    {"version_0", 4, 4, 0, "version 0"},
    {"version_1", 4, 4, 1, "version 1"},
    {"version_4", 4, 4, 4, "version 4"},
    {"version_huge", 4, 4, 0xffffffff, "version 4294967295"},
    {"backing_in_header", 8, 8, 103, "out of bounds"},
    {"backing_in_extension", 8, 8, 104, "not UTF-8"},
    {"backing_beyond_cluster", 8, 8, LEN + 1, "out of bounds"},
    {"backing_over_cluster_end", 8, 8, LEN - 3, "out of bounds"},
    {"backing_offset_wraps", 8, 8, G_MAXUINT64 - 1, "out of bounds"},
    {"backing_name_1024", 16, 4, 1024, "out of bounds"},
    {"backing_name_huge", 16, 4, 0xffffffff, "out of bounds"},
    {"backing_name_nul", 16, 4, 5, "control characters"},
    {"backing_name_newline", 0x201, 1, '\n', "control characters"},
    {"backing_name_no_utf8", 0x201, 1, 0xff, "not UTF-8"},
    {"cluster_bits_8", 20, 4, 8, "2^8"},
    {"cluster_bits_22", 20, 4, 22, "2^22"},
    {"cluster_bits_huge", 20, 4, 0x80000010, "impossible"},
    {"cluster_longer_than_file", 20, 4, 17, "first cluster"},
    {"size_negative", 24, 8, (guint64)1 << 63, "virtual size"},
    {"size_beyond_l1", 24, 8, 512 * 1024 * 1024 + 512, "L1 table"},
    {"size_all_of_l1", 24, 8, 512 * 1024 * 1024, NULL},
    {"size_maximal", 24, 8, G_MAXINT64, "L1 table"},
    {"encryption_3", 32, 4, 3, "encryption method 3"},
    {"l1_none", 36, 4, 0, "L1 table"},
    {"l1_32_mib", 36, 4, 4 * 1024 * 1024, NULL},
    {"l1_larger", 36, 4, 4 * 1024 * 1024 + 1, "L1 table"},
    {"l1_huge", 36, 4, 0xffffffff, "L1 table"},
    {"l1_in_header", 40, 8, 0, "offset 0"},
    {"l1_unaligned", 40, 8, 0x30200, "offset 197120"},
    {"l1_offset_wraps", 40, 8, 0xffffffffffff0000, "L1 table"},
    {"feature_unknown", 72, 8, 1 << 5, "unknown features (0x20)"},
    {"feature_highest", 72, 8, (guint64)1 << 63, "unknown features"},
    {"compression_without_type", 72, 8, 8, "compression type 0"},
    {"extended_l2", 72, 8, 16, NULL},
    {"refcount_order_7", 96, 4, 7, "2^7"},
    {"header_length_103", 100, 4, 103, "header length of 103"},
    {"header_length_beyond_cluster", 100, 4, LEN + 8, "header length"},
    {"header_length_huge", 100, 4, 0xffffffff, "header length"},
    {"extension_too_long", 108, 4, 0x200 - 104 - 8 + 1, "too long"},
    {"extension_wraps", 108, 4, 0xfffffffc, "too long"},
    {"extension_unknown", 104, 4, 0x12345678, NULL},
    {"format_16_bytes", 108, 4, 16, "no name of a format"},
    {"format_with_nul", 108, 4, 4, "no name of a format"},
    {"format_with_quote", 112, 1, '\'', "no name of a format"},
    {"bitmaps_truncated", 104, 4, 0x23852875, "bitmaps is truncated"},
};

static void
poke(guint8 *data, gsize at, guint len, guint64 value)
{
    for (guint i = 0; i < len; i++)
        data[at + i] = (guint8)(value >> (8 * (len - 1 - i)));
}

static void
test_parse_changed(gconstpointer opaque)
{
    const Change *change = opaque;
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};
    g_autoptr(GError) error = NULL;
    gboolean ok;

    poke(data, change->at, change->len, change->value);
    ok = vmr_qcow2_parse(data, LEN, &header, &error);
    if (!change->text) {
        g_assert_no_error(error);
        g_assert_true(ok);
        return;
    }
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IMAGE);
    g_assert_false(ok);
    g_assert_nonnull(strstr(error->message, change->text));
    g_assert_null(header.backing_name);
    g_assert_null(header.backing_format);
}

static void
test_parse_v3_all_fields(void)
{
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};
    g_autoptr(GError) error = NULL;

    g_assert_true(vmr_qcow2_parse(data, LEN, &header, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(header.version, ==, 3);
    g_assert_cmpuint(header.virtual_size, ==, 1024 * 1024);
    g_assert_cmpuint(header.l1_offset, ==, 0x30000);
    g_assert_cmpuint(header.l1_size, ==, 8);
    g_assert_cmpstr(header.backing_name, ==, "base");
    g_assert_cmpstr(header.backing_format, ==, "raw");
    g_assert_false(header.data_file || header.encrypted || header.dirty ||
                   header.has_snapshots || header.has_bitmaps);
}

static void
test_parse_v2_without_v3_fields(void)
{
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};
    g_autoptr(GError) error = NULL;

    /* in version 2 the extensions begin where version 3 has its fields */
    poke(data, 4, 4, 2);
    memmove(data + 72, data + 104, 16);
    memset(data + 88, 0, 64);
    g_assert_true(vmr_qcow2_parse(data, LEN, &header, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(header.version, ==, 2);
    g_assert_cmpstr(header.backing_format, ==, "raw");
}

static void
test_parse_flags_set(void)
{
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};

    poke(data, 32, 4, 2);
    poke(data, 60, 4, 1);
    poke(data, 72, 8, 1 | 4);
    poke(data, 104, 8, ((guint64)0x23852875 << 32) | 24);
    poke(data, 112, 4, 1);
    g_assert_true(vmr_qcow2_parse(data, LEN, &header, NULL));
    g_assert_true(header.encrypted);
    g_assert_true(header.has_snapshots);
    g_assert_true(header.dirty);
    g_assert_true(header.data_file);
    g_assert_true(header.has_bitmaps);
    g_assert_null(header.backing_format);
}

static void
test_parse_data_file_name_alone_counts(void)
{
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};

    poke(data, 104, 4, 0x44415441);
    g_assert_true(vmr_qcow2_parse(data, LEN, &header, NULL));
    g_assert_true(header.data_file);
}

static void
test_parse_corrupt_is_dirty(void)
{
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};

    poke(data, 72, 8, 2);
    g_assert_true(vmr_qcow2_parse(data, LEN, &header, NULL));
    g_assert_true(header.dirty);
}

static void
test_parse_empty_backing_name_is_none(void)
{
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};

    poke(data, 16, 4, 0);
    g_assert_true(vmr_qcow2_parse(data, LEN, &header, NULL));
    g_assert_null(header.backing_name);
    g_assert_null(header.backing_format);
}

static void
test_parse_last_backing_format_counts(void)
{
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};

    memcpy(data + 120, data + 104, 12);
    poke(data, 124, 4, 5);
    memcpy(data + 128, "qcow2", 5);
    g_assert_true(vmr_qcow2_parse(data, LEN, &header, NULL));
    g_assert_cmpstr(header.backing_format, ==, "qcow2");
}

static void
test_parse_odd_size_rounded_down(void)
{
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};

    poke(data, 24, 8, 1024 * 1024 + 511);
    g_assert_true(vmr_qcow2_parse(data, LEN, &header, NULL));
    g_assert_cmpuint(header.virtual_size, ==, 1024 * 1024);
}

static void
test_parse_extensions_without_end_image(void)
{
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};
    g_autoptr(GError) error = NULL;

    /* four bytes after the first extension the name begins */
    poke(data, 8, 8, 124);
    memcpy(data + 124, "base", 4);
    g_assert_false(vmr_qcow2_parse(data, LEN, &header, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IMAGE);
    g_assert_nonnull(strstr(error->message, "no end"));
}

static void
test_parse_longest_backing_name_whole(void)
{
    g_autofree guint8 *data = header_new();
    g_auto(VmrQcow2) header = {0};

    memset(data + 0x200, 'x', 1023);
    poke(data, 16, 4, 1023);
    g_assert_true(vmr_qcow2_parse(data, LEN, &header, NULL));
    g_assert_cmpuint(strlen(header.backing_name), ==, 1023);
}

/* The buffer has exactly the length given, so that a sanitizer sees any read
 * beyond it. */
static void
test_parse_any_shorter_length_image(void)
{
    g_autofree guint8 *data = header_new();

    for (gsize len = 0; len < 1024; len++) {
        g_autofree guint8 *copy = g_memdup2(data, len);
        g_auto(VmrQcow2) header = {0};
        g_autoptr(GError) error = NULL;

        g_assert_false(vmr_qcow2_parse(copy, len, &header, &error));
        g_assert_error(error, VMR_ERROR, VMR_ERROR_IMAGE);
        g_assert_cmpuint(vmr_qcow2_header_size(copy, len), ==,
                         len < 72 ? len : LEN);
    }
}

static void
test_header_size_no_header_as_it_is(void)
{
    g_autofree guint8 *data = header_new();

    poke(data, 20, 4, 22);
    g_assert_cmpuint(vmr_qcow2_header_size(data, 512), ==, 512);
    poke(data, 20, 4, 21);
    g_assert_cmpuint(vmr_qcow2_header_size(data, 512), ==,
                     VMR_QCOW2_MAX_HEADER);
    poke(data, 0, 4, 0);
    g_assert_cmpuint(vmr_qcow2_header_size(data, 512), ==, 512);
}

/* Every byte of the header set to every value: no crash, and an error if and
 * only if it fails. */
static void
test_parse_any_byte_changed_consistent(void)
{
    g_autofree guint8 *data = header_new();

    for (gsize at = 0; at < 136; at++) {
        guint8 before = data[at];

        for (guint value = 0; value < 256; value++) {
            g_auto(VmrQcow2) header = {0};
            g_autoptr(GError) error = NULL;

            data[at] = (guint8)value;
            g_assert_cmpint(vmr_qcow2_parse(data, LEN, &header, &error), ==,
                            error == NULL);
        }
        data[at] = before;
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (gsize i = 0; i < G_N_ELEMENTS(change_table); i++) {
        g_autofree char *name = g_strdup_printf(
            "/qcow2/parse_%s_%s", change_table[i].name,
            change_table[i].text ? "image" : "fine");

        g_test_add_data_func(name, &change_table[i], test_parse_changed);
    }
    g_test_add_func("/qcow2/parse_v3_all_fields", test_parse_v3_all_fields);
    g_test_add_func("/qcow2/parse_v2_without_v3_fields",
                    test_parse_v2_without_v3_fields);
    g_test_add_func("/qcow2/parse_flags_set", test_parse_flags_set);
    g_test_add_func("/qcow2/parse_data_file_name_alone_counts",
                    test_parse_data_file_name_alone_counts);
    g_test_add_func("/qcow2/parse_corrupt_is_dirty",
                    test_parse_corrupt_is_dirty);
    g_test_add_func("/qcow2/parse_empty_backing_name_is_none",
                    test_parse_empty_backing_name_is_none);
    g_test_add_func("/qcow2/parse_last_backing_format_counts",
                    test_parse_last_backing_format_counts);
    g_test_add_func("/qcow2/parse_odd_size_rounded_down",
                    test_parse_odd_size_rounded_down);
    g_test_add_func("/qcow2/parse_extensions_without_end_image",
                    test_parse_extensions_without_end_image);
    g_test_add_func("/qcow2/parse_longest_backing_name_whole",
                    test_parse_longest_backing_name_whole);
    g_test_add_func("/qcow2/parse_any_shorter_length_image",
                    test_parse_any_shorter_length_image);
    g_test_add_func("/qcow2/header_size_no_header_as_it_is",
                    test_header_size_no_header_as_it_is);
    g_test_add_func("/qcow2/parse_any_byte_changed_consistent",
                    test_parse_any_byte_changed_consistent);
    return g_test_run();
}
