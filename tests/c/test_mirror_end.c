/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <glib/gstdio.h>
#include <libvirt/virterror.h>
#include <string.h>

#include "mirror_fixture.h"

static FakeFiles *files;

/* Check that the pivot fails so, and that nobody was pivoted. */
static GError *
pivot_fails(FakeHv *fake, VmrMirror *mirror, VmrErrorCode code)
{
    VmrWait wait = fixture_patience();
    GError *error = NULL;

    g_assert_false(vmr_mirror_pivot(mirror, &wait, &error));
    g_assert_error(error, VMR_ERROR, (int)code);
    g_assert_cmpstr(vmr_error_get_detail(error)->phase, ==, "pivot");
    g_assert_false(fixture_is_pivoted(fake, 0));
    return error;
}

/* ---- ends that work ---- */

static void
test_pivot_ready_guest_on_mirror(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 2, FALSE);

    fixture_wait_ready(mirror);
    fixture_pivot(mirror);
    g_assert_true(fixture_is_pivoted(fake, 0));
    g_assert_true(fixture_is_pivoted(fake, 1));
    fixture_check_ended(fake, files);
    g_assert_cmpint(vmr_mirror_get_record(mirror)->state, ==, VMR_STATE_DONE);
    fake_files_tidy(files);
}

static void
test_abort_guest_on_overlay(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 2, FALSE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    vmr_mirror_abort(mirror, NULL, &wait, &error);
    g_assert_no_error(error);
    g_assert_false(fixture_is_pivoted(fake, 0));
    fixture_check_ended(fake, files);
    fake_files_tidy(files);
}

static void
test_abort_before_ready_guest_on_overlay(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = NULL;

    fake_hv_knobs(fake)->jobs_on_demand = TRUE;
    mirror = fixture_create(fake, 1, FALSE);
    fixture_clean_up(fake);
    fixture_check_ended(fake, files);
    fake_files_tidy(files);
}

static void
test_reused_files_stay(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autofree char *path = fake_files_path(files, "new", "vda.reuse");

    vmr_mirror_free(fixture_create(fake, 1, TRUE));
    fixture_clean_up(fake);
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
}

static void
test_pivot_transient_domain(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = NULL;

    fake_hv_knobs(fake)->transient = TRUE;
    mirror = fixture_create(fake, 1, TRUE);
    fixture_wait_ready(mirror);
    fixture_pivot(mirror);
    g_assert_true(fixture_is_pivoted(fake, 0));
    fixture_check_ended(fake, files);
}

/* ---- pivots that are refused ---- */

static void
test_pivot_before_ready_names_the_disk(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrMirror) mirror = NULL;
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->jobs_on_demand = TRUE;
    mirror = fixture_create(fake, 2, TRUE);
    fake_hv_advance(fake, "vda");
    error = pivot_fails(fake, mirror, VMR_ERROR_NOT_READY);
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                    VIR_ERR_BLOCK_COPY_ACTIVE);
    g_assert_cmpstr(vmr_error_get_detail(error)->disk, ==, "vdb");
    g_assert_false(vmr_error_get_detail(error)->partial);
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_BLOCK_JOB_ABORT), ==, 0);
    fixture_clean_up(fake);
}

static void
test_pivot_second_disk_refused_is_partial(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 2, TRUE);
    const VmrRecord *record = vmr_mirror_get_record(mirror);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->refuse_pivot = "vdb";
    g_assert_false(vmr_mirror_pivot(mirror, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_VIRT);
    g_assert_true(vmr_error_get_detail(error)->partial);
    g_assert_cmpstr(vmr_error_get_detail(error)->disk, ==, "vdb");
    g_assert_cmpint(((VmrDisk *)record->disks->pdata[0])->state, ==,
                    VMR_DISK_STATE_PIVOTED);
    g_assert_true(fixture_is_pivoted(fake, 0));
    g_assert_false(fixture_is_pivoted(fake, 1));
    fake_hv_knobs(fake)->refuse_pivot = NULL;
    fixture_pivot(mirror);
    g_assert_true(fixture_is_pivoted(fake, 1));
    fixture_check_ended(fake, files);
}

/* Whatever is tried, nobody calls this an end, and the journal stays. */
static void
still_diverged(FakeHv *fake, VmrMirror *mirror)
{
    VmrWait wait = fixture_patience();
    g_autofree char *journal = NULL;
    g_autoptr(GError) pivoted = NULL;
    g_autoptr(GError) aborted = NULL;

    g_assert_false(vmr_mirror_pivot(mirror, &wait, &pivoted));
    g_assert_false(vmr_mirror_abort(mirror, NULL, &wait, &aborted));
    g_assert_error(aborted, VMR_ERROR, VMR_ERROR_DIVERGED);
    journal = fake_hv_dup_metadata(fake, FALSE);
    g_assert_nonnull(journal);
}

static void
test_pivot_that_only_libvirt_missed_diverged(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    g_autoptr(GError) error = NULL;

    /* the event says that it is done, and so does the absence of the job */
    fake_hv_knobs(fake)->lie = TRUE;
    error = pivot_fails(fake, mirror, VMR_ERROR_DIVERGED);
    g_assert_true(vmr_error_get_detail(error)->partial);
    still_diverged(fake, mirror);
}

static void
test_pivot_persistent_source_stays_diverged(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->keep_inactive = TRUE;
    g_assert_false(vmr_mirror_pivot(mirror, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_assert_nonnull(strstr(error->message, "before the domain is shut down"));
    still_diverged(fake, mirror);
}

static void
test_pivot_unlocked_mirror_diverged(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    g_autofree char *path = fake_files_path(files, "new", "vda.reuse");
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->unlocked = path;
    fake_hv_advance(fake, "vda");
    error = pivot_fails(fake, mirror, VMR_ERROR_DIVERGED);
    fake_hv_knobs(fake)->unlocked = NULL;
    fake_hv_advance(fake, "vda");
    fixture_clean_up(fake);
}

static void
test_pivot_copy_in_use_busy(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    g_autofree char *path = fake_files_path(files, "new", "vda-base");
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->locked = path;
    fake_hv_advance(fake, "vda");
    error = pivot_fails(fake, mirror, VMR_ERROR_BUSY);
    fake_hv_knobs(fake)->locked = NULL;
    fixture_clean_up(fake);
}

static void
test_pivot_replaced_copy_diverged(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    g_autofree char *path = fake_files_path(files, "new", "vda-base");
    g_autofree char *kept = g_strconcat(path, ".kept", NULL);
    g_autofree char *content = NULL;
    gsize size;
    g_autoptr(GError) error = NULL;

    /* a copy by rename, say */
    g_assert_true(g_file_get_contents(path, &content, &size, NULL));
    g_assert_cmpint(g_rename(path, kept), ==, 0);
    g_assert_true(g_file_set_contents(path, content, (gssize)size, NULL));
    error = pivot_fails(fake, mirror, VMR_ERROR_DIVERGED);
    g_assert_nonnull(strstr(error->message, "replaced by another file"));
    g_assert_cmpint(g_rename(kept, path), ==, 0);
    fixture_clean_up(fake);
}

static void
test_pivot_after_foreign_abort_job_failed(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    g_autoptr(GError) error = NULL;

    fake_hv_fail_job(fake, "vda");
    error = pivot_fails(fake, mirror, VMR_ERROR_JOB_FAILED);
    fixture_clean_up(fake);
}

/* ---- aborts that are refused, or take time ---- */

/* libvirt shows the job for a moment after QEMU has ended it. */
static void
test_abort_of_a_copy_that_has_just_failed_waits(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, FALSE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->lingers = 3;
    fake_hv_fail_job(fake, "vda");
    vmr_mirror_abort(mirror, NULL, &wait, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fake_hv_knobs(fake)->lingers, ==, 0);
    fixture_check_ended(fake, files);
    fake_files_tidy(files);
}

static void
test_abort_of_a_copy_that_libvirt_never_lets_go_of_diverged(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, FALSE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->lingers = G_MAXUINT;
    fake_hv_fail_job(fake, "vda");
    g_assert_false(vmr_mirror_abort(mirror, NULL, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_BLOCK_JOB_ABORT), ==, 0);
    fake_hv_knobs(fake)->lingers = 0;
    fixture_clean_up(fake);
    fake_files_tidy(files);
}

static void
test_abort_foreign_source_diverged_nothing_done(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 2);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 2, TRUE);
    g_autofree char *other = fake_files_path(files, "old", "vdc");
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    fake_hv_fail_job(fake, "vdb");
    fake_hv_set_source(fake, "vdb", other);
    g_assert_false(vmr_mirror_abort(mirror, NULL, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_assert_cmpstr(vmr_error_get_detail(error)->disk, ==, "vdb");
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_BLOCK_JOB_ABORT), ==, 0);
}

static void
test_abort_slow_leaves_at_the_deadline(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, FALSE);
    VmrWait wait = vmr_wait_for(0.2, NULL);
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->aborts_on_demand = TRUE;
    g_assert_false(vmr_mirror_abort(mirror, NULL, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    fake_hv_advance(fake, "vda");
    fixture_clean_up(fake);
    fixture_check_ended(fake, files);
    fake_files_tidy(files);
}

static void
test_abort_removes_no_file_that_was_replaced(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, FALSE);
    g_autofree char *path = fake_files_path(files, "new", "vda.snap");
    VmrWait wait = fixture_patience();
    const GPtrArray *leftovers;
    g_autoptr(GError) error = NULL;

    fake_hv_fail_job(fake, "vda");
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_true(g_file_set_contents(path, "precious", -1, NULL));
    vmr_mirror_abort(mirror, NULL, &wait, &error);
    g_assert_no_error(error);
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
    leftovers = vmr_mirror_get_leftovers(mirror);
    g_assert_cmpuint(leftovers->len, ==, 1);
    g_assert_cmpstr(leftovers->pdata[0], ==, path);
    g_assert_cmpint(g_unlink(path), ==, 0);
    fake_files_tidy(files);
}

static void
test_pivot_hangs_leaves_at_the_deadline(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    VmrWait wait = vmr_wait_for(0.5, NULL);
    g_autoptr(GError) error = NULL;

    wait.call_timeout = 100 * G_TIME_SPAN_MILLISECOND;
    /* a pivot is not given up for a slow call, but for the deadline */
    fake_hv_set_fault_on(fake, FAKE_FAULT_HANG, VMR_HV_BLOCK_JOB_ABORT);
    g_assert_false(vmr_mirror_pivot(mirror, &wait, &error));
    g_assert_cmpint(g_get_monotonic_time(), >=, wait.deadline);
    g_assert_true(vmr_error_is_unknown(error));
    g_assert_true(fake_hv_release(fake));
    g_assert_true(fake_hv_settle(fake));
    fixture_pivot(mirror);
    fixture_check_ended(fake, files);
}

static gpointer
pivot_in_thread(gpointer data)
{
    VmrWait wait = fixture_patience();

    return GINT_TO_POINTER(vmr_mirror_pivot(data, &wait, NULL));
}

static void
test_second_thread_busy(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;
    guint before = fake_hv_count(fake, VMR_HV_LAST);
    GThread *thread;

    fake_hv_set_fault(fake, FAKE_FAULT_HANG, 1);
    thread = g_thread_new("pivot", pivot_in_thread, mirror);
    while (fake_hv_count(fake, VMR_HV_LAST) == before)
        g_usleep(1000);
    g_assert_false(vmr_mirror_abort(mirror, NULL, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_BUSY);
    fake_hv_release(fake);
    g_assert_true(GPOINTER_TO_INT(g_thread_join(thread)));
    fixture_check_ended(fake, files);
}

static const struct {
    const char *path;
    GTestFunc func;
} tests[] = {
    {"pivot_ready_guest_on_mirror", test_pivot_ready_guest_on_mirror},
    {"abort_guest_on_overlay", test_abort_guest_on_overlay},
    {"abort_before_ready_guest_on_overlay",
     test_abort_before_ready_guest_on_overlay},
    {"abort_reused_files_stay", test_reused_files_stay},
    {"pivot_transient_domain", test_pivot_transient_domain},
    {"pivot_before_ready_names_the_disk",
     test_pivot_before_ready_names_the_disk},
    {"pivot_second_disk_refused_is_partial",
     test_pivot_second_disk_refused_is_partial},
    {"pivot_that_only_libvirt_missed_diverged",
     test_pivot_that_only_libvirt_missed_diverged},
    {"pivot_persistent_source_stays_diverged",
     test_pivot_persistent_source_stays_diverged},
    {"pivot_unlocked_mirror_diverged", test_pivot_unlocked_mirror_diverged},
    {"pivot_copy_in_use_busy", test_pivot_copy_in_use_busy},
    {"pivot_replaced_copy_diverged", test_pivot_replaced_copy_diverged},
    {"pivot_after_foreign_abort_job_failed",
     test_pivot_after_foreign_abort_job_failed},
    {"abort_foreign_source_diverged_nothing_done",
     test_abort_foreign_source_diverged_nothing_done},
    {"abort_of_a_copy_that_has_just_failed_waits",
     test_abort_of_a_copy_that_has_just_failed_waits},
    {"abort_of_a_copy_that_libvirt_never_lets_go_of_diverged",
     test_abort_of_a_copy_that_libvirt_never_lets_go_of_diverged},
    {"abort_slow_leaves_at_the_deadline",
     test_abort_slow_leaves_at_the_deadline},
    {"abort_removes_no_file_that_was_replaced",
     test_abort_removes_no_file_that_was_replaced},
    {"pivot_hangs_leaves_at_the_deadline",
     test_pivot_hangs_leaves_at_the_deadline},
    {"second_thread_busy", test_second_thread_busy},
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
