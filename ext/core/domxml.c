/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "domxml.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>

#include "disklist.h"
#include "error.h"
#include "text.h"
#include "xmlutil.h"

#define WHAT "domain XML"

/* A backing chain is nested <backingStore> elements; libvirt ends at 200
 * layers, libxml2 at 256 elements. */
#define MAX_DEPTH 250

static const char *const ready_names[VMR_READY_LAST] = {
    [VMR_READY_NO] = "no",
    [VMR_READY_YES] = "yes",
    [VMR_READY_PIVOT] = "pivot",
    [VMR_READY_ABORT] = "abort",
};

const char *
vmr_ready_name(VmrReady ready)
{
    g_return_val_if_fail((unsigned)ready < VMR_READY_LAST, "unknown");
    return ready_names[ready];
}

static void
disk_free(VmrDomDisk *disk)
{
    if (!disk)
        return;
    g_free(disk->target);
    g_free(disk->device);
    g_free(disk->bus);
    g_clear_pointer(&disk->chain, g_ptr_array_unref);
    vmr_layer_free(disk->mirror);
    g_free(disk->mirror_job);
    g_clear_pointer(&disk->refusals, g_ptr_array_unref);
    g_free(disk);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrDomDisk, disk_free)

void
vmr_domxml_free(VmrDomXml *dom)
{
    if (!dom)
        return;
    g_free(dom->name);
    g_free(dom->uuid);
    g_free(dom->type);
    g_free(dom->machine);
    g_clear_pointer(&dom->disks, g_ptr_array_unref);
    g_free(dom);
}

/* The attribute @name of the child @child of @node, or NULL; owned. */
static char *
dup_child_attr(const xmlNode *node, const char *child, const char *name)
{
    const xmlNode *found = vmr_xml_child(node, child);

    return found ? vmr_xml_dup_attr(found, name) : NULL;
}

/* The attribute @name of @node, or @fallback; owned. */
static char *
dup_attr_or(const xmlNode *node, const char *name, const char *fallback)
{
    char *value = vmr_xml_dup_attr(node, name);

    return value ? value : g_strdup(fallback);
}

/* An empty drive has no <source>, or one without a path. */
static gboolean
has_medium(const xmlNode *node, const VmrLayer *top)
{
    return vmr_xml_child(node, "source") &&
           (top->path || !vmr_layer_wants_path(top));
}

/* The layers of the <disk> @node, from the top down. */
static void
read_chain(VmrDomDisk *disk, const xmlNode *node)
{
    g_autoptr(VmrLayer) top = vmr_layer_read(node, "driver");

    disk->chain = g_ptr_array_new_with_free_func((GDestroyNotify)vmr_layer_free);
    if (!has_medium(node, top))
        return;
    g_ptr_array_add(disk->chain, g_steal_pointer(&top));
    while ((node = vmr_xml_child(node, "backingStore"))) {
        /* <backingStore/> says that nothing is below; where there is none at
         * all nobody has looked yet */
        if (!node->properties && !vmr_xml_child(node, "source")) {
            disk->chain_ends = TRUE;
            return;
        }
        g_ptr_array_add(disk->chain, vmr_layer_read(node, "format"));
    }
}

static gboolean
read_ready(const xmlNode *mirror, VmrReady *ready, const char *target,
           GError **error)
{
    g_autofree char *name = vmr_xml_dup_attr(mirror, "ready");
    g_autofree char *clean = NULL;

    *ready = VMR_READY_NO;
    if (!name)
        return TRUE;
    for (int i = 0; i < VMR_READY_LAST; i++) {
        if (strcmp(name, ready_names[i]) == 0) {
            *ready = (VmrReady)i;
            return TRUE;
        }
    }
    clean = vmr_text_clean(name);
    vmr_error_set_virt(error, VMR_ERROR_INVALID_SPEC, VIR_ERR_XML_DETAIL,
                       WHAT " has an unknown ready='%s' in the mirror of disk "
                       "'%s'", clean, target);
    return FALSE;
}

static gboolean
read_mirror(VmrDomDisk *disk, const xmlNode *node, GError **error)
{
    const xmlNode *mirror = vmr_xml_child(node, "mirror");

    if (!mirror)
        return TRUE;
    disk->mirror = vmr_layer_read(mirror, "format");
    /* libvirt says file and format twice; this is the older way */
    if (!disk->mirror->path && strcmp(disk->mirror->type, "file") == 0)
        disk->mirror->path = vmr_xml_dup_attr(mirror, "file");
    if (!disk->mirror->format)
        disk->mirror->format = vmr_xml_dup_attr(mirror, "format");
    disk->mirror_job = dup_attr_or(mirror, "job", "copy");
    return read_ready(mirror, &disk->ready, disk->target, error);
}

static VmrDomDisk *
read_disk(const xmlNode *node, GError **error)
{
    g_autoptr(VmrDomDisk) disk = g_new0(VmrDomDisk, 1);

    disk->target = dup_child_attr(node, "target", "dev");
    if (!disk->target) {
        vmr_error_set_virt(error, VMR_ERROR_INVALID_SPEC, VIR_ERR_XML_DETAIL,
                           WHAT " has a disk without a target, line %ld",
                           xmlGetLineNo(node));
        return NULL;
    }
    disk->bus = dup_child_attr(node, "target", "bus");
    disk->device = dup_attr_or(node, "device", "disk");
    disk->readonly = vmr_xml_child(node, "readonly") != NULL;
    disk->shareable = vmr_xml_child(node, "shareable") != NULL;
    disk->transient = vmr_xml_child(node, "transient") != NULL;
    disk->refusals = vmr_disklist_review(node);
    read_chain(disk, node);
    if (!read_mirror(disk, node, error))
        return NULL;
    return g_steal_pointer(&disk);
}

static gboolean
read_disks(VmrDomXml *dom, const xmlNode *root, GError **error)
{
    const xmlNode *devices = vmr_xml_child(root, "devices");
    const xmlNode *node = devices ? vmr_xml_child(devices, "disk") : NULL;

    dom->disks = g_ptr_array_new_with_free_func((GDestroyNotify)disk_free);
    for (; node; node = vmr_xml_next(node)) {
        VmrDomDisk *disk = read_disk(node, error);

        if (!disk)
            return FALSE;
        g_ptr_array_add(dom->disks, disk);
    }
    return TRUE;
}

/* <os><type machine=> of @root; owned, NULL if there is none. */
static char *
dup_machine(const xmlNode *root)
{
    const xmlNode *os = vmr_xml_child(root, "os");
    const xmlNode *type = os ? vmr_xml_child(os, "type") : NULL;

    return type ? vmr_xml_dup_attr(type, "machine") : NULL;
}

/* Read a label of libvirt's DAC driver, "+UID:+GID"; names, which it takes in a
 * label that somebody has given, are nothing that this process should look up. */
static gboolean
parse_dac_label(const char *label, VmrDomXml *dom)
{
    g_auto(GStrv) ids = g_strsplit(label, ":", 3);
    guint64 uid;
    guint64 gid;

    if (g_strv_length(ids) != 2 || ids[0][0] != '+' || ids[1][0] != '+' ||
        !g_ascii_string_to_unsigned(ids[0] + 1, 10, 0, G_MAXUINT32 - 1, &uid,
                                    NULL) ||
        !g_ascii_string_to_unsigned(ids[1] + 1, 10, 0, G_MAXUINT32 - 1, &gid,
                                    NULL))
        return FALSE;
    dom->qemu_uid = (uid_t)uid;
    dom->qemu_gid = (gid_t)gid;
    return TRUE;
}

static void
read_qemu_user(VmrDomXml *dom, const xmlNode *root)
{
    const xmlNode *node = vmr_xml_child(root, "seclabel");

    for (; node && !dom->has_qemu_user; node = vmr_xml_next(node)) {
        g_autofree char *model = vmr_xml_dup_attr(node, "model");
        g_autofree char *label = vmr_xml_dup_child_text(node, "label");

        dom->has_qemu_user = g_strcmp0(model, "dac") == 0 && label &&
                             parse_dac_label(label, dom);
    }
}

VmrDomXml *
vmr_domxml_parse(const char *xml, GError **error)
{
    g_autoptr(xmlDoc) doc = vmr_xml_parse(xml, VMR_DOMXML_MAX_SIZE, MAX_DEPTH,
                                          "domain", WHAT, error);
    g_autoptr(VmrDomXml) dom = NULL;
    const xmlNode *root;

    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    dom = g_new0(VmrDomXml, 1);
    dom->name = vmr_xml_dup_child_text(root, "name");
    dom->uuid = vmr_xml_dup_child_text(root, "uuid");
    dom->type = vmr_xml_dup_attr(root, "type");
    dom->machine = dup_machine(root);
    dom->running = xmlHasProp(root, BAD_CAST "id") != NULL;
    if (!dom->name || !dom->uuid || !dom->type) {
        vmr_error_set_virt(error, VMR_ERROR_INVALID_SPEC, VIR_ERR_XML_DETAIL,
                           WHAT " has no %s", !dom->name   ? "name"
                                              : !dom->uuid ? "uuid"
                                                           : "type");
        return NULL;
    }
    read_qemu_user(dom, root);
    if (!read_disks(dom, root, error))
        return NULL;
    return g_steal_pointer(&dom);
}

/* Take @node and what is in it out of all namespaces; attributes, too, refer to
 * one. */
static void
drop_namespaces(xmlNode *node)
{
    node->ns = NULL;
    for (xmlAttr *attr = node->properties; attr; attr = attr->next)
        attr->ns = NULL;
    for (xmlNode *child = xmlFirstElementChild(node); child;
         child = xmlNextElementSibling(child))
        drop_namespaces(child);
}

gboolean
vmr_domxml_dup_metadata(const char *xml, const char *uri, char **text,
                        GError **error)
{
    g_autoptr(xmlDoc) doc = vmr_xml_parse(xml, VMR_DOMXML_MAX_SIZE, MAX_DEPTH,
                                          "domain", WHAT, error);
    xmlNode *metadata;
    xmlNode *node = NULL;

    *text = NULL;
    if (!doc)
        return FALSE;
    metadata = vmr_xml_child(xmlDocGetRootElement(doc), "metadata");
    if (metadata)
        node = xmlFirstElementChild(metadata);
    while (node && (!node->ns || !xmlStrEqual(node->ns->href, BAD_CAST uri)))
        node = xmlNextElementSibling(node);
    if (!node)
        return TRUE;
    drop_namespaces(node);
    xmlFreeNsList(node->nsDef);
    node->nsDef = NULL;
    *text = vmr_xml_format(node);
    return TRUE;
}

static xmlNode *
find_disk_node(xmlDoc *doc, const char *target)
{
    xmlNode *devices = vmr_xml_child(xmlDocGetRootElement(doc), "devices");
    xmlNode *disk = devices ? vmr_xml_child(devices, "disk") : NULL;

    for (; disk; disk = vmr_xml_next(disk)) {
        xmlNode *node = vmr_xml_child(disk, "target");
        g_autofree char *dev = node ? vmr_xml_dup_attr(node, "dev") : NULL;

        if (g_strcmp0(dev, target) == 0)
            return disk;
    }
    return NULL;
}

char *
vmr_domxml_set_source(const char *xml, const char *target, const char *path,
                      const char *format, GError **error)
{
    g_autoptr(xmlDoc) doc = vmr_xml_parse(xml, VMR_DOMXML_MAX_SIZE, MAX_DEPTH,
                                          "domain", WHAT, error);
    g_autofree char *type = NULL;
    g_autofree char *changed = NULL;
    g_autoptr(VmrDomXml) again = NULL;
    xmlNode *disk;
    xmlNode *driver;
    xmlNode *source;
    xmlNode *chain;

    if (!doc)
        return NULL;
    disk = find_disk_node(doc, target);
    driver = disk ? vmr_xml_child(disk, "driver") : NULL;
    source = disk ? vmr_xml_child(disk, "source") : NULL;
    if (!driver || !source) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND,
                    "the definition has no disk '%s' with a driver and a "
                    "source",
                    target);
        return NULL;
    }
    type = vmr_xml_dup_attr(disk, "type");
    if (g_strcmp0(type, "file") != 0 && g_strcmp0(type, "block") != 0) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                    "disk '%s' of the definition is neither on a file nor on "
                    "a block device",
                    target);
        return NULL;
    }
    vmr_xml_set(driver, "type", format);
    vmr_xml_set(source, g_str_equal(type, "file") ? "file" : "dev", path);
    while ((chain = vmr_xml_child(disk, "backingStore"))) {
        xmlUnlinkNode(chain);
        xmlFreeNode(chain);
    }
    changed = vmr_xml_format(xmlDocGetRootElement(doc));
    if (!changed) {
        vmr_error_set_errno(error, ENOMEM, "write", WHAT);
        return NULL;
    }
    /* libxml2 2.9 writes some names of namespaces that it cannot read again */
    again = vmr_domxml_parse(changed, error);
    return again ? g_steal_pointer(&changed) : NULL;
}

/* As libvirt does: a target comes first, a path is only one if it is
 * absolute, and a path that two disks have names neither. */
VmrDomDisk *
vmr_domxml_find(const VmrDomXml *dom, const char *name)
{
    VmrDomDisk *found = NULL;

    for (guint i = 0; i < dom->disks->len; i++) {
        VmrDomDisk *disk = dom->disks->pdata[i];

        if (strcmp(disk->target, name) == 0)
            return disk;
    }
    if (*name != '/')
        return NULL;
    for (guint i = 0; i < dom->disks->len; i++) {
        VmrDomDisk *disk = dom->disks->pdata[i];

        if (g_strcmp0(vmr_domdisk_source(disk), name) != 0)
            continue;
        if (found)
            return NULL;
        found = disk;
    }
    return found;
}

gboolean
vmr_domdisk_job_has_ended(const VmrDomDisk *disk)
{
    return disk->mirror && g_strcmp0(disk->mirror_job, "") == 0;
}

const char *
vmr_domdisk_source(const VmrDomDisk *disk)
{
    const VmrLayer *top = disk->chain->len > 0 ? disk->chain->pdata[0] : NULL;

    return top ? top->path : NULL;
}

gboolean
vmr_domdisk_has_settings(const VmrDomDisk *disk)
{
    for (guint i = 0; i < disk->chain->len; i++)
        if (vmr_layer_has_settings(g_ptr_array_index(disk->chain, i)))
            return TRUE;
    return FALSE;
}
