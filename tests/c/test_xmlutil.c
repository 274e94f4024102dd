/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>
#include <libxml/xmlerror.h>
#include <string.h>

#include "error.h"
#include "xmlutil.h"

#define MAX_SIZE 4096
#define MAX_DEPTH 8

static xmlDoc *
parse(const char *text, GError **error)
{
    return vmr_xml_parse(text, MAX_SIZE, MAX_DEPTH, "root", "test XML", error);
}

typedef struct {
    const char *text;
    int virt_code;
    const char *reason;
} BadCase;

static const BadCase bad_cases[] = {
    {"", VIR_ERR_XML_ERROR, "test XML is malformed: "},
    {"root", VIR_ERR_XML_ERROR, "malformed: line 1: "},
    {"<root>\n<a>\n</b></root>", VIR_ERR_XML_ERROR,
     "malformed: line 3: Opening and ending tag mismatch"},
    {"<root/><root/>", VIR_ERR_XML_ERROR, "malformed"},
    {"<root a='1' a='2'/>", VIR_ERR_XML_ERROR, "redefined"},
    {"<root a='&#1;'/>", VIR_ERR_XML_ERROR, "malformed"},
    {"<root a='&#0;'/>", VIR_ERR_XML_ERROR, "malformed"},
    {"<root>\x01</root>", VIR_ERR_XML_ERROR, "malformed"},
    {"<root>\xef\xbf\xbf</root>", VIR_ERR_XML_ERROR, "malformed"},
    {"<root>&nbsp;</root>", VIR_ERR_XML_ERROR, "'nbsp' not defined"},
    {"<root>caf\xe9</root>", VIR_ERR_XML_ERROR, "is not valid UTF-8"},
    {"<?xml version='1.0' encoding='UTF-16'?><root>\xff</root>",
     VIR_ERR_XML_ERROR, "is not valid UTF-8"},
    {"<other/>", VIR_ERR_XML_DETAIL, "must be a <root> element, not <other>"},
    {"<root xmlns='urn:x'/>", VIR_ERR_XML_DETAIL, "<root> in a namespace"},
    {"<x:root xmlns:x='urn:x'/>", VIR_ERR_XML_DETAIL, "in a namespace"},
    {"<!DOCTYPE root><root/>", VIR_ERR_XML_ERROR,
     "document type declaration, which is refused"},
    {"<!DOCTYPE root [", VIR_ERR_XML_ERROR, "document type declaration"},
    {"<!DOCTYPE root [<!ENTITY a 'b'>]><root>&a;</root>", VIR_ERR_XML_ERROR,
     "document type declaration"},
    {"<!DOCTYPE root SYSTEM 'file:///etc/passwd'><root/>", VIR_ERR_XML_ERROR,
     "document type declaration"},
    {"<!DOCTYPE root [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"
     "<root>&a;</root>", VIR_ERR_XML_ERROR, "document type declaration"},
    {"<!DOCTYPE root [<!ENTITY % p SYSTEM 'http://127.0.0.1:1/'> %p;]><root/>",
     VIR_ERR_XML_ERROR, "document type declaration"},
    {"<!DOCTYPE root [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;'>"
     "<!ENTITY c '&b;&b;&b;&b;&b;'><!ENTITY d '&c;&c;&c;&c;&c;'>]>"
     "<root x='&d;'>&d;</root>", VIR_ERR_XML_ERROR,
     "document type declaration"},
    {"<!DOCTYPE root [<!ATTLIST root x CDATA 'default'>]><root/>",
     VIR_ERR_XML_ERROR, "document type declaration"},
    {"<root><b><c><d><e><f><g><h><i/></h></g></f></e></d></c></b></root>",
     VIR_ERR_XML_ERROR, "nested more than 8 elements deep"},
};

static void
test_parse_bad_text_error_says_why(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(bad_cases); i++) {
        const BadCase *c = &bad_cases[i];
        g_autoptr(GError) error = NULL;

        g_assert_null(parse(c->text, &error));
        g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
        g_test_message("%s", error->message);
        g_assert_nonnull(strstr(error->message, c->reason));
        g_assert_null(strchr(error->message, '\n'));
        g_assert_true(g_utf8_validate(error->message, -1, NULL));
        g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                        c->virt_code);
        g_assert_null(parse(c->text, NULL));
    }
}

/* What follows the start of a DTD is not looked at: here it is broken. */
static void
test_parse_dtd_stops_at_its_start(void)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(parse("<!DOCTYPE root [<!ENTITY a", &error));
    g_assert_nonnull(strstr(error->message, "document type declaration"));
}

static void
test_parse_good_text_tree(void)
{
    static const char *const texts[] = {
        "<root/>",
        "\n<!-- c --><root><?pi x?></root>\n",
        "<?xml version='1.0' encoding='ISO-8859-1'?><root/>",
        "<root xmlns:x='not a uri'><x:y/></root>",
        "<root><b><c><d><e><f><g><h/></g></f></e></d></c></b></root>",
        "<root><b><c/><c/><c/><c/><c/><c/><c/><c/><c/></b></root>",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(xmlDoc) doc = parse(texts[i], &error);

        g_assert_no_error(error);
        g_assert_nonnull(doc);
    }
}

static void
test_parse_size_at_the_cap_only(void)
{
    g_autofree char *fill = g_strnfill(MAX_SIZE - strlen("<root></root>"), 'x');
    g_autofree char *fits = g_strdup_printf("<root>%s</root>", fill);
    g_autofree char *large = g_strdup_printf("<root>%sx</root>", fill);
    g_autoptr(GError) error = NULL;
    g_autoptr(xmlDoc) doc = parse(fits, &error);

    g_assert_no_error(error);
    g_assert_nonnull(doc);
    g_assert_null(parse(large, &error));
    g_assert_cmpstr(error->message, ==, "test XML is larger than 4096 bytes");
}

/* The text is read as what was checked, whatever its declaration says. */
static void
test_parse_other_encoding_declared_ignored(void)
{
    g_autoptr(xmlDoc) doc = parse("<?xml version='1.0' encoding='ISO-8859-1'?>"
                                  "<root><a>größe</a></root>", NULL);
    g_autofree char *text = vmr_xml_dup_child_text(xmlDocGetRootElement(doc),
                                                   "a");

    g_assert_cmpstr(text, ==, "größe");
}

static void
test_parse_predefined_entities_expanded(void)
{
    g_autoptr(xmlDoc) doc = parse("<root a='&lt;&gt;&amp;&quot;&apos;&#10;'>"
                                  "<b>&lt;<![CDATA[<&]]></b></root>", NULL);
    xmlNode *root = xmlDocGetRootElement(doc);
    g_autofree char *attr = vmr_xml_dup_attr(root, "a");
    g_autofree char *text = vmr_xml_dup_child_text(root, "b");

    g_assert_cmpstr(attr, ==, "<>&\"'\n");
    g_assert_cmpstr(text, ==, "<<&");
}

static void
count_generic(void *data, const char *format G_GNUC_UNUSED, ...)
{
    (*(int *)data)++;
}

#if LIBXML_VERSION >= 21200
static void
count_structured(void *data, const xmlError *error G_GNUC_UNUSED)
#else
static void
count_structured(void *data, xmlError *error G_GNUC_UNUSED)
#endif
{
    (*(int *)data)++;
}

/* The user's own handlers hear nothing of our errors, and stay in place. */
static void
test_parse_bad_text_global_handlers_silent(void)
{
    int calls = 0;

    xmlSetGenericErrorFunc(&calls, count_generic);
    xmlSetStructuredErrorFunc(&calls, count_structured);
    for (gsize i = 0; i < G_N_ELEMENTS(bad_cases); i++)
        g_assert_null(parse(bad_cases[i].text, NULL));
    g_assert_cmpint(calls, ==, 0);
    g_assert_true(xmlStructuredError == count_structured);
    g_assert_true(xmlGenericError == count_generic);
    xmlSetStructuredErrorFunc(NULL, NULL);
    xmlSetGenericErrorFunc(NULL, NULL);
}

static gpointer
parse_many(gpointer data G_GNUC_UNUSED)
{
    for (int i = 0; i < 500; i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(xmlDoc) doc = parse("<root><a>b</a></root>", NULL);

        g_assert_nonnull(doc);
        g_assert_null(parse("<root><a></root>", &error));
        g_assert_nonnull(strstr(error->message, "line 1"));
    }
    return NULL;
}

static void
test_parse_many_threads_each_its_errors(void)
{
    GThread *threads[4];

    for (gsize i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("parse", parse_many, NULL);
    for (gsize i = 0; i < G_N_ELEMENTS(threads); i++)
        g_thread_join(threads[i]);
}

static void
test_child_and_next_other_nodes_skipped(void)
{
    g_autoptr(xmlDoc) doc = parse(
        "<root xmlns:x='urn:x'> t <x:a n='0'/><b/><!-- a --><a n='1'/>"
        "<x:a/><b/><a x:n='9' n='2'/></root>", NULL);
    xmlNode *root = xmlDocGetRootElement(doc);
    xmlNode *first = vmr_xml_child(root, "a");
    xmlNode *second = vmr_xml_next(first);
    g_autofree char *n1 = vmr_xml_dup_attr(first, "n");
    g_autofree char *n2 = vmr_xml_dup_attr(second, "n");

    g_assert_cmpstr(n1, ==, "1");
    g_assert_cmpstr(n2, ==, "2");
    g_assert_null(vmr_xml_next(second));
    g_assert_null(vmr_xml_child(root, "c"));
    g_assert_null(vmr_xml_dup_attr(first, "m"));
    g_assert_null(vmr_xml_dup_child_text(root, "c"));
}

static void
test_dup_child_text_empty_element_empty(void)
{
    g_autoptr(xmlDoc) doc = parse("<root><a/></root>", NULL);
    g_autofree char *text = vmr_xml_dup_child_text(xmlDocGetRootElement(doc),
                                                   "a");

    g_assert_cmpstr(text, ==, "");
}

/* Whatever text goes in comes out again, and never as markup. */
static void
test_format_special_text_survives(void)
{
    static const char *const texts[] = {
        "plain", "", " ", "<a/>", "&amp;", "]]>", "a'b\"c", "a\nb\tc\rd",
        "größe ディスク", "<!--", "&#10;", "%s%n",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(xmlDoc) doc = vmr_xml_new("root");
        g_autoptr(xmlDoc) again = NULL;
        g_autoptr(GError) error = NULL;
        g_autofree char *xml = NULL;
        g_autofree char *attr = NULL;
        g_autofree char *text = NULL;

        vmr_xml_set(xmlDocGetRootElement(doc), "a", texts[i]);
        vmr_xml_add(xmlDocGetRootElement(doc), "b", texts[i]);
        xml = vmr_xml_format(xmlDocGetRootElement(doc));
        again = parse(xml, &error);
        g_assert_no_error(error);
        attr = vmr_xml_dup_attr(xmlDocGetRootElement(again), "a");
        text = vmr_xml_dup_child_text(xmlDocGetRootElement(again), "b");
        g_assert_cmpstr(attr, ==, texts[i]);
        g_assert_cmpstr(text, ==, texts[i]);
    }
}

static void
test_format_tree_indented(void)
{
    g_autoptr(xmlDoc) doc = vmr_xml_new("root");
    xmlNode *root = xmlDocGetRootElement(doc);
    xmlNode *a = vmr_xml_add(root, "a", NULL);
    g_autofree char *xml = NULL;

    vmr_xml_set(a, "n", "1");
    vmr_xml_set(a, "n", "ü");
    vmr_xml_set(a, "m", NULL);
    vmr_xml_add(a, "b", "text");
    xml = vmr_xml_format(root);
    g_assert_cmpstr(xml, ==,
                    "<root>\n"
                    "  <a n=\"ü\">\n"
                    "    <b>text</b>\n"
                    "  </a>\n"
                    "</root>");
}

/* A node that takes no children stands for memory that runs out. */
static void
test_format_part_missing_null(void)
{
    g_autoptr(xmlDoc) doc = vmr_xml_new("root");
    xmlNode *root = xmlDocGetRootElement(doc);
    xmlNode *text = vmr_xml_add(root, "a", "text")->children;

    g_assert_null(vmr_xml_add(text, "b", NULL));
    g_assert_null(vmr_xml_format(root));
}

static void
test_format_null_null(void)
{
    g_assert_null(vmr_xml_add(NULL, "a", NULL));
    vmr_xml_set(NULL, "a", "b");
    g_assert_null(vmr_xml_format(NULL));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/xmlutil/parse_bad_text_error_says_why",
                    test_parse_bad_text_error_says_why);
    g_test_add_func("/xmlutil/parse_dtd_stops_at_its_start",
                    test_parse_dtd_stops_at_its_start);
    g_test_add_func("/xmlutil/parse_good_text_tree", test_parse_good_text_tree);
    g_test_add_func("/xmlutil/parse_size_at_the_cap_only",
                    test_parse_size_at_the_cap_only);
    g_test_add_func("/xmlutil/parse_other_encoding_declared_ignored",
                    test_parse_other_encoding_declared_ignored);
    g_test_add_func("/xmlutil/parse_predefined_entities_expanded",
                    test_parse_predefined_entities_expanded);
    g_test_add_func("/xmlutil/parse_bad_text_global_handlers_silent",
                    test_parse_bad_text_global_handlers_silent);
    g_test_add_func("/xmlutil/parse_many_threads_each_its_errors",
                    test_parse_many_threads_each_its_errors);
    g_test_add_func("/xmlutil/child_and_next_other_nodes_skipped",
                    test_child_and_next_other_nodes_skipped);
    g_test_add_func("/xmlutil/dup_child_text_empty_element_empty",
                    test_dup_child_text_empty_element_empty);
    g_test_add_func("/xmlutil/format_special_text_survives",
                    test_format_special_text_survives);
    g_test_add_func("/xmlutil/format_tree_indented", test_format_tree_indented);
    g_test_add_func("/xmlutil/format_part_missing_null",
                    test_format_part_missing_null);
    g_test_add_func("/xmlutil/format_null_null", test_format_null_null);
    return g_test_run();
}
