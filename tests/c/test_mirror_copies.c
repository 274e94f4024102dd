/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Pivots onto layers whose copies are marked. */

#include "copymark.h"
#include "imgutil.h"
#include "mirror_fixture.h"

/* Mark the copy of vda's base. */
static void
mark(const FakeFiles *files, VmrCopymarkState state)
{
    g_autofree char *path = fake_files_path(files, "new", "vda-base");
    const VmrCopymark wanted = {.state = state};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    g_autoptr(GError) error = NULL;
    VmrCopymark found;

    vmr_copymark_set(fd, path, &wanted, &error);
    g_assert_no_error(error);
    /* or the tests would show nothing */
    g_assert_true(vmr_copymark_get(fd, path, &found, NULL));
    g_assert_cmpint(found.state, ==, state);
    close(fd);
}

static void
test_pivot_incomplete_copy_refused_until_complete(void)
{
    FakeFiles *files = fake_files_new_in("/var/tmp");
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) refused = NULL;
    g_autoptr(GError) error = NULL;

    mark(files, VMR_COPYMARK_INCOMPLETE);
    g_assert_true(vmr_mirror_wait_ready(mirror, &wait, NULL));
    g_assert_false(vmr_mirror_pivot(mirror, &wait, &refused));
    g_assert_error(refused, VMR_ERROR, VMR_ERROR_IMAGE);
    g_assert_nonnull(strstr(refused->message, "vda-base"));
    g_assert_false(vmr_error_get_detail(refused)->partial);
    g_assert_false(fixture_is_pivoted(fake, 0));

    mark(files, VMR_COPYMARK_COMPLETE);
    vmr_mirror_pivot(mirror, &wait, &error);
    g_assert_no_error(error);
    g_assert_true(fixture_is_pivoted(fake, 0));
    fixture_check_ended(fake, files);
    fake_files_free(files);
}

static void
test_cut_over_incomplete_copy_refused(void)
{
    FakeFiles *files = fake_files_new_in("/var/tmp");
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, TRUE);
    const VmrCutOver how = {.atomic = TRUE, .pause_budget = 10};
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;
    double pause;

    mark(files, VMR_COPYMARK_INCOMPLETE);
    g_assert_false(vmr_mirror_cut_over(mirror, &how, &pause, &wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IMAGE);
    g_assert_false(fixture_is_pivoted(fake, 0));
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_BLOCK_JOB_ABORT), ==, 0);
    fixture_clean_up(fake);
    fixture_check_ended(fake, files);
    fake_files_free(files);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mirror_copies/pivot_incomplete_copy_refused_until_complete",
                    test_pivot_incomplete_copy_refused_until_complete);
    g_test_add_func("/mirror_copies/cut_over_incomplete_copy_refused",
                    test_cut_over_incomplete_copy_refused);
    return g_test_run();
}
