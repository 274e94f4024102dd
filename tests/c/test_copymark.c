/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "copymark.h"

#include "imgutil.h"

#include <sys/xattr.h>

#define SUM "0123456789abcdef0123456789abcdef"

static VmrCopymark
parse(const char *text)
{
    VmrCopymark mark;

    vmr_copymark_parse(text, strlen(text), &mark);
    return mark;
}

static VmrStamp
make_stamp(guint64 size, gint64 mtime)
{
    return (VmrStamp){.dev = 5,
                      .ino = 17,
                      .born = 4,
                      .size = size,
                      .mtime = mtime,
                      .ctime = mtime + 1};
}

static void
test_format_and_parse_same(void)
{
    const VmrStamp source = make_stamp(4711, 12);
    const VmrStamp destination = make_stamp(4711, 56);
    g_autofree char *text = NULL;
    VmrCopymark mark;
    VmrCopymark again;

    vmr_copymark_complete(&mark, &source, &destination, SUM);
    text = vmr_copymark_format(&mark);
    g_assert_cmpstr(text, ==,
                    "2 complete 5 17 4 4711 12 13 4711 56 " SUM);
    again = parse(text);
    g_assert_cmpint(again.state, ==, VMR_COPYMARK_COMPLETE);
    g_assert_cmpstr(again.checksum, ==, SUM);
    g_assert_cmpint(vmr_copymark_compare(&again, &source, &destination), ==,
                    VMR_COPYMARK_FITS);
}

static void
test_parse_incomplete_of_any_version_incomplete(void)
{
    g_assert_cmpint(parse("1 incomplete").state, ==, VMR_COPYMARK_INCOMPLETE);
    g_assert_cmpint(parse("9 incomplete").state, ==, VMR_COPYMARK_INCOMPLETE);
}

static void
test_parse_hostile_none(void)
{
    static const char *const text_table[] = {
        "",
        " ",
        "1",
        "1 complete",
        "incomplete",
        "1 incomplete ",
        "3 complete 5 17 4 1 1 1 1 1 " SUM,
        "1 complete 5 17 1 1 1 1 " SUM,
        "2 complete 5 17 4 1 1 1 1 1",
        "2 complete 5 17 4 1 1 1 1 1 " SUM " 1",
        "2 complete 5 17 4 1 1 1 1 1 " SUM "0",
        "2 complete 5 17 4 1 1 1 1 1 0123456789ABCDEF0123456789abcdef",
        "2 complete 5 17 4 1 1 1 1 1 012",
        "2 complete 5 17 4 -1 1 1 1 1 " SUM,
        "2 complete 5 17 4 +1 1 1 1 1 " SUM,
        "2 complete 5 17 4 0x1 1 1 1 1 " SUM,
        "2 complete 5 17 4 18446744073709551616 1 1 1 1 " SUM,
        "2 complete 5 17 4 1 9223372036854775808 1 1 1 " SUM,
        "2 complete 5  17 4 1 1 1 1 1 " SUM,
        "2 complete 5 17 4 1 1 1 1 1 " SUM "\n",
    };

    for (gsize i = 0; i < G_N_ELEMENTS(text_table); i++)
        g_assert_cmpint(parse(text_table[i]).state, ==, VMR_COPYMARK_NONE);
}

static void
test_parse_nul_or_too_long_none(void)
{
    g_autofree char *longer = g_strnfill(4096, ' ');
    VmrCopymark mark;

    vmr_copymark_parse("1 incomplete\0x", 14, &mark);
    g_assert_cmpint(mark.state, ==, VMR_COPYMARK_NONE);
    memcpy(longer, "1 incomplete", 12);
    vmr_copymark_parse(longer, 4096, &mark);
    g_assert_cmpint(mark.state, ==, VMR_COPYMARK_NONE);
}

/* How a mark of @source and @destination, as made by make_stamp(10, ...), compares
 * with them once they are as given. */
static VmrCopymarkFit
compare(VmrStamp source, VmrStamp destination)
{
    const VmrStamp old_source = make_stamp(10, 1);
    const VmrStamp old_destination = make_stamp(10, 3);
    VmrCopymark mark;

    vmr_copymark_complete(&mark, &old_source, &old_destination, SUM);
    return vmr_copymark_compare(&mark, &source, &destination);
}

static void
test_compare_anything_changed_other(void)
{
    static const struct {
        goffset member;
        VmrCopymarkFit source;
        VmrCopymarkFit destination;
    } table[] = {
        {offsetof(VmrStamp, dev), VMR_COPYMARK_OTHER, VMR_COPYMARK_FITS},
        {offsetof(VmrStamp, ino), VMR_COPYMARK_OTHER, VMR_COPYMARK_FITS},
        {offsetof(VmrStamp, born), VMR_COPYMARK_OTHER, VMR_COPYMARK_FITS},
        {offsetof(VmrStamp, size), VMR_COPYMARK_OTHER, VMR_COPYMARK_OTHER},
        {offsetof(VmrStamp, mtime), VMR_COPYMARK_OTHER, VMR_COPYMARK_OTHER},
        /* libvirt changes owners and labels, and with them this time */
        {offsetof(VmrStamp, ctime), VMR_COPYMARK_TOUCHED, VMR_COPYMARK_FITS},
    };

    g_assert_cmpint(compare(make_stamp(10, 1), make_stamp(10, 3)), ==,
                    VMR_COPYMARK_FITS);
    for (gsize i = 0; i < G_N_ELEMENTS(table); i++) {
        VmrStamp source = make_stamp(10, 1);
        VmrStamp destination = make_stamp(10, 3);

        *(guint64 *)((char *)&source + table[i].member) += 1;
        g_assert_cmpint(compare(source, make_stamp(10, 3)), ==,
                        table[i].source);
        *(guint64 *)((char *)&destination + table[i].member) += 1;
        g_assert_cmpint(compare(make_stamp(10, 1), destination), ==,
                        table[i].destination);
    }
}

static void
test_compare_source_device_touched(void)
{
    const VmrStamp device = {.dev = 5, .size = 10};
    const VmrStamp destination = make_stamp(10, 3);
    VmrCopymark mark;

    vmr_copymark_complete(&mark, &device, &destination, SUM);
    g_assert_cmpint(vmr_copymark_compare(&mark, &device, &destination), ==,
                    VMR_COPYMARK_TOUCHED);
}

static void
test_compare_incomplete_other(void)
{
    const VmrStamp source = make_stamp(10, 1);
    const VmrStamp destination = make_stamp(10, 3);
    VmrCopymark mark;

    vmr_copymark_complete(&mark, &source, &destination, SUM);
    mark.state = VMR_COPYMARK_INCOMPLETE;
    g_assert_cmpint(vmr_copymark_compare(&mark, &source, &destination), ==,
                    VMR_COPYMARK_OTHER);
}

static VmrCopymark
get(int fd)
{
    g_autoptr(GError) error = NULL;
    VmrCopymark mark;

    g_assert_true(vmr_copymark_get(fd, "a", &mark, &error));
    g_assert_no_error(error);
    return mark;
}

static void
test_set_on_file_is_got(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make_raw(folder, "a", 10);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    VmrCopymark mark = {.state = VMR_COPYMARK_INCOMPLETE};

    g_assert_cmpint(get(fd).state, ==, VMR_COPYMARK_NONE);
    g_assert_true(vmr_copymark_set(fd, path, &mark, NULL));
    g_assert_cmpint(get(fd).state, ==, VMR_COPYMARK_INCOMPLETE);
    mark.state = VMR_COPYMARK_NONE;
    g_assert_true(vmr_copymark_set(fd, path, &mark, NULL));
    g_assert_true(vmr_copymark_set(fd, path, &mark, NULL));
    g_assert_cmpint(get(fd).state, ==, VMR_COPYMARK_NONE);
    close(fd);
}

static void
test_get_huge_attribute_none(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make_raw(folder, "a", 10);
    g_autofree char *huge = g_strnfill(2000, 'x');
    int fd = open(path, O_RDWR | O_CLOEXEC);

    g_assert_cmpint(fsetxattr(fd, VMR_COPYMARK_NAME, huge, 2000, 0), ==, 0);
    g_assert_cmpint(get(fd).state, ==, VMR_COPYMARK_NONE);
    close(fd);
}

static void
test_set_where_there_can_be_none_nothing(void)
{
    const VmrCopymark mark = {.state = VMR_COPYMARK_INCOMPLETE};
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    g_assert_true(vmr_copymark_set(fd, "/dev/null", &mark, NULL));
    g_assert_cmpint(get(fd).state, ==, VMR_COPYMARK_NONE);
    close(fd);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/copymark/format_and_parse_same",
                    test_format_and_parse_same);
    g_test_add_func("/copymark/parse_incomplete_of_any_version_incomplete",
                    test_parse_incomplete_of_any_version_incomplete);
    g_test_add_func("/copymark/parse_hostile_none", test_parse_hostile_none);
    g_test_add_func("/copymark/parse_nul_or_too_long_none",
                    test_parse_nul_or_too_long_none);
    g_test_add_func("/copymark/compare_anything_changed_other",
                    test_compare_anything_changed_other);
    g_test_add_func("/copymark/compare_source_device_touched",
                    test_compare_source_device_touched);
    g_test_add_func("/copymark/compare_incomplete_other",
                    test_compare_incomplete_other);
    g_test_add_func("/copymark/set_on_file_is_got", test_set_on_file_is_got);
    g_test_add_func("/copymark/get_huge_attribute_none",
                    test_get_huge_attribute_none);
    g_test_add_func("/copymark/set_where_there_can_be_none_nothing",
                    test_set_where_there_can_be_none_nothing);
    return g_test_run();
}
