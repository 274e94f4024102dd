/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "chainutil.h"

static void
read_fails(const char *path, VmrErrorCode code, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) images = vmr_chain_read(path, "qcow2", &error);

    g_assert_null(images);
    chain_check_error(error, code, text);
}

static GPtrArray *
read_fine(const char *path)
{
    g_autoptr(GError) error = NULL;
    GPtrArray *images = vmr_chain_read(path, "qcow2", &error);

    g_assert_no_error(error);
    return images;
}

static const char *
path_of(const GPtrArray *images, guint i)
{
    const VmrImage *image = g_ptr_array_index(images, i);

    return image->path;
}

static void
test_read_relative_chain_top_first(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *sub = img_path(folder, "sub");
    g_autofree char *base = img_make_raw(folder, "base", IMG_SIZE);
    g_autofree char *middle = NULL;
    g_autofree char *top = img_make_over(folder, "top", "sub/middle", "qcow2");
    g_autofree char *up = img_path(sub, "../base");
    g_autoptr(GPtrArray) images = NULL;

    g_assert_cmpint(mkdir(sub, 0700), ==, 0);
    middle = img_make_over(sub, "middle", "../base", "raw");
    images = read_fine(top);
    g_assert_cmpuint(images->len, ==, 3);
    g_assert_cmpstr(path_of(images, 0), ==, top);
    g_assert_cmpstr(path_of(images, 1), ==, middle);
    g_assert_cmpstr(path_of(images, 2), ==, up);
    g_assert_true(img_exists(base));
}

static void
test_read_colon_name_written_plainly_fine(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *base = img_make_raw(folder, "a:b", IMG_SIZE);
    g_autofree char *top = img_make_over(folder, "top", "./a:b", "raw");
    g_autoptr(GPtrArray) images = read_fine(top);

    g_assert_cmpstr(path_of(images, 1), ==, base);
}

/* A backing name that must not be followed, and what is said. */
static const struct {
    const char *name;
    const char *text;
} evil_table[] = {
    {"/etc/shadow", "absolute"},
    {"json:{}", "a protocol"},
    {"nbd:localhost:1", "a protocol"},
    {"file:base", "a protocol"},
    {"base:1", "a protocol"},
    {"nbd://h/x", "a protocol"},
};

static void
test_read_name_not_relative_image(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();

    for (gsize i = 0; i < G_N_ELEMENTS(evil_table); i++) {
        g_autofree char *top =
            img_make_over(folder, "top", evil_table[i].name, "raw");

        read_fails(top, VMR_ERROR_IMAGE, evil_table[i].text);
        read_fails(top, VMR_ERROR_IMAGE, evil_table[i].name);
        read_fails(top, VMR_ERROR_IMAGE, "rebase -u");
    }
}

static void
test_read_no_backing_format_image(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *base = img_make(folder, "base", NULL);
    g_autofree char *top = img_make_over(folder, "top", "base", "qcow2");

    /* hide the extension that has it: another type, which is ignored */
    img_poke32(top, 112, 0x11111111);
    read_fails(top, VMR_ERROR_IMAGE, "rebase -u -F");
    g_assert_true(img_exists(base));
}

static void
test_read_missing_layer_says_prepare(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *top = img_make_over(folder, "top", "base", "qcow2");
    g_autofree char *base = img_path(folder, "base");

    read_fails(top, VMR_ERROR_NOT_FOUND, "prepare_chain()");
    read_fails(top, VMR_ERROR_NOT_FOUND, base);
    /* the top itself is not what a skeleton is for */
    read_fails(base, VMR_ERROR_NOT_FOUND, "cannot open");
}

static void
test_read_odd_backing_file_image(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *top = img_make_over(folder, "top", "base", "raw");
    g_autofree char *base = img_path(folder, "base");

    g_assert_cmpint(mkfifo(base, 0600), ==, 0);
    read_fails(top, VMR_ERROR_IMAGE, "FIFO");
    g_assert_cmpint(unlink(base), ==, 0);
    g_assert_cmpint(mkdir(base, 0700), ==, 0);
    read_fails(top, VMR_ERROR_IMAGE, "folder");
    g_assert_cmpint(rmdir(base), ==, 0);
    g_assert_cmpint(symlink("/etc/passwd", base), ==, 0);
    read_fails(top, VMR_ERROR_IMAGE, "symbolic link");
}

static void
test_read_other_backing_format_not_supported(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *top = img_make_over(folder, "top", "base", "vmdk");

    read_fails(top, VMR_ERROR_NOT_SUPPORTED, "'vmdk'");
}

static void
test_read_loop_image(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *self = img_make_over(folder, "self", "self", "qcow2");
    g_autofree char *a = img_make_over(folder, "a", "b", "qcow2");
    g_autofree char *b = img_make_over(folder, "b", "c", "qcow2");
    g_autofree char *c = img_path(folder, "c");

    /* by another name: a hard link */
    g_assert_cmpint(link(a, c), ==, 0);
    read_fails(self, VMR_ERROR_IMAGE, "loop");
    read_fails(a, VMR_ERROR_IMAGE, "loop");
    read_fails(b, VMR_ERROR_IMAGE, "loop");
}

static char *
make_deep_chain(const char *folder, guint depth)
{
    g_autofree char *path = img_make_raw(folder, "0", IMG_SIZE);
    g_autofree char *model = img_make_over(folder, "model", "0000", "raw");
    g_autofree char *content = NULL;
    gsize len;

    /* all alike, but for the name of the layer below */
    g_assert_true(g_file_get_contents(model, &content, &len, NULL));
    for (guint i = 1; i < depth; i++) {
        g_autofree char *name = g_strdup_printf("%04u", i);
        g_autofree char *below = g_strdup_printf("%04u", i - 1);
        char *at = content + GUINT32_FROM_BE(*(guint32 *)(content + 12));

        g_free(path);
        path = img_path(folder, name);
        memcpy(at, i == 1 ? "./0\0" : below, 4);
        if (i == 1)
            *(guint32 *)(content + 16) = GUINT32_TO_BE(3);
        else
            *(guint32 *)(content + 16) = GUINT32_TO_BE(4);
        /* the format's extension: "raw" below the first, else "qcow2" */
        *(guint32 *)(content + 116) = GUINT32_TO_BE(i == 1 ? 3 : 5);
        memcpy(content + 120, i == 1 ? "raw\0\0" : "qcow2", 5);
        g_assert_true(g_file_set_contents(path, content, (gssize)len, NULL));
    }
    return g_steal_pointer(&path);
}

static void
test_read_deep_chain_capped(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autoptr(ImgFolder) deeper = img_folder_new();
    g_autofree char *most = make_deep_chain(folder, VMR_CHAIN_MAX_DEPTH);
    g_autofree char *more = make_deep_chain(deeper, VMR_CHAIN_MAX_DEPTH + 1);
    g_autoptr(GPtrArray) images = read_fine(most);

    g_assert_cmpuint(images->len, ==, VMR_CHAIN_MAX_DEPTH);
    read_fails(more, VMR_ERROR_IMAGE, "more than 200 layers");
}

static GPtrArray *
read_pair(const char *top, const char *common)
{
    g_autoptr(GPtrArray) layers = chain_layers_new();
    g_autoptr(GError) error = NULL;
    GPtrArray *images;

    chain_add(layers, top, "qcow2");
    chain_add(layers, common, "qcow2");
    images = vmr_chain_read_live(layers, &error);
    g_assert_no_error(error);
    return images;
}

static void
check_copy_fails(const GPtrArray *frozen, const GPtrArray *copy,
                 const char *const *texts)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_chain_check_copy(frozen, copy, &error));
    for (guint i = 0; texts[i]; i++)
        chain_check_error(error, VMR_ERROR_IMAGE, texts[i]);
}

static void
test_check_copy_equal_true(void)
{
    g_autoptr(Pair) a = pair_new("common", "qcow2");
    g_autoptr(Pair) b = pair_new("common", "qcow2");
    g_autoptr(GPtrArray) frozen = read_pair(a->old, a->common);
    g_autoptr(GPtrArray) copy = read_fine(b->old);
    g_autoptr(GError) error = NULL;

    g_assert_true(vmr_chain_check_copy(frozen, copy, &error));
    g_assert_no_error(error);
}

static void
test_check_copy_all_findings_in_one(void)
{
    g_autoptr(Pair) a = pair_new("common", "qcow2");
    g_autoptr(Pair) b = pair_new("common", "raw");
    g_autofree char *third = img_make_raw(b->path1, "third", 0);
    g_autoptr(GPtrArray) frozen = read_pair(a->old, a->common);
    g_autoptr(GPtrArray) copy = NULL;
    const char *texts[] = {"3 layers", "has format raw", "has 2097152 bytes",
                           "; ", "keeps its data", NULL};

    g_assert_cmpint(truncate(b->common, 2 * IMG_SIZE), ==, 0);
    copy = read_fine(b->old);
    g_ptr_array_add(copy, vmr_image_read(third, "raw", NULL));
    ((VmrImage *)copy->pdata[2])->data_file = TRUE;
    check_copy_fails(frozen, copy, texts);
}

static void
test_check_copy_shorter_image(void)
{
    g_autoptr(Pair) a = pair_new("common", "qcow2");
    g_autoptr(Pair) b = pair_new("common", "qcow2");
    g_autoptr(GPtrArray) frozen = read_pair(a->old, a->common);
    g_autoptr(GPtrArray) copy = read_fine(b->common);
    const char *texts[] = {"1 layers", "has 2", NULL};

    check_copy_fails(frozen, copy, texts);
}

/* The base of the copy is the base in use, by a hard link. */
static void
test_check_copy_same_base_fine(void)
{
    g_autoptr(Pair) a = pair_new("common", "qcow2");
    g_autofree char *linked = img_path(a->path2, "common");
    g_autofree char *x = img_make_over(a->path2, "x", "common", "qcow2");
    g_autoptr(GPtrArray) frozen = read_pair(a->old, a->common);
    g_autoptr(GPtrArray) by_link = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(link(a->common, linked), ==, 0);
    by_link = read_fine(x);
    g_assert_true(vmr_chain_check_copy(frozen, by_link, &error));
    g_assert_no_error(error);
}

/* The top is the one in use; the base is, but is another layer. */
static void
test_check_copy_same_file_image(void)
{
    g_autoptr(Pair) a = pair_new("common", "qcow2");
    g_autofree char *x = img_make_over(a->path1, "x", "old.qcow2", "qcow2");
    g_autoptr(GPtrArray) frozen = read_pair(a->old, a->common);
    g_autoptr(GPtrArray) itself = read_fine(a->old);
    g_autoptr(GPtrArray) longer = read_fine(x);
    const char *texts[] = {"is the very file", NULL};

    check_copy_fails(frozen, itself, texts);
    check_copy_fails(frozen, longer, texts);
}

/* Out of the folder of the top, by ".." and by a link to another folder. */
static void
test_read_leaves_the_folder_image(void)
{
    g_autoptr(Pair) a = pair_new("common", "qcow2");
    g_autofree char *link_path = img_path(a->path2, "link");
    char *tops[] = {
        img_make_over(a->path2, "y", "../path1/common", "qcow2"),
        img_make_over(a->path2, "z", "link/common", "qcow2")};

    g_assert_cmpint(symlink("../path1", link_path), ==, 0);
    for (gsize i = 0; i < G_N_ELEMENTS(tops); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(vmr_chain_read(tops[i], "qcow2", &error));
        g_assert_error(error, VMR_ERROR, VMR_ERROR_IMAGE);
        g_assert_nonnull(strstr(error->message, "leads out of the folder"));
    }
    for (gsize i = 0; i < G_N_ELEMENTS(tops); i++)
        g_free(tops[i]);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/chain/" #name, test_##name)
    ADD(read_relative_chain_top_first);
    ADD(read_leaves_the_folder_image);
    ADD(read_colon_name_written_plainly_fine);
    ADD(read_name_not_relative_image);
    ADD(read_no_backing_format_image);
    ADD(read_missing_layer_says_prepare);
    ADD(read_odd_backing_file_image);
    ADD(read_other_backing_format_not_supported);
    ADD(read_loop_image);
    ADD(read_deep_chain_capped);
    ADD(check_copy_equal_true);
    ADD(check_copy_all_findings_in_one);
    ADD(check_copy_shorter_image);
    ADD(check_copy_same_base_fine);
    ADD(check_copy_same_file_image);
#undef ADD
    return g_test_run();
}
