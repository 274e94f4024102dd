/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "collapse.h"
#include "mirror_fixture.h"

static FakeFiles *files;

typedef struct {
    FakeHv *fake;
    VmrDomain *dom;
    VmrWait wait;
    char *top;  /* what vda runs on */
    char *base; /* below it */
} Fixture;

static void
set_up(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    fixture->fake = fake_hv_new(files, 1);
    fixture->dom = vmr_domain_new(fake_hv_get(fixture->fake),
                                  fake_hv_domain(fixture->fake));
    fixture->wait = vmr_wait_for(30, NULL);
    fixture->top = fake_files_path(files, "old", "vda");
    fixture->base = fake_files_path(files, "old", "vda-base");
}

static void
tear_down(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    vmr_domain_free(fixture->dom);
    g_assert_true(fake_hv_settle(fixture->fake));
    fake_hv_free(fixture->fake);
    g_free(fixture->top);
    g_free(fixture->base);
}

/* Check that vda has the @chain, "TOP BASE ...". */
static void
check_chain(Fixture *fixture, const char *chain)
{
    g_autofree char *text = fake_hv_describe(fixture->fake);
    g_autofree char *line = g_strdup_printf("vda: %s;", chain);

    if (!g_str_has_prefix(text, line))
        g_error("not '%s' in:\n%s", line, text);
}

static void
test_pull_all_one_layer(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    vmr_collapse_pull(fixture->dom, "vda", NULL, 0, FALSE, &fixture->wait,
                      &error);
    g_assert_no_error(error);
    check_chain(fixture, fixture->top);
}

static void
test_pull_by_source_path(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    vmr_collapse_pull(fixture->dom, fixture->top, NULL, 0, FALSE,
                      &fixture->wait, &error);
    g_assert_no_error(error);
    check_chain(fixture, fixture->top);
}

static void
test_pull_base_kept(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autofree char *overlay = fake_files_path(files, "old", "vda.reuse");
    g_autofree char *chain = g_strdup_printf("%s %s", overlay, fixture->base);
    g_autoptr(GError) error = NULL;

    vmr_mirror_free(fixture_create(fixture->fake, 1, TRUE));
    fixture_clean_up(fixture->fake);
    vmr_collapse_pull(fixture->dom, "vda", fixture->base, 0, FALSE,
                      &fixture->wait, &error);
    g_assert_no_error(error);
    check_chain(fixture, chain);
}

static void
test_pull_nothing_between_no_job(Fixture *fixture,
                                 gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    vmr_collapse_pull(fixture->dom, "vda", fixture->base, 0, FALSE,
                      &fixture->wait, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_BLOCK_REBASE), ==, 0);
}

static void
test_pull_start_only_goes_on(Fixture *fixture,
                             gconstpointer unused G_GNUC_UNUSED)
{
    g_autofree char *chain =
        g_strdup_printf("%s %s", fixture->top, fixture->base);
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fixture->fake)->jobs_on_demand = TRUE;
    vmr_collapse_pull(fixture->dom, "vda", NULL, 0, TRUE, &fixture->wait,
                      &error);
    g_assert_no_error(error);
    check_chain(fixture, chain);
    fake_hv_advance(fixture->fake, "vda");
    check_chain(fixture, fixture->top);
}

static gpointer
fail_soon(gpointer data)
{
    while (fake_hv_count(data, VMR_HV_BLOCK_REBASE) == 0)
        g_usleep(1000);
    g_usleep(50000);
    fake_hv_fail_job(data, "vda");
    return NULL;
}

static void
test_pull_fails_job_failed(Fixture *fixture,
                           gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    GThread *thread;

    fake_hv_knobs(fixture->fake)->jobs_on_demand = TRUE;
    thread = g_thread_new("fail", fail_soon, fixture->fake);
    g_assert_false(vmr_collapse_pull(fixture->dom, "vda", NULL, 0, FALSE,
                                     &fixture->wait, &error));
    g_thread_join(thread);
    g_assert_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED);
    g_assert_nonnull(strstr(error->message, "'vda'"));
}

static void
test_pull_timeout_job_goes_on(Fixture *fixture,
                              gconstpointer unused G_GNUC_UNUSED)
{
    VmrWait wait = vmr_wait_for(0.1, NULL);
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fixture->fake)->jobs_on_demand = TRUE;
    g_assert_false(vmr_collapse_pull(fixture->dom, "vda", NULL, 0, FALSE,
                                     &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    fake_hv_advance(fixture->fake, "vda");
    check_chain(fixture, fixture->top);
}

static void
check_not_found(Fixture *fixture, const char *disk, const char *base)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_collapse_pull(fixture->dom, disk, base, 0, FALSE,
                                     &fixture->wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_BLOCK_REBASE), ==, 0);
}

static void
test_pull_unknown_disk_or_base_not_found(Fixture *fixture,
                                         gconstpointer unused G_GNUC_UNUSED)
{
    check_not_found(fixture, "vdz", NULL);
    check_not_found(fixture, "vda", "/elsewhere");
    /* the top is no base of itself */
    check_not_found(fixture, "vda", fixture->top);
}

static void
test_commit_into_the_layer_below(Fixture *fixture,
                                 gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    vmr_collapse_commit(fixture->dom, "vda", fixture->top, &fixture->wait,
                        &error);
    g_assert_no_error(error);
    check_chain(fixture, fixture->base);
}

static void
test_commit_other_top_diverged(Fixture *fixture,
                               gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_collapse_commit(fixture->dom, "vda", fixture->base,
                                       &fixture->wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_BLOCK_COMMIT), ==, 0);
}

static void
test_commit_lost_events_done(Fixture *fixture,
                             gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fixture->fake)->events = FAKE_EVENTS_LOST;
    vmr_collapse_commit(fixture->dom, "vda", fixture->top, &fixture->wait,
                        &error);
    g_assert_no_error(error);
    check_chain(fixture, fixture->base);
}

static void
test_commit_that_runs_is_gone_on_with(Fixture *fixture,
                                      gconstpointer unused G_GNUC_UNUSED)
{
    VmrWait wait = vmr_wait_for(0.1, NULL);
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fixture->fake)->jobs_on_demand = TRUE;
    g_assert_false(vmr_collapse_commit(fixture->dom, "vda", NULL, &wait,
                                       &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_clear_error(&error);
    fake_hv_advance(fixture->fake, "vda");
    vmr_collapse_commit(fixture->dom, "vda", fixture->top, &fixture->wait,
                        &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_BLOCK_COMMIT), ==, 1);
    check_chain(fixture, fixture->base);
}

static void
test_commit_without_backing_file_invalid_state(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    vmr_collapse_commit(fixture->dom, "vda", NULL, &fixture->wait, &error);
    g_assert_no_error(error);
    g_assert_false(vmr_collapse_commit(fixture->dom, "vda", NULL,
                                       &fixture->wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE);
}

/* libvirt died as the commit ended: it names the old top, which QEMU has let go
 * of, and the next start would use it. */
static void
test_commit_missed_end_sets_the_definition(Fixture *fixture,
                                           gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    g_autofree char *inactive =
        g_strdup_printf("inactive %s;", fixture->base);

    fake_hv_knobs(fixture->fake)->unlocked = fixture->top;
    fake_hv_knobs(fixture->fake)->locked = fixture->base;
    fake_hv_advance(fixture->fake, "vda");
    g_assert_false(vmr_collapse_commit(fixture->dom, "vda", fixture->top,
                                       &fixture->wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_assert_nonnull(strstr(error->message, "which libvirt does not know"));
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_BLOCK_COMMIT), ==, 0);
    text = fake_hv_describe(fixture->fake);
    g_assert_nonnull(strstr(text, inactive));
}

static void
test_commit_nobody_writes_to_the_top_diverged(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fixture->fake)->unlocked = fixture->top;
    fake_hv_advance(fixture->fake, "vda");
    g_assert_false(vmr_collapse_commit(fixture->dom, "vda", fixture->top,
                                       &fixture->wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_BLOCK_COMMIT), ==, 0);
}

static void
test_commit_definition_stays_behind_diverged(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fixture->fake)->keep_inactive = TRUE;
    g_assert_false(vmr_collapse_commit(fixture->dom, "vda", fixture->top,
                                       &fixture->wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_assert_nonnull(strstr(error->message, "did not follow"));
}

typedef void (*TestFunc)(Fixture *fixture, gconstpointer unused);

static const struct {
    const char *path;
    TestFunc func;
} tests[] = {
    {"/collapse/pull_all_one_layer", test_pull_all_one_layer},
    {"/collapse/pull_by_source_path", test_pull_by_source_path},
    {"/collapse/pull_base_kept", test_pull_base_kept},
    {"/collapse/pull_nothing_between_no_job",
     test_pull_nothing_between_no_job},
    {"/collapse/pull_start_only_goes_on", test_pull_start_only_goes_on},
    {"/collapse/pull_fails_job_failed", test_pull_fails_job_failed},
    {"/collapse/pull_timeout_job_goes_on", test_pull_timeout_job_goes_on},
    {"/collapse/pull_unknown_disk_or_base_not_found",
     test_pull_unknown_disk_or_base_not_found},
    {"/collapse/commit_into_the_layer_below",
     test_commit_into_the_layer_below},
    {"/collapse/commit_other_top_diverged", test_commit_other_top_diverged},
    {"/collapse/commit_lost_events_done", test_commit_lost_events_done},
    {"/collapse/commit_that_runs_is_gone_on_with",
     test_commit_that_runs_is_gone_on_with},
    {"/collapse/commit_without_backing_file_invalid_state",
     test_commit_without_backing_file_invalid_state},
    {"/collapse/commit_missed_end_sets_the_definition",
     test_commit_missed_end_sets_the_definition},
    {"/collapse/commit_nobody_writes_to_the_top_diverged",
     test_commit_nobody_writes_to_the_top_diverged},
    {"/collapse/commit_definition_stays_behind_diverged",
     test_commit_definition_stays_behind_diverged},
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
