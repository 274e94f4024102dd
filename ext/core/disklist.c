/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "disklist.h"

#include <string.h>

#include "text.h"
#include "xmlutil.h"

#define NOT_KNOWN "is not known to virmirror: take it out of the definition"
#define SECRET "has a secret, which the new files would need, too: not supported"

/* An attribute that an element may have. */
typedef struct {
    const char *name;
    const char *only[3]; /* the values that are fine; none: all are */
    const char *why;     /* others are not, or, if none is, what is wrong */
} Attr;

typedef struct Element Element;

/* An element that another one may hold. */
struct Element {
    const char *name;
    const Attr *attrs;
    const Element *children;
    const char *why;   /* it is known, and refused */
    gboolean is_front; /* of the device, which stays: whatever is in it */
};

#define ANY(name) {(name), {NULL}, NULL}
#define FRONT(name) {(name), NULL, NULL, NULL, TRUE}
#define REFUSED(name, why) {(name), NULL, NULL, (why), FALSE}

static const char why_slices[] =
    "makes a part of the file the disk, and a copy would be all of it: not "
    "supported";
static const char why_data_store[] =
    "keeps the data in another file, which would not be copied: not supported";
static const char why_fd_group[] =
    "has the file passed as a descriptor, so that its path may lead to another "
    "one: not supported";
static const char why_copy_on_read[] =
    "keeps the top layer from being committed until the guest is restarted: "
    "take it out of the definition, and restart the guest";
static const char why_type[] =
    "is no file and no block device: not supported";
static const char why_filters[] =
    "puts filters above the disk's image, with which block jobs were not "
    "tried: use <iotune>";
static const char why_reservations[] =
    "belongs to the device that the disk is on now, and would be lost: take it "
    "out of the definition";

static const Attr cache_size_attrs[] = {ANY("unit"), {0}};
static const Element cache_children[] = {
    {"max_size", cache_size_attrs, NULL, NULL, FALSE},
    {0},
};

static const Attr label_attrs[] = {
    ANY("model"),
    ANY("relabel"),
    ANY("labelskip"),
    {0},
};
static const Element label_children[] = {
    {"label", NULL, NULL, NULL, FALSE},
    {0},
};

static const Attr source_attrs[] = {
    ANY("file"),
    ANY("dev"),
    ANY("index"),
    ANY("startupPolicy"),
    {"fdgroup", {NULL}, why_fd_group},
    {0},
};
static const Element source_children[] = {
    {"seclabel", label_attrs, label_children, NULL, FALSE},
    REFUSED("slices", why_slices),
    REFUSED("encryption", SECRET),
    REFUSED("auth", SECRET),
    REFUSED("cookies", SECRET),
    REFUSED("dataStore", why_data_store),
    REFUSED("reservations", why_reservations),
    {0},
};

static const Attr format_attrs[] = {ANY("type"), {0}};
static const Element format_children[] = {
    {"metadata_cache", NULL, cache_children, NULL, FALSE},
    {0},
};

static const Attr driver_attrs[] = {
    ANY("name"),
    ANY("type"),
    ANY("cache"),
    ANY("error_policy"),
    ANY("rerror_policy"),
    ANY("io"),
    ANY("ioeventfd"),
    ANY("event_idx"),
    {"copy_on_read", {"off"}, why_copy_on_read},
    ANY("discard"),
    ANY("discard_no_unref"),
    ANY("iothread"),
    ANY("detect_zeroes"),
    ANY("queues"),
    ANY("queue_size"),
    ANY("iommu"),
    ANY("ats"),
    ANY("packed"),
    ANY("page_per_vq"),
    {0},
};
static const Element driver_children[] = {
    {"metadata_cache", NULL, cache_children, NULL, FALSE},
    FRONT("iothreads"),
    {0},
};

static const Attr disk_attrs[] = {
    {"type", {"file", "block"}, why_type},
    ANY("device"),
    ANY("model"),
    ANY("snapshot"),
    ANY("rawio"),
    ANY("sgio"),
    {0},
};
/* The elements that are not refused and have no attributes are asked about in
 * preflight.c, where they matter. */
static const Element disk_children[] = {
    {"driver", driver_attrs, driver_children, NULL, FALSE},
    {"source", source_attrs, source_children, NULL, FALSE},
    REFUSED("auth", SECRET),
    REFUSED("encryption", SECRET),
    REFUSED("throttlefilters", why_filters),
    FRONT("backingStore"), /* a layer of its own, see below */
    FRONT("mirror"),
    FRONT("target"),
    FRONT("boot"),
    FRONT("backenddomain"),
    FRONT("readonly"),
    FRONT("shareable"),
    FRONT("transient"),
    FRONT("serial"),
    FRONT("iotune"),
    FRONT("alias"),
    FRONT("acpi"),
    FRONT("address"),
    FRONT("geometry"),
    FRONT("blockio"),
    FRONT("wwn"),
    FRONT("vendor"),
    FRONT("product"),
    {0},
};

static const Attr layer_attrs[] = {
    {"type", {"file", "block"}, why_type},
    ANY("index"),
    {0},
};
static const Element layer_children[] = {
    {"format", format_attrs, format_children, NULL, FALSE},
    {"source", source_attrs, source_children, NULL, FALSE},
    FRONT("backingStore"),
    {0},
};

static const Element disk_rule = {"disk", disk_attrs, disk_children, NULL,
                                  FALSE};
static const Element layer_rule = {"backingStore", layer_attrs,
                                   layer_children, NULL, FALSE};

/* One layer that is looked through. */
typedef struct {
    GPtrArray *refusals;
    GString *path; /* of the element at hand */
    guint layer;   /* 0: the top */
} Review;

static void
refuse(const Review *review, const char *thing, const char *why)
{
    g_autofree char *path = g_strconcat(review->path->str, thing, NULL);
    g_autofree char *clean = vmr_text_clean(path);

    if (review->refusals->len >= VMR_DISKLIST_MAX)
        return;
    if (review->layer == 0)
        g_ptr_array_add(review->refusals,
                        g_strdup_printf("%s %s", clean, why));
    else
        g_ptr_array_add(review->refusals,
                        g_strdup_printf("%s of layer %u below the top %s",
                                        clean, review->layer, why));
}

static const Attr *
find_attr(const Attr *attrs, const xmlAttr *attr)
{
    for (; attrs && attrs->name && !attr->ns; attrs++)
        if (strcmp(attrs->name, (const char *)attr->name) == 0)
            return attrs;
    return NULL;
}

/* Whether a value of @rule is as it must be. */
static gboolean
fits(const Attr *rule, const char *value)
{
    if (!rule->only[0])
        return !rule->why;
    return g_strv_contains(rule->only, value);
}

static void
review_attr(const Review *review, const xmlNode *node, const xmlAttr *attr,
            const Element *rule)
{
    const Attr *known = find_attr(rule->attrs, attr);
    g_autofree char *value = vmr_xml_dup_attr(node, (const char *)attr->name);
    g_autofree char *thing = NULL;

    if (known && fits(known, value ? value : ""))
        return;
    thing = g_strdup_printf("<%s %s='%s'>", (const char *)node->name,
                            (const char *)attr->name, value ? value : "");
    refuse(review, thing, known ? known->why : NOT_KNOWN);
}

static const Element *
find_child(const Element *rule, const xmlNode *node)
{
    for (const Element *child = rule->children; child && child->name; child++)
        if (vmr_xml_is(node, child->name))
            return child;
    return NULL;
}

static void review_element(Review *review, const xmlNode *node,
                           const Element *rule);

static void
review_child(Review *review, const xmlNode *child, const Element *rule)
{
    const Element *known = find_child(rule, child);
    g_autofree char *thing = g_strdup_printf("<%s>", (const char *)child->name);

    if (!known || known->why)
        refuse(review, thing, known ? known->why : NOT_KNOWN);
    else if (!known->is_front)
        review_element(review, child, known);
}

/* Recursion ends where the rules do: no element may hold itself. */
static void
review_element(Review *review, const xmlNode *node, const Element *rule)
{
    gsize length = review->path->len;

    for (const xmlAttr *attr = node->properties; attr; attr = attr->next)
        review_attr(review, node, attr, rule);
    if (rule != &disk_rule && rule != &layer_rule)
        g_string_append_printf(review->path, "<%s>", (const char *)node->name);
    for (const xmlNode *child = node->children; child; child = child->next)
        if (child->type == XML_ELEMENT_NODE)
            review_child(review, child, rule);
    g_string_truncate(review->path, length);
}

/* Whether the <disk> or <backingStore> @node is of a type whose <source> is
 * known here: of any other the type says enough. */
static gboolean
has_known_source(const xmlNode *node)
{
    g_autofree char *type = vmr_xml_dup_attr(node, "type");

    return !type || g_strv_contains(layer_attrs[0].only, type);
}

GPtrArray *
vmr_disklist_review(const xmlNode *node)
{
    GPtrArray *refusals = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) path = g_string_new(NULL);
    Review review = {.refusals = refusals, .path = path};

    for (; node; node = vmr_xml_child(node, "backingStore"), review.layer++) {
        const Element *rule = review.layer == 0 ? &disk_rule : &layer_rule;

        if (has_known_source(node))
            review_element(&review, node, rule);
        else
            review_attr(&review, node, xmlHasProp(node, BAD_CAST "type"), rule);
    }
    return refusals;
}
