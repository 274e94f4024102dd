/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>

#include "mirror_fixture.h"

static FakeFiles *files;

static void
test_open_from_the_journal_pivots(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    VmrWait wait = fixture_patience();
    g_autoptr(VmrMirror) opened = NULL;
    g_autoptr(GError) error = NULL;

    vmr_mirror_free(fixture_create(fake, 1, FALSE));
    opened = vmr_mirror_open(fake_hv_get(fake), fake_hv_domain(fake),
                             FAKE_SNAPSHOT, &wait, &error);
    g_assert_no_error(error);
    fixture_wait_ready(opened);
    fixture_pivot(opened);
    fixture_check_ended(fake, files);
    fake_files_tidy(files);
}

static void
test_open_other_name_not_found(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    vmr_mirror_free(fixture_create(fake, 1, TRUE));
    g_assert_null(vmr_mirror_open(fake_hv_get(fake), fake_hv_domain(fake),
                                  "other", &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND);
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                    VIR_ERR_OPERATION_INVALID);
    fixture_clean_up(fake);
}

static void
test_ended_mirror_is_no_longer_used(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;
    guint before;

    fixture_wait_ready(mirror);
    fixture_pivot(mirror);
    g_assert_true(fake_hv_settle(fake));
    before = fake_hv_count(fake, VMR_HV_LAST);
    g_assert_false(vmr_mirror_abort(mirror, NULL, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE);
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_LAST), ==, before);
}

static gpointer
advance_soon(gpointer data)
{
    FakeHv *fake = data;

    g_usleep(100000);
    fake_hv_advance(fake, "vda");
    fake_hv_advance(fake, "vdb");
    return NULL;
}

static void
test_wait_ready_needs_every_disk(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrMirror) mirror = NULL;
    VmrWait wait = vmr_wait_for(0.1, NULL);
    g_autoptr(GError) error = NULL;
    GThread *thread;

    fake_hv_knobs(fake)->jobs_on_demand = TRUE;
    mirror = fixture_create(fake, 2, TRUE);
    fake_hv_advance(fake, "vdb");
    g_assert_false(vmr_mirror_wait_ready(mirror, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    g_assert_false(vmr_error_is_unknown(error));
    thread = g_thread_new("advance", advance_soon, fake);
    fixture_wait_ready(mirror);
    g_thread_join(thread);
    fixture_clean_up(fake);
}

static void
test_wait_ready_job_failed_names_the_disk(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 2, TRUE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->lingers = 2; /* libvirt shows it for a moment */
    fake_hv_fail_job(fake, "vdb");
    g_assert_false(vmr_mirror_wait_ready(mirror, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED);
    g_assert_cmpstr(vmr_error_get_detail(error)->disk, ==, "vdb");
    g_assert_cmpstr(vmr_error_get_detail(error)->phase, ==, "wait");
    fixture_clean_up(fake);
    fixture_check_ended(fake, files);
}

static void
test_wait_ready_domain_gone_invalid_state(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    fake_hv_shut_off(fake);
    g_assert_false(vmr_mirror_wait_ready(mirror, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_STATE);
}

static void
test_progress_tells_bytes_and_readiness(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrMirror) mirror = NULL;
    g_autoptr(GArray) progress = NULL;
    VmrWait wait = fixture_patience();
    const VmrProgress *first;
    const VmrProgress *second;

    fake_hv_knobs(fake)->jobs_on_demand = TRUE;
    mirror = fixture_create(fake, 2, TRUE);
    fake_hv_advance(fake, "vdb");
    progress = vmr_mirror_get_progress(mirror, &wait, NULL);
    g_assert_cmpuint(progress->len, ==, 2);
    first = &g_array_index(progress, VmrProgress, 0);
    second = &g_array_index(progress, VmrProgress, 1);
    g_assert_cmpstr(first->target, ==, "vda");
    g_assert_true(first->active && !first->ready);
    g_assert_cmpuint(first->current, <, first->end);
    g_assert_true(second->active && second->ready);
    g_assert_cmpuint(second->current, ==, second->end);
    fixture_clean_up(fake);
}

static const struct {
    const char *path;
    GTestFunc func;
} tests[] = {
    {"open_from_the_journal_pivots", test_open_from_the_journal_pivots},
    {"open_other_name_not_found", test_open_other_name_not_found},
    {"ended_is_no_longer_used", test_ended_mirror_is_no_longer_used},
    {"wait_ready_needs_every_disk", test_wait_ready_needs_every_disk},
    {"wait_ready_job_failed_names_the_disk",
     test_wait_ready_job_failed_names_the_disk},
    {"wait_ready_domain_gone_invalid_state",
     test_wait_ready_domain_gone_invalid_state},
    {"progress_tells_bytes_and_readiness",
     test_progress_tells_bytes_and_readiness},
};

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    for (gsize i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strconcat("/mirror/", tests[i].path, NULL);

        g_test_add_func(path, tests[i].func);
    }
    status = g_test_run();
    fake_files_free(files);
    return status;
}
