/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Jobs that QEMU has and libvirt does not show, since it died as it started them, and
 * commits that end between two looks. The fake ends the test where libvirt would
 * crash. */

#include <libvirt/virterror.h>
#include <string.h>

#include "blockjob.h"
#include "collapse.h"
#include "mirror_fixture.h"
#include "recover.h"

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
    fixture->wait = fixture_patience();
    fixture->top = fake_files_path(files, "old", "vda");
    fixture->base = fake_files_path(files, "old", "vda-base");
}

static void
tear_down(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    vmr_domain_free(fixture->dom);
    g_assert_true(fake_hv_settle(fixture->fake));
    fake_hv_free(fixture->fake);
    fake_files_tidy(files);
    g_free(fixture->top);
    g_free(fixture->base);
}

static void
check_source(Fixture *fixture, const char *path)
{
    g_autofree char *source = fake_hv_dup_source(fixture->fake, "vda");

    g_assert_cmpstr(source, ==, path);
}

static void
start_commit(Fixture *fixture)
{
    g_autoptr(GError) error = NULL;

    vmr_hv_block_commit(fixture->dom, "vda", NULL, NULL,
                        VIR_DOMAIN_BLOCK_COMMIT_SHALLOW |
                            VIR_DOMAIN_BLOCK_COMMIT_ACTIVE,
                        &fixture->wait, &error);
    g_assert_no_error(error);
}

static void
leave_hidden_commit(Fixture *fixture)
{
    start_commit(fixture);
    fake_hv_hide_job(fixture->fake, "vda");
}

static VmrVerdict
inspect(Fixture *fixture)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrInspection) found = vmr_inspect(
        fixture->dom->hv, fixture->dom->ptr, &fixture->wait, &error);

    g_assert_no_error(error);
    g_assert_cmpuint(found->commits->len, ==,
                     found->verdict == VMR_VERDICT_HIDDEN ? 1 : 0);
    return found->verdict;
}

static VmrRecovery *
recover(Fixture *fixture)
{
    g_autoptr(GError) error = NULL;
    VmrRecovery *recovery =
        vmr_recover(fixture->dom->hv, fixture->dom->ptr, VMR_POLICY_ABORT,
                    &fixture->wait, &error);

    g_assert_no_error(error);
    return recovery;
}

static void
test_commit_is_finished(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    leave_hidden_commit(fixture);
    vmr_collapse_commit(fixture->dom, "vda", fixture->top, &fixture->wait,
                        &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_BLOCK_COMMIT), ==, 1);
    check_source(fixture, fixture->base);
}

static gpointer
get_ready_soon(gpointer data)
{
    while (fake_hv_count(data, VMR_HV_BLOCK_JOB_ABORT) == 0)
        g_usleep(1000);
    fake_hv_advance(data, "vda");
    return NULL;
}

static void
test_commit_not_ready_is_waited_for(Fixture *fixture,
                                    gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    GThread *thread;

    fake_hv_knobs(fixture->fake)->jobs_on_demand = TRUE;
    leave_hidden_commit(fixture);
    thread = g_thread_new("ready", get_ready_soon, fixture->fake);
    vmr_collapse_commit(fixture->dom, "vda", fixture->top, &fixture->wait,
                        &error);
    g_thread_join(thread);
    g_assert_no_error(error);
    check_source(fixture, fixture->base);
}

static void
test_commit_into_another_layer_is_left(Fixture *fixture,
                                       gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    leave_hidden_commit(fixture);
    fake_hv_knobs(fixture->fake)->unlocked = fixture->base;
    fake_hv_advance(fixture->fake, "vda");
    g_assert_false(vmr_collapse_commit(fixture->dom, "vda", fixture->top,
                                       &fixture->wait, &error));
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                    VIR_ERR_OPERATION_UNSUPPORTED);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_BLOCK_JOB_ABORT), ==,
                     0);
}

typedef struct {
    VmrHvOp op;
    guint n;
} Moment;

/* A commit that runs when it is seen first is over, as it was to be, after a later
 * call. */
static void
test_commit_ends_between_two_looks_done(Fixture *fixture, gconstpointer data)
{
    const Moment *moment = data;
    FakeKnobs *knobs = fake_hv_knobs(fixture->fake);
    g_autoptr(GError) error = NULL;

    start_commit(fixture);
    knobs->ends_well = TRUE;
    knobs->ends_after = moment->op;
    knobs->ends_in = moment->n;
    vmr_collapse_commit(fixture->dom, "vda", fixture->top, &fixture->wait,
                        &error);
    g_assert_no_error(error);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_BLOCK_COMMIT), ==, 1);
    check_source(fixture, fixture->base);
}

/* A mirror that is ready when its job is asked for, and over when the definition is
 * read, is not one that libvirt does not show. */
static void
check_ends_while_inspected(Fixture *fixture, gboolean well, VmrVerdict verdict)
{
    FakeKnobs *knobs = fake_hv_knobs(fixture->fake);

    vmr_mirror_free(fixture_create(fixture->fake, 1, FALSE));
    knobs->ends_well = well;
    knobs->ends_after = VMR_HV_BLOCK_JOB_INFO;
    knobs->ends_in = 1;
    g_assert_cmpint(inspect(fixture), ==, verdict);
    vmr_recovery_free(recover(fixture));
    fixture_check_ended(fixture->fake, files);
}

static void
test_copy_fails_while_inspected_aborted(Fixture *fixture,
                                        gconstpointer unused G_GNUC_UNUSED)
{
    check_ends_while_inspected(fixture, FALSE, VMR_VERDICT_ABORTED);
}

static void
test_copy_is_pivoted_while_inspected_pivoted(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    check_ends_while_inspected(fixture, TRUE, VMR_VERDICT_PIVOTED);
}

static void
check_refused(Fixture *fixture, guint flags)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_blockjob_end(fixture->dom, "vda", flags,
                                    &fixture->wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_DIVERGED);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_BLOCK_JOB_ABORT), ==,
                     0);
}

static void
test_abort_of_a_commit_is_refused(Fixture *fixture,
                                  gconstpointer unused G_GNUC_UNUSED)
{
    leave_hidden_commit(fixture);
    check_refused(fixture, 0);
    check_refused(fixture, VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC);
}

static void
test_pivot_of_a_copy_is_refused(Fixture *fixture,
                                gconstpointer unused G_GNUC_UNUSED)
{
    vmr_mirror_free(fixture_create(fixture->fake, 1, FALSE));
    fake_hv_hide_job(fixture->fake, "vda");
    check_refused(fixture, VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT);
    g_assert_cmpint(inspect(fixture), ==, VMR_VERDICT_ORPHANED);
    fixture_clean_up(fixture->fake);
    fixture_check_ended(fixture->fake, files);
}

static void
test_commit_without_a_journal_is_recovered(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrRecovery) recovery = NULL;

    leave_hidden_commit(fixture);
    g_assert_cmpint(inspect(fixture), ==, VMR_VERDICT_HIDDEN);
    recovery = recover(fixture);
    g_assert_cmpint(recovery->found, ==, VMR_VERDICT_HIDDEN);
    g_assert_cmpint(recovery->verdict, ==, VMR_VERDICT_NOTHING);
    g_assert_cmpuint(recovery->left->len, ==, 0);
    check_source(fixture, fixture->base);
}

static void
test_commit_to_nowhere_is_left_to_a_person(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrRecovery) recovery = NULL;

    leave_hidden_commit(fixture);
    fake_hv_knobs(fixture->fake)->unlocked = fixture->base;
    fake_hv_advance(fixture->fake, "vda");
    recovery = recover(fixture);
    g_assert_cmpint(recovery->verdict, ==, VMR_VERDICT_HIDDEN);
    g_assert_cmpuint(recovery->left->len, ==, 1);
    check_source(fixture, fixture->top);
}

/* The process died as it began to commit the overlay of a mirrored snapshot that could
 * not be created. */
static void
test_undo_that_died_is_recovered(Fixture *fixture,
                                 gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrSnapSpec) spec = fake_hv_spec(fixture->fake, 1, FALSE);
    g_autoptr(VmrRecovery) recovery = NULL;
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fixture->fake)->refuse_copy = "vda";
    fake_hv_set_fault_on(fixture->fake, FAKE_FAULT_DEATH, VMR_HV_BLOCK_COMMIT);
    g_assert_null(vmr_mirror_create(fixture->dom->hv, fixture->dom->ptr, spec,
                                    0, &fixture->wait, &error));
    g_assert_true(fake_hv_release(fixture->fake));
    leave_hidden_commit(fixture);
    g_assert_cmpint(inspect(fixture), ==, VMR_VERDICT_HIDDEN);
    recovery = recover(fixture);
    g_assert_cmpint(recovery->verdict, ==, VMR_VERDICT_NOTHING);
    check_source(fixture, fixture->top);
    fixture_check_ended(fixture->fake, files);
}

typedef void (*TestFunc)(Fixture *fixture, gconstpointer unused);

static const struct {
    const char *path;
    TestFunc func;
} tests[] = {
    {"/hidden/commit_is_finished", test_commit_is_finished},
    {"/hidden/commit_not_ready_is_waited_for",
     test_commit_not_ready_is_waited_for},
    {"/hidden/commit_into_another_layer_is_left",
     test_commit_into_another_layer_is_left},
    {"/hidden/copy_fails_while_inspected_aborted",
     test_copy_fails_while_inspected_aborted},
    {"/hidden/copy_is_pivoted_while_inspected_pivoted",
     test_copy_is_pivoted_while_inspected_pivoted},
    {"/hidden/abort_of_a_commit_is_refused",
     test_abort_of_a_commit_is_refused},
    {"/hidden/pivot_of_a_copy_is_refused", test_pivot_of_a_copy_is_refused},
    {"/hidden/commit_without_a_journal_is_recovered",
     test_commit_without_a_journal_is_recovered},
    {"/hidden/commit_to_nowhere_is_left_to_a_person",
     test_commit_to_nowhere_is_left_to_a_person},
    {"/hidden/undo_that_died_is_recovered", test_undo_that_died_is_recovered},
};

static const Moment moments[] = {
    {VMR_HV_GET_XML, 1},
    {VMR_HV_EVENTS_OPEN, 1},
    {VMR_HV_BLOCK_JOB_INFO, 1},
    {VMR_HV_GET_XML, 2},
    {VMR_HV_GET_XML, 3},
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
    for (gsize i = 0; i < G_N_ELEMENTS(moments); i++) {
        g_autofree char *path = g_strdup_printf(
            "/hidden/commit_ends_after_%s_%u_done",
            vmr_hv_op_name(moments[i].op), moments[i].n);

        g_test_add(path, Fixture, &moments[i], set_up,
                   test_commit_ends_between_two_looks_done, tear_down);
    }
    status = g_test_run();
    fake_files_free(files);
    return status;
}
