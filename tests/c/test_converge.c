/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Mirrors that the guest keeps behind: how they are brought level with it, for a pivot
 * and for an abort, and what is said where that cannot be done. */

#include <string.h>

#include "mirror_fixture.h"

#define KIB 1024
#define MIB (1024 * KIB)

static FakeFiles *files;

typedef struct {
    FakeHv *fake;
    VmrDomain *dom;
    VmrMirror *mirror;
    VmrWait wait;
    VmrCutOver how;
    double pause;
} Case;

/* A guest that writes twice as fast as is mirrored, and never stops. Its mirror is never
 * ready, unless it is @ready before the guest begins. */
static void
case_begin(Case *test, guint64 mirrors, guint64 working_set, gboolean ready)
{
    FakeKnobs *knobs;

    *test = (Case){.fake = fake_hv_new(files, 1),
                   .wait = vmr_wait_for(60, NULL),
                   .how = {.pause_budget = 2, .atomic = TRUE}};
    test->dom =
        vmr_domain_new(fake_hv_get(test->fake), fake_hv_domain(test->fake));
    knobs = fake_hv_knobs(test->fake);
    knobs->jobs_on_demand = !ready;
    test->mirror = fixture_create(test->fake, 1, FALSE);
    knobs->mirrors = mirrors;
    knobs->writes = 2 * mirrors;
    knobs->working_set = working_set;
}

static void
case_end(Case *test)
{
    fake_hv_knobs(test->fake)->writes = 0;
    fixture_clean_up(test->fake);
    fixture_check_ended(test->fake, files);
    vmr_mirror_free(test->mirror);
    vmr_domain_free(test->dom);
    fake_hv_free(test->fake);
    fake_files_tidy(files);
}

static gboolean
cut_over(Case *test, GError **error)
{
    return vmr_mirror_cut_over(test->mirror, &test->how, &test->pause,
                               &test->wait, error);
}

static void
check_running(Case *test)
{
    g_autoptr(GError) error = NULL;
    int state = -1;

    vmr_hv_get_state(test->dom, &state, NULL, &test->wait, &error);
    g_assert_no_error(error);
    g_assert_cmpint(state, ==, VIR_DOMAIN_RUNNING);
}

static void
check_own_limit(Case *test, guint64 limit)
{
    g_autoptr(VmrIotune) tune = fake_hv_dup_iotune(test->fake, "vda");

    g_assert_cmpuint(tune->values[VMR_IOTUNE_WRITE_BYTES_SEC], ==, limit);
}

static void
test_wait_for_what_never_is_ready_ends_with_figures(void)
{
    Case test;
    g_autoptr(GError) error = NULL;

    case_begin(&test, 4 * MIB, MIB, FALSE);
    test.wait = vmr_wait_for(1.5, NULL);
    g_assert_false(vmr_mirror_wait_ready(test.mirror, &test.wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_nonnull(strstr(error->message, "'vda' is not ready yet: 1.0 MiB "
                                            "are left"));
    g_assert_nonnull(strstr(error->message, "MiB/s are mirrored"));
    case_end(&test);
}

/* What it writes to again and again can be mirrored in a quarter of a second. */
static void
test_pivot_before_it_is_ready_where_the_rest_fits(void)
{
    Case test;
    g_autoptr(GError) error = NULL;

    case_begin(&test, 4 * MIB, MIB, FALSE);
    cut_over(&test, &error);
    g_assert_no_error(error);
    g_assert_true(fixture_is_pivoted(test.fake, 0));
    g_assert_cmpfloat(test.pause, >, 0.01);
    g_assert_cmpfloat(test.pause, <, 2);
    check_running(&test);
    case_end(&test);
}

static void
test_pivot_without_a_budget_wants_it_ready(void)
{
    Case test;
    g_autoptr(GError) error = NULL;

    case_begin(&test, 4 * MIB, MIB, FALSE);
    test.how.pause_budget = -1;
    g_assert_false(cut_over(&test, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_NOT_READY);
    case_end(&test);
}

static void
test_pivot_where_the_rest_does_not_fit_is_refused_in_time(void)
{
    Case test;
    g_autoptr(GError) error = NULL;
    gint64 begin = g_get_monotonic_time();

    case_begin(&test, 4 * MIB, 6 * MIB, FALSE);
    test.wait = vmr_wait_for(2, NULL);
    g_assert_false(cut_over(&test, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_nonnull(strstr(error->message, "do not converge: 6.0 MiB are left"));
    g_assert_cmpint(g_get_monotonic_time() - begin, <, 4 * G_TIME_SPAN_SECOND);
    g_assert_cmpuint(fake_hv_count(test.fake, VMR_HV_SUSPEND), ==, 0);
    g_assert_cmpuint(fake_hv_count(test.fake, VMR_HV_SET_IOTUNE), ==, 0);
    case_end(&test);
}

/* What is to be said of the mirrors is not lost to a call that takes its time. */
static void
test_deadline_within_a_slow_call_ends_with_figures(void)
{
    Case test;
    g_autoptr(GError) error = NULL;

    case_begin(&test, 4 * MIB, 6 * MIB, FALSE);
    test.wait = vmr_wait_for(1, NULL);
    fake_hv_knobs(test.fake)->slow_info = 300;
    g_assert_false(cut_over(&test, &error));
    g_assert_true(g_str_has_prefix(error->message, "the time given is over"));
    g_assert_nonnull(strstr(error->message, "do not converge"));
    fake_hv_knobs(test.fake)->slow_info = 0;
    case_end(&test);
}

static void
test_pivot_throttles_a_guest_that_outruns_its_mirror(void)
{
    Case test;
    g_autoptr(VmrIotune) own = vmr_iotune_new();
    g_autoptr(GError) error = NULL;

    case_begin(&test, 4 * MIB, 6 * MIB, FALSE);
    own->values[VMR_IOTUNE_WRITE_BYTES_SEC] = 20 * MIB;
    fake_hv_set_iotune(test.fake, "vda", own);
    test.how.throttle = TRUE;
    cut_over(&test, &error);
    g_assert_no_error(error);
    g_assert_true(fixture_is_pivoted(test.fake, 0));
    g_assert_cmpuint(fake_hv_count(test.fake, VMR_HV_SET_IOTUNE), >=, 2);
    check_own_limit(&test, 20 * MIB);
    check_running(&test);
    case_end(&test);
}

/* The guest's limits are put back before the failure is told. */
static void
test_throttled_pivot_that_fails_puts_the_limits_back(void)
{
    Case test;
    g_autoptr(GError) error = NULL;

    case_begin(&test, 4 * MIB, 6 * MIB, FALSE);
    fake_hv_knobs(test.fake)->refuse_pivot = "vda";
    test.how.throttle = TRUE;
    g_assert_false(cut_over(&test, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_VIRT);
    check_own_limit(&test, 0);
    check_running(&test);
    case_end(&test);
}

static void
test_abort_of_a_mirror_behind_suspends_where_the_rest_fits(void)
{
    Case test;
    g_autoptr(GError) error = NULL;

    case_begin(&test, 4 * MIB, MIB, TRUE);
    vmr_mirror_abort(test.mirror, &test.how, &test.wait, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fake_hv_count(test.fake, VMR_HV_SUSPEND), ==, 1);
    check_running(&test);
    case_end(&test);
}

static void
test_abort_where_the_rest_does_not_fit_ends_with_figures(void)
{
    Case test;
    g_autoptr(GError) error = NULL;

    case_begin(&test, 4 * MIB, 6 * MIB, TRUE);
    test.wait = vmr_wait_for(3, NULL);
    g_assert_false(
        vmr_mirror_abort(test.mirror, &test.how, &test.wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_nonnull(strstr(error->message, "6.0 MiB are left"));
    g_assert_nonnull(strstr(error->message, "what is still missing"));
    g_assert_cmpuint(fake_hv_count(test.fake, VMR_HV_SUSPEND), ==, 0);
    g_clear_error(&error);
    /* and another one, which may do more, ends it */
    test.wait = vmr_wait_for(60, NULL);
    test.how.throttle = TRUE;
    vmr_mirror_abort(test.mirror, &test.how, &test.wait, &error);
    g_assert_no_error(error);
    check_own_limit(&test, 0);
    check_running(&test);
    case_end(&test);
}

static void
test_abort_that_may_not_suspend_waits(void)
{
    Case test;
    g_autoptr(GError) error = NULL;

    case_begin(&test, 4 * MIB, MIB, TRUE);
    test.wait = vmr_wait_for(2, NULL);
    g_assert_false(vmr_mirror_abort(test.mirror, NULL, &test.wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_cmpuint(fake_hv_count(test.fake, VMR_HV_SUSPEND), ==, 0);
    case_end(&test);
}

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    g_test_add_func("/converge/wait_for_what_never_is_ready_ends_with_figures",
                    test_wait_for_what_never_is_ready_ends_with_figures);
    g_test_add_func("/converge/pivot_before_it_is_ready_where_the_rest_fits",
                    test_pivot_before_it_is_ready_where_the_rest_fits);
    g_test_add_func("/converge/pivot_without_a_budget_wants_it_ready",
                    test_pivot_without_a_budget_wants_it_ready);
    g_test_add_func("/converge/pivot_where_it_does_not_fit_is_refused_in_time",
                    test_pivot_where_the_rest_does_not_fit_is_refused_in_time);
    g_test_add_func("/converge/deadline_within_a_slow_call_ends_with_figures",
                    test_deadline_within_a_slow_call_ends_with_figures);
    g_test_add_func("/converge/pivot_throttles_a_guest_that_outruns_its_mirror",
                    test_pivot_throttles_a_guest_that_outruns_its_mirror);
    g_test_add_func("/converge/throttled_pivot_that_fails_puts_limits_back",
                    test_throttled_pivot_that_fails_puts_the_limits_back);
    g_test_add_func("/converge/abort_of_a_mirror_behind_suspends",
                    test_abort_of_a_mirror_behind_suspends_where_the_rest_fits);
    g_test_add_func("/converge/abort_where_it_does_not_fit_ends_with_figures",
                    test_abort_where_the_rest_does_not_fit_ends_with_figures);
    g_test_add_func("/converge/abort_that_may_not_suspend_waits",
                    test_abort_that_may_not_suspend_waits);
    status = g_test_run();
    fake_files_free(files);
    return status;
}
