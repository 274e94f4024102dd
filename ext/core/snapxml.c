/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "snapxml.h"

#include <libvirt/virterror.h>
#include <string.h>

#include "error.h"
#include "text.h"
#include "xmlutil.h"

#define WHAT "snapshot XML"

/* Caps for XML that is passed on or comes from libvirt, and so may hold whole
 * domains with their backing chains: what libvirt itself lets through. */
#define PASS_MAX_SIZE (4 * 1024 * 1024)
#define PASS_MAX_DEPTH 250

/* What may be in a mirrored <domainsnapshot>; an element means the same
 * wherever it may stand, so one row each is enough. */
typedef struct {
    const char *name;
    const char *attrs[5];
    const char *children[5];
    gboolean has_text;
} ElementRule;

static const ElementRule rules[] = {
    {"domainsnapshot", {NULL}, {"name", "description", "memory", "disks"}, FALSE},
    {"name", {NULL}, {NULL}, TRUE},
    {"description", {NULL}, {NULL}, TRUE},
    {"memory", {"snapshot"}, {NULL}, FALSE},
    {"disks", {NULL}, {"disk"}, FALSE},
    {"disk", {"name", "snapshot", "type"}, {"driver", "source", "mirror"}, FALSE},
    {"driver", {"type"}, {NULL}, FALSE},
    {"format", {"type"}, {NULL}, FALSE},
    {"source", {"file", "dev"}, {NULL}, FALSE},
    {"mirror", {"type", "file", "dev", "format"}, {"source", "format", "driver"}, FALSE},
};

static const ElementRule *
find_rule(const xmlNode *node)
{
    for (gsize i = 0; i < G_N_ELEMENTS(rules); i++)
        if (vmr_xml_is(node, rules[i].name))
            return &rules[i];
    return NULL;
}

static gboolean
contains(const char *const *names, const xmlChar *name)
{
    return g_strv_contains(names, (const char *)name);
}

static void
add_unknown(VmrFindings *findings, const char *kind, const xmlChar *name,
            const xmlNode *node)
{
    g_autofree char *clean = vmr_text_clean((const char *)name);

    vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                     "unknown %s '%s' in <%s>, line %ld", kind, clean,
                     (const char *)node->name, xmlGetLineNo(node));
}

static gboolean
has_earlier_twin(const xmlNode *node)
{
    for (const xmlNode *other = node->prev; other; other = other->prev)
        if (vmr_xml_is(other, (const char *)node->name))
            return TRUE;
    return FALSE;
}

static void review_element(const xmlNode *node, const ElementRule *rule,
                           VmrFindings *findings);

/* @child of the element @node, whose rule is @rule. Comments and processing
 * instructions mean nothing to anybody and are let through. */
static void
review_child(const xmlNode *child, const xmlNode *node,
             const ElementRule *rule, VmrFindings *findings)
{
    const ElementRule *child_rule = NULL;

    if (child->type == XML_TEXT_NODE || child->type == XML_CDATA_SECTION_NODE) {
        if (!rule->has_text && !xmlIsBlankNode(child))
            add_unknown(findings, "text", child->content, node);
        return;
    }
    if (child->type != XML_ELEMENT_NODE)
        return;
    if (contains(rule->children, child->name))
        child_rule = find_rule(child);
    if (!child_rule)
        add_unknown(findings, "element", child->name, node);
    else if (strcmp(child_rule->name, "disk") != 0 && has_earlier_twin(child))
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "<%s> is given twice in <%s>, line %ld",
                         child_rule->name, rule->name, xmlGetLineNo(child));
    else
        review_element(child, child_rule, findings);
}

/* Recursion ends where the rules do: no element may hold itself. */
static void
review_element(const xmlNode *node, const ElementRule *rule,
               VmrFindings *findings)
{
    for (const xmlAttr *attr = node->properties; attr; attr = attr->next)
        if (attr->ns || !contains(rule->attrs, attr->name))
            add_unknown(findings, "attribute", attr->name, node);
    for (const xmlNode *child = node->children; child; child = child->next)
        review_child(child, node, rule, findings);
}

/* An image as an element describes it, for <disk> and <mirror> alike. */
typedef struct {
    const char *what; /* "overlay" or "mirror" */
    char *disk;       /* name, fit for error texts */
    char *path;
    char *format;
    gboolean is_block;
} Image;

static void
image_clear(Image *image)
{
    g_free(image->disk);
    g_free(image->path);
    g_free(image->format);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Image, image_clear)

/* Set *@member to the attribute @name of @node, if both are there; saying the
 * same twice is fine. TRUE if the attribute is there. */
static gboolean
image_read(const Image *image, char **member, const xmlNode *node,
           const char *name, VmrFindings *findings)
{
    g_autofree char *value = node ? vmr_xml_dup_attr(node, name) : NULL;

    if (!value)
        return FALSE;
    if (*member && strcmp(*member, value) != 0) {
        g_autofree char *old = vmr_text_clean(*member);
        g_autofree char *new = vmr_text_clean(value);

        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "the %s of disk '%s' is both '%s' and '%s'",
                         image->what, image->disk, old, new);
    }
    if (!*member)
        *member = g_steal_pointer(&value);
    return TRUE;
}

/* Read @image's path from @a and @b (NULL: not there) as @type (NULL: what
 * the path's attribute says) wants it. FALSE: no image virmirror can use. */
static gboolean
image_read_path(Image *image, const char *type, const xmlNode *a,
                const xmlNode *b, VmrFindings *findings)
{
    gboolean has_file = image_read(image, &image->path, a, "file", findings);
    gboolean has_dev;

    has_file |= image_read(image, &image->path, b, "file", findings);
    has_dev = image_read(image, &image->path, a, "dev", findings);
    has_dev |= image_read(image, &image->path, b, "dev", findings);
    image->is_block = type ? strcmp(type, "block") == 0 : has_dev;

    if (type && !image->is_block && strcmp(type, "file") != 0) {
        g_autofree char *clean = vmr_text_clean(type);

        vmr_findings_add(findings, VIR_ERR_CONFIG_UNSUPPORTED,
                         "the %s of disk '%s' cannot be of type '%s': use a "
                         "file or a block device", image->what, image->disk,
                         clean);
        return FALSE;
    }
    if (image->is_block ? has_file : has_dev)
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "the path of the %s of disk '%s' must be given as "
                         "%s='...', as its type is '%s'", image->what,
                         image->disk, image->is_block ? "dev" : "file",
                         image->is_block ? "block" : "file");
    return TRUE;
}

static gboolean
read_overlay(VmrDiskSpec *disk, const xmlNode *node, VmrFindings *findings)
{
    g_auto(Image) image = {.what = "overlay",
                           .disk = vmr_text_clean(disk->name)};
    g_autofree char *type = vmr_xml_dup_attr(node, "type");

    if (!image_read_path(&image, type, vmr_xml_child(node, "source"), NULL,
                         findings))
        return FALSE;
    image_read(&image, &image.format, vmr_xml_child(node, "driver"), "type",
               findings);
    disk->file = g_steal_pointer(&image.path);
    disk->file_is_block = image.is_block;
    disk->driver = g_steal_pointer(&image.format);
    return TRUE;
}

static gboolean
read_mirror(VmrDiskSpec *disk, const xmlNode *node, VmrFindings *findings)
{
    g_auto(Image) image = {.what = "mirror",
                           .disk = vmr_text_clean(disk->name)};
    g_autofree char *type = vmr_xml_dup_attr(node, "type");

    if (!image_read_path(&image, type, node, vmr_xml_child(node, "source"),
                         findings))
        return FALSE;
    image_read(&image, &image.format, node, "format", findings);
    image_read(&image, &image.format, vmr_xml_child(node, "format"), "type",
               findings);
    image_read(&image, &image.format, vmr_xml_child(node, "driver"), "type",
               findings);
    /* a mirror without a path is told of by the rules, as an empty one */
    disk->mirror = image.path ? g_steal_pointer(&image.path) : g_strdup("");
    disk->mirror_is_block = image.is_block;
    disk->mirror_format = g_steal_pointer(&image.format);
    return TRUE;
}

/* The <disk> @node; NULL where it is of no use to the rules any more. */
static VmrDiskSpec *
read_disk(const xmlNode *node, VmrFindings *findings)
{
    g_autoptr(VmrDiskSpec) disk = g_new0(VmrDiskSpec, 1);
    const xmlNode *mirror = vmr_xml_child(node, "mirror");

    disk->name = vmr_xml_dup_attr(node, "name");
    if (!disk->name) {
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "<disk> has no name, line %ld", xmlGetLineNo(node));
        return NULL;
    }
    disk->snapshot = vmr_xml_dup_attr(node, "snapshot");
    if (!read_overlay(disk, node, findings))
        return NULL;
    if (mirror && !read_mirror(disk, mirror, findings))
        return NULL;
    return g_steal_pointer(&disk);
}

static void
review_memory(const xmlNode *root, VmrFindings *findings)
{
    const xmlNode *memory = vmr_xml_child(root, "memory");
    g_autofree char *how = memory ? vmr_xml_dup_attr(memory, "snapshot") : NULL;

    if (memory && g_strcmp0(how, "no") != 0)
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "a mirrored snapshot is of disks only: remove "
                         "<memory>, or give it snapshot='no'");
}

static VmrSnapSpec *
read_spec(const xmlNode *root, VmrFindings *findings)
{
    g_autofree char *name = vmr_xml_dup_child_text(root, "name");
    g_autofree char *description = vmr_xml_dup_child_text(root, "description");
    VmrSnapSpec *spec = vmr_snapspec_new(name, description);
    const xmlNode *disks = vmr_xml_child(root, "disks");
    const xmlNode *node = disks ? vmr_xml_child(disks, "disk") : NULL;

    /* for libvirt, too, an empty name is none */
    if (name && *name == '\0')
        g_clear_pointer(&spec->name, g_free);
    for (; node; node = vmr_xml_next(node)) {
        VmrDiskSpec *disk = read_disk(node, findings);

        if (disk)
            g_ptr_array_add(spec->disks, disk);
    }
    return spec;
}

static void
drop_excluded(GPtrArray *disks)
{
    for (guint i = disks->len; i > 0; i--)
        if (vmr_diskspec_is_excluded(disks->pdata[i - 1]))
            g_ptr_array_remove_index(disks, i - 1);
}

VmrSnapSpec *
vmr_snapxml_parse(const char *xml, GError **error)
{
    g_autoptr(VmrFindings) findings = vmr_findings_new();
    g_autoptr(VmrSnapSpec) spec = NULL;
    g_autoptr(xmlDoc) doc = NULL;
    const xmlNode *root;

    doc = vmr_xml_parse(xml, VMR_SNAPXML_MAX_SIZE, VMR_SNAPXML_MAX_DEPTH,
                        "domainsnapshot", WHAT, error);
    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    review_element(root, find_rule(root), findings);
    review_memory(root, findings);
    spec = read_spec(root, findings);
    vmr_snapspec_review(spec, findings);
    if (!vmr_findings_report(findings, VMR_ERROR_INVALID_SPEC,
                             VIR_ERR_XML_DETAIL, error))
        return NULL;
    drop_excluded(spec->disks);
    return g_steal_pointer(&spec);
}

gboolean
vmr_snapxml_has_mirror(const char *xml, gboolean *has, GError **error)
{
    g_autoptr(xmlDoc) doc = vmr_xml_parse(xml, PASS_MAX_SIZE, PASS_MAX_DEPTH,
                                          "domainsnapshot", WHAT, error);
    const xmlNode *disks;
    const xmlNode *disk;

    if (!doc)
        return FALSE;
    *has = FALSE;
    disks = vmr_xml_child(xmlDocGetRootElement(doc), "disks");
    disk = disks ? vmr_xml_child(disks, "disk") : NULL;
    for (; disk && !*has; disk = vmr_xml_next(disk))
        *has = vmr_xml_child(disk, "mirror") != NULL;
    return TRUE;
}

static xmlDoc *
new_snapshot(const VmrSnapSpec *spec, xmlNode **disks)
{
    xmlDoc *doc = vmr_xml_new("domainsnapshot");
    xmlNode *root = xmlDocGetRootElement(doc);

    if (spec->name)
        vmr_xml_add(root, "name", spec->name);
    if (spec->description)
        vmr_xml_add(root, "description", spec->description);
    *disks = vmr_xml_add(root, "disks", NULL);
    return doc;
}

static xmlNode *
add_disk(xmlNode *disks, const char *name, const char *snapshot)
{
    xmlNode *node = vmr_xml_add(disks, "disk", NULL);

    vmr_xml_set(node, "name", name);
    vmr_xml_set(node, "snapshot", snapshot);
    return node;
}

/* <driver> and <source> into a <disk>, whose type goes with them. */
static void
add_image(xmlNode *disk, const char *path, const char *format,
          gboolean is_block)
{
    if (format)
        vmr_xml_set(vmr_xml_add(disk, "driver", NULL), "type", format);
    if (path)
        vmr_xml_set(vmr_xml_add(disk, "source", NULL),
                    is_block ? "dev" : "file", path);
}

static void
add_mirror(xmlNode *node, const VmrDiskSpec *disk)
{
    xmlNode *mirror = vmr_xml_add(node, "mirror", NULL);

    if (disk->mirror_is_block)
        vmr_xml_set(mirror, "type", "block");
    vmr_xml_set(mirror, disk->mirror_is_block ? "dev" : "file", disk->mirror);
    vmr_xml_set(mirror, "format", disk->mirror_format);
}

char *
vmr_snapxml_format(const VmrSnapSpec *spec)
{
    xmlNode *disks = NULL;
    g_autoptr(xmlDoc) doc = new_snapshot(spec, &disks);

    for (guint i = 0; i < spec->disks->len; i++) {
        const VmrDiskSpec *disk = spec->disks->pdata[i];
        xmlNode *node = add_disk(disks, disk->name, disk->snapshot);

        if (disk->file_is_block)
            vmr_xml_set(node, "type", "block");
        add_image(node, disk->file, disk->driver, disk->file_is_block);
        if (disk->mirror)
            add_mirror(node, disk);
    }
    return vmr_xml_format(xmlDocGetRootElement(doc));
}

/* The new top in the <disk> @node is to be like the one of @now (NULL: none). */
static void
add_settings(xmlNode *node, const VmrDomDisk *now)
{
    if (now && now->chain->len > 0)
        vmr_layer_write_settings(g_ptr_array_index(now->chain, 0),
                                 vmr_xml_child(node, "driver"),
                                 vmr_xml_child(node, "source"));
}

/* libvirt is left no choice: it would take the format from the file's header,
 * and snapshot every disk that is not listed. */
char *
vmr_snapxml_format_libvirt(const VmrSnapSpec *spec, const char *const *others,
                           const VmrDomXml *live)
{
    xmlNode *disks = NULL;
    g_autoptr(xmlDoc) doc = new_snapshot(spec, &disks);

    for (guint i = 0; i < spec->disks->len; i++) {
        const VmrDiskSpec *disk = spec->disks->pdata[i];
        xmlNode *node;

        if (vmr_diskspec_is_excluded(disk)) {
            if (!others || !g_strv_contains(others, disk->name))
                add_disk(disks, disk->name, "no");
            continue;
        }
        node = add_disk(disks, disk->name, "external");
        vmr_xml_set(node, "type", disk->file_is_block ? "block" : "file");
        add_image(node, disk->file, disk->driver ? disk->driver : "qcow2",
                  disk->file_is_block);
        if (live)
            add_settings(node, vmr_domxml_find(live, disk->name));
    }
    for (gsize i = 0; others && others[i]; i++)
        add_disk(disks, others[i], "no");
    return vmr_xml_format(xmlDocGetRootElement(doc));
}

static const VmrDiskSpec *
find_mirrored(const GPtrArray *disks, const char *name)
{
    for (guint i = 0; i < disks->len; i++) {
        const VmrDiskSpec *disk = disks->pdata[i];

        if (disk->mirror && g_strcmp0(disk->name, name) == 0)
            return disk;
    }
    return NULL;
}

char *
vmr_snapxml_add_mirrors(const char *snapshot_xml, const GPtrArray *disks,
                        GError **error)
{
    g_autoptr(xmlDoc) doc = vmr_xml_parse(snapshot_xml, PASS_MAX_SIZE,
                                          PASS_MAX_DEPTH, "domainsnapshot",
                                          WHAT, error);
    xmlNode *root;
    xmlNode *parent;
    xmlNode *node;

    if (!doc)
        return NULL;
    root = xmlDocGetRootElement(doc);
    parent = vmr_xml_child(root, "disks");
    node = parent ? vmr_xml_child(parent, "disk") : NULL;
    for (; node; node = vmr_xml_next(node)) {
        g_autofree char *name = vmr_xml_dup_attr(node, "name");
        const VmrDiskSpec *disk = find_mirrored(disks, name);

        if (disk && !vmr_xml_child(node, "mirror"))
            add_mirror(node, disk);
    }
    return vmr_xml_format(root);
}
