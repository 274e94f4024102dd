/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "xmlutil.h"

#include <libvirt/virterror.h>
#include <libxml/SAX2.h>
#include <libxml/parser.h>
#include <string.h>

#include "error.h"
#include "text.h"

/* Not in the list, on purpose: NOENT and DTDLOAD (would expand and load),
 * HUGE (would lift libxml2's own limits), RECOVER (would accept the broken),
 * NOERROR (would hide errors from our own handler as well). */
#define PARSE_OPTIONS (XML_PARSE_NONET | XML_PARSE_NOBLANKS)

/* libxml2 is shared with libvirt and with the user's own code (lxml), which
 * may have set global handlers: nothing global is touched or relied on. What
 * is ours hangs at the parser context. */
typedef struct {
    startElementNsSAX2Func start; /* libxml2's own, called by ours */
    endElementNsSAX2Func end;
    guint depth;
    guint max_depth;
    gboolean has_dtd;
    gboolean too_deep;
    char *message; /* of the first fatal error, with its line */
} ParseState;

static void
parse_state_clear(ParseState *state)
{
    g_free(state->message);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ParseState, parse_state_clear)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlParserCtxt, xmlFreeParserCtxt)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlBuffer, xmlBufferFree)

static ParseState *
parse_state(void *ctx)
{
    return ((xmlParserCtxt *)ctx)->_private;
}

/* Replaces the default, which would make the document's DTD: without one no
 * entity can be declared, even if a libxml2 did not stop at once. */
static void
on_internal_subset(void *ctx, const xmlChar *name G_GNUC_UNUSED,
                   const xmlChar *public_id G_GNUC_UNUSED,
                   const xmlChar *system_id G_GNUC_UNUSED)
{
    parse_state(ctx)->has_dtd = TRUE;
    xmlStopParser(ctx);
}

static void
on_start_element(void *ctx, const xmlChar *name, const xmlChar *prefix,
                 const xmlChar *uri, int n_namespaces,
                 const xmlChar **namespaces, int n_attributes, int n_defaulted,
                 const xmlChar **attributes)
{
    ParseState *state = parse_state(ctx);

    if (++state->depth > state->max_depth) {
        state->too_deep = TRUE;
        xmlStopParser(ctx);
        return;
    }
    state->start(ctx, name, prefix, uri, n_namespaces, namespaces,
                 n_attributes, n_defaulted, attributes);
}

static void
on_end_element(void *ctx, const xmlChar *name, const xmlChar *prefix,
               const xmlChar *uri)
{
    ParseState *state = parse_state(ctx);

    state->depth--;
    state->end(ctx, name, prefix, uri);
}

#if LIBXML_VERSION >= 21200
typedef const xmlError XmlErrorArg;
#else
typedef xmlError XmlErrorArg;
#endif

/* A structured handler of our own keeps libxml2 from using the global one, or
 * stderr. Only fatal errors count: libvirt, too, lives with the others, such
 * as a metadata namespace that is no URI. */
static void
on_error(void *ctx, XmlErrorArg *error)
{
    ParseState *state = parse_state(ctx);
    g_autofree char *text = NULL;
    g_autofree char *clean = NULL;

    gboolean fatal = error->level == XML_ERR_FATAL ||
                     error->code == XML_ERR_NO_MEMORY;

    if (!fatal || state->message)
        return;
    text = g_strdup(error->message ? error->message : "unknown error");
    clean = vmr_text_clean(g_strchomp(text));
    state->message = g_strdup_printf("line %d: %s", error->line, clean);
}

/* Parse @text with @state's limits; NULL if it was refused or is broken. */
static xmlDoc *
parse_text(const char *text, ParseState *state)
{
    g_autoptr(xmlParserCtxt) ctx = xmlNewParserCtxt();
    g_autoptr(xmlDoc) doc = NULL;

    if (!ctx)
        return NULL;
    ctx->_private = state;
    state->start = ctx->sax->startElementNs;
    state->end = ctx->sax->endElementNs;
    ctx->sax->startElementNs = on_start_element;
    ctx->sax->endElementNs = on_end_element;
    ctx->sax->internalSubset = on_internal_subset;
    ctx->sax->serror = on_error;

    /* The encoding is said, not guessed or taken from the declaration: the
     * text was checked as UTF-8, and must be read as what was checked. */
    doc = xmlCtxtReadMemory(ctx, text, (int)strlen(text), NULL, "UTF-8",
                            PARSE_OPTIONS);
    /* a parser that was stopped or ran out of memory hands out what it has */
    if (state->has_dtd || state->too_deep || state->message)
        return NULL;
    return g_steal_pointer(&doc);
}

/* Size and encoding, before a parser sees @text. */
static gboolean
check_text(const char *text, gsize max_size, const char *what, GError **error)
{
    if (strnlen(text, max_size + 1) > max_size) {
        vmr_error_set_virt(error, VMR_ERROR_INVALID_SPEC, VIR_ERR_XML_ERROR,
                           "%s is larger than %" G_GSIZE_FORMAT " bytes",
                           what, max_size);
        return FALSE;
    }
    if (!g_utf8_validate(text, -1, NULL)) {
        vmr_error_set_virt(error, VMR_ERROR_INVALID_SPEC, VIR_ERR_XML_ERROR,
                           "%s is not valid UTF-8", what);
        return FALSE;
    }
    return TRUE;
}

static void
set_parse_error(const ParseState *state, const char *what, GError **error)
{
    if (state->has_dtd)
        vmr_error_set_virt(error, VMR_ERROR_INVALID_SPEC, VIR_ERR_XML_ERROR,
                           "%s has a document type declaration, which is "
                           "refused: remove it", what);
    else if (state->too_deep)
        vmr_error_set_virt(error, VMR_ERROR_INVALID_SPEC, VIR_ERR_XML_ERROR,
                           "%s is nested more than %u elements deep",
                           what, state->max_depth);
    else
        vmr_error_set_virt(error, VMR_ERROR_INVALID_SPEC, VIR_ERR_XML_ERROR,
                           "%s is malformed: %s", what,
                           state->message ? state->message : "out of memory");
}

xmlDoc *
vmr_xml_parse(const char *text, gsize max_size, guint max_depth,
              const char *root, const char *what, GError **error)
{
    static gsize initialized;
    g_auto(ParseState) state = {.max_depth = max_depth};
    g_autoptr(xmlDoc) doc = NULL;
    const xmlNode *node;

    /* libxml2 before 2.11 wants this before it is used in threads */
    if (g_once_init_enter(&initialized)) {
        xmlInitParser();
        g_once_init_leave(&initialized, 1);
    }
    if (!check_text(text, max_size, what, error))
        return NULL;
    doc = parse_text(text, &state);
    if (!doc) {
        set_parse_error(&state, what, error);
        return NULL;
    }
    node = xmlDocGetRootElement(doc);
    if (!vmr_xml_is(node, root)) {
        g_autofree char *name = vmr_text_clean((const char *)node->name);

        vmr_error_set_virt(error, VMR_ERROR_INVALID_SPEC, VIR_ERR_XML_DETAIL,
                           "%s must be a <%s> element, not <%s>%s", what, root,
                           name, node->ns ? " in a namespace" : "");
        return NULL;
    }
    return g_steal_pointer(&doc);
}

gboolean
vmr_xml_is(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && !node->ns &&
           strcmp((const char *)node->name, name) == 0;
}

static xmlNode *
first_named(xmlNode *node, const char *name)
{
    while (node && !vmr_xml_is(node, name))
        node = node->next;
    return node;
}

xmlNode *
vmr_xml_child(const xmlNode *node, const char *name)
{
    return first_named(node->children, name);
}

xmlNode *
vmr_xml_next(const xmlNode *node)
{
    return first_named(node->next, (const char *)node->name);
}

/* What libxml2 allocated is copied: its allocator may not be GLib's. */
static char *
take_string(xmlChar *text)
{
    char *copy = g_strdup((const char *)text);

    if (text)
        xmlFree(text);
    return copy;
}

char *
vmr_xml_dup_attr(const xmlNode *node, const char *name)
{
    return take_string(xmlGetNoNsProp(node, BAD_CAST name));
}

char *
vmr_xml_dup_child_text(const xmlNode *node, const char *name)
{
    const xmlNode *child = vmr_xml_child(node, name);

    return child ? take_string(xmlNodeGetContent(child)) : NULL;
}

/* A tree with a part missing for want of memory could mean something else (a
 * disk without its snapshot='no'). So @doc remembers that @part could not be
 * had, and is not written any more: no caller needs to check each step. */
static gpointer
part_of(xmlDoc *doc, gpointer part)
{
    if (!part && doc)
        doc->_private = doc;
    return part;
}

xmlDoc *
vmr_xml_new(const char *root)
{
    xmlDoc *doc = xmlNewDoc(BAD_CAST "1.0");
    xmlNode *node;

    if (!doc)
        return NULL;
    /* without it what is not ASCII comes out as &#xNN; */
    doc->encoding = part_of(doc, xmlStrdup(BAD_CAST "UTF-8"));
    node = part_of(doc, xmlNewDocNode(doc, NULL, BAD_CAST root, NULL));
    if (node)
        xmlDocSetRootElement(doc, node);
    return doc;
}

xmlNode *
vmr_xml_add(xmlNode *parent, const char *name, const char *content)
{
    if (!parent)
        return NULL;
    return part_of(parent->doc, xmlNewTextChild(parent, NULL, BAD_CAST name,
                                                BAD_CAST content));
}

void
vmr_xml_set(xmlNode *node, const char *name, const char *value)
{
    if (node && value)
        part_of(node->doc, xmlSetNsProp(node, NULL, BAD_CAST name,
                                        BAD_CAST value));
}

char *
vmr_xml_format(xmlNode *node)
{
    g_autoptr(xmlBuffer) buffer = xmlBufferCreate();

    if (!node || node->doc->_private || !buffer ||
        xmlNodeDump(buffer, node->doc, node, 0, 1) < 0)
        return NULL;
    return g_strdup((const char *)xmlBufferContent(buffer));
}
