/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Copies that end between two looks of the engine: the definition and the job cannot
 * be asked for at one moment, so what the two say together may never have been so. */

#include "mirror_fixture.h"

static FakeFiles *files;

/* The definition is read, the copy ends, and then libvirt knows of no job. */
static void
end_after(FakeHv *fake, VmrHvOp op, guint n)
{
    fake_hv_knobs(fake)->lingers = 2;
    fake_hv_knobs(fake)->ends_after = op;
    fake_hv_knobs(fake)->ends_in = n;
}

static void
test_abort_again_while_the_first_one_ends_succeeds(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, FALSE);
    VmrWait hurry = vmr_wait_for(0.1, NULL);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) slow = NULL;
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->aborts_on_demand = TRUE;
    g_assert_false(vmr_mirror_abort(mirror, NULL, &hurry, &slow));
    g_assert_error(slow, VMR_ERROR, VMR_ERROR_TIMEOUT);
    end_after(fake, VMR_HV_GET_XML, 1);
    vmr_mirror_abort(mirror, NULL, &wait, &error);
    g_assert_no_error(error);
    fixture_check_ended(fake, files);
    fake_files_tidy(files);
}

static void
test_abort_of_a_copy_that_fails_meanwhile_succeeds(gconstpointer data)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, FALSE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    end_after(fake, VMR_HV_GET_XML, GPOINTER_TO_UINT(data));
    vmr_mirror_abort(mirror, NULL, &wait, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fake_hv_knobs(fake)->ends_in, ==, 0);
    fixture_check_ended(fake, files);
    fake_files_tidy(files);
}

static void
test_pivot_of_a_copy_that_fails_meanwhile_job_failed(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    end_after(fake, VMR_HV_GET_XML, 1);
    g_assert_false(vmr_mirror_pivot(mirror, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED);
    g_assert_false(fixture_is_pivoted(fake, 0));
    fixture_clean_up(fake);
}

static void
test_progress_of_a_copy_that_fails_meanwhile_is_not_ready(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    g_autoptr(GArray) progress = NULL;
    VmrWait wait = fixture_patience();
    const VmrProgress *only;

    end_after(fake, VMR_HV_GET_XML, 1);
    progress = vmr_mirror_get_progress(mirror, &wait, NULL);
    only = &g_array_index(progress, VmrProgress, 0);
    g_assert_false(only->active);
    g_assert_false(only->ready);
    fixture_clean_up(fake);
}

int
main(int argc, char **argv)
{
    int failed;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    g_test_add_func("/meanwhile/abort_again_while_the_first_one_ends_succeeds",
                    test_abort_again_while_the_first_one_ends_succeeds);
    /* after the look at all disks, and right before the abort */
    for (guint n = 1; n <= 2; n++) {
        g_autofree char *path = g_strdup_printf(
            "/meanwhile/abort_of_a_copy_that_fails_meanwhile_succeeds/%u", n);

        g_test_add_data_func(path, GUINT_TO_POINTER(n),
                             test_abort_of_a_copy_that_fails_meanwhile_succeeds);
    }
    g_test_add_func("/meanwhile/pivot_of_a_copy_that_fails_meanwhile_job_failed",
                    test_pivot_of_a_copy_that_fails_meanwhile_job_failed);
    g_test_add_func(
        "/meanwhile/progress_of_a_copy_that_fails_meanwhile_is_not_ready",
        test_progress_of_a_copy_that_fails_meanwhile_is_not_ready);
    failed = g_test_run();
    fake_files_free(files);
    return failed;
}
