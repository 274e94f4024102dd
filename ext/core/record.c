/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "record.h"

#include <string.h>

#include "error.h"
#include "text.h"
#include "xmlutil.h"

#define MAX_DEPTH 4
#define MAX_NAME 1024
#define MAX_PATH 4096

static const char *const state_names[VMR_STATE_LAST] = {
    [VMR_STATE_CREATING] = "creating", [VMR_STATE_MIRRORING] = "mirroring",
    [VMR_STATE_PIVOTING] = "pivoting", [VMR_STATE_ABORTING] = "aborting",
    [VMR_STATE_DONE] = "done",
};

static const char *const disk_state_names[VMR_DISK_STATE_LAST] = {
    [VMR_DISK_STATE_PLANNED] = "planned",
    [VMR_DISK_STATE_OVERLAY] = "overlay",
    [VMR_DISK_STATE_MIRRORING] = "mirroring",
    [VMR_DISK_STATE_PIVOTING] = "pivoting",
    [VMR_DISK_STATE_PIVOTED] = "pivoted",
    [VMR_DISK_STATE_ABORTING] = "aborting",
    [VMR_DISK_STATE_ABORTED] = "aborted",
    [VMR_DISK_STATE_FAILED] = "failed",
};

const char *
vmr_state_name(VmrState state)
{
    g_return_val_if_fail((unsigned)state < VMR_STATE_LAST, "unknown");
    return state_names[state];
}

const char *
vmr_disk_state_name(VmrDiskState state)
{
    g_return_val_if_fail((unsigned)state < VMR_DISK_STATE_LAST, "unknown");
    return disk_state_names[state];
}

VmrFile *
vmr_file_new(const char *path, const char *format)
{
    VmrFile *file = g_new0(VmrFile, 1);

    file->path = g_strdup(path);
    file->format = g_strdup(format);
    return file;
}

gboolean
vmr_file_is_block(const VmrFile *file)
{
    return file->dev != 0 && file->ino == 0;
}

void
vmr_file_free(VmrFile *file)
{
    if (!file)
        return;
    g_free(file->path);
    g_free(file->format);
    g_free(file);
}

VmrThrottle *
vmr_throttle_new(VmrIotune *before)
{
    VmrThrottle *throttle = g_new0(VmrThrottle, 1);

    throttle->before = before;
    return throttle;
}

void
vmr_throttle_free(VmrThrottle *throttle)
{
    if (!throttle)
        return;
    vmr_iotune_free(throttle->before);
    g_free(throttle);
}

VmrDisk *
vmr_disk_new(const char *target)
{
    VmrDisk *disk = g_new0(VmrDisk, 1);

    disk->target = g_strdup(target);
    disk->backing = g_ptr_array_new_with_free_func(
        (GDestroyNotify)vmr_file_free);
    disk->copies = g_ptr_array_new_with_free_func(
        (GDestroyNotify)vmr_file_free);
    return disk;
}

const VmrFile *
vmr_disk_get_frozen(const VmrDisk *disk, guint i)
{
    if (i == 0)
        return disk->source;
    return i <= disk->backing->len ? g_ptr_array_index(disk->backing, i - 1)
                                   : NULL;
}

void
vmr_disk_free(VmrDisk *disk)
{
    if (!disk)
        return;
    g_free(disk->target);
    vmr_file_free(disk->source);
    vmr_file_free(disk->overlay);
    vmr_file_free(disk->mirror);
    g_ptr_array_unref(disk->backing);
    g_ptr_array_unref(disk->copies);
    vmr_throttle_free(disk->throttle);
    g_free(disk);
}

VmrRecord *
vmr_record_new(const char *snapshot, const char *uuid)
{
    VmrRecord *record = g_new0(VmrRecord, 1);

    record->snapshot = g_strdup(snapshot);
    record->uuid = g_strdup(uuid);
    record->disks = g_ptr_array_new_with_free_func(
        (GDestroyNotify)vmr_disk_free);
    return record;
}

void
vmr_record_free(VmrRecord *record)
{
    if (!record)
        return;
    g_free(record->snapshot);
    g_free(record->uuid);
    g_ptr_array_unref(record->disks);
    g_free(record);
}

static void
set_number(xmlNode *node, const char *name, guint64 value)
{
    g_autofree char *text = g_strdup_printf("%" G_GUINT64_FORMAT, value);

    vmr_xml_set(node, name, text);
}

static void
format_file(xmlNode *parent, const char *name, const VmrFile *file)
{
    xmlNode *node = vmr_xml_add(parent, name, NULL);

    vmr_xml_set(node, "path", file->path);
    vmr_xml_set(node, "format", file->format);
    if (file->created)
        vmr_xml_set(node, "created", "yes");
    if (file->ino != 0 || file->dev != 0) {
        set_number(node, "dev", file->dev);
        set_number(node, "ino", file->ino);
    }
    if (file->born != 0)
        set_number(node, "born", file->born);
}

static void
format_files(xmlNode *parent, const char *name, const GPtrArray *files)
{
    for (guint i = 0; i < files->len; i++)
        format_file(parent, name, g_ptr_array_index(files, i));
}

static void
format_throttle(xmlNode *parent, const VmrThrottle *throttle)
{
    xmlNode *node = vmr_xml_add(parent, "throttle", NULL);

    set_number(node, "limit", throttle->limit);
    if (throttle->last > 0)
        set_number(node, "last", throttle->last);
    for (guint i = 0; i < VMR_IOTUNE_LAST; i++) {
        if (throttle->before->values[i] > 0)
            set_number(node, vmr_iotune_field_name(i),
                       throttle->before->values[i]);
    }
    vmr_xml_set(node, "group_name", throttle->before->group);
}

static void
format_disk(xmlNode *parent, const VmrDisk *disk)
{
    xmlNode *node = vmr_xml_add(parent, "disk", NULL);

    vmr_xml_set(node, "target", disk->target);
    vmr_xml_set(node, "state", vmr_disk_state_name(disk->state));
    format_file(node, "source", disk->source);
    format_files(node, "backing", disk->backing);
    format_file(node, "overlay", disk->overlay);
    format_file(node, "mirror", disk->mirror);
    format_files(node, "copy", disk->copies);
    if (disk->throttle)
        format_throttle(node, disk->throttle);
}

char *
vmr_record_format(const VmrRecord *record)
{
    g_autoptr(xmlDoc) doc = xmlNewDoc(BAD_CAST "1.0");
    xmlNode *root = xmlNewDocNode(doc, NULL, BAD_CAST "mirror", NULL);

    xmlDocSetRootElement(doc, root);
    set_number(root, "version", VMR_RECORD_VERSION);
    set_number(root, "sequence", record->sequence);
    vmr_xml_set(root, "snapshot", record->snapshot);
    vmr_xml_set(root, "domain", record->uuid);
    vmr_xml_set(root, "state", vmr_state_name(record->state));
    if (record->paused)
        vmr_xml_set(root, "paused", "yes");
    for (guint i = 0; i < record->disks->len; i++)
        format_disk(root, g_ptr_array_index(record->disks, i));
    return vmr_xml_format(root);
}

static void G_GNUC_PRINTF(2, 3)
set_error(GError **error, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(error, VMR_ERROR, VMR_ERROR_JOURNAL,
                "journal is unusable: %s", text);
}

/* The attribute @name of @node, which must be there and 1 to @max bytes. */
static char *
parse_text(const xmlNode *node, const char *name, gsize max, GError **error)
{
    g_autofree char *text = vmr_xml_dup_attr(node, name);

    if (!text || text[0] == '\0' || strlen(text) > max) {
        set_error(error, "<%s> has no proper '%s'", (const char *)node->name,
                  name);
        return NULL;
    }
    return g_steal_pointer(&text);
}

static gboolean
parse_number(const xmlNode *node, const char *name, guint64 *number,
             GError **error)
{
    g_autofree char *text = parse_text(node, name, 20, error);

    if (!text)
        return FALSE;
    if (!g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT64, number, NULL)) {
        g_autofree char *clean = vmr_text_clean(text);

        set_error(error, "'%s' is no number for '%s'", clean, name);
        return FALSE;
    }
    return TRUE;
}

/* The index of the attribute "state" of @node in @names. */
static gboolean
parse_state(const xmlNode *node, const char *const *names, guint n_names,
            guint *state, GError **error)
{
    g_autofree char *text = parse_text(node, "state", MAX_NAME, error);
    g_autofree char *clean = NULL;

    if (!text)
        return FALSE;
    for (*state = 0; *state < n_names; (*state)++) {
        if (g_str_equal(names[*state], text))
            return TRUE;
    }
    clean = vmr_text_clean(text);
    set_error(error, "unknown state '%s'", clean);
    return FALSE;
}

/* The attribute @name of @node, "yes" or not there. */
static gboolean
parse_flag(const xmlNode *node, const char *name, gboolean *flag,
           GError **error)
{
    g_autofree char *text = vmr_xml_dup_attr(node, name);
    g_autofree char *clean = NULL;

    *flag = text != NULL;
    if (!text || g_str_equal(text, "yes"))
        return TRUE;
    clean = vmr_text_clean(text);
    set_error(error, "'%s' is no value for '%s'", clean, name);
    return FALSE;
}

static VmrFile *
parse_file(const xmlNode *node, GError **error)
{
    g_autoptr(VmrFile) file = g_new0(VmrFile, 1);
    g_autofree char *dev = vmr_xml_dup_attr(node, "dev");
    g_autofree char *born = vmr_xml_dup_attr(node, "born");

    file->path = parse_text(node, "path", MAX_PATH, error);
    if (!file->path)
        return NULL;
    if (!g_path_is_absolute(file->path)) {
        g_autofree char *clean = vmr_text_clean(file->path);

        set_error(error, "path '%s' is not absolute", clean);
        return NULL;
    }
    file->format = parse_text(node, "format", MAX_NAME, error);
    if (!file->format)
        return NULL;
    if (!parse_flag(node, "created", &file->created, error))
        return NULL;
    if (dev && (!parse_number(node, "dev", &file->dev, error) ||
                !parse_number(node, "ino", &file->ino, error)))
        return NULL;
    if (born && !parse_number(node, "born", &file->born, error))
        return NULL;
    return g_steal_pointer(&file);
}

static VmrFile *
parse_child_file(const xmlNode *parent, const char *name, GError **error)
{
    xmlNode *node = vmr_xml_child(parent, name);

    if (!node) {
        set_error(error, "a disk has no <%s>", name);
        return NULL;
    }
    return parse_file(node, error);
}

static gboolean
parse_files(const xmlNode *parent, const char *name, GPtrArray *files,
            GError **error)
{
    for (xmlNode *child = vmr_xml_child(parent, name); child;
         child = vmr_xml_next(child)) {
        VmrFile *file = parse_file(child, error);

        if (!file)
            return FALSE;
        g_ptr_array_add(files, file);
    }
    return TRUE;
}

static gboolean
parse_disk_files(const xmlNode *node, VmrDisk *disk, GError **error)
{
    disk->source = parse_child_file(node, "source", error);
    if (!disk->source)
        return FALSE;
    disk->overlay = parse_child_file(node, "overlay", error);
    if (!disk->overlay)
        return FALSE;
    disk->mirror = parse_child_file(node, "mirror", error);
    return disk->mirror &&
           parse_files(node, "backing", disk->backing, error) &&
           parse_files(node, "copy", disk->copies, error);
}

/* The attribute @name of @node, 0 if it is not there. */
static gboolean
parse_optional_number(const xmlNode *node, const char *name, guint64 *number,
                      GError **error)
{
    g_autofree char *text = vmr_xml_dup_attr(node, name);

    *number = 0;
    return !text || parse_number(node, name, number, error);
}

static VmrThrottle *
parse_throttle(const xmlNode *node, GError **error)
{
    g_autoptr(VmrThrottle) throttle = vmr_throttle_new(vmr_iotune_new());
    VmrIotune *before = throttle->before;
    g_autofree char *group = vmr_xml_dup_attr(node, "group_name");

    if (!parse_number(node, "limit", &throttle->limit, error) ||
        !parse_optional_number(node, "last", &throttle->last, error))
        return NULL;
    for (guint i = 0; i < VMR_IOTUNE_LAST; i++) {
        if (!parse_optional_number(node, vmr_iotune_field_name(i),
                                   &before->values[i], error))
            return NULL;
    }
    if (group)
        before->group = parse_text(node, "group_name", MAX_NAME, error);
    return group && !before->group ? NULL : g_steal_pointer(&throttle);
}

static VmrDisk *
parse_disk(const xmlNode *node, GError **error)
{
    const xmlNode *throttle = vmr_xml_child(node, "throttle");
    g_autofree char *target = parse_text(node, "target", MAX_NAME, error);
    g_autoptr(VmrDisk) disk = NULL;
    guint state;

    if (!target || !parse_state(node, disk_state_names,
                                G_N_ELEMENTS(disk_state_names), &state, error))
        return NULL;
    disk = vmr_disk_new(target);
    disk->state = state;
    if (!parse_disk_files(node, disk, error))
        return NULL;
    if (throttle) {
        disk->throttle = parse_throttle(throttle, error);
        if (!disk->throttle)
            return NULL;
    }
    return g_steal_pointer(&disk);
}

static gboolean
parse_version(const xmlNode *root, GError **error)
{
    guint64 version;

    if (!parse_number(root, "version", &version, error))
        return FALSE;
    if (version != VMR_RECORD_VERSION) {
        set_error(error,
                  "it has version %" G_GUINT64_FORMAT ", this virmirror "
                  "knows version %d only",
                  version, VMR_RECORD_VERSION);
        return FALSE;
    }
    return TRUE;
}

static gboolean
parse_disks(const xmlNode *root, VmrRecord *record, GError **error)
{
    g_autoptr(GHashTable) targets = g_hash_table_new(g_str_hash, g_str_equal);

    for (xmlNode *node = vmr_xml_child(root, "disk"); node;
         node = vmr_xml_next(node)) {
        VmrDisk *disk = parse_disk(node, error);

        if (!disk)
            return FALSE;
        g_ptr_array_add(record->disks, disk);
        if (!g_hash_table_add(targets, disk->target)) {
            g_autofree char *clean = vmr_text_clean(disk->target);

            set_error(error, "disk '%s' is there twice", clean);
            return FALSE;
        }
    }
    if (record->disks->len == 0) {
        set_error(error, "it has no disks");
        return FALSE;
    }
    return TRUE;
}

VmrRecord *
vmr_record_parse(const char *xml, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(xmlDoc) doc = vmr_xml_parse(xml, VMR_RECORD_MAX_SIZE, MAX_DEPTH,
                                          "mirror", "journal", &local);
    g_autoptr(VmrRecord) record = vmr_record_new(NULL, NULL);
    const xmlNode *root;
    guint state;

    if (!doc) {
        set_error(error, "%s", local->message);
        return NULL;
    }
    root = xmlDocGetRootElement(doc);
    if (!parse_version(root, error) ||
        !parse_number(root, "sequence", &record->sequence, error) ||
        !parse_state(root, state_names, G_N_ELEMENTS(state_names), &state,
                     error))
        return NULL;
    record->state = state;
    if (!parse_flag(root, "paused", &record->paused, error))
        return NULL;
    record->snapshot = parse_text(root, "snapshot", MAX_NAME, error);
    if (!record->snapshot)
        return NULL;
    record->uuid = parse_text(root, "domain", MAX_NAME, error);
    if (!record->uuid || !parse_disks(root, record, error))
        return NULL;
    return g_steal_pointer(&record);
}
