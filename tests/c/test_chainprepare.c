/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* F_OFD_SETLK */

#include "chainutil.h"

static char **
prepare(GPtrArray *layers, const char *folder, GError **error)
{
    VmrDomDisk disk = {.target = (char *)"vda", .chain = layers};
    VmrWait wait = vmr_wait_for(30, NULL);

    return vmr_chain_prepare(NULL, &disk, folder, &wait, error);
}

static char **
prepare_fine(GPtrArray *layers, const char *folder)
{
    g_autoptr(GError) error = NULL;
    char **paths = prepare(layers, folder, &error);

    g_assert_no_error(error);
    g_assert_cmpuint(g_strv_length(paths), ==, layers->len);
    return paths;
}

static void
prepare_fails(GPtrArray *layers, const char *folder, VmrErrorCode code,
              const char *text)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) paths = prepare(layers, folder, &error);

    g_assert_null(paths);
    chain_check_error(error, code, text);
}

/* The chain that was made, which must be able to stand in for the source. */
static GPtrArray *
check_made(const GPtrArray *layers, char **paths)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) sources = vmr_chain_read_live(layers, &error);
    GPtrArray *made = vmr_chain_read(paths[0], "qcow2", &error);

    g_assert_no_error(error);
    g_assert_true(vmr_chain_check_copy(sources, made, &error));
    for (guint i = 0; i < made->len; i++) {
        const VmrImage *image = made->pdata[i];

        g_assert_cmpstr(image->path, ==, paths[i]);
    }
    return made;
}

static const char *
backing_of(const GPtrArray *images, guint i)
{
    const VmrImage *image = images->pdata[i];

    return image->backing_name;
}

static void
test_prepare_two_layers_skeleton(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_auto(GStrv) paths = prepare_fine(pair->layers, pair->path2);
    g_autoptr(GPtrArray) made = check_made(pair->layers, paths);
    g_autofree char *old = img_path(pair->path2, "old.qcow2");

    g_assert_cmpstr(paths[0], ==, old);
    g_assert_cmpstr(backing_of(made, 0), ==, "common");
    g_assert_null(backing_of(made, 1));
    g_assert_cmpuint(img_count(pair->path2), ==, 2);
    g_assert_cmpuint(img_stat(old).st_mode & 07777, ==, 0644);
}

static void
test_prepare_raw_odd_size_same_length(void)
{
    g_autoptr(Pair) pair = pair_new("common", "raw");
    g_auto(GStrv) paths = NULL;
    g_autoptr(GPtrArray) made = NULL;

    g_assert_cmpint(truncate(pair->common, IMG_SIZE - 100), ==, 0);
    paths = prepare_fine(pair->layers, pair->path2);
    made = check_made(pair->layers, paths);
    g_assert_cmpint(img_stat(paths[1]).st_size, ==, IMG_SIZE - 100);
}

static void
test_prepare_single_layer_fine(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_auto(GStrv) paths = NULL;
    g_autoptr(GPtrArray) made = NULL;

    g_ptr_array_remove_index(pair->layers, 0);
    paths = prepare_fine(pair->layers, pair->path2);
    made = check_made(pair->layers, paths);
    g_assert_cmpuint(img_count(pair->path2), ==, 1);
}

static void
test_prepare_layers_of_own_sizes_kept(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_auto(GStrv) paths = NULL;
    g_autoptr(GPtrArray) made = NULL;

    img_run("qemu-img resize -q -f qcow2 %s 3M", pair->old);
    paths = prepare_fine(pair->layers, pair->path2);
    made = check_made(pair->layers, paths);
    g_assert_cmpuint(((VmrImage *)made->pdata[0])->virtual_size, ==,
                     3 * IMG_SIZE);
}

/* How a layer's name in the source's header comes out in the copy's. */
static const struct {
    const char *source;
    const char *copy;
} name_table[] = {
    {"common", "common"},
    {"./common", "common"},
    {"././common", "common"},
    {"../path1/common", "common"},
    {"sub/../common", "common"},
    {"sub//../common", "common"},
};

static void
test_prepare_odd_names_become_plain(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(name_table); i++) {
        g_autoptr(Pair) pair = pair_new(name_table[i].source, "qcow2");
        g_autofree char *sub = img_path(pair->path1, "sub");
        g_auto(GStrv) paths = NULL;
        g_autoptr(GPtrArray) made = NULL;

        g_assert_cmpint(mkdir(sub, 0700), ==, 0);
        paths = prepare_fine(pair->layers, pair->path2);
        made = check_made(pair->layers, paths);
        g_assert_cmpstr(backing_of(made, 0), ==, name_table[i].copy);
    }
}

static void
test_prepare_absolute_name_becomes_relative(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_auto(GStrv) paths = NULL;
    g_autoptr(GPtrArray) made = NULL;

    img_run("qemu-img rebase -u -f qcow2 -F qcow2 -b %s %s", pair->common,
            pair->old);
    paths = prepare_fine(pair->layers, pair->path2);
    made = check_made(pair->layers, paths);
    g_assert_cmpstr(backing_of(made, 0), ==, "common");
}

/* The base is named with a colon, which in a header looks like a protocol. */
static void
test_prepare_colon_name_protected(void)
{
    g_autoptr(Pair) pair = pair_new("./a:b,,c", "qcow2");
    g_autofree char *base = img_path(pair->path1, "a:b,c");
    g_auto(GStrv) paths = NULL;
    g_autoptr(GPtrArray) made = NULL;

    g_assert_cmpint(rename(pair->common, base), ==, 0);
    g_ptr_array_set_size(pair->layers, 1);
    chain_add(pair->layers, base, "qcow2");
    paths = prepare_fine(pair->layers, pair->path2);
    made = check_made(pair->layers, paths);
    g_assert_cmpstr(backing_of(made, 0), ==, "./a:b,c");
}

/* old.qcow2 -> sub/middle -> base (in sub): each next to the one that names
 * it. */
static void
test_prepare_subfolder_kept(void)
{
    g_autoptr(Pair) pair = pair_new("sub/middle", "qcow2");
    g_autofree char *sub1 = img_path(pair->path1, "sub");
    g_autofree char *sub2 = img_path(pair->path2, "sub");
    g_autofree char *middle = NULL;
    g_autofree char *base = NULL;
    g_auto(GStrv) paths = NULL;
    g_autoptr(GPtrArray) made = NULL;

    g_assert_cmpint(mkdir(sub1, 0700), ==, 0);
    middle = img_make_over(sub1, "middle", "base", "raw");
    base = img_make_raw(sub1, "base", IMG_SIZE);
    g_ptr_array_set_size(pair->layers, 1);
    chain_add(pair->layers, middle, "qcow2");
    chain_add(pair->layers, base, "raw");
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_NOT_FOUND,
                  "sub' is missing: create it first");
    g_assert_cmpuint(img_count(pair->path2), ==, 0);
    g_assert_cmpint(mkdir(sub2, 0700), ==, 0);
    paths = prepare_fine(pair->layers, pair->path2);
    made = check_made(pair->layers, paths);
    g_assert_cmpuint(img_count(sub2), ==, 2);
}

static void
test_prepare_again_keeps_what_is_there(void)
{
    g_autoptr(Pair) pair = pair_new("common", "raw");
    g_auto(GStrv) first = prepare_fine(pair->layers, pair->path2);
    g_auto(GStrv) second = NULL;
    g_autofree char *content = NULL;
    struct stat before;

    img_poke(first[1], 0, "data", 4);
    before = img_stat(first[1]);
    second = prepare_fine(pair->layers, pair->path2);
    g_assert_true(img_stat(second[1]).st_ino == before.st_ino);
    g_assert_true(g_file_get_contents(second[1], &content, NULL, NULL));
    g_assert_cmpstr(content, ==, "data");
}

/* Two disks on one base: it is made for the first and kept for the second. */
static void
test_prepare_shared_base_made_once(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_auto(GStrv) first = prepare_fine(pair->layers, pair->path2);
    g_autofree char *other =
        img_make_over(pair->path1, "other", "common", "qcow2");
    g_autoptr(GPtrArray) layers = chain_layers_new();
    g_auto(GStrv) second = NULL;

    chain_add(layers, other, "qcow2");
    chain_add(layers, pair->common, "qcow2");
    second = prepare_fine(layers, pair->path2);
    g_assert_cmpstr(first[1], ==, second[1]);
    g_assert_cmpuint(img_count(pair->path2), ==, 3);
}

/* A top that does not fit: it stays, and the base that was made goes. */
static void
test_prepare_misfit_left_alone(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_autofree char *top = img_path(pair->path2, "old.qcow2");

    img_run("qemu-img create -q -u -f qcow2 -b common -F qcow2 %s 2M", top);
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_EXISTS, "another size");
    img_run("qemu-img create -q -u -f qcow2 -b other -F qcow2 %s 1M", top);
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_EXISTS, top);
    img_run("qemu-img create -q -u -f qcow2 -b common -F raw %s 1M", top);
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_EXISTS, top);
    img_run("qemu-img create -q -u -f qcow2 %s 1M", top);
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_EXISTS, top);
    g_assert_true(g_file_set_contents(top, "text", -1, NULL));
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_IMAGE,
                  "there already does not fit");
    g_assert_cmpuint(img_count(pair->path2), ==, 1);
}

static void
test_prepare_written_by_qemu_busy(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_auto(GStrv) paths = prepare_fine(pair->layers, pair->path2);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET,
                         .l_start = 101, .l_len = 1};
    int fd = open(paths[0], O_RDWR | O_CLOEXEC);

    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_BUSY, paths[0]);
    close(fd);
}

static void
test_prepare_top_itself_invalid(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_autofree char *base = g_path_get_basename(pair->old);
    g_autofree char *linked = img_path(pair->path2, base);

    g_assert_cmpint(link(pair->old, linked), ==, 0);
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_INVALID_SPEC,
                  "very file");
    g_assert_cmpuint(img_count(pair->path2), ==, 1);
}

/* A base that is in the new folder already, by a hard link here. */
static void
test_prepare_base_itself_stays(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_autofree char *linked = img_path(pair->path2, "common");
    g_auto(GStrv) paths = NULL;
    g_autoptr(GPtrArray) made = NULL;

    g_assert_cmpint(link(pair->common, linked), ==, 0);
    paths = prepare_fine(pair->layers, pair->path2);
    made = check_made(pair->layers, paths);
    g_assert_cmpstr(backing_of(made, 0), ==, "common");
    g_assert_cmpuint(img_count(pair->path2), ==, 2);
}

static void
test_prepare_source_folder_invalid(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_autofree char *link = img_path(pair->root, "link");
    g_autofree char *dots = img_path(pair->root, "path2/../path1/");

    g_assert_cmpint(symlink("path1", link), ==, 0);
    prepare_fails(pair->layers, pair->path1, VMR_ERROR_INVALID_SPEC,
                  "give another");
    prepare_fails(pair->layers, link, VMR_ERROR_INVALID_SPEC, "give another");
    prepare_fails(pair->layers, dots, VMR_ERROR_INVALID_SPEC, "give another");
    g_assert_cmpuint(img_count(pair->path1), ==, 2);
}

static void
test_prepare_no_folder_not_found(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");
    g_autofree char *missing = img_path(pair->root, "missing");

    prepare_fails(pair->layers, missing, VMR_ERROR_NOT_FOUND, "create it");
    prepare_fails(pair->layers, pair->old, VMR_ERROR_INVALID_SPEC,
                  "not a folder");
    prepare_fails(pair->layers, "path2", VMR_ERROR_INVALID_SPEC,
                  "not the absolute path");
    prepare_fails(pair->layers, "", VMR_ERROR_INVALID_SPEC,
                  "not the absolute path");
}

/* Top and base have one name, in two folders that become one. */
static void
test_prepare_names_collide_invalid(void)
{
    g_autoptr(Pair) pair = pair_new("../old.qcow2", "qcow2");
    g_autofree char *base = img_make(pair->root, "old.qcow2", NULL);

    g_ptr_array_set_size(pair->layers, 1);
    chain_add(pair->layers, base, "qcow2");
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_INVALID_SPEC,
                  "both become");
    g_assert_cmpuint(img_count(pair->path2), ==, 0);
}

static void
test_prepare_unsupported_layer_refused(void)
{
    g_autoptr(Pair) pair = pair_new("common", "qcow2");

    img_poke32(pair->common, 32, 2);
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_NOT_SUPPORTED,
                  "encrypted");
    img_poke32(pair->common, 32, 0);
    img_poke32(pair->common, 76, 4);
    prepare_fails(pair->layers, pair->path2, VMR_ERROR_NOT_SUPPORTED,
                  "another file");
    g_assert_cmpuint(img_count(pair->path2), ==, 0);
}

static void
test_prepare_out_of_time_nothing_left(void)
{
    g_autoptr(Pair) pair = pair_new("common", "raw");
    VmrDomDisk disk = {.target = (char *)"vda", .chain = pair->layers};
    VmrWait wait = vmr_wait_for(0, NULL);
    g_autoptr(GError) error = NULL;

    /* the raw layer takes no time, qemu-img does */
    g_assert_null(vmr_chain_prepare(NULL, &disk, pair->path2, &wait, &error));
    chain_check_error(error, VMR_ERROR_TIMEOUT, "old.qcow2");
    g_assert_cmpuint(img_count(pair->path2), ==, 0);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/chainprepare/" #name, test_##name)
    ADD(prepare_two_layers_skeleton);
    ADD(prepare_raw_odd_size_same_length);
    ADD(prepare_single_layer_fine);
    ADD(prepare_layers_of_own_sizes_kept);
    ADD(prepare_odd_names_become_plain);
    ADD(prepare_absolute_name_becomes_relative);
    ADD(prepare_colon_name_protected);
    ADD(prepare_subfolder_kept);
    ADD(prepare_again_keeps_what_is_there);
    ADD(prepare_shared_base_made_once);
    ADD(prepare_misfit_left_alone);
    ADD(prepare_written_by_qemu_busy);
    ADD(prepare_top_itself_invalid);
    ADD(prepare_base_itself_stays);
    ADD(prepare_source_folder_invalid);
    ADD(prepare_no_folder_not_found);
    ADD(prepare_names_collide_invalid);
    ADD(prepare_unsupported_layer_refused);
    ADD(prepare_out_of_time_nothing_left);
#undef ADD
    return g_test_run();
}
