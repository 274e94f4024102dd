/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "fake_priv.h"
#include "xmlutil.h"

#define MAX_SIZE 65536
#define MAX_DEPTH 10

static void
append_chain(GString *xml, const FakeDisk *disk)
{
    for (guint i = 1; i < disk->chain->len; i++) {
        g_autofree char *layer = g_markup_printf_escaped(
            "<backingStore type='file'><format type='qcow2'/>"
            "<source file='%s'/>", (char *)disk->chain->pdata[i]);

        g_string_append(xml, layer);
    }
    g_string_append(xml, "<backingStore/>");
    for (guint i = 1; i < disk->chain->len; i++)
        g_string_append(xml, "</backingStore>");
}

static void
append_mirror(GString *xml, FakeHv *fake, const FakeDisk *disk)
{
    gboolean is_copy = disk->job == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY;
    g_autofree char *ready = NULL;
    g_autofree char *mirror = NULL;

    if (disk->job == 0 && disk->lingering && fake->knobs.lingers > 0) {
        fake->knobs.lingers--;
        mirror = g_markup_printf_escaped(
            "<mirror type='file' job=''><format type='qcow2'/>"
            "<source file='%s'/></mirror>", disk->lingering);
        g_string_append(xml, mirror);
        return;
    }
    if (disk->hidden)
        return;
    if (!is_copy && disk->job != VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT)
        return;
    /* libvirt leaves "no" out */
    if (disk->ready != VMR_READY_NO)
        ready = g_strdup_printf(" ready='%s'", vmr_ready_name(disk->ready));
    mirror = g_markup_printf_escaped(
        "<format type='qcow2'/><source file='%s'/></mirror>",
        (char *)disk->dest->pdata[0]);
    g_string_append_printf(xml, "<mirror type='file' job='%s'%s>%s",
                           is_copy ? "copy" : "active-commit",
                           ready ? ready : "", mirror);
}

static void
append_iotune(GString *xml, const VmrIotune *tune)
{
    g_string_append(xml, "<iotune>");
    for (guint i = 0; i < VMR_IOTUNE_LAST; i++) {
        const char *name = vmr_iotune_field_name(i);

        if (tune->values[i] > 0)
            g_string_append_printf(xml, "<%s>%" G_GUINT64_FORMAT "</%s>", name,
                                   tune->values[i], name);
    }
    if (tune->group)
        g_string_append_printf(xml, "<group_name>%s</group_name>", tune->group);
    g_string_append(xml, "</iotune>");
}

static void
append_disk(GString *xml, FakeHv *fake, const FakeDisk *disk, gboolean inactive)
{
    g_autofree char *head = g_markup_printf_escaped(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
        "<source file='%s'/>",
        inactive ? disk->inactive : (char *)disk->chain->pdata[0]);

    g_string_append(xml, head);
    if (!inactive) {
        append_chain(xml, disk);
        append_mirror(xml, fake, disk);
        append_iotune(xml, disk->iotune);
    }
    g_string_append_printf(xml, "<target dev='%s' bus='virtio'/></disk>",
                           disk->target);
}

char *
fake_xml_of_domain(FakeHv *fake, gboolean inactive)
{
    GString *xml = g_string_new("<domain type='qemu'");

    inactive = inactive || fake->shut_off;
    if (!inactive)
        g_string_append(xml, " id='1'");
    g_string_append(xml, "><name>guest</name><uuid>" FAKE_UUID
                         "</uuid><devices>");
    for (guint i = 0; i < fake->disks->len; i++) {
        fake_flow(fake, g_ptr_array_index(fake->disks, i));
        append_disk(xml, fake, g_ptr_array_index(fake->disks, i), inactive);
    }
    g_string_append(xml, "<disk type='file' device='cdrom'>"
                         "<driver name='qemu' type='raw'/>"
                         "<target dev='sda' bus='sata'/><readonly/></disk>"
                         "</devices>");
    if (fake->knobs.qemu_user)
        g_string_append_printf(xml, "<seclabel model='dac'><label>+%u:+%u"
                                    "</label></seclabel>",
                               fake->knobs.qemu_user, fake->knobs.qemu_user);
    g_string_append(xml, "</domain>");
    return g_string_free(xml, FALSE);
}

/* The path of the <disk> that a copy is to go to; owned. */
char *
fake_xml_copy_path(const char *xml)
{
    g_autoptr(xmlDoc) doc =
        vmr_xml_parse(xml, MAX_SIZE, MAX_DEPTH, "disk", "copy", NULL);
    const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
    const xmlNode *driver = root ? vmr_xml_child(root, "driver") : NULL;
    const xmlNode *source = root ? vmr_xml_child(root, "source") : NULL;

    /* libvirt would guess the format, and lose the chain */
    g_assert_nonnull(driver);
    g_assert_nonnull(source);
    g_assert_null(vmr_xml_child(root, "backingStore"));
    return vmr_xml_dup_attr(source, "file");
}

/* The <disk> for @target in the snapshot XML, or NULL. */
static const xmlNode *
find_disk(const xmlNode *root, const char *target)
{
    const xmlNode *disks = vmr_xml_child(root, "disks");
    const xmlNode *node = disks ? vmr_xml_child(disks, "disk") : NULL;

    for (; node; node = vmr_xml_next(node)) {
        g_autofree char *name = vmr_xml_dup_attr(node, "name");

        if (g_strcmp0(name, target) == 0)
            return node;
    }
    return NULL;
}

/* The overlay that @root wants for @disk; owned; NULL: leave the disk alone.
 * FALSE if the disk cannot have one. */
static gboolean
plan_overlay(const xmlNode *root, const FakeDisk *disk, char **overlay,
             GError **error)
{
    const xmlNode *node = find_disk(root, disk->target);
    g_autofree char *kind = node ? vmr_xml_dup_attr(node, "snapshot") : NULL;
    const xmlNode *source = node ? vmr_xml_child(node, "source") : NULL;

    *overlay = NULL;
    /* libvirt would snapshot it as well */
    if (!node)
        return fake_refuse(error, VIR_ERR_INTERNAL_ERROR,
                           "disk '%s' is not listed", disk->target);
    if (g_strcmp0(kind, "no") == 0)
        return TRUE;
    if (disk->job != 0)
        return fake_refuse(error, VIR_ERR_BLOCK_COPY_ACTIVE,
                           "block copy still active: disk '%s'", disk->target);
    *overlay = source ? vmr_xml_dup_attr(source, "file") : NULL;
    if (!*overlay || !g_file_test(*overlay, G_FILE_TEST_EXISTS))
        return fake_refuse(error, VIR_ERR_CONFIG_UNSUPPORTED,
                           "missing existing file for disk %s: %s",
                           disk->target, *overlay ? *overlay : "none");
    return TRUE;
}

static void
put_on_overlay(FakeHv *fake, FakeDisk *disk, char *overlay)
{
    GPtrArray *chain = g_ptr_array_new_with_free_func(g_free);

    g_ptr_array_add(chain, overlay);
    for (guint i = 0; i < disk->chain->len; i++)
        g_ptr_array_add(chain, g_strdup(disk->chain->pdata[i]));
    fake_disk_set_top(fake, disk, chain);
}

/* All disks, or, if one cannot, none. */
static gboolean
snapshot_disks(FakeHv *fake, const xmlNode *root, GError **error)
{
    char *overlays[FAKE_MAX_DISKS] = {NULL};
    gboolean ok = TRUE;

    for (guint i = 0; ok && i < fake->disks->len; i++)
        ok = plan_overlay(root, g_ptr_array_index(fake->disks, i),
                          &overlays[i], error);
    for (guint i = 0; i < fake->disks->len; i++) {
        if (ok && overlays[i])
            put_on_overlay(fake, g_ptr_array_index(fake->disks, i),
                           overlays[i]);
        else
            g_free(overlays[i]);
    }
    fake_disk_sync_locks(fake);
    return ok;
}

gboolean
fake_snapshot_create(FakeHv *fake, VmrHvCall *call, GError **error)
{
    g_autoptr(xmlDoc) doc = vmr_xml_parse(call->xml, MAX_SIZE, MAX_DEPTH,
                                          "domainsnapshot", "snapshot", NULL);
    const xmlNode *root = doc ? xmlDocGetRootElement(doc) : NULL;
    g_autofree char *name = root ? vmr_xml_dup_child_text(root, "name") : NULL;
    guint flags = VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY |
                  VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT;

    g_assert_nonnull(name);
    g_assert_cmphex(call->flags & flags, ==, flags);
    /* libvirt would take a plain snapshot */
    g_assert_null(strstr(call->xml, "<mirror"));
    if (g_hash_table_contains(fake->snapshots, name))
        return fake_refuse(error, VIR_ERR_OPERATION_INVALID,
                           "domain snapshot %s already exists", name);
    if (!snapshot_disks(fake, root, error))
        return FALSE;
    g_hash_table_insert(fake->snapshots, g_strdup(name), g_strdup(call->xml));
    g_free(fake->current);
    fake->current = g_strdup(name);
    call->text = g_steal_pointer(&name);
    return TRUE;
}
