/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * xmlutil: the way all XML comes in and goes out.
 *
 * In: no DTD, no entities of its own, no network, a cap on size and depth. Out:
 * built as a tree, so that libxml2 does the escaping.
 */

#include <glib.h>
#include <libxml/tree.h>

G_BEGIN_DECLS

G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlDoc, xmlFreeDoc)

/* Parse @text, at most @max_size bytes and @max_depth elements deep, whose
 * root must be named @root. @what names it in error texts ("snapshot XML").
 * Errors: INVALID_SPEC with VIR_ERR_XML_ERROR (or XML_DETAIL). */
xmlDoc *vmr_xml_parse(const char *text, gsize max_size, guint max_depth,
                      const char *root, const char *what, GError **error);

/* Whether @node is the element @name in no namespace, as all of libvirt's own
 * are. */
gboolean vmr_xml_is(const xmlNode *node, const char *name);

/* The first child element of @node named @name, borrowed, or NULL. */
xmlNode *vmr_xml_child(const xmlNode *node, const char *name);

/* The next sibling element of @node with the same name, borrowed, or NULL. */
xmlNode *vmr_xml_next(const xmlNode *node);

/* A copy of the attribute @name of @node, or NULL; to be freed by g_free(). */
char *vmr_xml_dup_attr(const xmlNode *node, const char *name);

/* A copy of the text of the child element @name of @node, or NULL; g_free(). */
char *vmr_xml_dup_child_text(const xmlNode *node, const char *name);

/* A document with the empty root element @root. Where memory runs out, this
 * and vmr_xml_add() return NULL, which all functions below take;
 * vmr_xml_format() tells of it at the end. */
xmlDoc *vmr_xml_new(const char *root);

/* Append the element @name to @parent; @content NULL: empty. Borrowed. */
xmlNode *vmr_xml_add(xmlNode *parent, const char *name, const char *content);

/* Set the attribute @name of @node, unless @value is NULL. */
void vmr_xml_set(xmlNode *node, const char *name, const char *value);

/* @node and what is in it as text, indented by two spaces; owned. NULL if not
 * all of it could be made or written for want of memory; libvirt refuses a
 * NULL for XML. */
char *vmr_xml_format(xmlNode *node);

G_END_DECLS
