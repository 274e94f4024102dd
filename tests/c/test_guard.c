/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "guard.h"

#define UUID "6695eb01-f6a4-8304-79aa-97f2502e193f"
#define UPPER "6695EB01-F6A4-8304-79AA-97F2502E193F"
#define OTHER "6695eb01-f6a4-8304-79aa-97f2502e1940"

static void
assert_taken(const char *uuid)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrGuard) guard = vmr_guard_take(uuid, &error);

    g_assert_no_error(error);
    g_assert_nonnull(guard);
}

static void
assert_refused(const char *uuid, VmrErrorCode code, const char *words)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_guard_take(uuid, &error));
    g_assert_error(error, VMR_ERROR, (int)code);
    g_assert_nonnull(strstr(error->message, words));
}

static void
assert_busy(pid_t pid)
{
    g_autofree char *holder = g_strdup_printf("process %d is", pid);

    assert_refused(UUID, VMR_ERROR_BUSY, holder);
    g_assert_cmpint(vmr_guard_find_holder(UUID), ==, pid);
}

static void
test_take_again_same_process_busy(void)
{
    g_autoptr(VmrGuard) guard = vmr_guard_take(UUID, NULL);

    g_assert_nonnull(guard);
    assert_busy(getpid());
    assert_taken(OTHER);
}

static void
test_take_other_spelling_is_the_same(void)
{
    g_autoptr(VmrGuard) guard = vmr_guard_take(UPPER, NULL);

    g_assert_nonnull(guard);
    assert_busy(getpid());
}

static void
test_release_frees(void)
{
    assert_taken(UUID);
    g_assert_cmpint(vmr_guard_find_holder(UUID), ==, 0);
    assert_taken(UUID);
}

static void
test_hold_lets_steps_of_its_thread_through(void)
{
    g_autoptr(VmrGuard) job = vmr_guard_hold(UUID, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_nonnull(job);
    assert_taken(UUID);
    assert_taken(UUID);
    g_assert_true(vmr_guard_is_held(job));
    g_assert_null(vmr_guard_hold(UUID, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_BUSY);
}

static void *
assert_busy_in_thread(void *unused G_GNUC_UNUSED)
{
    assert_busy(getpid());
    return NULL;
}

static void
test_hold_keeps_other_threads_out(void)
{
    g_autoptr(VmrGuard) job = vmr_guard_hold(UUID, NULL);
    pthread_t thread;

    g_assert_nonnull(job);
    g_assert_cmpint(
        pthread_create(&thread, NULL, assert_busy_in_thread, NULL), ==, 0);
    g_assert_cmpint(pthread_join(thread, NULL), ==, 0);
}

static void
test_hold_is_kept_by_a_step_that_outlives_it(void)
{
    VmrGuard *job = vmr_guard_hold(UUID, NULL);
    VmrGuard *step = vmr_guard_take(UUID, NULL);

    g_assert_nonnull(step);
    vmr_guard_release(job);
    g_assert_cmpint(vmr_guard_find_holder(UUID), ==, getpid());
    vmr_guard_release(step);
    assert_taken(UUID);
}

/* Say one byte, and never end. */
static void
say(int fd, char byte)
{
    (void)!write(fd, &byte, 1);
    for (;;)
        pause();
}

static void
assert_said(int fd, char byte)
{
    char said;

    g_assert_cmpint(read(fd, &said, 1), ==, 1);
    g_assert_cmpint(said, ==, byte);
}

static void
end(pid_t pid)
{
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, NULL, 0), ==, pid);
}

static void
test_take_holder_killed_is_free(void)
{
    int ready[2];
    pid_t pid;

    g_assert_cmpint(pipe(ready), ==, 0);
    pid = fork();
    if (pid == 0)
        say(ready[1], vmr_guard_take(UUID, NULL) ? 'y' : 'n');
    assert_said(ready[0], 'y');
    assert_busy(pid);
    end(pid);
    assert_taken(UUID);
    close(ready[0]);
    close(ready[1]);
}

/* What the child of a holder finds: 'y' if it is kept out as anybody else is. */
static char
look_in_child(const VmrGuard *job, pid_t parent)
{
    VmrGuard *guard;

    if (vmr_guard_is_held(job) || vmr_guard_find_holder(UUID) != parent)
        return 'h';
    guard = vmr_guard_take(UUID, NULL);
    return guard ? 't' : 'y';
}

static void
test_fork_leaves_the_guard_to_the_parent(void)
{
    VmrGuard *job = vmr_guard_hold(UUID, NULL);
    pid_t parent = getpid();
    int ready[2];
    pid_t pid;

    g_assert_nonnull(job);
    g_assert_cmpint(pipe(ready), ==, 0);
    pid = fork();
    if (pid == 0)
        say(ready[1], look_in_child(job, parent));
    assert_said(ready[0], 'y');
    g_assert_true(vmr_guard_is_held(job));
    vmr_guard_release(job);
    /* the child goes on, and has nothing of it */
    assert_taken(UUID);
    end(pid);
    close(ready[0]);
    close(ready[1]);
}

static void
test_release_in_child_leaves_the_parents(void)
{
    g_autoptr(VmrGuard) job = vmr_guard_hold(UUID, NULL);
    int ready[2];
    pid_t pid;

    g_assert_cmpint(pipe(ready), ==, 0);
    pid = fork();
    if (pid == 0) {
        vmr_guard_release(g_steal_pointer(&job));
        say(ready[1], 'y');
    }
    assert_said(ready[0], 'y');
    g_assert_true(vmr_guard_is_held(job));
    g_assert_cmpint(vmr_guard_find_holder(UUID), ==, getpid());
    end(pid);
    close(ready[0]);
    close(ready[1]);
}

static void
test_take_no_uuid_refused(void)
{
    assert_refused("../../etc/passwd", VMR_ERROR_INVALID_SPEC, "UUID");
    assert_refused("", VMR_ERROR_INVALID_SPEC, "UUID");
    g_assert_cmpint(vmr_guard_find_holder(""), ==, 0);
}

#define ADD(name) g_test_add_func("/guard/" #name, test_##name)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD(take_again_same_process_busy);
    ADD(take_other_spelling_is_the_same);
    ADD(release_frees);
    ADD(hold_lets_steps_of_its_thread_through);
    ADD(hold_keeps_other_threads_out);
    ADD(hold_is_kept_by_a_step_that_outlives_it);
    ADD(take_holder_killed_is_free);
    ADD(fork_leaves_the_guard_to_the_parent);
    ADD(release_in_child_leaves_the_parents);
    ADD(take_no_uuid_refused);
    return g_test_run();
}
