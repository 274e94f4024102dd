/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A guest that was suspended by us is resumed, whatever the process has run out of. */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "mirror_fixture.h"
#include "pause.h"

static FakeFiles *files;

/* Descriptors that are used up on purpose. */
static GArray *used;

/* So many are left to the process in these tests. */
#define LIMIT 100

static void
use_up(gpointer unused G_GNUC_UNUSED)
{
    int fd;

    while ((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        g_array_append_val(used, fd);
    g_assert_cmpint(errno, ==, EMFILE);
}

static void
give_back(void)
{
    for (guint i = 0; i < used->len; i++)
        close(g_array_index(used, int, i));
    g_array_set_size(used, 0);
}

static void
set_limit(rlim_t limit)
{
    struct rlimit now;

    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &now), ==, 0);
    now.rlim_cur = MIN(limit, now.rlim_max);
    g_assert_cmpint(setrlimit(RLIMIT_NOFILE, &now), ==, 0);
}

typedef struct {
    FakeHv *fake;
    VmrDomain *dom;
    VmrMirror *mirror;
    VmrWait wait;
    struct rlimit before;
} Fixture;

static void
set_up(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    fixture->fake = fake_hv_new(files, 1);
    fixture->dom = vmr_domain_new(fake_hv_get(fixture->fake),
                                  fake_hv_domain(fixture->fake));
    fixture->wait = fixture_patience();
    fixture->mirror = fixture_create(fixture->fake, 1, FALSE);
    fixture_wait_ready(fixture->mirror);
    g_assert_cmpint(getrlimit(RLIMIT_NOFILE, &fixture->before), ==, 0);
    set_limit(LIMIT);
}

static void
tear_down(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    give_back();
    set_limit(fixture->before.rlim_cur);
    fixture_clean_up(fixture->fake);
    fixture_check_ended(fixture->fake, files);
    vmr_mirror_free(fixture->mirror);
    vmr_domain_free(fixture->dom);
    fake_hv_free(fixture->fake);
    fake_files_tidy(files);
}

static gboolean
cut_over(Fixture *fixture, GError **error)
{
    VmrCutOver how = {.pause_budget = 2, .atomic = TRUE};
    double pause;

    return vmr_mirror_cut_over(fixture->mirror, &how, &pause, &fixture->wait,
                               error);
}

static int
state_of(Fixture *fixture)
{
    g_autoptr(GError) error = NULL;
    int state = -1;

    vmr_hv_get_state(fixture->dom, &state, NULL, &fixture->wait, &error);
    g_assert_no_error(error);
    return state;
}

static void
test_no_descriptors_to_set_aside_not_suspended(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    use_up(NULL);
    /* enough for what is done one after the other */
    for (guint i = 0; i < 8; i++) {
        close(g_array_index(used, int, used->len - 1));
        g_array_set_size(used, used->len - 1);
    }
    g_assert_false(cut_over(fixture, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IO);
    g_assert_nonnull(strstr(error->message, "set aside"));
    give_back();
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_SUSPEND), ==, 0);
    g_assert_cmpint(state_of(fixture), ==, VIR_DOMAIN_RUNNING);
}

/* What was set aside is enough, although nobody gives anything back. */
static void
test_descriptors_used_up_in_the_pause_resumed(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrRecord) record = NULL;
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fixture->fake)->on_suspend = use_up;
    g_assert_false(cut_over(fixture, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IO);
    g_assert_false(vmr_error_get_detail(error)->partial);
    give_back();
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_SUSPEND), ==, 1);
    g_assert_cmpint(state_of(fixture), ==, VIR_DOMAIN_RUNNING);
    record = fixture_load(fixture->fake);
    g_assert_false(record->paused);
}

/* libvirt itself may be what has run out of them. */
static void
test_resume_that_fails_for_want_is_tried_again(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fixture->fake)->no_resume = 5;
    cut_over(fixture, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_RESUME), ==, 6);
    g_assert_cmpint(state_of(fixture), ==, VIR_DOMAIN_RUNNING);
    g_assert_true(fixture_is_pivoted(fixture->fake, 0));
}

static void
test_resume_that_was_refused_once_is_tried_again(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    fake_hv_set_fault_on(fixture->fake, FAKE_FAULT_BEFORE, VMR_HV_RESUME);
    cut_over(fixture, &error);
    g_assert_no_error(error);
    g_assert_true(fake_hv_release(fixture->fake));
    g_assert_cmpint(state_of(fixture), ==, VIR_DOMAIN_RUNNING);
}

typedef void (*TestFunc)(Fixture *fixture, gconstpointer unused);

static const struct {
    const char *path;
    TestFunc func;
} tests[] = {
    {"/pause/no_descriptors_to_set_aside_not_suspended",
     test_no_descriptors_to_set_aside_not_suspended},
    {"/pause/descriptors_used_up_in_the_pause_resumed",
     test_descriptors_used_up_in_the_pause_resumed},
    {"/pause/resume_that_fails_for_want_is_tried_again",
     test_resume_that_fails_for_want_is_tried_again},
    {"/pause/resume_that_was_refused_once_is_tried_again",
     test_resume_that_was_refused_once_is_tried_again},
};

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    used = g_array_new(FALSE, FALSE, sizeof(int));
    for (gsize i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, Fixture, NULL, set_up, tests[i].func,
                   tear_down);
    status = g_test_run();
    g_array_unref(used);
    fake_files_free(files);
    return status;
}
