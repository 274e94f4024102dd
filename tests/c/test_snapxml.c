/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>
#include <libxml/parser.h>
#include <libxml/relaxng.h>
#include <string.h>

#include "error.h"
#include "golden.h"
#include "snapxml.h"

#define SCHEMA "/usr/share/libvirt/schemas/domainsnapshot.rng"

#define DISKS(text) "<domainsnapshot><disks>" text "</disks></domainsnapshot>"
#define DISK(text) DISKS("<disk name='vda'>" text "</disk>")
#define GOOD_DISK "<disk name='vda'><mirror file='/b'/></disk>"

static const char *const golden_names[] = {"seed", "nested", "block",
                                           "special"};

static VmrSnapSpec *
parse_good(const char *xml)
{
    g_autoptr(GError) error = NULL;
    VmrSnapSpec *spec = vmr_snapxml_parse(xml, &error);

    g_assert_no_error(error);
    return spec;
}

static VmrSnapSpec *
parse_golden(const char *name)
{
    g_autofree char *file = g_strconcat("snapxml/", name, ".xml", NULL);
    g_autofree char *xml = golden_read(file);

    return parse_good(xml);
}

static void
test_format_golden_as_expected(gconstpointer name)
{
    g_autofree char *file = g_strconcat("snapxml/", name, ".format.xml", NULL);
    g_autoptr(VmrSnapSpec) spec = parse_golden(name);
    g_autofree char *xml = vmr_snapxml_format(spec);
    g_autoptr(VmrSnapSpec) again = parse_good(xml);
    g_autofree char *second = vmr_snapxml_format(again);

    golden_check(xml, file);
    g_assert_cmpstr(second, ==, xml);
}

static void
test_format_libvirt_golden_as_expected(gconstpointer name)
{
    static const char *const others[] = {"vdy", "sda", NULL};
    g_autofree char *file = g_strconcat("snapxml/", name, ".libvirt.xml", NULL);
    g_autoptr(VmrSnapSpec) spec = parse_golden(name);
    g_autofree char *xml = vmr_snapxml_format_libvirt(spec, others, NULL);

    golden_check(xml, file);
}

/* What libvirt is given is all understood by it: it ignores what it does not know. */
static void
test_format_libvirt_golden_passes_the_schema(gconstpointer name)
{
    static const char *const others[] = {"vdy", "sda", NULL};
    g_autoptr(VmrSnapSpec) spec = parse_golden(name);
    g_autofree char *xml = vmr_snapxml_format_libvirt(spec, others, NULL);
    xmlRelaxNGParserCtxt *parser;
    xmlRelaxNG *schema;
    xmlRelaxNGValidCtxt *valid;
    xmlDoc *doc;

    if (!g_file_test(SCHEMA, G_FILE_TEST_EXISTS)) {
        g_test_skip("libvirt's schemas are not at " SCHEMA);
        return;
    }
    parser = xmlRelaxNGNewParserCtxt(SCHEMA);
    schema = xmlRelaxNGParse(parser);
    valid = xmlRelaxNGNewValidCtxt(schema);
    doc = xmlReadMemory(xml, (int)strlen(xml), NULL, NULL, 0);
    g_assert_cmpint(xmlRelaxNGValidateDoc(valid, doc), ==, 0);
    xmlFreeDoc(doc);
    xmlRelaxNGFreeValidCtxt(valid);
    xmlRelaxNGFree(schema);
    xmlRelaxNGFreeParserCtxt(parser);
}

static void
test_parse_seed_fields(void)
{
    g_autoptr(VmrSnapSpec) spec = parse_golden("seed");
    const VmrDiskSpec *disk = spec->disks->pdata[0];

    g_assert_cmpstr(spec->name, ==, "migrate");
    g_assert_null(spec->description);
    g_assert_cmpuint(spec->disks->len, ==, 1);
    g_assert_cmpstr(disk->name, ==, "vda");
    g_assert_null(disk->snapshot);
    g_assert_null(disk->driver);
    g_assert_cmpstr(disk->file, ==, "/path1/to/old.migrate");
    g_assert_cmpstr(disk->mirror, ==, "/path2/to/new.qcow2");
    g_assert_null(disk->mirror_format);
    g_assert_false(disk->file_is_block || disk->mirror_is_block);
}

static void
test_parse_nested_mirror_fields(void)
{
    g_autoptr(VmrSnapSpec) spec = parse_golden("nested");
    const VmrDiskSpec *first = spec->disks->pdata[0];
    const VmrDiskSpec *second = spec->disks->pdata[1];

    g_assert_cmpuint(spec->disks->len, ==, 2); /* vdb is left out */
    g_assert_cmpstr(first->mirror, ==, "/path2/new.qcow2");
    g_assert_cmpstr(first->mirror_format, ==, "qcow2");
    g_assert_cmpstr(second->name, ==, "vdc");
    g_assert_cmpstr(second->mirror, ==, "/path2/newc.qcow2");
    g_assert_cmpstr(second->mirror_format, ==, "qcow2");
}

static void
test_parse_block_devices_flags(void)
{
    g_autoptr(VmrSnapSpec) spec = parse_golden("block");
    const VmrDiskSpec *first = spec->disks->pdata[0];
    const VmrDiskSpec *second = spec->disks->pdata[1];

    g_assert_null(spec->name);
    g_assert_cmpstr(first->file, ==, "/dev/vg1/overlay");
    g_assert_true(first->file_is_block && first->mirror_is_block);
    g_assert_false(second->file_is_block);
    g_assert_true(second->mirror_is_block);
}

static void
test_parse_special_text_fields(void)
{
    g_autoptr(VmrSnapSpec) spec = parse_golden("special");
    const VmrDiskSpec *disk = spec->disks->pdata[0];

    g_assert_cmpstr(spec->name, ==, "-f größe <x> & 'y'");
    g_assert_cmpstr(spec->description, ==, "<b>\ntwo lines");
    g_assert_cmpstr(disk->name, ==, "/path1/a,b:c 'd' \"e\"");
    g_assert_cmpstr(disk->file, ==, "/path1/--x <&>");
    g_assert_cmpstr(disk->mirror, ==, "/path2/ディスク");
}

static void
test_parse_empty_name_none(void)
{
    g_autoptr(VmrSnapSpec) spec = parse_good(
        "<domainsnapshot><name/><disks>" GOOD_DISK
        "</disks></domainsnapshot>");

    g_assert_null(spec->name);
}

static void
test_parse_blanks_and_comments_ignored(void)
{
    g_autoptr(VmrSnapSpec) spec = parse_good(
        DISKS(" <!-- a -->\n" GOOD_DISK "<![CDATA[ \n]]> <?pi?> "));

    g_assert_cmpuint(spec->disks->len, ==, 1);
}

typedef struct {
    const char *xml;
    int virt_code;
    const char *message;
} BadCase;

static const BadCase bad_cases[] = {
    /* not XML, or not this XML */
    {"", VIR_ERR_XML_ERROR,
     "snapshot XML is malformed: line 1: Document is empty"},
    {"<domain/>", VIR_ERR_XML_DETAIL,
     "snapshot XML must be a <domainsnapshot> element, not <domain>"},
    {"<!DOCTYPE domainsnapshot [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"
     "<domainsnapshot><name>&a;</name></domainsnapshot>", VIR_ERR_XML_ERROR,
     "snapshot XML has a document type declaration, which is refused: remove "
     "it"},
    {"<domainsnapshot><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>",
     VIR_ERR_XML_ERROR, "snapshot XML is nested more than 16 elements deep"},

    /* what is not known */
    {"<domainsnapshot>\n<disks>" GOOD_DISK "</disks>\n<Name/>"
     "</domainsnapshot>", VIR_ERR_XML_DETAIL,
     "unknown element 'Name' in <domainsnapshot>, line 1"},
    {"<domainsnapshot><disks>" GOOD_DISK "</disks><domain/></domainsnapshot>",
     VIR_ERR_XML_DETAIL,
     "unknown element 'domain' in <domainsnapshot>, line 1"},
    {DISKS(GOOD_DISK "<x:disk xmlns:x='urn:x'/>"), VIR_ERR_XML_DETAIL,
     "unknown element 'disk' in <disks>, line 1"},
    {DISKS("\n" "<disk name='vda' nam='x'><mirror file='/b'/></disk>"),
     VIR_ERR_XML_DETAIL, "unknown attribute 'nam' in <disk>, line 2"},
    {DISK("<mirror xml:id='x' file='/b'/>"), VIR_ERR_XML_DETAIL,
     "unknown attribute 'id' in <mirror>, line 1"},
    {DISK("<mirror xmlns:x='urn:x' x:file='/b'/>"), VIR_ERR_XML_DETAIL,
     "unknown attribute 'file' in <mirror>, line 1; path '' of the mirror of "
     "disk 'vda' is empty"},
    {DISK("<mirror file='/b' job='copy'/>"), VIR_ERR_XML_DETAIL,
     "unknown attribute 'job' in <mirror>, line 1"},
    {DISK("<source file='/a' index='1'/><mirror file='/b'/>"),
     VIR_ERR_XML_DETAIL, "unknown attribute 'index' in <source>, line 1"},
    {DISK("<mirror file='/b'><backingStore/></mirror>"), VIR_ERR_XML_DETAIL,
     "unknown element 'backingStore' in <mirror>, line 1"},
    {DISK("<driver type='qcow2'><metadata_cache/></driver>"
          "<mirror file='/b'/>"), VIR_ERR_XML_DETAIL,
     "unknown element 'metadata_cache' in <driver>, line 1"},
    {DISK("stray\n<mirror file='/b'/>"), VIR_ERR_XML_DETAIL,
     "unknown text 'stray\\x0a' in <disk>, line 1"},
    {DISK("<![CDATA[x]]><mirror file='/b'/>"), VIR_ERR_XML_DETAIL,
     "unknown text 'x' in <disk>, line 1"},
    {"<domainsnapshot><name>a<b/></name><disks>" GOOD_DISK
     "</disks></domainsnapshot>", VIR_ERR_XML_DETAIL,
     "unknown element 'b' in <name>, line 1"},

    /* what is there twice */
    {"<domainsnapshot><name>a</name><name>b</name><disks>" GOOD_DISK
     "</disks></domainsnapshot>", VIR_ERR_XML_DETAIL,
     "<name> is given twice in <domainsnapshot>, line 1"},
    {"<domainsnapshot><disks>" GOOD_DISK "</disks><disks/></domainsnapshot>",
     VIR_ERR_XML_DETAIL, "<disks> is given twice in <domainsnapshot>, line 1"},
    {DISK("<mirror file='/b'/><mirror file='/b'/>"), VIR_ERR_XML_DETAIL,
     "<mirror> is given twice in <disk>, line 1"},
    {DISK("<mirror file='/b'><source file='/c'/></mirror>"),
     VIR_ERR_XML_DETAIL, "the mirror of disk 'vda' is both '/b' and '/c'"},
    {DISK("<mirror file='/b' format='qcow2'><format type='raw'/></mirror>"),
     VIR_ERR_XML_DETAIL, "the mirror of disk 'vda' is both 'qcow2' and 'raw'"},
    {DISKS(GOOD_DISK "<disk name='vda'><mirror file='/c'/></disk>"),
     VIR_ERR_XML_DETAIL, "disk 'vda' is given twice"},

    /* more than disks */
    {"<domainsnapshot><memory snapshot='internal'/><disks>" GOOD_DISK
     "</disks></domainsnapshot>", VIR_ERR_XML_DETAIL,
     "a mirrored snapshot is of disks only: remove <memory>, or give it "
     "snapshot='no'"},

    /* images */
    {DISKS("<disk><mirror file='/b'/></disk>"), VIR_ERR_XML_DETAIL,
     "<disk> has no name, line 1"},
    {DISK("<mirror/>"), VIR_ERR_XML_DETAIL,
     "path '' of the mirror of disk 'vda' is empty"},
    {DISK("<mirror file='/b&#10;c'/>"), VIR_ERR_XML_DETAIL,
     "path '/b\\x0ac' of the mirror of disk 'vda' has control characters or "
     "is not UTF-8"},
    {DISK("<mirror type='network'><source protocol='nbd'/></mirror>"),
     VIR_ERR_XML_DETAIL,
     "unknown attribute 'protocol' in <source>, line 1; the mirror of disk "
     "'vda' cannot be of type 'network': use a file or a block device"},
    {DISK("<mirror type='network'/>"), VIR_ERR_CONFIG_UNSUPPORTED,
     "the mirror of disk 'vda' cannot be of type 'network': use a file or a "
     "block device"},
    {DISKS("<disk name='vda' type='network'><mirror file='/b'/></disk>"),
     VIR_ERR_CONFIG_UNSUPPORTED,
     "the overlay of disk 'vda' cannot be of type 'network': use a file or a "
     "block device"},
    {DISK("<mirror type='file' dev='/b'/>"), VIR_ERR_XML_DETAIL,
     "the path of the mirror of disk 'vda' must be given as file='...', as "
     "its type is 'file'"},
    {DISK("<mirror type='block' file='/b'/>"), VIR_ERR_XML_DETAIL,
     "the path of the mirror of disk 'vda' must be given as dev='...', as its "
     "type is 'block'"},
    {DISK("<mirror file='/b' dev='/b'/>"), VIR_ERR_XML_DETAIL,
     "the path of the mirror of disk 'vda' must be given as dev='...', as its "
     "type is 'block'"},
    {DISK("<mirror file='/b' format='raw'/>"), VIR_ERR_CONFIG_UNSUPPORTED,
     "the mirror of disk 'vda' cannot be 'raw': a raw file has no backing "
     "file and would lose the layers below, use 'qcow2'"},

    /* the rules, and several findings */
    {"<domainsnapshot/>", VIR_ERR_XML_DETAIL,
     "no disk is to be mirrored: give at least one disk a mirror"},
    {DISKS("<disk name='vda' snapshot='no'/>"), VIR_ERR_XML_DETAIL,
     "no disk is to be mirrored: give at least one disk a mirror"},
    {"<domainsnapshot><name>a/b</name><state/><disks>"
     "<disk name='vda'><mirror file='b' format='vmdk'/></disk>"
     "</disks></domainsnapshot>", VIR_ERR_XML_DETAIL,
     "unknown element 'state' in <domainsnapshot>, line 1; snapshot name "
     "'a/b' is not valid: it must not contain '/'; format 'vmdk' of the "
     "mirror of disk 'vda' is not supported: use 'qcow2'; path 'b' of the "
     "mirror of disk 'vda' is not absolute"},
};

static void
test_parse_bad_xml_error_says_why(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(bad_cases); i++) {
        const BadCase *c = &bad_cases[i];
        g_autoptr(GError) error = NULL;

        g_assert_null(vmr_snapxml_parse(c->xml, &error));
        g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
        g_assert_cmpstr(error->message, ==, c->message);
        g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                        c->virt_code);
    }
}

static void
test_parse_one_mebibyte_error(void)
{
    g_autofree char *fill = g_strnfill(1024 * 1024, 'x');
    g_autofree char *xml = g_strdup_printf("<domainsnapshot><name>%s</name>"
                                           "</domainsnapshot>", fill);
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_snapxml_parse(xml, &error));
    g_assert_cmpstr(error->message, ==,
                    "snapshot XML is larger than 262144 bytes");
}

static void
test_parse_thousands_of_findings_short_error(void)
{
    GString *xml = g_string_new("<domainsnapshot>");
    g_autoptr(GError) error = NULL;

    for (int i = 0; i < 5000; i++)
        g_string_append_printf(xml, "<unknown%d/>", i);
    g_string_append(xml, "</domainsnapshot>");
    g_assert_null(vmr_snapxml_parse(xml->str, &error));
    g_assert_cmpuint(strlen(error->message), <, 2000);
    g_assert_true(g_str_has_suffix(error->message, "; and 4984 more"));
    g_string_free(xml, TRUE);
}

static void
test_has_mirror_table_as_expected(void)
{
    static const struct {
        const char *xml;
        gboolean has;
    } cases[] = {
        {"<domainsnapshot/>", FALSE},
        {"<domainsnapshot><mirror/></domainsnapshot>", FALSE},
        {DISKS("<mirror/>"), FALSE},
        {DISKS("<disk/>"), FALSE},
        {DISKS("<disk><x:mirror xmlns:x='urn:x'/></disk>"), FALSE},
        {DISKS("<disk/><disk><mirror/></disk><disk/>"), TRUE},
        {DISKS("<disk nonsense='x'>text<what/><mirror/></disk>"), TRUE},
        {"<domainsnapshot><disks><disk/></disks><domain><devices><disk>"
         "<mirror/></disk></devices></domain></domainsnapshot>", FALSE},
        {"<domainsnapshot><a><b><c><d><e><f><g><h><i><j><k><l><m><n><o><p><q/>"
         "</p></o></n></m></l></k></j></i></h></g></f></e></d></c></b></a>"
         "</domainsnapshot>", FALSE},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        gboolean has = !cases[i].has;

        g_assert_true(vmr_snapxml_has_mirror(cases[i].xml, &has, &error));
        g_assert_no_error(error);
        g_assert_true(has == cases[i].has);
    }
}

static void
test_has_mirror_malformed_xml_error(void)
{
    g_autoptr(GError) error = NULL;
    gboolean has = FALSE;

    g_assert_false(vmr_snapxml_has_mirror("<domainsnapshot>", &has, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                    VIR_ERR_XML_ERROR);
}

/* libvirt snapshots every disk that is not listed. */
static void
test_format_libvirt_excluded_disk_listed_once(void)
{
    static const char *const others[] = {"vdb", NULL};
    g_autoptr(VmrSnapSpec) spec = vmr_snapspec_new(NULL, NULL);
    g_autofree char *listed = NULL;
    g_autofree char *unlisted = NULL;

    g_ptr_array_add(spec->disks, vmr_diskspec_parse("vda,mirror=/b", NULL));
    g_ptr_array_add(spec->disks, vmr_diskspec_parse("vdb,snapshot=no", NULL));
    listed = vmr_snapxml_format_libvirt(spec, others, NULL);
    unlisted = vmr_snapxml_format_libvirt(spec, NULL, NULL);
    g_assert_cmpstr(listed, ==, unlisted);
    g_assert_cmpstr(listed, ==,
                    "<domainsnapshot>\n"
                    "  <disks>\n"
                    "    <disk name=\"vda\" snapshot=\"external\" "
                    "type=\"file\">\n"
                    "      <driver type=\"qcow2\"/>\n"
                    "    </disk>\n"
                    "    <disk name=\"vdb\" snapshot=\"no\"/>\n"
                    "  </disks>\n"
                    "</domainsnapshot>");
}

/* Only the snapshot's own disks get one, not those of the domain in it. */
static void
test_add_mirrors_libvirt_dump_as_expected(void)
{
    g_autofree char *dump = golden_read("snapxml/libvirt-dump.xml");
    g_autoptr(VmrSnapSpec) spec = vmr_snapspec_new(NULL, NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char *xml = NULL;
    VmrDiskSpec *disk = vmr_diskspec_parse("vdb,mirror=/path2/newb.qcow2", NULL);

    disk->mirror_format = g_strdup("qcow2");
    g_ptr_array_add(spec->disks, disk);
    g_ptr_array_add(spec->disks, vmr_diskspec_parse("vda,file=/a", NULL));
    g_ptr_array_add(spec->disks, vmr_diskspec_parse("vdz,mirror=/z", NULL));
    xml = vmr_snapxml_add_mirrors(dump, spec->disks, &error);
    g_assert_no_error(error);
    golden_check(xml, "snapxml/libvirt-dump.mirrors.xml");
}

static void
test_add_mirrors_malformed_xml_error(void)
{
    g_autoptr(GPtrArray) disks = g_ptr_array_new();
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_snapxml_add_mirrors("<domainsnapshot", disks, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
}

static void
add_golden_tests(const char *name, GTestDataFunc func)
{
    for (gsize i = 0; i < G_N_ELEMENTS(golden_names); i++) {
        g_autofree char *path = g_strdup_printf("/snapxml/%s/%s", name,
                                                golden_names[i]);

        g_test_add_data_func(path, golden_names[i], func);
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_golden_tests("format_golden_as_expected",
                     test_format_golden_as_expected);
    add_golden_tests("format_libvirt_golden_as_expected",
                     test_format_libvirt_golden_as_expected);
    add_golden_tests("format_libvirt_golden_passes_the_schema",
                     test_format_libvirt_golden_passes_the_schema);
    g_test_add_func("/snapxml/parse_seed_fields", test_parse_seed_fields);
    g_test_add_func("/snapxml/parse_nested_mirror_fields",
                    test_parse_nested_mirror_fields);
    g_test_add_func("/snapxml/parse_block_devices_flags",
                    test_parse_block_devices_flags);
    g_test_add_func("/snapxml/parse_special_text_fields",
                    test_parse_special_text_fields);
    g_test_add_func("/snapxml/parse_empty_name_none",
                    test_parse_empty_name_none);
    g_test_add_func("/snapxml/parse_blanks_and_comments_ignored",
                    test_parse_blanks_and_comments_ignored);
    g_test_add_func("/snapxml/parse_bad_xml_error_says_why",
                    test_parse_bad_xml_error_says_why);
    g_test_add_func("/snapxml/parse_one_mebibyte_error",
                    test_parse_one_mebibyte_error);
    g_test_add_func("/snapxml/parse_thousands_of_findings_short_error",
                    test_parse_thousands_of_findings_short_error);
    g_test_add_func("/snapxml/has_mirror_table_as_expected",
                    test_has_mirror_table_as_expected);
    g_test_add_func("/snapxml/has_mirror_malformed_xml_error",
                    test_has_mirror_malformed_xml_error);
    g_test_add_func("/snapxml/format_libvirt_excluded_disk_listed_once",
                    test_format_libvirt_excluded_disk_listed_once);
    g_test_add_func("/snapxml/add_mirrors_libvirt_dump_as_expected",
                    test_add_mirrors_libvirt_dump_as_expected);
    g_test_add_func("/snapxml/add_mirrors_malformed_xml_error",
                    test_add_mirrors_malformed_xml_error);
    return g_test_run();
}
