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

static struct stat
make_stat(off_t size, time_t seconds, long ns)
{
    return (struct stat){.st_dev = 5,
                         .st_ino = 17,
                         .st_mode = S_IFREG | 0600,
                         .st_size = size,
                         .st_mtim = {.tv_sec = seconds, .tv_nsec = ns}};
}

static void
test_format_and_parse_same(void)
{
    struct stat source = make_stat(4711, 12, 34);
    struct stat destination = make_stat(4711, 56, 78);
    g_autofree char *text = NULL;
    VmrCopymark mark;
    VmrCopymark again;

    vmr_copymark_complete(&mark, &source, &destination, SUM);
    text = vmr_copymark_format(&mark);
    g_assert_cmpstr(text, ==,
                    "1 complete 5 17 4711 12000000034 4711 56000000078 " SUM);
    again = parse(text);
    g_assert_cmpint(again.state, ==, VMR_COPYMARK_COMPLETE);
    g_assert_cmpstr(again.checksum, ==, SUM);
    g_assert_true(vmr_copymark_fits(&again, &source, &destination));
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
        "2 complete 5 17 1 1 1 1 " SUM,
        "1 complete 5 17 1 1 1 1",
        "1 complete 5 17 1 1 1 1 " SUM " 1",
        "1 complete 5 17 1 1 1 1 " SUM "0",
        "1 complete 5 17 1 1 1 1 0123456789ABCDEF0123456789abcdef",
        "1 complete 5 17 1 1 1 1 012",
        "1 complete 5 17 -1 1 1 1 " SUM,
        "1 complete 5 17 +1 1 1 1 " SUM,
        "1 complete 5 17 0x1 1 1 1 " SUM,
        "1 complete 5 17 18446744073709551616 1 1 1 " SUM,
        "1 complete 5 17 1 9223372036854775808 1 1 " SUM,
        "1 complete 5  17 1 1 1 1 " SUM,
        "1 complete 5 17 1 1 1 1 " SUM "\n",
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

static void
test_fits_anything_changed_false(void)
{
    const struct stat source = make_stat(10, 1, 2);
    const struct stat destination = make_stat(10, 3, 4);
    struct stat other;
    VmrCopymark mark;

    vmr_copymark_complete(&mark, &source, &destination, "");
    g_assert_true(vmr_copymark_fits(&mark, &source, &destination));
    other = source;
    other.st_ino++;
    g_assert_false(vmr_copymark_fits(&mark, &other, &destination));
    other = source;
    other.st_dev++;
    g_assert_false(vmr_copymark_fits(&mark, &other, &destination));
    other = make_stat(11, 1, 2);
    g_assert_false(vmr_copymark_fits(&mark, &other, &destination));
    other = make_stat(10, 1, 3);
    g_assert_false(vmr_copymark_fits(&mark, &other, &destination));
    other = make_stat(9, 3, 4);
    g_assert_false(vmr_copymark_fits(&mark, &source, &other));
    other = make_stat(10, 3, 5);
    g_assert_false(vmr_copymark_fits(&mark, &source, &other));
    mark.state = VMR_COPYMARK_INCOMPLETE;
    g_assert_false(vmr_copymark_fits(&mark, &source, &destination));
}

/* libvirt changes owners and labels, and with them the time of the inode. */
static void
test_fits_other_owner_and_ctime_true(void)
{
    struct stat source = make_stat(10, 1, 2);
    struct stat destination = make_stat(10, 3, 4);
    VmrCopymark mark;

    vmr_copymark_complete(&mark, &source, &destination, SUM);
    source.st_uid = destination.st_uid = 1000;
    source.st_ctim.tv_sec = destination.st_ctim.tv_sec = 1234;
    g_assert_true(vmr_copymark_fits(&mark, &source, &destination));
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
    g_test_add_func("/copymark/fits_anything_changed_false",
                    test_fits_anything_changed_false);
    g_test_add_func("/copymark/fits_other_owner_and_ctime_true",
                    test_fits_other_owner_and_ctime_true);
    g_test_add_func("/copymark/set_on_file_is_got", test_set_on_file_is_got);
    g_test_add_func("/copymark/get_huge_attribute_none",
                    test_get_huge_attribute_none);
    g_test_add_func("/copymark/set_where_there_can_be_none_nothing",
                    test_set_where_there_can_be_none_nothing);
    return g_test_run();
}
