/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "error.h"
#include "fake_hv.h"
#include "job.h"

static FakeFiles *files;

typedef struct {
    FakeHv *fake;
    VmrDomain *dom;
    VmrWait wait;
} Fixture;

static void
set_up(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    fixture->fake = fake_hv_new(files, 1);
    fixture->dom = vmr_domain_new(fake_hv_get(fixture->fake),
                                  fake_hv_domain(fixture->fake));
    fixture->wait = vmr_wait_for(30, NULL);
}

static void
tear_down(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    vmr_domain_free(fixture->dom);
    g_assert_true(fake_hv_settle(fixture->fake));
    fake_hv_free(fixture->fake);
}

static VmrJobs *
open_jobs(Fixture *fixture)
{
    g_autoptr(GError) error = NULL;
    VmrJobs *jobs = vmr_jobs_open(fixture->dom, &fixture->wait, &error);

    g_assert_no_error(error);
    return jobs;
}

/* A look that answers by a script, one letter a look: d(one), a(gain),
 * s(ettling), f(ailed); the last one stays. */
typedef struct {
    const char *script;
    int looks;
    FakeHv *ring; /* if set, an event comes right after each look */
} Script;

static VmrLook
look(gpointer data, gboolean last, const VmrWait *wait G_GNUC_UNUSED,
     GError **error)
{
    Script *script = data;
    char answer = script->script[0];

    script->looks++;
    if (script->ring)
        fake_hv_ring(script->ring, "vda");
    if (script->script[1] != '\0')
        script->script++;
    if (answer == 'd')
        return VMR_LOOK_DONE;
    if (answer == 'a')
        return VMR_LOOK_AGAIN;
    if (answer == 's' && !last)
        return VMR_LOOK_SETTLING;
    g_set_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED, "failed");
    return VMR_LOOK_FAILED;
}

static void
test_done_at_once_no_wait(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrJobs) jobs = open_jobs(fixture);
    Script script = {.script = "d"};

    g_assert_true(
        vmr_jobs_wait_until(jobs, look, &script, &fixture->wait, NULL));
    g_assert_cmpint(script.looks, ==, 1);
}

static void
test_failed_error_of_the_look(Fixture *fixture,
                              gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrJobs) jobs = open_jobs(fixture);
    Script script = {.script = "f"};
    g_autoptr(GError) error = NULL;

    g_assert_false(
        vmr_jobs_wait_until(jobs, look, &script, &fixture->wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED);
}

/* An event that comes between the look and the wait for it. */
static void
test_event_after_the_look_is_not_lost(Fixture *fixture,
                                      gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrJobs) jobs = open_jobs(fixture);
    Script script = {.script = "aaad", .ring = fixture->fake};
    gint64 start = g_get_monotonic_time();

    g_assert_true(
        vmr_jobs_wait_until(jobs, look, &script, &fixture->wait, NULL));
    g_assert_cmpint(script.looks, ==, 4);
    g_assert_cmpint(g_get_monotonic_time() - start, <, G_TIME_SPAN_SECOND);
}

/* One that came before there was a listener is found by the first look, since
 * that comes after the registration. */
static void
test_open_registers_before_the_first_look(Fixture *fixture,
                                          gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrJobs) jobs = open_jobs(fixture);

    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_EVENTS_OPEN), ==, 1);
    g_assert_cmpint(vmr_jobs_get_fd(jobs), >=, 0);
}

static void
check_polled(Fixture *fixture, FakeEvents events, double seconds)
{
    g_autoptr(VmrJobs) jobs = NULL;
    Script script = {.script = "ad"};
    gint64 start = g_get_monotonic_time();

    fake_hv_knobs(fixture->fake)->events = events;
    jobs = open_jobs(fixture);
    g_assert_true(
        vmr_jobs_wait_until(jobs, look, &script, &fixture->wait, NULL));
    g_assert_cmpint(script.looks, ==, 2);
    g_assert_cmpint(g_get_monotonic_time() - start, <, (gint64)(seconds * 1e6));
}

static void
test_event_lost_found_by_polling(Fixture *fixture,
                                 gconstpointer unused G_GNUC_UNUSED)
{
    check_polled(fixture, FAKE_EVENTS_LOST, 3);
}

/* That one has come says nothing of the next one. */
static void
test_event_lost_after_another_found_by_polling(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrJobs) jobs = open_jobs(fixture);
    Script script = {.script = "aad"};
    gint64 start = g_get_monotonic_time();

    fake_hv_ring(fixture->fake, "vda");
    g_assert_true(
        vmr_jobs_wait_until(jobs, look, &script, &fixture->wait, NULL));
    g_assert_cmpint(script.looks, ==, 3);
    g_assert_cmpint(g_get_monotonic_time() - start, <, 5 * G_TIME_SPAN_SECOND);
}

static void
test_no_events_polls_more_often(Fixture *fixture,
                                gconstpointer unused G_GNUC_UNUSED)
{
    check_polled(fixture, FAKE_EVENTS_NONE, 0.9);
}

static void
test_settling_passes(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrJobs) jobs = open_jobs(fixture);
    Script script = {.script = "sssd"};

    g_assert_true(
        vmr_jobs_wait_until(jobs, look, &script, &fixture->wait, NULL));
    g_assert_cmpint(script.looks, ==, 4);
}

static void
test_settling_for_ever_fails_in_the_end(Fixture *fixture,
                                        gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrJobs) jobs = open_jobs(fixture);
    Script script = {.script = "s"};
    gint64 start = g_get_monotonic_time();
    g_autoptr(GError) error = NULL;

    g_assert_false(
        vmr_jobs_wait_until(jobs, look, &script, &fixture->wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED);
    g_assert_cmpint(g_get_monotonic_time() - start, >=, G_TIME_SPAN_SECOND);
}

/* A storm of events does not cut the time short that libvirt has to settle. */
static void
test_settling_is_measured_in_time(Fixture *fixture,
                                  gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrJobs) jobs = open_jobs(fixture);
    Script script = {.script = "s", .ring = fixture->fake};
    gint64 start = g_get_monotonic_time();

    g_assert_false(
        vmr_jobs_wait_until(jobs, look, &script, &fixture->wait, NULL));
    g_assert_cmpint(g_get_monotonic_time() - start, >=, G_TIME_SPAN_SECOND);
}

static void
test_deadline_over_timeout(Fixture *fixture,
                           gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrJobs) jobs = open_jobs(fixture);
    Script script = {.script = "a"};
    VmrWait wait = vmr_wait_for(0.1, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_jobs_wait_until(jobs, look, &script, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_false(vmr_error_is_unknown(error));
}

static void
test_close_deregisters(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    vmr_jobs_close(open_jobs(fixture));
    g_assert_true(fake_hv_settle(fixture->fake));
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_EVENTS_CLOSE), ==, 1);
}

static gpointer
ring_a_lot(gpointer data)
{
    for (int i = 0; i < 2000; i++)
        fake_hv_ring(data, "vda");
    return NULL;
}

/* libvirt may be in our callback while we close. */
static void
test_close_amid_events_no_harm(Fixture *fixture,
                               gconstpointer unused G_GNUC_UNUSED)
{
    GThread *thread = g_thread_new("ring", ring_a_lot, fixture->fake);

    for (int i = 0; i < 20; i++)
        vmr_jobs_close(open_jobs(fixture));
    g_thread_join(thread);
}

typedef void (*TestFunc)(Fixture *fixture, gconstpointer unused);

static const struct {
    const char *path;
    TestFunc func;
} tests[] = {
    {"/job/done_at_once_no_wait", test_done_at_once_no_wait},
    {"/job/failed_error_of_the_look", test_failed_error_of_the_look},
    {"/job/event_after_the_look_is_not_lost",
     test_event_after_the_look_is_not_lost},
    {"/job/open_registers_before_the_first_look",
     test_open_registers_before_the_first_look},
    {"/job/event_lost_found_by_polling", test_event_lost_found_by_polling},
    {"/job/event_lost_after_another_found_by_polling",
     test_event_lost_after_another_found_by_polling},
    {"/job/no_events_polls_more_often", test_no_events_polls_more_often},
    {"/job/settling_passes", test_settling_passes},
    {"/job/settling_for_ever_fails_in_the_end",
     test_settling_for_ever_fails_in_the_end},
    {"/job/settling_is_measured_in_time", test_settling_is_measured_in_time},
    {"/job/deadline_over_timeout", test_deadline_over_timeout},
    {"/job/close_deregisters", test_close_deregisters},
    {"/job/close_amid_events_no_harm", test_close_amid_events_no_harm},
};

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    for (gsize i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, Fixture, NULL, set_up, tests[i].func,
                   tear_down);
    status = g_test_run();
    fake_files_free(files);
    return status;
}
