/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "chainutil.h"

static void
live_fails(const GPtrArray *layers, VmrErrorCode code, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) images = vmr_chain_read_live(layers, &error);

    g_assert_null(images);
    chain_check_error(error, code, text);
}

static void
live_fine(const GPtrArray *layers)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) images = vmr_chain_read_live(layers, &error);

    g_assert_no_error(error);
    g_assert_cmpuint(images->len, ==, layers->len);
}

static void
test_read_live_agreeing_fine(void)
{
    g_autoptr(Pair) relative = pair_new("common", "qcow2");
    g_autoptr(Pair) dotted = pair_new("../path1/common", "raw");

    live_fine(relative->layers);
    live_fine(dotted->layers);
}

static void
test_read_live_absolute_name_fine(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");

    img_run("qemu-img rebase -u -f qcow2 -F qcow2 -b %s %s", pair->common,
            pair->old);
    live_fine(pair->layers);
}

static void
test_read_live_linked_folder_fine(void)
{
    g_autoptr(Pair) pair = pair_new("../link/common", "qcow2");
    g_autofree char *link = img_path(pair->root, "link");

    g_assert_cmpint(symlink("path1", link), ==, 0);
    live_fine(pair->layers);
}

static void
test_read_live_other_file_image(void)
{
    g_autoptr(Pair) pair = pair_new("other", "qcow2");
    g_autofree char *other = img_make(pair->path1, "other", NULL);

    live_fails(pair->layers, VMR_ERROR_IMAGE, "by libvirt, but 'other'");
    g_assert_cmpint(unlink(other), ==, 0);
    live_fails(pair->layers, VMR_ERROR_IMAGE, "by libvirt, but 'other'");
}

static void
test_read_live_protocol_name_image(void)
{
    g_autoptr(Pair) pair = pair_new("nbd:localhost:1", "qcow2");

    live_fails(pair->layers, VMR_ERROR_IMAGE, "'nbd:localhost:1'");
}

static void
test_read_live_other_format_image(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    VmrLayer *bottom = pair->layers->pdata[1];

    g_free(bottom->format);
    bottom->format = g_strdup("raw");
    live_fails(pair->layers, VMR_ERROR_IMAGE, "is raw by libvirt, but qcow2");
}

static void
test_read_live_header_ends_early_image(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");

    img_run("qemu-img rebase -u -f qcow2 -b '' %s", pair->old);
    live_fails(pair->layers, VMR_ERROR_IMAGE, "nothing by its header");
}

static void
test_read_live_libvirt_ends_early_image(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");

    g_ptr_array_set_size(pair->layers, 1);
    live_fails(pair->layers, VMR_ERROR_IMAGE, "nothing by libvirt");
}

static void
test_read_live_no_backing_format_image(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");

    img_poke32(pair->old, 112, 0x11111111);
    live_fails(pair->layers, VMR_ERROR_IMAGE, "rebase -u -F");
}

static void
test_read_live_network_not_supported(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    VmrLayer *bottom = pair->layers->pdata[1];

    g_free(bottom->type);
    bottom->type = g_strdup("network");
    live_fails(pair->layers, VMR_ERROR_NOT_SUPPORTED, "'network'");
    g_clear_pointer(&bottom->type, g_free);
    live_fails(pair->layers, VMR_ERROR_NOT_SUPPORTED, "''");
}

static void
test_read_live_unknown_format_image(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    VmrLayer *bottom = pair->layers->pdata[1];

    g_clear_pointer(&bottom->format, g_free);
    live_fails(pair->layers, VMR_ERROR_IMAGE, "does not know the format");
    g_clear_pointer(&bottom->path, g_free);
    live_fails(pair->layers, VMR_ERROR_IMAGE, "does not know the path");
}

static void
test_read_live_no_medium_image(void)
{
    g_autoptr(GPtrArray) layers = chain_layers_new();

    live_fails(layers, VMR_ERROR_IMAGE, "no medium");
}

static void
test_read_live_same_file_twice_image(void)
{
    g_autoptr(Pair) pair = pair_new("old.qcow2", "qcow2");

    g_ptr_array_set_size(pair->layers, 1);
    chain_add(pair->layers, pair->old, "qcow2");
    live_fails(pair->layers, VMR_ERROR_IMAGE, "loop");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/chainlive/" #name, test_##name)
    ADD(read_live_agreeing_fine);
    ADD(read_live_absolute_name_fine);
    ADD(read_live_linked_folder_fine);
    ADD(read_live_other_file_image);
    ADD(read_live_protocol_name_image);
    ADD(read_live_other_format_image);
    ADD(read_live_header_ends_early_image);
    ADD(read_live_libvirt_ends_early_image);
    ADD(read_live_no_backing_format_image);
    ADD(read_live_network_not_supported);
    ADD(read_live_unknown_format_image);
    ADD(read_live_no_medium_image);
    ADD(read_live_same_file_twice_image);
#undef ADD
    return g_test_run();
}
