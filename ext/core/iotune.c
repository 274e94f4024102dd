/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "iotune.h"

#include "domxml.h"
#include "xmlutil.h"

#define MAX_DEPTH 250

static const char *const field_names[VMR_IOTUNE_LAST] = {
    [VMR_IOTUNE_TOTAL_BYTES_SEC] = "total_bytes_sec",
    [VMR_IOTUNE_READ_BYTES_SEC] = "read_bytes_sec",
    [VMR_IOTUNE_WRITE_BYTES_SEC] = "write_bytes_sec",
    [VMR_IOTUNE_TOTAL_IOPS_SEC] = "total_iops_sec",
    [VMR_IOTUNE_READ_IOPS_SEC] = "read_iops_sec",
    [VMR_IOTUNE_WRITE_IOPS_SEC] = "write_iops_sec",
    [VMR_IOTUNE_TOTAL_BYTES_SEC_MAX] = "total_bytes_sec_max",
    [VMR_IOTUNE_READ_BYTES_SEC_MAX] = "read_bytes_sec_max",
    [VMR_IOTUNE_WRITE_BYTES_SEC_MAX] = "write_bytes_sec_max",
    [VMR_IOTUNE_TOTAL_IOPS_SEC_MAX] = "total_iops_sec_max",
    [VMR_IOTUNE_READ_IOPS_SEC_MAX] = "read_iops_sec_max",
    [VMR_IOTUNE_WRITE_IOPS_SEC_MAX] = "write_iops_sec_max",
    [VMR_IOTUNE_TOTAL_BYTES_SEC_MAX_LENGTH] = "total_bytes_sec_max_length",
    [VMR_IOTUNE_READ_BYTES_SEC_MAX_LENGTH] = "read_bytes_sec_max_length",
    [VMR_IOTUNE_WRITE_BYTES_SEC_MAX_LENGTH] = "write_bytes_sec_max_length",
    [VMR_IOTUNE_TOTAL_IOPS_SEC_MAX_LENGTH] = "total_iops_sec_max_length",
    [VMR_IOTUNE_READ_IOPS_SEC_MAX_LENGTH] = "read_iops_sec_max_length",
    [VMR_IOTUNE_WRITE_IOPS_SEC_MAX_LENGTH] = "write_iops_sec_max_length",
    [VMR_IOTUNE_SIZE_IOPS_SEC] = "size_iops_sec",
};

VmrIotune *
vmr_iotune_new(void)
{
    return g_new0(VmrIotune, 1);
}

VmrIotune *
vmr_iotune_copy(const VmrIotune *tune)
{
    VmrIotune *copy;

    if (!tune)
        return NULL;
    copy = g_new(VmrIotune, 1);
    *copy = *tune;
    copy->group = g_strdup(tune->group);
    return copy;
}

void
vmr_iotune_free(VmrIotune *tune)
{
    if (!tune)
        return;
    g_free(tune->group);
    g_free(tune);
}

const char *
vmr_iotune_field_name(VmrIotuneField field)
{
    g_return_val_if_fail((unsigned)field < VMR_IOTUNE_LAST, "unknown");
    return field_names[field];
}

/* The <disk> with the target @target, borrowed, or NULL. */
static const xmlNode *
find_disk(const xmlNode *root, const char *target)
{
    const xmlNode *devices = vmr_xml_child(root, "devices");
    const xmlNode *disk = devices ? vmr_xml_child(devices, "disk") : NULL;

    for (; disk; disk = vmr_xml_next(disk)) {
        const xmlNode *node = vmr_xml_child(disk, "target");
        g_autofree char *name = node ? vmr_xml_dup_attr(node, "dev") : NULL;

        if (g_strcmp0(name, target) == 0)
            return disk;
    }
    return NULL;
}

VmrIotune *
vmr_iotune_parse(const char *xml, const char *target, GError **error)
{
    g_autoptr(xmlDoc) doc = vmr_xml_parse(xml, VMR_DOMXML_MAX_SIZE, MAX_DEPTH,
                                          "domain", "domain XML", error);
    const xmlNode *disk = doc ? find_disk(xmlDocGetRootElement(doc), target)
                              : NULL;
    const xmlNode *node = disk ? vmr_xml_child(disk, "iotune") : NULL;
    g_autoptr(VmrIotune) tune = disk ? vmr_iotune_new() : NULL;

    for (guint i = 0; node && i < VMR_IOTUNE_LAST; i++) {
        g_autofree char *text = vmr_xml_dup_child_text(node, field_names[i]);

        /* libvirt writes numbers only */
        if (text)
            tune->values[i] = g_ascii_strtoull(text, NULL, 10);
    }
    if (node)
        tune->group = vmr_xml_dup_child_text(node, "group_name");
    return g_steal_pointer(&tune);
}

VmrIotuneField
vmr_iotune_write_field(const VmrIotune *tune)
{
    /* the two kinds exclude each other */
    return tune->values[VMR_IOTUNE_TOTAL_BYTES_SEC] > 0
               ? VMR_IOTUNE_TOTAL_BYTES_SEC
               : VMR_IOTUNE_WRITE_BYTES_SEC;
}

VmrIotune *
vmr_iotune_lower(const VmrIotune *tune, guint64 limit)
{
    VmrIotune *lowered = vmr_iotune_copy(tune);
    VmrIotuneField field = vmr_iotune_write_field(tune);
    guint64 own = tune->values[field];

    lowered->values[field] = own > 0 ? MIN(own, limit) : limit;
    lowered->values[field + VMR_IOTUNE_TOTAL_BYTES_SEC_MAX] = 0;
    lowered->values[field + VMR_IOTUNE_TOTAL_BYTES_SEC_MAX_LENGTH] = 0;
    return lowered;
}
