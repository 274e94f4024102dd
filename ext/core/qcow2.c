/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "qcow2.h"

#include <string.h>

#include "error.h"
#include "text.h"

#define MAGIC 0x514649fbu /* "QFI\xfb" */
#define V2_LENGTH 72
#define V3_LENGTH 104
#define MIN_CLUSTER_BITS 9
#define MAX_CLUSTER_BITS 21
#define MIN_EXTENDED_CLUSTER_BITS 14
#define MAX_BACKING_NAME 1023
#define MAX_BACKING_FORMAT 15
#define MAX_L1_SIZE (32 * 1024 * 1024) /* QEMU's own limit */
#define L1_ENTRY_SIZE 8
#define SECTOR_SIZE 512

/* offsets of the fields, all of them big-endian */
enum {
    AT_MAGIC = 0,
    AT_VERSION = 4,
    AT_BACKING_OFFSET = 8,
    AT_BACKING_LENGTH = 16,
    AT_CLUSTER_BITS = 20,
    AT_SIZE = 24,
    AT_CRYPT_METHOD = 32,
    AT_L1_ENTRIES = 36,
    AT_L1_OFFSET = 40,
    AT_N_SNAPSHOTS = 60,
    AT_INCOMPATIBLE = 72,
    AT_REFCOUNT_ORDER = 96,
    AT_HEADER_LENGTH = 100,
    AT_COMPRESSION_TYPE = 104,
};

#define INCOMPATIBLE_DIRTY (1u << 0)
#define INCOMPATIBLE_CORRUPT (1u << 1)
#define INCOMPATIBLE_DATA_FILE (1u << 2)
#define INCOMPATIBLE_COMPRESSION (1u << 3)
#define INCOMPATIBLE_EXTENDED_L2 (1u << 4)
#define INCOMPATIBLE_KNOWN 0x1fu

#define EXTENSION_END 0u
#define EXTENSION_BACKING_FORMAT 0xe2792acau
#define EXTENSION_BITMAPS 0x23852875u
#define EXTENSION_DATA_FILE 0x44415441u
#define EXTENSION_HEAD 8

/* What the parts below have found out for each other. */
typedef struct {
    const guint8 *data;
    guint32 cluster_bits;
    guint64 cluster_size;
    guint64 incompatible;
    guint64 header_length;
    guint64 backing_offset; /* 0: no backing file */
} Parser;

static guint32
get32(const guint8 *data, gsize at)
{
    guint32 value;

    memcpy(&value, data + at, sizeof(value));
    return GUINT32_FROM_BE(value);
}

static guint64
get64(const guint8 *data, gsize at)
{
    guint64 value;

    memcpy(&value, data + at, sizeof(value));
    return GUINT64_FROM_BE(value);
}

gsize
vmr_qcow2_header_size(const guint8 *data, gsize len)
{
    guint32 bits;

    if (len < V2_LENGTH || get32(data, AT_MAGIC) != MAGIC)
        return len;
    bits = get32(data, AT_CLUSTER_BITS);
    if (bits < MIN_CLUSTER_BITS || bits > MAX_CLUSTER_BITS)
        return len;
    return (gsize)1 << bits;
}

/* The fields that say how to read the others. */
static gboolean
parse_shape(Parser *parser, gsize len, VmrQcow2 *header, GError **error)
{
    const guint8 *data = parser->data;

    if (len < V2_LENGTH || get32(data, AT_MAGIC) != MAGIC) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "it does not begin as a qcow2 image does");
        return FALSE;
    }
    header->version = get32(data, AT_VERSION);
    if (header->version != 2 && header->version != 3) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "version %u is unknown, only 2 and 3 are supported",
                    header->version);
        return FALSE;
    }
    parser->cluster_bits = get32(data, AT_CLUSTER_BITS);
    if (parser->cluster_bits < MIN_CLUSTER_BITS ||
        parser->cluster_bits > MAX_CLUSTER_BITS) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "clusters of 2^%u bytes are impossible",
                    parser->cluster_bits);
        return FALSE;
    }
    parser->cluster_size = (guint64)1 << parser->cluster_bits;
    if (len < parser->cluster_size) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "the file ends within its first cluster");
        return FALSE;
    }
    return TRUE;
}

/* As QEMU does: the type and the feature bit must agree. */
static gboolean
check_compression(const Parser *parser, GError **error)
{
    guint type = 0;
    gboolean marked = (parser->incompatible & INCOMPATIBLE_COMPRESSION) != 0;

    if (parser->header_length > AT_COMPRESSION_TYPE)
        type = parser->data[AT_COMPRESSION_TYPE];
    if (type > 1 || marked != (type == 1)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "compression type %u is unknown or not marked as used",
                    type);
        return FALSE;
    }
    return TRUE;
}

/* The fields that version 3 added. */
static gboolean
parse_v3(Parser *parser, GError **error)
{
    const guint8 *data = parser->data;

    /* a 512 byte cluster holds these fields, so they are within the data */
    parser->header_length = get32(data, AT_HEADER_LENGTH);
    if (parser->header_length < V3_LENGTH ||
        parser->header_length > parser->cluster_size) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "a header length of %" G_GUINT64_FORMAT " is impossible",
                    parser->header_length);
        return FALSE;
    }
    parser->incompatible = get64(data, AT_INCOMPATIBLE);
    if (parser->incompatible & ~(guint64)INCOMPATIBLE_KNOWN) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "it needs unknown features (0x%" G_GINT64_MODIFIER "x)",
                    parser->incompatible & ~(guint64)INCOMPATIBLE_KNOWN);
        return FALSE;
    }
    if ((parser->incompatible & INCOMPATIBLE_EXTENDED_L2) &&
        parser->cluster_bits < MIN_EXTENDED_CLUSTER_BITS) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "its clusters are too small for extended L2 entries");
        return FALSE;
    }
    if (get32(data, AT_REFCOUNT_ORDER) > 6) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "reference counts of 2^%u bits are impossible",
                    get32(data, AT_REFCOUNT_ORDER));
        return FALSE;
    }
    return check_compression(parser, error);
}

static gboolean
parse_flags(const Parser *parser, VmrQcow2 *header, GError **error)
{
    guint32 crypt_method = get32(parser->data, AT_CRYPT_METHOD);

    if (crypt_method > 2) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "encryption method %u is unknown", crypt_method);
        return FALSE;
    }
    header->encrypted = crypt_method != 0;
    header->has_snapshots = get32(parser->data, AT_N_SNAPSHOTS) != 0;
    header->data_file = (parser->incompatible & INCOMPATIBLE_DATA_FILE) != 0;
    header->dirty = (parser->incompatible &
                     (INCOMPATIBLE_DIRTY | INCOMPATIBLE_CORRUPT)) != 0;
    return TRUE;
}

/* Virtual size and L1 table, which has to map all of it. */
static gboolean
parse_size(const Parser *parser, VmrQcow2 *header, GError **error)
{
    gboolean extended = (parser->incompatible & INCOMPATIBLE_EXTENDED_L2) != 0;
    guint l2_bits = parser->cluster_bits - (extended ? 4 : 3);
    guint64 mapped = (guint64)1 << (parser->cluster_bits + l2_bits);
    guint64 entries = get32(parser->data, AT_L1_ENTRIES);
    guint64 size = get64(parser->data, AT_SIZE);

    header->l1_offset = get64(parser->data, AT_L1_OFFSET);
    header->l1_size = entries * L1_ENTRY_SIZE;
    if (size > G_MAXINT64) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "a virtual size of %" G_GUINT64_FORMAT " is impossible",
                    size);
        return FALSE;
    }
    if (header->l1_size > MAX_L1_SIZE ||
        entries < size / mapped + (size % mapped != 0)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "its L1 table of %" G_GUINT64_FORMAT
                    " entries does not fit its virtual size",
                    entries);
        return FALSE;
    }
    if (entries > 0 &&
        (header->l1_offset == 0 ||
         header->l1_offset % parser->cluster_size != 0 ||
         header->l1_offset > G_MAXINT64 - MAX_L1_SIZE)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "its L1 table cannot be at offset %" G_GUINT64_FORMAT,
                    header->l1_offset);
        return FALSE;
    }
    /* QEMU counts whole sectors only */
    header->virtual_size = size - size % SECTOR_SIZE;
    return TRUE;
}

static gboolean
parse_backing_name(Parser *parser, VmrQcow2 *header, GError **error)
{
    guint64 offset = get64(parser->data, AT_BACKING_OFFSET);
    guint64 len = get32(parser->data, AT_BACKING_LENGTH);
    const char *text;
    g_autofree char *name = NULL;

    parser->backing_offset = offset;
    if (offset == 0)
        return TRUE;
    if (offset < parser->header_length || offset > parser->cluster_size ||
        len > MAX_BACKING_NAME || len > parser->cluster_size - offset) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "its backing name (%" G_GUINT64_FORMAT
                    " bytes at offset %" G_GUINT64_FORMAT ") is out of bounds",
                    len, offset);
        return FALSE;
    }
    if (len == 0) /* for QEMU that is no backing file */
        return TRUE;
    text = (const char *)parser->data + offset;
    name = g_strndup(text, len);
    /* another name could neither be put into XML nor be shown to anybody */
    if (strlen(name) != len || !vmr_text_is_plain(name, NULL)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "its backing name has control characters in it, "
                    "or is not UTF-8");
        return FALSE;
    }
    header->backing_name = g_steal_pointer(&name);
    return TRUE;
}

static gboolean
parse_backing_format(const guint8 *data, gsize len, VmrQcow2 *header,
                     GError **error)
{
    gboolean ok = len <= MAX_BACKING_FORMAT;

    for (gsize i = 0; ok && i < len; i++)
        ok = g_ascii_isalnum(data[i]) || data[i] == '-' || data[i] == '_';
    if (!ok) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                    "its backing format is no name of a format");
        return FALSE;
    }
    g_clear_pointer(&header->backing_format, g_free);
    if (len > 0 && header->backing_name)
        header->backing_format = g_strndup((const char *)data, len);
    return TRUE;
}

static gboolean
parse_extension(guint32 type, const guint8 *data, gsize len, VmrQcow2 *header,
                GError **error)
{
    switch (type) {
    case EXTENSION_BACKING_FORMAT:
        return parse_backing_format(data, len, header, error);
    case EXTENSION_DATA_FILE:
        /* without the feature bit QEMU ignores it; nobody should have one */
        header->data_file = TRUE;
        return TRUE;
    case EXTENSION_BITMAPS:
        if (len < sizeof(guint32)) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                        "its list of bitmaps is truncated");
            return FALSE;
        }
        header->has_bitmaps = get32(data, 0) != 0;
        return TRUE;
    default:
        return TRUE;
    }
}

static gboolean
parse_extensions(const Parser *parser, VmrQcow2 *header, GError **error)
{
    guint64 at = parser->header_length;
    guint64 end = parser->backing_offset ? parser->backing_offset
                                         : parser->cluster_size;

    while (at < end) {
        guint64 room = end - at;
        guint32 type;
        guint64 len;

        if (room < EXTENSION_HEAD) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                        "its header extensions have no end");
            return FALSE;
        }
        type = get32(parser->data, at);
        len = get32(parser->data, at + 4);
        if (len > room - EXTENSION_HEAD) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                        "its header extension 0x%08x is too long", type);
            return FALSE;
        }
        if (type == EXTENSION_END)
            return TRUE;
        at += EXTENSION_HEAD;
        if (!parse_extension(type, parser->data + at, len, header, error))
            return FALSE;
        at += (len + 7) & ~(guint64)7;
    }
    return TRUE;
}

gboolean
vmr_qcow2_parse(const guint8 *data, gsize len, VmrQcow2 *header,
                GError **error)
{
    Parser parser = {.data = data, .header_length = V2_LENGTH};
    gboolean ok;

    memset(header, 0, sizeof(*header));
    ok = parse_shape(&parser, len, header, error) &&
         (header->version == 2 || parse_v3(&parser, error)) &&
         parse_flags(&parser, header, error) &&
         parse_size(&parser, header, error) &&
         parse_backing_name(&parser, header, error) &&
         parse_extensions(&parser, header, error);
    if (!ok)
        vmr_qcow2_clear(header);
    return ok;
}

void
vmr_qcow2_clear(VmrQcow2 *header)
{
    g_clear_pointer(&header->backing_name, g_free);
    g_clear_pointer(&header->backing_format, g_free);
}
