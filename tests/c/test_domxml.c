/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>
#include <string.h>

#include "domxml.h"
#include "error.h"
#include "golden.h"

#define HEAD "<domain type='kvm'><name>d</name><uuid>u</uuid><devices>"
#define TAIL "</devices></domain>"

static VmrDomXml *
parse_good(const char *xml)
{
    g_autoptr(GError) error = NULL;
    VmrDomXml *dom = vmr_domxml_parse(xml, &error);

    g_assert_no_error(error);
    return dom;
}

static void
dump_layer(GString *out, const VmrLayer *layer)
{
    g_string_append_printf(out, "%s %s %s\n", layer->type,
                           layer->format ? layer->format : "-",
                           layer->path ? layer->path : "-");
}

static void
dump_disk(GString *out, const VmrDomDisk *disk)
{
    g_string_append_printf(out, "disk %s %s %s%s%s%s\n", disk->target,
                           disk->device, disk->bus ? disk->bus : "-",
                           disk->readonly ? " readonly" : "",
                           disk->shareable ? " shareable" : "",
                           disk->transient ? " transient" : "");
    for (guint i = 0; i < disk->chain->len; i++) {
        g_string_append_printf(out, "  layer %u: ", i);
        dump_layer(out, disk->chain->pdata[i]);
    }
    if (disk->chain_ends)
        g_string_append(out, "  end\n");
    if (disk->mirror) {
        g_string_append_printf(out, "  %s, ready %s: ", disk->mirror_job,
                               vmr_ready_name(disk->ready));
        dump_layer(out, disk->mirror);
    }
}

/* Compare what is read of NAME.xml with NAME.txt. */
static void
test_parse_golden_as_expected(gconstpointer data)
{
    g_autofree char *xml_name = g_strconcat("domxml/", data, ".xml", NULL);
    g_autofree char *txt_name = g_strconcat("domxml/", data, ".txt", NULL);
    g_autofree char *xml = golden_read(xml_name);
    g_autoptr(VmrDomXml) dom = parse_good(xml);
    g_autoptr(GString) out = g_string_new(NULL);

    g_string_append_printf(out, "%s %s %s%s\n", dom->type, dom->uuid,
                           dom->name, dom->running ? " running" : "");
    for (guint i = 0; i < dom->disks->len; i++)
        dump_disk(out, dom->disks->pdata[i]);
    g_string_truncate(out, out->len - 1);
    golden_check(out->str, txt_name);
}

static char *
make_chain(int n_layers)
{
    GString *xml = g_string_new(HEAD "<disk type='file' device='disk'>"
                                "<driver name='qemu' type='qcow2'/>"
                                "<source file='/path1/0'/>");

    for (int i = 1; i < n_layers; i++)
        g_string_append_printf(xml, "<backingStore type='file'>"
                               "<format type='qcow2'/>"
                               "<source file='/path1/%d'/>", i);
    g_string_append(xml, "<backingStore/>");
    for (int i = 1; i < n_layers; i++)
        g_string_append(xml, "</backingStore>");
    g_string_append(xml, "<target dev='vda'/></disk>" TAIL);
    return g_string_free(xml, FALSE);
}

static void
test_parse_chain_of_200_layers_all(void)
{
    g_autofree char *xml = make_chain(200);
    g_autoptr(VmrDomXml) dom = parse_good(xml);
    const VmrDomDisk *disk = vmr_domxml_find(dom, "vda");
    const VmrLayer *last;

    g_assert_cmpuint(disk->chain->len, ==, 200);
    last = disk->chain->pdata[199];
    g_assert_cmpstr(last->path, ==, "/path1/199");
    g_assert_true(disk->chain_ends);
}

/* A mirror's chain is one element deeper than the disk's. */
static void
test_parse_mirror_with_chain_of_200_layers_fits(void)
{
    g_autofree char *xml = make_chain(200);
    g_autoptr(GString) text = g_string_new(xml);
    g_autoptr(VmrDomXml) dom = NULL;

    g_string_replace(text, "<source file='/path1/0'/>",
                     "<source file='/path0'/><mirror type='file' job='copy'>"
                     "<source file='/path1/0'/>", 1);
    g_string_replace(text, "<target", "</mirror><target", 1);
    dom = parse_good(text->str);
    g_assert_cmpstr(vmr_domxml_find(dom, "vda")->mirror->path, ==, "/path1/0");
}

typedef struct {
    const char *xml;
    int virt_code;
    const char *message;
} BadCase;

static const BadCase bad_cases[] = {
    {"<domainsnapshot/>", VIR_ERR_XML_DETAIL,
     "domain XML must be a <domain> element, not <domainsnapshot>"},
    {"<domain type='kvm'><uuid>u</uuid></domain>", VIR_ERR_XML_DETAIL,
     "domain XML has no name"},
    {"<domain type='kvm'><name>d</name></domain>", VIR_ERR_XML_DETAIL,
     "domain XML has no uuid"},
    {"<domain><name>d</name><uuid>u</uuid></domain>", VIR_ERR_XML_DETAIL,
     "domain XML has no type"},
    {HEAD "\n\n<disk type='file'/>" TAIL, VIR_ERR_XML_DETAIL,
     "domain XML has a disk without a target, line 3"},
    {HEAD "<disk type='file'><target bus='virtio'/></disk>" TAIL,
     VIR_ERR_XML_DETAIL, "domain XML has a disk without a target, line 1"},
    {HEAD "<disk type='file'><target dev='vda'/>"
     "<mirror ready='soon&#10;'/></disk>" TAIL, VIR_ERR_XML_DETAIL,
     "domain XML has an unknown ready='soon\\x0a' in the mirror of disk "
     "'vda'"},
    {HEAD "<disk type='file'><target dev='vda'/><mirror ready=''/></disk>"
     TAIL, VIR_ERR_XML_DETAIL,
     "domain XML has an unknown ready='' in the mirror of disk 'vda'"},
    {"<!DOCTYPE domain>" HEAD TAIL, VIR_ERR_XML_ERROR,
     "domain XML has a document type declaration, which is refused: remove "
     "it"},
};

static void
test_parse_bad_xml_error_says_why(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(bad_cases); i++) {
        const BadCase *c = &bad_cases[i];
        g_autoptr(GError) error = NULL;

        g_assert_null(vmr_domxml_parse(c->xml, &error));
        g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
        g_assert_cmpstr(error->message, ==, c->message);
        g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                        c->virt_code);
    }
}

static void
test_parse_chain_too_deep_error(void)
{
    g_autofree char *xml = make_chain(260);
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_domxml_parse(xml, &error));
    g_assert_cmpstr(error->message, ==,
                    "domain XML is nested more than 250 elements deep");
}

static void
test_parse_too_large_error(void)
{
    g_autofree char *xml = g_strnfill(VMR_DOMXML_MAX_SIZE + 1, ' ');
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_domxml_parse(xml, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
    g_assert_nonnull(strstr(error->message, "larger than 16777216 bytes"));
}

static void
test_parse_no_devices_no_disks(void)
{
    g_autoptr(VmrDomXml) dom = parse_good(
        "<domain type='kvm'><name>d</name><uuid>u</uuid></domain>");

    g_assert_cmpuint(dom->disks->len, ==, 0);
    g_assert_null(vmr_domxml_find(dom, "vda"));
}

#define DISK(path, target)                                                    \
    "<disk type='file'><source file='" path "'/><target dev='" target "'/>"   \
    "</disk>"

static void
test_find_target_or_path_disk(void)
{
    static const struct {
        const char *name;
        const char *target;
    } cases[] = {
        {"vda", "vda"},         {"vdb", "vdb"},
        {"/path1/a", "vda"},    {"/path1/b", "vdb"},
        {"vdc", "vdc"},         {"/path1/same", NULL},
        {"", NULL},             {"vd", NULL},
        {"/path1", NULL},       {"path1/a", NULL},
        {"relative", NULL},     {"/path1/target", "/path1/target"},
        {"sda", "sda"},
    };
    g_autoptr(VmrDomXml) dom = parse_good(
        HEAD DISK("/path1/a", "vda") DISK("/path1/b", "vdb")
        DISK("/path1/same", "vdc") DISK("/path1/same", "vdd")
        DISK("/path1/target", "vde") DISK("relative", "vdf")
        DISK("/path1/g", "/path1/target")
        "<disk type='file' device='cdrom'><target dev='sda'/></disk>" TAIL);

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        const VmrDomDisk *disk = vmr_domxml_find(dom, cases[i].name);

        g_assert_cmpstr(disk ? disk->target : NULL, ==, cases[i].target);
    }
    g_assert_null(vmr_domdisk_source(vmr_domxml_find(dom, "sda")));
    g_assert_cmpstr(vmr_domdisk_source(vmr_domxml_find(dom, "vdb")), ==,
                    "/path1/b");
}

static void
test_ready_name_every_value_named(void)
{
    for (int i = 0; i < VMR_READY_LAST; i++)
        g_assert_nonnull(vmr_ready_name((VmrReady)i));
    g_assert_cmpstr(vmr_ready_name(VMR_READY_PIVOT), ==, "pivot");
}

static void
test_free_null_nothing(void)
{
    vmr_domxml_free(NULL);
}

static void
add_golden_tests(void)
{
    static const char *const names[] = {
        "before.live",      "before.inactive",     "overlay.live",
        "overlay.inactive", "mirroring.live",      "one-ready.live",
        "ready.live",       "one-pivoted.live",    "one-pivoted.inactive",
        "pivoted.live",     "commit-ready.live",   "aborting.live",
        "kinds.live",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_strdup_printf(
            "/domxml/parse_golden_as_expected/%s", names[i]);

        g_test_add_data_func(path, names[i], test_parse_golden_as_expected);
    }
}

static void
test_metadata_of_a_namespace_comes_without_it(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    const char *xml = "<domain type='kvm'><metadata>"
                      "<a:x xmlns:a='urn:a'><a:y/></a:x>"
                      "<b:x xmlns:b='urn:b' k='v'><b:y/></b:x>"
                      "</metadata></domain>";

    g_assert_true(vmr_domxml_dup_metadata(xml, "urn:b", &text, &error));
    g_assert_no_error(error);
    g_assert_cmpstr(text, ==, "<x k=\"v\">\n  <y/>\n</x>");
    g_clear_pointer(&text, g_free);
    g_assert_true(vmr_domxml_dup_metadata(xml, "urn:c", &text, &error));
    g_assert_null(text);
    g_assert_true(vmr_domxml_dup_metadata("<domain/>", "urn:c", &text, &error));
    g_assert_null(text);
    g_assert_false(vmr_domxml_dup_metadata("<x/>", "urn:c", &text, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
}

/* Attributes that had a namespace must not refer to it any more. */
static void
test_metadata_with_attributes_in_a_namespace_comes_without_it(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    const char *xml = "<domain type='kvm' xmlns:o='urn:o'><metadata>"
                      "<a:x xmlns:a='urn:a' a:k='v' o:l='w'><y a:m='u'/></a:x>"
                      "</metadata></domain>";

    g_assert_true(vmr_domxml_dup_metadata(xml, "urn:a", &text, &error));
    g_assert_no_error(error);
    g_assert_cmpstr(text, ==, "<x k=\"v\" l=\"w\">\n  <y m=\"u\"/>\n</x>");
}

static void
test_set_source_disk_on_it_without_chain(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *changed = vmr_domxml_set_source(
        "<domain type='kvm'><name>n</name><uuid>u</uuid><devices>"
        "<disk type='file'><driver type='raw'/><source file='/old'/>"
        "<backingStore type='file'><source file='/a'/></backingStore>"
        "<backingStore type='file'><source file='/b'/></backingStore>"
        "<target dev='vda'/></disk></devices></domain>",
        "vda", "/new", "qcow2", &error);
    g_autoptr(VmrDomXml) dom = NULL;
    const VmrDomDisk *disk;
    const VmrLayer *top;

    g_assert_no_error(error);
    dom = vmr_domxml_parse(changed, &error);
    g_assert_no_error(error);
    disk = vmr_domxml_find(dom, "vda");
    g_assert_cmpuint(disk->chain->len, ==, 1);
    top = disk->chain->pdata[0];
    g_assert_cmpstr(top->path, ==, "/new");
    g_assert_cmpstr(top->format, ==, "qcow2");
}

static void
test_parse_dac_label_qemu_user(void)
{
    static const struct {
        const char *labels;
        int uid; /* -1: not known */
        int gid;
    } cases[] = {
        {"", -1, -1},
        {"<seclabel type='none' model='none'/>", -1, -1},
        {"<seclabel type='dynamic' model='dac' relabel='yes'>"
         "<label>+64055:+108</label><imagelabel>+64055:+108</imagelabel>"
         "</seclabel>", 64055, 108},
        {"<seclabel type='dynamic' model='apparmor'>"
         "<label>libvirt-1</label></seclabel>"
         "<seclabel model='dac'><label>+0:+0</label></seclabel>", 0, 0},
        {"<seclabel model='selinux'><label>+1:+2</label></seclabel>", -1, -1},
        {"<seclabel model='dac'><label>qemu:qemu</label></seclabel>", -1, -1},
        {"<seclabel model='dac'><label>+1</label></seclabel>", -1, -1},
        {"<seclabel model='dac'><label>+1:+2:+3</label></seclabel>", -1, -1},
        {"<seclabel model='dac'><label>+4294967295:+1</label></seclabel>",
         -1, -1},
        {"<seclabel model='dac'/>", -1, -1},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text = g_strconcat(HEAD "</devices>", cases[i].labels,
                                            "</domain>", NULL);
        g_autoptr(VmrDomXml) dom = parse_good(text);

        g_assert_cmpint(dom->has_qemu_user, ==, cases[i].uid >= 0);
        if (cases[i].uid < 0)
            continue;
        g_assert_cmpint((int)dom->qemu_uid, ==, cases[i].uid);
        g_assert_cmpint((int)dom->qemu_gid, ==, cases[i].gid);
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_golden_tests();
    g_test_add_func("/domxml/metadata_of_a_namespace_comes_without_it",
                    test_metadata_of_a_namespace_comes_without_it);
    g_test_add_func(
        "/domxml/metadata_with_attributes_in_a_namespace_comes_without_it",
        test_metadata_with_attributes_in_a_namespace_comes_without_it);
    g_test_add_func("/domxml/set_source_disk_on_it_without_chain",
                    test_set_source_disk_on_it_without_chain);
    g_test_add_func("/domxml/parse_chain_of_200_layers_all",
                    test_parse_chain_of_200_layers_all);
    g_test_add_func("/domxml/parse_mirror_with_chain_of_200_layers_fits",
                    test_parse_mirror_with_chain_of_200_layers_fits);
    g_test_add_func("/domxml/parse_bad_xml_error_says_why",
                    test_parse_bad_xml_error_says_why);
    g_test_add_func("/domxml/parse_chain_too_deep_error",
                    test_parse_chain_too_deep_error);
    g_test_add_func("/domxml/parse_too_large_error",
                    test_parse_too_large_error);
    g_test_add_func("/domxml/parse_dac_label_qemu_user",
                    test_parse_dac_label_qemu_user);
    g_test_add_func("/domxml/parse_no_devices_no_disks",
                    test_parse_no_devices_no_disks);
    g_test_add_func("/domxml/find_target_or_path_disk",
                    test_find_target_or_path_disk);
    g_test_add_func("/domxml/ready_name_every_value_named",
                    test_ready_name_every_value_named);
    g_test_add_func("/domxml/free_null_nothing", test_free_null_nothing);
    return g_test_run();
}
