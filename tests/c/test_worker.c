/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "worker.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Some functions that run at the same time, until they are let go. ThreadSanitizer
 * sees the C library's mutexes, not GLib's. */
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    guint running;
    guint ended;
    gboolean go;
    pthread_t last; /* who ran the last one */
    sigset_t mask;
} Crowd;

#define CROWD_INIT                                                            \
    .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER

static void
run_in_crowd(gpointer data)
{
    Crowd *crowd = data;

    pthread_mutex_lock(&crowd->mutex);
    crowd->running++;
    crowd->last = pthread_self();
    pthread_sigmask(SIG_SETMASK, NULL, &crowd->mask);
    pthread_cond_broadcast(&crowd->changed);
    while (!crowd->go)
        pthread_cond_wait(&crowd->changed, &crowd->mutex);
    crowd->ended++;
    pthread_cond_broadcast(&crowd->changed);
    pthread_mutex_unlock(&crowd->mutex);
}

static void
start(Crowd *crowd, guint n)
{
    for (guint i = 0; i < n; i++) {
        g_autoptr(GError) error = NULL;

        vmr_worker_run(run_in_crowd, crowd, &error);
        g_assert_no_error(error);
    }
}

static void
wait_until(Crowd *crowd, const guint *count, guint n)
{
    pthread_mutex_lock(&crowd->mutex);
    while (*count < n)
        pthread_cond_wait(&crowd->changed, &crowd->mutex);
    pthread_mutex_unlock(&crowd->mutex);
}

static void
let_go(Crowd *crowd)
{
    pthread_mutex_lock(&crowd->mutex);
    crowd->go = TRUE;
    pthread_cond_broadcast(&crowd->changed);
    pthread_mutex_unlock(&crowd->mutex);
}

/* One after the other, in the same thread. */
static void
test_idle_taken_again(void)
{
    Crowd crowd = {CROWD_INIT, .go = TRUE};
    pthread_t first;
    guint same = 0;

    start(&crowd, 1);
    wait_until(&crowd, &crowd.ended, 1);
    first = crowd.last;
    for (guint i = 0; i < 10; i++) {
        g_usleep(10000); /* it has to come back from the one before */
        start(&crowd, 1);
        wait_until(&crowd, &crowd.ended, i + 2);
        same += pthread_equal(crowd.last, first) ? 1 : 0;
    }
    g_assert_cmpuint(same, >=, 8);
    g_assert_true(sigismember(&crowd.mask, SIGINT));
}

/* None waits for another one. */
static void
test_many_run_at_once(void)
{
    Crowd crowd = {CROWD_INIT, .go = FALSE};

    start(&crowd, 20);
    wait_until(&crowd, &crowd.running, 20);
    g_assert_cmpuint(crowd.ended, ==, 0);
    let_go(&crowd);
    wait_until(&crowd, &crowd.ended, 20);
    start(&crowd, 3);
    wait_until(&crowd, &crowd.ended, 23);
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NO_THREADS_AFTER_FORK
#endif
#endif

/* The idle ones are the parent's. */
static void
test_child_has_its_own(void)
{
#ifdef NO_THREADS_AFTER_FORK
    g_test_skip("ThreadSanitizer bears no threads after a fork");
#else
    Crowd crowd = {CROWD_INIT, .go = TRUE};
    int status;
    pid_t child;

    start(&crowd, 2);
    wait_until(&crowd, &crowd.ended, 2);
    g_usleep(10000);
    child = fork();
    if (child == 0) {
        alarm(20); /* what hangs ends by a signal */
        start(&crowd, 2);
        wait_until(&crowd, &crowd.ended, 4);
        _exit(0);
    }
    g_assert_cmpint(waitpid(child, &status, 0), ==, child);
    g_assert_cmpint(status, ==, 0);
    start(&crowd, 2);
    wait_until(&crowd, &crowd.ended, 4);
#endif
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/worker/idle_taken_again", test_idle_taken_again);
    g_test_add_func("/worker/many_run_at_once", test_many_run_at_once);
    g_test_add_func("/worker/child_has_its_own", test_child_has_its_own);
    return g_test_run();
}
