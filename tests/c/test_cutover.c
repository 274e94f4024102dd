/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>
#include <string.h>

#include "mirror_fixture.h"

static FakeFiles *files;

/* A fake with @n_disks mirrors that are ready. */
typedef struct {
    FakeHv *fake;
    VmrDomain *dom;
    VmrMirror *mirror;
    VmrWait wait;
} Ready;

static void
ready_clear(Ready *ready)
{
    vmr_mirror_free(ready->mirror);
    vmr_domain_free(ready->dom);
    fake_hv_free(ready->fake);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Ready, ready_clear)

static Ready
make_ready(guint n_disks)
{
    Ready ready = {.fake = fake_hv_new(files, n_disks),
                   .wait = vmr_wait_for(60, NULL)};
    g_autoptr(GError) error = NULL;

    ready.dom =
        vmr_domain_new(fake_hv_get(ready.fake), fake_hv_domain(ready.fake));
    ready.mirror = fixture_create(ready.fake, n_disks, FALSE);
    vmr_mirror_wait_ready(ready.mirror, &ready.wait, &error);
    g_assert_no_error(error);
    return ready;
}

static int
state_of(Ready *ready)
{
    g_autoptr(GError) error = NULL;
    int state = -1;

    vmr_hv_get_state(ready->dom, &state, NULL, &ready->wait, &error);
    g_assert_no_error(error);
    return state;
}

static gboolean
cut_over(Ready *ready, gboolean atomic, double budget, double *pause,
         GError **error)
{
    VmrCutOver how = {.atomic = atomic, .pause_budget = budget};

    return vmr_mirror_cut_over(ready->mirror, &how, pause, &ready->wait,
                               error);
}

static void
test_all_disks_pivoted_guest_resumed(void)
{
    g_auto(Ready) ready = make_ready(2);
    g_autoptr(GError) error = NULL;
    double pause = 0;

    cut_over(&ready, TRUE, 2, &pause, &error);
    g_assert_no_error(error);
    g_assert_cmpfloat(pause, >, 0);
    g_assert_cmpuint(fake_hv_count(ready.fake, VMR_HV_SUSPEND), ==, 1);
    g_assert_cmpint(state_of(&ready), ==, VIR_DOMAIN_RUNNING);
    g_assert_true(fixture_is_pivoted(ready.fake, 0));
    g_assert_true(fixture_is_pivoted(ready.fake, 1));
    fixture_check_ended(ready.fake, files);
    fake_files_tidy(files);
}

static void
test_guest_paused_before_stays_paused(void)
{
    g_auto(Ready) ready = make_ready(1);
    g_autoptr(GError) error = NULL;
    double pause = -1;

    vmr_hv_suspend(ready.dom, &ready.wait, &error);
    g_assert_no_error(error);
    cut_over(&ready, TRUE, 2, &pause, &error);
    g_assert_no_error(error);
    g_assert_cmpfloat(pause, ==, 0);
    g_assert_cmpint(state_of(&ready), ==, VIR_DOMAIN_PAUSED);
    g_assert_true(fixture_is_pivoted(ready.fake, 0));
    fake_files_tidy(files);
}

static void
test_without_budget_never_suspends(void)
{
    g_auto(Ready) ready = make_ready(2);
    g_autoptr(GError) error = NULL;
    double pause = -1;

    cut_over(&ready, TRUE, -1, &pause, &error);
    g_assert_no_error(error);
    g_assert_cmpfloat(pause, ==, 0);
    g_assert_cmpuint(fake_hv_count(ready.fake, VMR_HV_SUSPEND), ==, 0);
    g_assert_true(fixture_is_pivoted(ready.fake, 1));
    fake_files_tidy(files);
}

static void
test_atomic_failure_brings_all_back(void)
{
    g_auto(Ready) ready = make_ready(2);
    g_autoptr(GError) error = NULL;
    double pause;

    fake_hv_knobs(ready.fake)->refuse_pivot = "vdb";
    g_assert_false(cut_over(&ready, TRUE, 2, &pause, &error));
    g_assert_cmpstr(vmr_error_get_detail(error)->disk, ==, "vdb");
    g_assert_false(vmr_error_get_detail(error)->partial);
    g_assert_nonnull(strstr(error->message, "were brought back"));
    g_assert_false(fixture_is_pivoted(ready.fake, 0));
    g_assert_false(fixture_is_pivoted(ready.fake, 1));
    g_assert_cmpint(state_of(&ready), ==, VIR_DOMAIN_RUNNING);
    fixture_clean_up(ready.fake);
    fixture_check_ended(ready.fake, files);
    fake_files_tidy(files);
}

static void
test_failure_without_atomic_is_recorded_and_finished(void)
{
    g_auto(Ready) ready = make_ready(2);
    g_autoptr(GError) error = NULL;
    double pause;

    fake_hv_knobs(ready.fake)->refuse_pivot = "vdb";
    g_assert_false(cut_over(&ready, FALSE, 2, &pause, &error));
    g_assert_true(vmr_error_get_detail(error)->partial);
    g_assert_true(fixture_is_pivoted(ready.fake, 0));
    g_assert_cmpint(state_of(&ready), ==, VIR_DOMAIN_RUNNING);
    g_clear_error(&error);
    fake_hv_knobs(ready.fake)->refuse_pivot = NULL;
    cut_over(&ready, FALSE, 2, &pause, &error);
    g_assert_no_error(error);
    g_assert_true(fixture_is_pivoted(ready.fake, 1));
    fixture_check_ended(ready.fake, files);
    fake_files_tidy(files);
}

static void
test_guest_that_outruns_its_mirror_ends_with_figures(void)
{
    g_auto(Ready) ready = make_ready(1);
    g_autoptr(GError) error = NULL;
    double pause;

    fake_hv_knobs(ready.fake)->behind = G_GUINT64_CONSTANT(1) << 40;
    ready.wait = vmr_wait_for(0.3, NULL);
    g_assert_false(cut_over(&ready, TRUE, 2, &pause, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_nonnull(strstr(error->message, "1048576.0 MiB are left"));
    g_assert_cmpuint(fake_hv_count(ready.fake, VMR_HV_SUSPEND), ==, 0);
    fixture_clean_up(ready.fake);
    fake_files_tidy(files);
}

/* A rate that nobody has seen is not counted on: the guest would stand for it. */
static void
test_small_rest_on_a_stuck_mirror_does_not_suspend(void)
{
    g_auto(Ready) ready = make_ready(1);
    g_autoptr(GError) error = NULL;
    double pause;

    fake_hv_knobs(ready.fake)->behind = 1;
    ready.wait = vmr_wait_for(0.3, NULL);
    g_assert_false(cut_over(&ready, TRUE, 2, &pause, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_nonnull(strstr(error->message, "do not converge"));
    g_assert_cmpuint(fake_hv_count(ready.fake, VMR_HV_SUSPEND), ==, 0);
    fixture_clean_up(ready.fake);
    fake_files_tidy(files);
}

static void
test_rest_that_does_not_drain_resumes_within_the_budget(void)
{
    g_auto(Ready) ready = make_ready(1);
    g_autoptr(GError) error = NULL;
    double pause = 0;

    fake_hv_knobs(ready.fake)->behind = 1024 * 1024;
    fake_hv_knobs(ready.fake)->behind_at_rest = TRUE;
    g_assert_false(cut_over(&ready, TRUE, 0.1, &pause, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_nonnull(strstr(error->message, "nothing was pivoted"));
    g_assert_nonnull(strstr(error->message, "1.0 MiB are left"));
    g_assert_cmpfloat(pause, >=, 0.1);
    g_assert_cmpint(state_of(&ready), ==, VIR_DOMAIN_RUNNING);
    g_assert_false(fixture_is_pivoted(ready.fake, 0));
    fixture_clean_up(ready.fake);
    fake_files_tidy(files);
}

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    g_test_add_func("/cutover/all_disks_pivoted_guest_resumed",
                    test_all_disks_pivoted_guest_resumed);
    g_test_add_func("/cutover/guest_paused_before_stays_paused",
                    test_guest_paused_before_stays_paused);
    g_test_add_func("/cutover/without_budget_never_suspends",
                    test_without_budget_never_suspends);
    g_test_add_func("/cutover/atomic_failure_brings_all_back",
                    test_atomic_failure_brings_all_back);
    g_test_add_func("/cutover/failure_without_atomic_is_recorded_and_finished",
                    test_failure_without_atomic_is_recorded_and_finished);
    g_test_add_func("/cutover/guest_that_outruns_its_mirror_ends_with_figures",
                    test_guest_that_outruns_its_mirror_ends_with_figures);
    g_test_add_func("/cutover/small_rest_on_a_stuck_mirror_does_not_suspend",
                    test_small_rest_on_a_stuck_mirror_does_not_suspend);
    g_test_add_func("/cutover/rest_that_does_not_drain_resumes_in_budget",
                    test_rest_that_does_not_drain_resumes_within_the_budget);
    status = g_test_run();
    fake_files_free(files);
    return status;
}
