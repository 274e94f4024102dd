/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "error.h"
#include "image.h"
#include "imgutil.h"
#include <glib/gstdio.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Create @image as it must succeed. */
static VmrImage *
create_fine(const VmrImageNew *image)
{
    VmrWait wait = vmr_wait_for(20, NULL);
    g_autoptr(GError) error = NULL;
    VmrImage *made = NULL;
    gboolean ok = vmr_image_create(image, &made, &wait, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
    return made;
}

/* Creating @image must fail with @code and a text that has @text in it. */
static void
create_fails(const VmrImageNew *image, const VmrWait *wait, VmrErrorCode code,
             const char *text)
{
    VmrWait patient = vmr_wait_for(20, NULL);
    g_autoptr(GError) error = NULL;
    VmrImage *made = NULL;

    g_assert_false(
        vmr_image_create(image, &made, wait ? wait : &patient, &error));
    g_assert_error(error, VMR_ERROR, (int)code);
    if (!strstr(error->message, text))
        g_error("'%s' is not in: %s", text, error->message);
    g_assert_null(strchr(error->message, '\n'));
    g_assert_null(strstr(error->message, "does not end"));
    g_assert_null(made);
}

static void
test_create_overlay_as_asked(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    VmrImageNew image = {path, "qcow2", IMG_SIZE, "sub/base", "raw", NULL};
    mode_t before = umask(0);
    g_autoptr(VmrImage) made = create_fine(&image);
    struct stat st = img_stat(path);

    umask(before);
    g_assert_cmpuint(st.st_mode & 07777, ==, 0600);
    g_assert_cmpuint(made->version, ==, 3);
    g_assert_cmpuint(made->virtual_size, ==, IMG_SIZE);
    g_assert_cmpstr(made->backing_name, ==, "sub/base");
    g_assert_cmpstr(made->backing_format, ==, "raw");
    g_assert_true(made->empty);
    g_assert_true(made->ino == st.st_ino);
    img_run("qemu-img info -f qcow2 %s", path);
}

static void
test_create_strict_umask_mode_0600(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    VmrImageNew image = {path, "qcow2", IMG_SIZE, NULL, NULL, NULL};
    mode_t before = umask(0777);
    g_autoptr(VmrImage) made = create_fine(&image);

    umask(before);
    g_assert_true(made->empty);
    g_assert_cmpuint(img_stat(path).st_mode & 07777, ==, 0600);
}

/* Where they differ from ours they can be set by root only. */
static void
test_create_like_another_image_owner_group_and_mode(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *like = img_path(folder, "like");
    g_autofree char *path = img_path(folder, "a");
    VmrImageNew image = {path, "qcow2", IMG_SIZE, NULL, NULL, like};
    gboolean is_root = geteuid() == 0;
    mode_t before = umask(0777);
    g_autoptr(VmrImage) made = NULL;
    struct stat st;

    g_assert_true(g_file_set_contents(like, "", 0, NULL));
    g_assert_cmpint(chown(like, is_root ? 1234 : geteuid(),
                          is_root ? 5678 : getegid()), ==, 0);
    g_assert_cmpint(g_chmod(like, 06647), ==, 0);
    made = create_fine(&image);
    umask(before);
    st = img_stat(path);
    g_assert_cmpuint(st.st_uid, ==, img_stat(like).st_uid);
    g_assert_cmpuint(st.st_gid, ==, img_stat(like).st_gid);
    /* nobody is to run it, or everybody to write it */
    g_assert_cmpuint(st.st_mode & 07777, ==, 0644);
}

/* libvirt has lent it to a QEMU, and takes it back at its end. */
static void
test_create_like_a_lent_image_its_own_owner(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *like = img_path(folder, "like");
    g_autofree char *path = img_path(folder, "a");
    VmrImageNew image = {path, "raw", 0, NULL, NULL, like};
    g_autoptr(VmrImage) made = NULL;
    uid_t owner = geteuid() == 0 ? 1234 : geteuid();

    g_assert_true(g_file_set_contents(like, "", 0, NULL));
    g_assert_cmpint(chown(like, owner, (gid_t)-1), ==, 0);
    if (geteuid() == 0) {
        g_assert_cmpint(setxattr(like, "trusted.libvirt.security.dac",
                                 "+0:+5678", 8, 0), ==, 0);
        owner = 0;
    }
    made = create_fine(&image);
    g_assert_cmpuint(img_stat(path).st_uid, ==, owner);
    g_assert_cmpuint(img_stat(path).st_gid, ==,
                     geteuid() == 0 ? 5678 : getegid());
}

static void
test_create_made_not_wanted_fine(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    VmrImageNew image = {path, "qcow2", IMG_SIZE, NULL, NULL, NULL};
    VmrWait wait = vmr_wait_for(20, NULL);

    g_assert_true(vmr_image_create(&image, NULL, &wait, NULL));
}

static void
test_create_any_file_name_that_very_name(void)
{
    static const char *const name_table[] = {
        "a,b", "a:b", "nbd:x:1", "json:{}", "-x", "--help", "a b", "a'b\"c",
        "a%sb", "$(a)", "\303\244", "a=b,,c", "fd:3", "#",
    };
    g_autoptr(ImgFolder) folder = img_folder_new();

    for (gsize i = 0; i < G_N_ELEMENTS(name_table); i++) {
        g_autofree char *path = img_path(folder, name_table[i]);
        VmrImageNew image = {path, "qcow2", IMG_SIZE, "base", "qcow2", NULL};
        g_autoptr(VmrImage) made = create_fine(&image);

        g_assert_cmpstr(made->path, ==, path);
        g_assert_cmpuint(img_count(folder), ==, i + 1);
    }
}

static void
test_create_any_backing_name_that_very_name(void)
{
    static const char *const name_table[] = {
        "a,b", ",", "a,,b", "./a:b", "-x", "a b", "a'b\"c", "a=b,size=1",
        "\303\244", "../a", "b,backing_fmt=raw", "$(a)", "a\\b",
    };
    g_autoptr(ImgFolder) folder = img_folder_new();

    for (gsize i = 0; i < G_N_ELEMENTS(name_table); i++) {
        g_autofree char *name = g_strdup_printf("%" G_GSIZE_FORMAT, i);
        g_autofree char *path = img_path(folder, name);
        VmrImageNew image = {path, "qcow2", IMG_SIZE, name_table[i], "qcow2", NULL};
        g_autoptr(VmrImage) made = create_fine(&image);

        g_assert_cmpstr(made->backing_name, ==, name_table[i]);
        g_assert_cmpstr(made->backing_format, ==, "qcow2");
    }
}

static void
test_create_longest_backing_name_fine(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    g_autofree char *longest = g_strnfill(1023, 'x');
    g_autofree char *longer = g_strnfill(1024, 'x');
    VmrImageNew image = {path, "qcow2", IMG_SIZE, longer, "raw", NULL};
    g_autoptr(VmrImage) made = NULL;

    create_fails(&image, NULL, VMR_ERROR_INVALID_SPEC, "1023 bytes");
    image.backing_name = longest;
    made = create_fine(&image);
    g_assert_cmpuint(strlen(made->backing_name), ==, 1023);
}

static void
test_create_relative_path_fine(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *before = g_get_current_dir();
    VmrImageNew image = {"a:b", "qcow2", IMG_SIZE, NULL, NULL, NULL};
    g_autoptr(VmrImage) made = NULL;

    g_assert_cmpint(chdir(folder), ==, 0);
    made = create_fine(&image);
    g_assert_cmpint(chdir(before), ==, 0);
    g_assert_cmpuint(img_count(folder), ==, 1);
}

static void
test_create_large_sizes_fine(void)
{
    static const guint64 size_table[] = {
        0, 512, (guint64)64 << 40, (guint64)1 << 50,
    };
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");

    for (gsize i = 0; i < G_N_ELEMENTS(size_table); i++) {
        VmrImageNew image = {path, "qcow2", size_table[i], NULL, NULL, NULL};
        g_autoptr(VmrImage) made = create_fine(&image);

        g_assert_cmpuint(made->virtual_size, ==, size_table[i]);
        g_assert_cmpint(unlink(path), ==, 0);
    }
}

static void
test_create_raw_odd_size_kept(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    VmrImageNew image = {path, "raw", 1025, NULL, NULL, NULL};
    g_autoptr(VmrImage) made = create_fine(&image);

    g_assert_cmpuint(made->file_size, ==, 1025);
    g_assert_cmpuint(made->virtual_size, ==, 1536);
    g_assert_cmpuint(img_stat(path).st_mode & 07777, ==, 0600);
}

/* A request that makes no sense, and what is said about it. */
typedef struct {
    VmrImageNew image; /* but for its path */
    VmrErrorCode code;
    const char *text;
} Nonsense;

static const Nonsense nonsense_table[] = {
    {{NULL, "vmdk", 512, NULL, NULL, NULL}, VMR_ERROR_NOT_SUPPORTED, "'vmdk'"},
    {{NULL, NULL, 512, NULL, NULL, NULL}, VMR_ERROR_NOT_SUPPORTED, "''"},
    {{NULL, "qcow2", 513, NULL, NULL, NULL}, VMR_ERROR_INVALID_SPEC, "513 bytes"},
    {{NULL, "raw", (guint64)1 << 63, NULL, NULL, NULL}, VMR_ERROR_INVALID_SPEC,
     "9223372036854775808"},
    {{NULL, "qcow2", 512, "b", NULL, NULL}, VMR_ERROR_INVALID_SPEC, "backing"},
    {{NULL, "qcow2", 512, "", "raw", NULL}, VMR_ERROR_INVALID_SPEC, "backing"},
    {{NULL, "raw", 512, "b", "raw", NULL}, VMR_ERROR_INVALID_SPEC, "backing"},
    {{NULL, "raw", G_MAXINT64, NULL, NULL, NULL}, VMR_ERROR_IO, "size"},
    {{NULL, "qcow2", (guint64)1 << 62, NULL, NULL, NULL}, VMR_ERROR_IO, "qemu-img"},
    {{NULL, "qcow2", 512, "a\nb", "raw", NULL}, VMR_ERROR_IMAGE, "control"},
};

static void
test_create_nonsense_nothing_left(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");

    for (gsize i = 0; i < G_N_ELEMENTS(nonsense_table); i++) {
        VmrImageNew image = nonsense_table[i].image;

        image.path = path;
        create_fails(&image, NULL, nonsense_table[i].code,
                     nonsense_table[i].text);
        g_assert_cmpuint(img_count(folder), ==, 0);
    }
}

static void
test_create_existing_file_untouched(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    g_autofree char *content = NULL;
    VmrImageNew image = {path, "qcow2", IMG_SIZE, NULL, NULL, NULL};

    g_assert_true(g_file_set_contents(path, "mine", -1, NULL));
    create_fails(&image, NULL, VMR_ERROR_EXISTS, path);
    image.format = "raw";
    create_fails(&image, NULL, VMR_ERROR_EXISTS, path);
    g_assert_true(g_file_get_contents(path, &content, NULL, NULL));
    g_assert_cmpstr(content, ==, "mine");
}

static void
test_create_on_link_or_fifo_exists(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *dangling = img_path(folder, "dangling");
    g_autofree char *victim = img_path(folder, "victim");
    g_autofree char *fifo = img_path(folder, "fifo");
    VmrImageNew image = {dangling, "qcow2", IMG_SIZE, NULL, NULL, NULL};

    g_assert_cmpint(symlink("victim", dangling), ==, 0);
    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    create_fails(&image, NULL, VMR_ERROR_EXISTS, "dangling");
    image.path = fifo;
    create_fails(&image, NULL, VMR_ERROR_EXISTS, "fifo");
    image.path = folder;
    create_fails(&image, NULL, VMR_ERROR_EXISTS, folder);
    g_assert_false(img_exists(victim));
}

static void
test_create_no_folder_not_found(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "sub/a");
    g_autofree char *slash = img_path(folder, "a/");
    VmrImageNew image = {path, "qcow2", IMG_SIZE, NULL, NULL, NULL};

    create_fails(&image, NULL, VMR_ERROR_NOT_FOUND, "sub'");
    image.path = slash;
    create_fails(&image, NULL, VMR_ERROR_INVALID_SPEC, "names no file");
    image.path = "";
    create_fails(&image, NULL, VMR_ERROR_INVALID_SPEC, "names no file");
}

/* Put a shell script in qemu-img's place, run @func-like create_fails() with
 * it, and see that nothing is left. @script NULL: no qemu-img at all. */
static void
create_with_script(const char *script, const VmrWait *wait, VmrErrorCode code,
                   const char *text)
{
    g_autoptr(ImgFolder) bin = img_folder_new();
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    g_autofree char *tool = img_path(bin, "qemu-img");
    g_autofree char *before = g_strdup(g_getenv("PATH"));
    g_autofree char *with = g_strconcat(bin, ":/usr/bin:/bin", NULL);
    VmrImageNew image = {path, "qcow2", IMG_SIZE, NULL, NULL, NULL};

    if (script) {
        g_assert_true(g_file_set_contents(tool, script, -1, NULL));
        g_assert_cmpint(chmod(tool, 0700), ==, 0);
    }
    g_setenv("PATH", script ? with : bin, TRUE);
    create_fails(&image, wait, code, text);
    g_setenv("PATH", before, TRUE);
    g_assert_cmpuint(img_count(folder), ==, 0);
}

static void
test_create_no_qemu_img_not_supported(void)
{
    create_with_script(NULL, NULL, VMR_ERROR_NOT_SUPPORTED, "qemu-utils");
}

static void
test_create_qemu_img_fails_its_words(void)
{
    create_with_script("#!/bin/sh\necho 'qemu-img: /proc/self/fd/3: No \033x'"
                       " >&2\necho more >&2\nexit 1\n",
                       NULL, VMR_ERROR_IO, "qemu-img failed: No \\x1bx");
    create_with_script("#!/bin/sh\nexit 3\n", NULL, VMR_ERROR_IO,
                       "does not say why");
    create_with_script("#!/bin/sh\nkill -9 $$\n", NULL, VMR_ERROR_IO,
                       "signal 9");
    create_with_script("not a program", NULL, VMR_ERROR_IO, "cannot start");
}

static void
test_create_qemu_img_does_nothing_image(void)
{
    create_with_script("#!/bin/sh\nexit 0\n", NULL, VMR_ERROR_IMAGE,
                       "does not begin");
    create_with_script("#!/bin/sh\nexec /usr/bin/qemu-img create -q -f qcow2 "
                       "/proc/self/fd/3 2M\n",
                       NULL, VMR_ERROR_IMAGE, "something else");
    create_with_script("#!/bin/sh\nexec /usr/bin/qemu-img create -q -f qcow2 "
                       "-o compat=0.10 /proc/self/fd/3 1M\n",
                       NULL, VMR_ERROR_IMAGE, "something else");
}

static void
test_create_qemu_img_hangs_timeout(void)
{
    VmrWait wait = vmr_wait_for(0.3, NULL);
    gint64 start = g_get_monotonic_time();

    create_with_script("#!/bin/sh\nexec sleep 60\n", &wait, VMR_ERROR_TIMEOUT,
                       "did not finish");
    /* also one that has closed its stderr, which is not its end yet */
    wait = vmr_wait_for(0.3, NULL);
    create_with_script("#!/bin/sh\nexec sleep 60 2>&1\n", &wait,
                       VMR_ERROR_TIMEOUT, "did not finish");
    g_assert_cmpint(g_get_monotonic_time() - start, <, 20 * G_USEC_PER_SEC);
}

static gboolean
always_interrupted(gpointer data)
{
    (void)data;
    return TRUE;
}

static void
test_create_interrupted_cancelled(void)
{
    VmrWait wait = vmr_wait_for(60, NULL);

    wait.interrupted = always_interrupted;
    create_with_script("#!/bin/sh\nexec sleep 60\n", &wait,
                       VMR_ERROR_CANCELLED, "interrupted");
}

static void
test_create_qemu_img_floods_io(void)
{
    create_with_script("#!/bin/sh\nexec yes >&2\n", NULL, VMR_ERROR_IO,
                       "floods");
}

/* What the child finds: no input, only the image beside it, no environment to
 * speak of, limits, no ignored signals, a process group of its own. */
static void
test_create_child_finds_little(void)
{
    struct rlimit before;
    struct rlimit most;

    g_assert_cmpint(getrlimit(RLIMIT_CORE, &before), ==, 0);
    most = (struct rlimit){before.rlim_max, before.rlim_max};
    g_assert_cmpint(setrlimit(RLIMIT_CORE, &most), ==, 0);
    g_assert_cmpint(dup2(STDERR_FILENO, 77), ==, 77);
    signal(SIGXFSZ, SIG_IGN);
    g_setenv("LD_PRELOAD_X", "1", TRUE);
    create_with_script("#!/bin/sh\n"
                       "say() { echo $* >&2; exit 1; }\n"
                       "read x && say input\n"
                       "test -z \"$LD_PRELOAD_X\" || say environment\n"
                       "test \"$LC_ALL\" = C || say locale\n"
                       "test -w /proc/self/fd/3 || say image\n"
                       "test -e /proc/$$/fd/77 && say descriptor\n"
                       "grep -q '^SigIgn:.*0000000$' /proc/$$/status "
                       "|| say signals\n"
                       "sleep 0.1\n"
                       "test $(ulimit -c) = 0 || say core\n"
                       "test $(ulimit -v) = 2097152 || say memory\n"
                       "test $(ulimit -t) = 10 || say time\n"
                       "say fine\n",
                       NULL, VMR_ERROR_IO, "failed: fine");
    g_unsetenv("LD_PRELOAD_X");
    close(77);
    g_assert_cmpint(setrlimit(RLIMIT_CORE, &before), ==, 0);
    signal(SIGXFSZ, SIG_DFL);
}

/* Programs that let the kernel reap their children get no exit status. */
static void
test_create_children_reaped_by_others_fine(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_path(folder, "a");
    VmrImageNew image = {path, "qcow2", IMG_SIZE, NULL, NULL, NULL};
    g_autoptr(VmrImage) made = NULL;

    signal(SIGCHLD, SIG_IGN);
    made = create_fine(&image);
    signal(SIGCHLD, SIG_DFL);
}

static void
test_create_no_descriptor_left(void)
{
    guint before = img_count("/proc/self/fd");

    test_create_overlay_as_asked();
    test_create_qemu_img_fails_its_words();
    test_create_existing_file_untouched();
    g_assert_cmpuint(img_count("/proc/self/fd"), ==, before);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name) g_test_add_func("/imgcreate/" #name, test_##name)
    ADD(create_overlay_as_asked);
    ADD(create_strict_umask_mode_0600);
    ADD(create_like_another_image_owner_group_and_mode);
    ADD(create_like_a_lent_image_its_own_owner);
    ADD(create_made_not_wanted_fine);
    ADD(create_any_file_name_that_very_name);
    ADD(create_any_backing_name_that_very_name);
    ADD(create_longest_backing_name_fine);
    ADD(create_relative_path_fine);
    ADD(create_large_sizes_fine);
    ADD(create_raw_odd_size_kept);
    ADD(create_nonsense_nothing_left);
    ADD(create_existing_file_untouched);
    ADD(create_on_link_or_fifo_exists);
    ADD(create_no_folder_not_found);
    ADD(create_no_qemu_img_not_supported);
    ADD(create_qemu_img_fails_its_words);
    ADD(create_qemu_img_does_nothing_image);
    ADD(create_qemu_img_hangs_timeout);
    ADD(create_interrupted_cancelled);
    ADD(create_qemu_img_floods_io);
    ADD(create_child_finds_little);
    ADD(create_children_reaped_by_others_fine);
    ADD(create_no_descriptor_left);
#undef ADD
    return g_test_run();
}
