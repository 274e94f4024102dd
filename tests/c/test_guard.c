/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <glib/gstdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "guard.h"

#define UUID "6695eb01-f6a4-8304-79aa-97f2502e193f"
#define OTHER "6695eb01-f6a4-8304-79aa-97f2502e1940"

typedef struct {
    char *parent;
    char *folder;
} Fixture;

static void
set_up(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    f->parent = g_dir_make_tmp("guard-XXXXXX", NULL);
    f->folder = g_build_filename(f->parent, "run", NULL);
}

static void
tear_down(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    g_autofree char *file = g_build_filename(f->folder, UUID, NULL);

    (void)g_unlink(file);
    if (g_unlink(f->folder) != 0)
        (void)g_rmdir(f->folder);
    g_assert_cmpint(g_rmdir(f->parent), ==, 0);
    g_free(f->folder);
    g_free(f->parent);
}

static void
assert_taken(const Fixture *f, const char *uuid)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrGuard) guard = vmr_guard_take_in(f->folder, uuid, &error);

    g_assert_no_error(error);
    g_assert_nonnull(guard);
}

static void
assert_refused(const Fixture *f, const char *uuid, VmrErrorCode code,
               const char *words)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_guard_take_in(f->folder, uuid, &error));
    g_assert_error(error, VMR_ERROR, (int)code);
    g_assert_nonnull(strstr(error->message, words));
}

static void
test_take_again_same_process_busy(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    g_autoptr(VmrGuard) guard = vmr_guard_take_in(f->folder, UUID, NULL);
    g_autofree char *holder = g_strdup_printf("process %d is", getpid());

    g_assert_nonnull(guard);
    assert_refused(f, UUID, VMR_ERROR_BUSY, holder);
    assert_taken(f, OTHER);
}

static void
test_release_leaves_nothing(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    assert_taken(f, UUID);
    assert_taken(f, UUID);
    g_assert_cmpint(g_rmdir(f->folder), ==, 0);
}

/* A process that has the guard, and its pid; ended by the signal. */
static pid_t
start_holder(const Fixture *f)
{
    int ready[2];
    char byte;
    pid_t pid;

    g_assert_cmpint(pipe(ready), ==, 0);
    pid = fork();
    if (pid == 0) {
        VmrGuard *guard = vmr_guard_take_in(f->folder, UUID, NULL);

        (void)!write(ready[1], guard ? "y" : "n", 1);
        for (;;)
            pause();
    }
    g_assert_cmpint(read(ready[0], &byte, 1), ==, 1);
    g_assert_cmpint(byte, ==, 'y');
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void
test_take_holder_killed_is_free(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    pid_t pid = start_holder(f);
    g_autofree char *holder = g_strdup_printf("process %d is", pid);

    assert_refused(f, UUID, VMR_ERROR_BUSY, holder);
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
    assert_taken(f, UUID);
}

static void
test_take_folder_open_to_others_refused(Fixture *f,
                                        gconstpointer data G_GNUC_UNUSED)
{
    g_assert_cmpint(g_mkdir(f->folder, 0700), ==, 0);
    g_assert_cmpint(chmod(f->folder, 0770), ==, 0);
    assert_refused(f, UUID, VMR_ERROR_IO, "0700");
    g_assert_cmpint(chmod(f->folder, 0700), ==, 0);
    assert_taken(f, UUID);
}

static void
test_take_folder_is_symlink_refused(Fixture *f,
                                    gconstpointer data G_GNUC_UNUSED)
{
    g_assert_cmpint(symlink("/tmp", f->folder), ==, 0);
    assert_refused(f, UUID, VMR_ERROR_IO, "run");
}

static void
test_take_file_is_symlink_refused(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    g_autofree char *file = g_build_filename(f->folder, UUID, NULL);
    g_autofree char *victim = g_build_filename(f->parent, "victim", NULL);

    g_assert_cmpint(g_mkdir(f->folder, 0700), ==, 0);
    g_assert_cmpint(symlink(victim, file), ==, 0);
    assert_refused(f, UUID, VMR_ERROR_IO, UUID);
    g_assert_false(g_file_test(victim, G_FILE_TEST_EXISTS));
}

static void
test_take_no_uuid_refused(Fixture *f, gconstpointer data G_GNUC_UNUSED)
{
    assert_refused(f, "../../etc/passwd", VMR_ERROR_INVALID_SPEC, "UUID");
    assert_refused(f, "", VMR_ERROR_INVALID_SPEC, "UUID");
    g_assert_false(g_file_test(f->folder, G_FILE_TEST_EXISTS));
}

static void
test_folder_comes_from_the_environment(Fixture *f,
                                       gconstpointer data G_GNUC_UNUSED)
{
    g_autofree char *before = g_strdup(g_getenv("VIRMIRROR_RUNTIME_DIR"));
    g_autofree char *own = NULL;
    g_autofree char *usual = NULL;

    g_setenv("VIRMIRROR_RUNTIME_DIR", f->folder, TRUE);
    own = vmr_guard_dup_folder();
    g_assert_cmpstr(own, ==, f->folder);
    g_setenv("VIRMIRROR_RUNTIME_DIR", "relative", TRUE);
    usual = vmr_guard_dup_folder();
    g_assert_cmpstr(usual, !=, "relative");
    g_assert_true(g_path_is_absolute(usual));
    if (before)
        g_setenv("VIRMIRROR_RUNTIME_DIR", before, TRUE);
    else
        g_unsetenv("VIRMIRROR_RUNTIME_DIR");
}

#define ADD(name, func) \
    g_test_add("/guard/" name, Fixture, NULL, set_up, func, tear_down)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("take_again_same_process_busy", test_take_again_same_process_busy);
    ADD("release_leaves_nothing", test_release_leaves_nothing);
    ADD("take_holder_killed_is_free", test_take_holder_killed_is_free);
    ADD("take_folder_open_to_others_refused",
        test_take_folder_open_to_others_refused);
    ADD("take_folder_is_symlink_refused", test_take_folder_is_symlink_refused);
    ADD("take_file_is_symlink_refused", test_take_file_is_symlink_refused);
    ADD("take_no_uuid_refused", test_take_no_uuid_refused);
    ADD("folder_comes_from_the_environment",
        test_folder_comes_from_the_environment);
    return g_test_run();
}
