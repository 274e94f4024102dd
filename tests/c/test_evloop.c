/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/libvirt.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "evloop.h"
#include "job.h"

static void
ring(int timer, void *data)
{
    virEventRemoveTimeout(timer);
    (void)eventfd_write(*(int *)data, 1);
}

static void
test_start_twice_turns(void)
{
    VmrWait wait = vmr_wait_for(30, NULL);
    int fd = eventfd(0, EFD_CLOEXEC);
    gboolean rang = FALSE;
    g_autoptr(GError) error = NULL;

    g_assert_true(vmr_evloop_start(&error));
    g_assert_no_error(error);
    g_assert_true(vmr_evloop_start(&error));
    g_assert_no_error(error);
    g_assert_cmpint(virEventAddTimeout(0, ring, &fd, NULL), >=, 0);
    g_assert_true(vmr_wait_fd(&wait, fd, 20000, &rang, NULL));
    g_assert_true(rang);
    close(fd);
}

static void
test_events_of_libvirt_arrive(void)
{
    gboolean started = vmr_evloop_start(NULL);
    virConnectPtr conn = virConnectOpen("test:///default");
    virDomainPtr ptr = virDomainLookupByName(conn, "test");
    g_autoptr(VmrDomain) dom = vmr_domain_new(vmr_hv_libvirt(), ptr);
    VmrWait wait = vmr_wait_for(30, NULL);
    g_autoptr(GError) error = NULL;
    VmrJobs *jobs = vmr_jobs_open(dom, &wait, &error);
    gboolean rang = FALSE;

    g_assert_no_error(error);
    g_assert_true(started);
    g_assert_true(vmr_hv_suspend(dom, &wait, &error));
    g_assert_no_error(error);
    g_assert_true(
        vmr_wait_fd(&wait, vmr_jobs_get_fd(jobs), 20000, &rang, NULL));
    g_assert_true(rang);
    vmr_jobs_close(jobs);
    virDomainFree(ptr);
    virConnectClose(conn);
}

static void
on_alarm(int number G_GNUC_UNUSED)
{
}

/* A signal is for the program's threads, not for the loop's: with the only
 * one of ours blocking it, it stays pending. */
static void
test_thread_takes_no_signals(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    struct sigaction before;
    sigset_t usr1;
    sigset_t pending;

    g_assert_true(vmr_evloop_start(NULL));
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigaction(SIGUSR1, &action, &before);
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    kill(getpid(), SIGUSR1);
    g_usleep(50000);
    sigpending(&pending);
    g_assert_true(sigismember(&pending, SIGUSR1));
    pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
    sigaction(SIGUSR1, &before, NULL);
}

static void
test_start_in_forked_child_is_refused(void)
{
    pid_t pid;
    int status;

    g_assert_true(vmr_evloop_start(NULL));
    pid = fork();
    if (pid == 0) {
        g_autoptr(GError) error = NULL;

        _exit(!vmr_evloop_start(&error) &&
                      g_error_matches(error, VMR_ERROR,
                                      VMR_ERROR_INVALID_STATE)
                  ? 17
                  : 1);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 17);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/evloop/start_twice_turns", test_start_twice_turns);
    g_test_add_func("/evloop/events_of_libvirt_arrive",
                    test_events_of_libvirt_arrive);
    g_test_add_func("/evloop/start_in_forked_child_is_refused",
                    test_start_in_forked_child_is_refused);
    g_test_add_func("/evloop/thread_takes_no_signals",
                    test_thread_takes_no_signals);
    return g_test_run();
}
