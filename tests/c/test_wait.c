/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"
#include "wait.h"

#define MS G_TIME_SPAN_MILLISECOND

/* No answer takes longer than it must, but for what a busy machine adds. */
#define SLACK (2 * G_TIME_SPAN_SECOND)

static gint64
elapsed(gint64 start)
{
    return g_get_monotonic_time() - start;
}

/* A hook that counts how often it was asked; it tells of an interruption from
 * the call number @from on (0: never). */
typedef struct {
    int asked;
    int from;
    int times; /* what it tells then */
} Hook;

static int
hook_ask(gpointer data)
{
    Hook *hook = data;

    hook->asked++;
    return hook->from != 0 && hook->asked >= hook->from ? hook->times : 0;
}

/* ---- vmr_wait_for() ---- */

static void
test_for_negative_is_for_ever(void)
{
    VmrWait wait = vmr_wait_for(-1, NULL);

    g_assert_cmpint(wait.deadline, ==, VMR_WAIT_FOREVER);
    g_assert_cmpint(wait.call_timeout, <, VMR_WAIT_FOREVER);
    wait = vmr_wait_for(1e300, NULL);
    g_assert_cmpint(wait.deadline, ==, VMR_WAIT_FOREVER);
}

static void
test_for_takes_the_hook_along(void)
{
    Hook hook = {0};
    VmrWait like = {.call_timeout = 5, .interrupted = hook_ask, .data = &hook};
    VmrWait wait = vmr_wait_for(1, &like);

    g_assert_true(wait.interrupted == hook_ask);
    g_assert_true(wait.data == &hook);
    g_assert_cmpint(wait.call_timeout, ==, 5);
}

/* ---- vmr_wait_fd() ---- */

static void
test_fd_readable_at_once(void)
{
    VmrWait wait = vmr_wait_for(60, NULL);
    int fd = eventfd(1, EFD_CLOEXEC);
    gint64 start = g_get_monotonic_time();
    gboolean ready = FALSE;

    g_assert_true(vmr_wait_fd(&wait, fd, -1, &ready, NULL));
    g_assert_true(ready);
    g_assert_cmpint(elapsed(start), <, SLACK);
    close(fd);
}

static void
test_fd_timeout_over_not_ready(void)
{
    VmrWait wait = vmr_wait_for(60, NULL);
    gint64 start = g_get_monotonic_time();
    gboolean ready = TRUE;

    g_assert_true(vmr_wait_fd(&wait, -1, 50, &ready, NULL));
    g_assert_false(ready);
    g_assert_cmpint(elapsed(start), >=, 50 * MS);
    g_assert_cmpint(elapsed(start), <, SLACK);
}

static void
test_fd_deadline_over_timeout(void)
{
    VmrWait wait = vmr_wait_for(0.05, NULL);
    gint64 start = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;
    gboolean ready = TRUE;

    g_assert_false(vmr_wait_fd(&wait, -1, 60000, &ready, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_false(ready);
    g_assert_cmpint(elapsed(start), >=, 50 * MS);
    g_assert_cmpint(elapsed(start), <, SLACK);
}

static void
test_fd_readable_beats_the_deadline(void)
{
    VmrWait wait = {.deadline = 0};
    int fd = eventfd(1, EFD_CLOEXEC);
    gboolean ready = FALSE;

    g_assert_true(vmr_wait_fd(&wait, fd, -1, &ready, NULL));
    g_assert_true(ready);
    close(fd);
}

static void
test_fd_asks_the_hook_in_slices(void)
{
    Hook hook = {0};
    VmrWait wait = vmr_wait_for(60, NULL);
    gboolean ready;

    wait.interrupted = hook_ask;
    wait.data = &hook;
    g_assert_true(vmr_wait_fd(&wait, -1, 350, &ready, NULL));
    g_assert_cmpint(hook.asked, >=, 3);
    g_assert_cmpint(hook.asked, <=, 6);
}

static void
test_fd_interrupted_cancelled(void)
{
    Hook hook = {.from = 2, .times = 1};
    VmrWait wait = vmr_wait_for(60, NULL);
    gint64 start = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;
    gboolean ready;

    wait.interrupted = hook_ask;
    wait.data = &hook;
    g_assert_false(vmr_wait_fd(&wait, -1, -1, &ready, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_CANCELLED);
    g_assert_cmpint(elapsed(start), <, SLACK);
}

static void
test_cleanup_goes_on_after_the_interruption(void)
{
    Hook hook = {.from = 1, .times = 1};
    VmrWait failed = vmr_wait_for(0, NULL);
    VmrWait cleanup;
    g_autoptr(GError) error = NULL;
    gboolean ready;

    failed.interrupted = hook_ask;
    failed.data = &hook;
    cleanup = vmr_wait_for_cleanup(&failed);
    g_assert_true(vmr_wait_fd(&cleanup, -1, 150, &ready, NULL));
    hook.times = 2;
    g_assert_false(vmr_wait_fd(&cleanup, -1, 150, &ready, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_CANCELLED);
}

/* ---- vmr_wait_call() ---- */

/* A call that can be held, and what became of it. */
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    gboolean hold;
    gboolean fail;
    gboolean started;
    gboolean destroyed;
    gboolean collected;
} Gate;

static Gate *
gate_new(gboolean hold, gboolean fail)
{
    Gate *gate = g_new0(Gate, 1);

    pthread_mutex_init(&gate->mutex, NULL);
    pthread_cond_init(&gate->cond, NULL);
    gate->hold = hold;
    gate->fail = fail;
    return gate;
}

static void
gate_free(Gate *gate)
{
    pthread_cond_destroy(&gate->cond);
    pthread_mutex_destroy(&gate->mutex);
    g_free(gate);
}

static void
gate_set(Gate *gate, gboolean *flag, gboolean value)
{
    pthread_mutex_lock(&gate->mutex);
    *flag = value;
    pthread_cond_broadcast(&gate->cond);
    pthread_mutex_unlock(&gate->mutex);
}

static void
gate_await(Gate *gate, const gboolean *flag)
{
    pthread_mutex_lock(&gate->mutex);
    while (!*flag)
        pthread_cond_wait(&gate->cond, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
}

static gboolean
gate_pass(gpointer data, GError **error)
{
    Gate *gate = data;

    gate_set(gate, &gate->started, TRUE);
    pthread_mutex_lock(&gate->mutex);
    while (gate->hold)
        pthread_cond_wait(&gate->cond, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
    if (gate->fail)
        g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY, "it failed");
    return !gate->fail;
}

static void
gate_destroy(gpointer data)
{
    Gate *gate = data;

    gate_set(gate, &gate->destroyed, TRUE);
}

static void
gate_collect(gpointer data, gpointer into)
{
    Gate *gate = data;

    gate->collected = TRUE;
    *(int *)into = 42;
}

static gboolean
gate_call(Gate *gate, const VmrWait *wait, int *answer, GError **error)
{
    return vmr_wait_call(wait, "call", gate_pass, gate, gate_destroy,
                         gate_collect, answer, error);
}

static void
test_call_succeeds_answer_collected(void)
{
    VmrWait wait = vmr_wait_for(60, NULL);
    Gate *gate = gate_new(FALSE, FALSE);
    g_autoptr(GError) error = NULL;
    int answer = 0;

    g_assert_true(gate_call(gate, &wait, &answer, &error));
    g_assert_no_error(error);
    g_assert_cmpint(answer, ==, 42);
    gate_await(gate, &gate->destroyed);
    gate_free(gate);
}

static void
test_call_fails_its_error_and_no_answer(void)
{
    VmrWait wait = vmr_wait_for(60, NULL);
    Gate *gate = gate_new(FALSE, TRUE);
    g_autoptr(GError) error = NULL;
    int answer = 0;

    g_assert_false(gate_call(gate, &wait, &answer, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_BUSY);
    g_assert_cmpint(answer, ==, 0);
    g_assert_false(vmr_error_is_unknown(error));
    gate_await(gate, &gate->destroyed);
    gate_free(gate);
}

/* Call a gate that holds, check the error, and let it end late. */
static void
check_hanging(const VmrWait *wait, VmrErrorCode code, int virt_code)
{
    Gate *gate = gate_new(TRUE, FALSE);
    gint64 start = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;
    int answer = 0;

    g_assert_false(gate_call(gate, wait, &answer, &error));
    g_assert_error(error, VMR_ERROR, (int)code);
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==, virt_code);
    g_assert_true(vmr_error_is_unknown(error));
    g_assert_nonnull(strstr(error->message, "call did not return"));
    g_assert_cmpint(elapsed(start), <, 2 * SLACK);
    g_assert_false(gate->destroyed);
    gate_set(gate, &gate->hold, FALSE);
    gate_await(gate, &gate->destroyed);
    g_assert_false(gate->collected);
    g_assert_cmpint(answer, ==, 0);
    gate_free(gate);
}

static void
test_call_hangs_beyond_the_deadline(void)
{
    VmrWait wait = vmr_wait_for(0.05, NULL);

    check_hanging(&wait, VMR_ERROR_TIMEOUT, VIR_ERR_OPERATION_TIMEOUT);
}

static void
test_call_hangs_beyond_its_own_time(void)
{
    VmrWait wait = vmr_wait_for(-1, NULL);

    wait.call_timeout = 50 * MS;
    check_hanging(&wait, VMR_ERROR_TIMEOUT, VIR_ERR_OPERATION_TIMEOUT);
}

static void
test_call_hangs_interrupted(void)
{
    Hook hook = {.from = 2, .times = 1};
    VmrWait wait = vmr_wait_for(60, NULL);

    wait.interrupted = hook_ask;
    wait.data = &hook;
    check_hanging(&wait, VMR_ERROR_CANCELLED, VIR_ERR_OPERATION_ABORTED);
}

static gpointer
open_soon(gpointer data)
{
    Gate *gate = data;

    gate_await(gate, &gate->started);
    g_usleep(400 * 1000);
    gate_set(gate, &gate->hold, FALSE);
    return NULL;
}

static void
test_call_interrupted_comes_back_within_grace(void)
{
    Hook hook = {.from = 2, .times = 1};
    VmrWait wait = vmr_wait_for(60, NULL);
    Gate *gate = gate_new(TRUE, FALSE);
    GThread *thread = g_thread_new("open", open_soon, gate);
    g_autoptr(GError) error = NULL;
    int answer = 0;

    /* the outcome is known, so that it can be undone */
    wait.interrupted = hook_ask;
    wait.data = &hook;
    g_assert_true(gate_call(gate, &wait, &answer, &error));
    g_assert_no_error(error);
    g_assert_cmpint(answer, ==, 42);
    g_thread_join(thread);
    gate_await(gate, &gate->destroyed);
    gate_free(gate);
}

static void
test_call_beyond_the_deadline_comes_back_within_grace(void)
{
    VmrWait wait = vmr_wait_for(0, NULL);
    Gate *gate = gate_new(TRUE, FALSE);
    GThread *thread = g_thread_new("open", open_soon, gate);
    g_autoptr(GError) error = NULL;
    int answer = 0;

    g_assert_true(gate_call(gate, &wait, &answer, &error));
    g_assert_no_error(error);
    g_assert_cmpint(answer, ==, 42);
    g_thread_join(thread);
    gate_await(gate, &gate->destroyed);
    gate_free(gate);
}

static void
test_call_that_nobody_waits_for_is_made(void)
{
    VmrWait wait = {.call_timeout = 0};
    Gate *gate = gate_new(TRUE, FALSE);
    gint64 start = g_get_monotonic_time();
    int answer = 0;

    g_assert_false(gate_call(gate, &wait, &answer, NULL));
    g_assert_cmpint(elapsed(start), <, SLACK);
    gate_set(gate, &gate->hold, FALSE);
    gate_await(gate, &gate->destroyed);
    g_assert_cmpint(answer, ==, 0);
    gate_free(gate);
}

static void
test_call_after_interruption_not_started(void)
{
    Hook hook = {.from = 1, .times = 1};
    VmrWait wait = vmr_wait_for(60, NULL);
    Gate *gate = gate_new(FALSE, FALSE);
    g_autoptr(GError) error = NULL;
    int answer = 0;

    wait.interrupted = hook_ask;
    wait.data = &hook;
    g_assert_false(gate_call(gate, &wait, &answer, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_CANCELLED);
    g_assert_false(vmr_error_is_unknown(error));
    g_assert_false(gate->started);
    g_assert_true(gate->destroyed);
    gate_free(gate);
}

/* Fails so often by one code, and then in the way that it was told. */
typedef struct {
    int failures;
    int code;      /* of the failures */
    int last_code; /* after them, -1: success */
    int attempts;
} Settling;

static gboolean
settling_attempt(gpointer data, const VmrWait *wait G_GNUC_UNUSED,
                 GError **error)
{
    Settling *what = data;
    int code = what->attempts++ < what->failures ? what->code
                                                 : what->last_code;

    if (code < 0)
        return TRUE;
    g_set_error(error, VMR_ERROR, code, "attempt %d", what->attempts);
    return FALSE;
}

static void
test_settle_succeeds_in_the_end(void)
{
    VmrWait wait = vmr_wait_for(30, NULL);
    Settling what = {.failures = 4, .code = VMR_ERROR_BUSY, .last_code = -1};
    g_autoptr(GError) error = NULL;

    g_assert_true(vmr_wait_settle(&wait, VMR_ERROR_BUSY, settling_attempt,
                                  &what, &error));
    g_assert_no_error(error);
    g_assert_cmpint(what.attempts, ==, 5);
}

static void
test_settle_other_error_ends_it(void)
{
    VmrWait wait = vmr_wait_for(30, NULL);
    Settling what = {
        .failures = 2, .code = VMR_ERROR_BUSY, .last_code = VMR_ERROR_IO};
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_wait_settle(&wait, VMR_ERROR_BUSY, settling_attempt,
                                   &what, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IO);
    g_assert_cmpint(what.attempts, ==, 3);
}

static void
test_settle_never_is_the_last_error(void)
{
    VmrWait wait = vmr_wait_for(30, NULL);
    Settling what = {.failures = G_MAXINT, .code = VMR_ERROR_BUSY};
    gint64 start = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_wait_settle(&wait, VMR_ERROR_BUSY, settling_attempt,
                                   &what, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_BUSY);
    g_assert_cmpint(g_get_monotonic_time() - start, >=,
                    (gint64)(VMR_WAIT_SETTLE_SECONDS * G_TIME_SPAN_SECOND));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wait/for_negative_is_for_ever",
                    test_for_negative_is_for_ever);
    g_test_add_func("/wait/for_takes_the_hook_along",
                    test_for_takes_the_hook_along);
    g_test_add_func("/wait/fd_readable_at_once", test_fd_readable_at_once);
    g_test_add_func("/wait/fd_timeout_over_not_ready",
                    test_fd_timeout_over_not_ready);
    g_test_add_func("/wait/fd_deadline_over_timeout",
                    test_fd_deadline_over_timeout);
    g_test_add_func("/wait/fd_readable_beats_the_deadline",
                    test_fd_readable_beats_the_deadline);
    g_test_add_func("/wait/fd_asks_the_hook_in_slices",
                    test_fd_asks_the_hook_in_slices);
    g_test_add_func("/wait/fd_interrupted_cancelled",
                    test_fd_interrupted_cancelled);
    g_test_add_func("/wait/cleanup_goes_on_after_the_interruption",
                    test_cleanup_goes_on_after_the_interruption);
    g_test_add_func("/wait/settle_succeeds_in_the_end",
                    test_settle_succeeds_in_the_end);
    g_test_add_func("/wait/settle_other_error_ends_it",
                    test_settle_other_error_ends_it);
    g_test_add_func("/wait/settle_never_is_the_last_error",
                    test_settle_never_is_the_last_error);
    g_test_add_func("/wait/call_succeeds_answer_collected",
                    test_call_succeeds_answer_collected);
    g_test_add_func("/wait/call_fails_its_error_and_no_answer",
                    test_call_fails_its_error_and_no_answer);
    g_test_add_func("/wait/call_hangs_beyond_the_deadline",
                    test_call_hangs_beyond_the_deadline);
    g_test_add_func("/wait/call_hangs_beyond_its_own_time",
                    test_call_hangs_beyond_its_own_time);
    g_test_add_func("/wait/call_hangs_interrupted",
                    test_call_hangs_interrupted);
    g_test_add_func("/wait/call_interrupted_comes_back_within_grace",
                    test_call_interrupted_comes_back_within_grace);
    g_test_add_func("/wait/call_beyond_the_deadline_comes_back_within_grace",
                    test_call_beyond_the_deadline_comes_back_within_grace);
    g_test_add_func("/wait/call_that_nobody_waits_for_is_made",
                    test_call_that_nobody_waits_for_is_made);
    g_test_add_func("/wait/call_after_interruption_not_started",
                    test_call_after_interruption_not_started);
    return g_test_run();
}
