/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "layer.h"

#include "xmlutil.h"

static VmrLayer *
read_layer(const char *xml, const char *root, const char *format)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(xmlDoc) doc =
        vmr_xml_parse(xml, 1 << 20, 250, root, "layer", &error);

    g_assert_no_error(error);
    return vmr_layer_read(xmlDocGetRootElement(doc), format);
}

#define TUNED(size, label) \
    "<disk type='file'><driver type='qcow2'><metadata_cache>\n" \
    "  <max_size unit='bytes'>" size "</max_size></metadata_cache></driver>" \
    "<source file='/a'><seclabel model='dac' relabel='yes'>\n <label>" label \
    "</label></seclabel></source></disk>"

static void
test_read_settings_all(void)
{
    g_autoptr(VmrLayer) layer =
        read_layer(TUNED("4096", "+1:+1"), "disk", "driver");
    const VmrSecLabel *label;

    g_assert_cmpstr(layer->type, ==, "file");
    g_assert_cmpstr(layer->path, ==, "/a");
    g_assert_cmpstr(layer->format, ==, "qcow2");
    g_assert_cmpstr(layer->cache_size, ==, "4096");
    g_assert_cmpstr(layer->cache_unit, ==, "bytes");
    g_assert_cmpuint(layer->labels->len, ==, 1);
    label = layer->labels->pdata[0];
    g_assert_cmpstr(label->model, ==, "dac");
    g_assert_cmpstr(label->relabel, ==, "yes");
    g_assert_cmpstr(label->label, ==, "+1:+1");
    g_assert_true(vmr_layer_has_settings(layer));
}

static void
test_read_label_of_libvirts_own_is_none(void)
{
    g_autoptr(VmrLayer) layer = read_layer(
        "<disk type='block'><source dev='/b'><seclabel model='selinux' "
        "labelskip='yes'/></source></disk>", "disk", "driver");

    g_assert_cmpstr(layer->path, ==, "/b");
    g_assert_null(layer->labels);
    g_assert_false(vmr_layer_has_settings(layer));
}

static void
test_same_settings_by_each_part(void)
{
    static const char *const others[] = {
        TUNED("1", "+1:+1"),
        TUNED("4096", "+2:+2"),
        "<disk type='file'><source file='/a'/></disk>",
    };
    g_autoptr(VmrLayer) layer =
        read_layer(TUNED("4096", "+1:+1"), "disk", "driver");
    g_autoptr(VmrLayer) copy = vmr_layer_new("block", "/c", "raw");

    for (gsize i = 0; i < G_N_ELEMENTS(others); i++) {
        g_autoptr(VmrLayer) other = read_layer(others[i], "disk", "driver");

        g_assert_false(vmr_layer_same_settings(layer, other));
        g_assert_false(vmr_layer_same_settings(other, layer));
    }
    vmr_layer_copy_settings(copy, layer);
    g_assert_true(vmr_layer_same_settings(layer, copy));
    g_assert_cmpstr(copy->path, ==, "/c");
}

static void
test_format_disk_of_one_layer_without_backing_store(void)
{
    g_autoptr(GPtrArray) layers =
        g_ptr_array_new_with_free_func((GDestroyNotify)vmr_layer_free);
    g_autofree char *file = NULL;
    g_autofree char *block = NULL;

    g_ptr_array_add(layers, vmr_layer_new("file", "/a'<&", "qcow2"));
    file = vmr_layers_format_disk(layers);
    g_ptr_array_set_size(layers, 0);
    g_ptr_array_add(layers, vmr_layer_new("block", "/dev/b", "raw"));
    block = vmr_layers_format_disk(layers);
    g_assert_cmpstr(file, ==,
                    "<disk type=\"file\">\n"
                    "  <driver type=\"qcow2\"/>\n"
                    "  <source file=\"/a'&lt;&amp;\"/>\n"
                    "</disk>");
    g_assert_cmpstr(block, ==,
                    "<disk type=\"block\">\n"
                    "  <driver type=\"raw\"/>\n"
                    "  <source dev=\"/dev/b\"/>\n"
                    "</disk>");
}

/* A chain without its end would lose what is below. */
static void
test_format_disk_of_a_tuned_chain_to_its_end(void)
{
    g_autoptr(GPtrArray) layers =
        g_ptr_array_new_with_free_func((GDestroyNotify)vmr_layer_free);
    g_autofree char *text = NULL;

    g_ptr_array_add(layers,
                    read_layer(TUNED("4096", "+1:+1"), "disk", "driver"));
    g_ptr_array_add(layers, vmr_layer_new("file", "/b", "raw"));
    text = vmr_layers_format_disk(layers);
    g_assert_cmpstr(text, ==,
                    "<disk type=\"file\">\n"
                    "  <driver type=\"qcow2\">\n"
                    "    <metadata_cache>\n"
                    "      <max_size unit=\"bytes\">4096</max_size>\n"
                    "    </metadata_cache>\n"
                    "  </driver>\n"
                    "  <source file=\"/a\">\n"
                    "    <seclabel model=\"dac\" relabel=\"yes\">\n"
                    "      <label>+1:+1</label>\n"
                    "    </seclabel>\n"
                    "  </source>\n"
                    "  <backingStore type=\"file\">\n"
                    "    <format type=\"raw\"/>\n"
                    "    <source file=\"/b\"/>\n"
                    "    <backingStore/>\n"
                    "  </backingStore>\n"
                    "</disk>");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/layer/read_settings_all", test_read_settings_all);
    g_test_add_func("/layer/read_label_of_libvirts_own_is_none",
                    test_read_label_of_libvirts_own_is_none);
    g_test_add_func("/layer/same_settings_by_each_part",
                    test_same_settings_by_each_part);
    g_test_add_func("/layer/format_disk_of_one_layer_without_backing_store",
                    test_format_disk_of_one_layer_without_backing_store);
    g_test_add_func("/layer/format_disk_of_a_tuned_chain_to_its_end",
                    test_format_disk_of_a_tuned_chain_to_its_end);
    return g_test_run();
}
