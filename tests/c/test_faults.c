/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The fault sweep: each scenario runs again and again, its n-th call failing in
 * some way, for n = 1, 2, ... until the scenario ends without reaching it. What
 * has to hold is the same each time. */

#include "collapse.h"
#include "mirror_fixture.h"
#include "recover.h"
#include "throttle.h"

/* A call that hangs costs so much time; on a busy machine another one may take
 * as long, and then it is tried again with more. */
#define CALL_TIMEOUT (40 * G_TIME_SPAN_MILLISECOND)
#define MAX_CALL_TIMEOUT (4 * G_TIME_SPAN_SECOND)
#define MAX_CALLS 400

#define OWN_LIMIT 123456789 /* bytes/s, of a guest */

static FakeFiles *files;

typedef struct Run Run;

/* What is done under faults; TRUE if it worked. */
typedef gboolean (*Action)(Run *run, GError **error);

/* Check what there is after a failure, put it right, and check the end. */
typedef void (*Aftermath)(Run *run, const GError *error);

typedef struct {
    const char *name;
    guint n_disks;
    gboolean reuse;         /* files that are there */
    gboolean begun;         /* there is a mirrored snapshot already */
    const char *refuse_copy;/* a target whose copy cannot be started */
    Action action;
    Aftermath aftermath;
    void (*prepare)(FakeHv *fake); /* before the faults, or NULL */
} Scenario;

struct Run {
    const Scenario *scenario;
    FakeFault fault;
    VmrWait wait;
    FakeHv *fake;
    VmrMirror *mirror;
    char *before;
};

/* ---- actions ---- */

static gboolean
create(Run *run, GError **error)
{
    const Scenario *scenario = run->scenario;
    g_autoptr(VmrSnapSpec) spec =
        fake_hv_spec(run->fake, scenario->n_disks, scenario->reuse);

    run->mirror = vmr_mirror_create(
        fake_hv_get(run->fake), fake_hv_domain(run->fake), spec,
        scenario->reuse ? VMR_MIRROR_REUSE_EXTERNAL : 0, &run->wait, error);
    return run->mirror != NULL;
}

static gboolean
wait_and_pivot(Run *run, GError **error)
{
    return vmr_mirror_wait_ready(run->mirror, &run->wait, error) &&
           vmr_mirror_pivot(run->mirror, &run->wait, error);
}

static gboolean
cut_over(Run *run, GError **error)
{
    VmrCutOver how = {.atomic = TRUE, .pause_budget = 2};
    double pause;

    return vmr_mirror_wait_ready(run->mirror, &run->wait, error) &&
           vmr_mirror_cut_over(run->mirror, &how, &pause, &run->wait, error);
}

static gboolean
cut_over_early(Run *run, GError **error)
{
    VmrCutOver how = {.atomic = TRUE, .pause_budget = 2, .throttle = TRUE};
    double pause;

    return vmr_mirror_cut_over(run->mirror, &how, &pause, &run->wait, error);
}

/* Lower the limits in two steps, and put them back, as a cut-over does it. */
static gboolean
throttle(Run *run, GError **error)
{
    gboolean changed = TRUE;
    gboolean ok = TRUE;

    for (int i = 0; ok && i < 2; i++) {
        run->mirror->figures.mirrored = 1e6;
        run->mirror->figures.written = 2e6;
        ok = vmr_throttle_adjust(run->mirror, &changed, &run->wait, error);
        g_assert_true(changed);
    }
    return vmr_throttle_end(run->mirror, ok, &run->wait, error);
}

static gboolean
abort_it(Run *run, GError **error)
{
    return vmr_mirror_abort(run->mirror, NULL, &run->wait, error);
}

static gboolean
commit(Run *run, GError **error)
{
    g_autoptr(VmrDomain) dom =
        vmr_domain_new(fake_hv_get(run->fake), fake_hv_domain(run->fake));

    return vmr_collapse_commit(dom, "vda", NULL, &run->wait, error);
}

static gboolean
recover(Run *run, GError **error)
{
    g_autoptr(VmrRecovery) recovery =
        vmr_recover(fake_hv_get(run->fake), fake_hv_domain(run->fake),
                    VMR_POLICY_RESUME, &run->wait, error);

    return recovery != NULL;
}

/* ---- preparations ---- */

/* A commit that libvirt does not show. */
static void
leave_hidden(FakeHv *fake)
{
    g_autoptr(VmrDomain) dom =
        vmr_domain_new(fake_hv_get(fake), fake_hv_domain(fake));
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;

    vmr_hv_block_commit(dom, "vda", NULL, NULL,
                        VIR_DOMAIN_BLOCK_COMMIT_SHALLOW |
                            VIR_DOMAIN_BLOCK_COMMIT_ACTIVE,
                        &wait, &error);
    g_assert_no_error(error);
    fake_hv_hide_job(fake, "vda");
}

/* ---- aftermaths ---- */

/* The next one finishes it, unless all but its last looks was done. */
static void
commit_again(Run *run, const GError *error G_GNUC_UNUSED)
{
    g_autofree char *base = fake_files_path(files, "old", "vda-base");
    g_autofree char *source = fake_hv_dup_source(run->fake, "vda");
    g_autofree char *end = NULL;
    g_autoptr(GError) again = NULL;
    VmrWait before = run->wait;

    run->wait = vmr_wait_for(60, NULL);
    if (g_strcmp0(source, base) != 0)
        commit(run, &again);
    run->wait = before;
    g_assert_no_error(again);
    end = fake_hv_dup_source(run->fake, "vda");
    g_assert_cmpstr(end, ==, base);
    fixture_check_ended(run->fake, files);
}

/* Everything is as before, or the error says that not, and the journal tells
 * the next one how to clean up. */
static void
after_create(Run *run, const GError *error)
{
    g_autofree char *now = fake_hv_describe(run->fake);
    g_autoptr(VmrRecord) record = fixture_load(run->fake);

    if (!record) {
        g_assert_cmpstr(now, ==, run->before);
        return;
    }
    g_assert_true(vmr_error_get_detail(error)->partial);
    fixture_clean_up(run->fake);
    fixture_check_ended(run->fake, files);
}

/* Who is on the mirror was meant to be there, and the error tells of it. */
static void
check_sides(Run *run, const GError *error)
{
    g_autoptr(VmrRecord) record = fixture_load(run->fake);

    for (guint i = 0; i < run->scenario->n_disks; i++) {
        const VmrDisk *disk = record ? record->disks->pdata[i] : NULL;

        if (!fixture_is_pivoted(run->fake, i))
            continue;
        g_assert_true(vmr_error_get_detail(error)->partial ||
                      vmr_error_is_unknown(error));
        if (disk)
            g_assert_true(disk->state == VMR_DISK_STATE_PIVOTING ||
                          disk->state == VMR_DISK_STATE_PIVOTED);
    }
}

/* A second pivot ends it with every disk on its mirror. */
static void
pivot_again(Run *run, const GError *error)
{
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) again = NULL;

    check_sides(run, error);
    vmr_mirror_pivot(run->mirror, &wait, &again);
    g_assert_no_error(again);
    for (guint i = 0; i < run->scenario->n_disks; i++)
        g_assert_true(fixture_is_pivoted(run->fake, i));
    fixture_check_ended(run->fake, files);
}

/* So does an abort, with every disk on one side or the other. */
static void
abort_again(Run *run, const GError *error)
{
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) again = NULL;

    check_sides(run, error);
    vmr_mirror_abort(run->mirror, NULL, &wait, &again);
    g_assert_no_error(again);
    fixture_check_ended(run->fake, files);
}

/* And so does one of another process. */
static void
clean_up_elsewhere(Run *run, const GError *error)
{
    check_sides(run, error);
    fixture_clean_up(run->fake);
    fixture_check_ended(run->fake, files);
}

static gboolean
is_paused(FakeHv *fake)
{
    g_autoptr(VmrDomain) dom =
        vmr_domain_new(fake_hv_get(fake), fake_hv_domain(fake));
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;
    int state;

    vmr_hv_get_state(dom, &state, NULL, &wait, &error);
    g_assert_no_error(error);
    return state == VIR_DOMAIN_PAUSED;
}

/* A guest that is left suspended is in the journal, and recovered by another
 * process, with all disks on one side or the other. */
static void
recover_elsewhere(Run *run, const GError *error)
{
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(VmrRecord) record = fixture_load(run->fake);
    g_autoptr(VmrRecovery) recovery = NULL;
    g_autoptr(GError) again = NULL;

    if (is_paused(run->fake)) {
        g_assert_true(record && record->paused);
        g_assert_true(vmr_error_get_detail(error)->partial ||
                      vmr_error_is_unknown(error));
    }
    recovery = vmr_recover(fake_hv_get(run->fake), fake_hv_domain(run->fake),
                           VMR_POLICY_ABORT, &wait, &again);
    g_assert_no_error(again);
    g_assert_cmpint(recovery->verdict, ==, VMR_VERDICT_NOTHING);
    g_assert_false(is_paused(run->fake));
    fixture_check_ended(run->fake, files);
}

/* So are limits that are left lowered, whichever of the calls was the last. */
static void
recover_limits(Run *run, const GError *error)
{
    recover_elsewhere(run, error);
    for (guint i = 0; i < run->scenario->n_disks; i++) {
        g_autofree char *target = g_strdup_printf("vd%c", 'a' + (int)i);
        g_autoptr(VmrIotune) tune = fake_hv_dup_iotune(run->fake, target);

        g_assert_cmpuint(tune->values[VMR_IOTUNE_WRITE_BYTES_SEC], ==,
                         OWN_LIMIT);
    }
}

/* ---- the sweep ---- */

/* A guest that writes faster than is mirrored, but always to the same places. */
static void
make_unready(Run *run)
{
    FakeKnobs *knobs = fake_hv_knobs(run->fake);

    knobs->mirrors = 8 * 1024 * 1024;
    knobs->writes = 2 * knobs->mirrors;
    knobs->working_set = 256 * 1024;
}

static void
run_begin(Run *run)
{
    const Scenario *scenario = run->scenario;
    gboolean unready = scenario->action == cut_over_early;
    g_autoptr(VmrIotune) own = vmr_iotune_new();

    run->fake = fake_hv_new(files, scenario->n_disks);
    fake_hv_knobs(run->fake)->refuse_copy = scenario->refuse_copy;
    fake_hv_knobs(run->fake)->jobs_on_demand = unready;
    own->values[VMR_IOTUNE_WRITE_BYTES_SEC] = OWN_LIMIT;
    for (guint i = 0; i < scenario->n_disks; i++) {
        g_autofree char *target = g_strdup_printf("vd%c", 'a' + (int)i);

        fake_hv_set_iotune(run->fake, target, own);
    }
    if (scenario->begun)
        run->mirror =
            fixture_create(run->fake, scenario->n_disks, scenario->reuse);
    if (scenario->prepare)
        scenario->prepare(run->fake);
    if (unready)
        make_unready(run);
    run->before = fake_hv_describe(run->fake);
}

static void
run_end(Run *run)
{
    g_clear_pointer(&run->mirror, vmr_mirror_free);
    g_clear_pointer(&run->fake, fake_hv_free);
    g_clear_pointer(&run->before, g_free);
    fake_files_tidy(files);
}

static gboolean
changes_something(VmrHvOp op)
{
    return op == VMR_HV_SNAPSHOT_CREATE || op == VMR_HV_SNAPSHOT_DELETE ||
           op == VMR_HV_BLOCK_COPY || op == VMR_HV_BLOCK_COMMIT ||
           op == VMR_HV_BLOCK_JOB_ABORT || op == VMR_HV_SET_METADATA ||
           op == VMR_HV_BLOCK_JOB_SET_SPEED || op == VMR_HV_SUSPEND ||
           op == VMR_HV_RESUME || op == VMR_HV_SET_IOTUNE;
}

/* A call that hangs ends the scenario in time, and nobody knows the outcome of
 * one that changes something. */
static void
check_hang(Run *run, const GError *error, gboolean reached, gint64 start)
{
    g_assert_cmpint(g_get_monotonic_time() - start, <, 2 * MAX_CALL_TIMEOUT);
    g_assert_error(error, VMR_ERROR, VMR_ERROR_TIMEOUT);
    if (reached)
        g_assert_cmpint(vmr_error_is_unknown(error), ==,
                        changes_something(fake_hv_fault_op(run->fake)));
}

/* Run the scenario; FALSE if its @n-th call was not reached. */
static gboolean
run_once(Run *run, guint n)
{
    g_autoptr(GError) error = NULL;
    gint64 start;
    gboolean reached;
    gboolean ok;

    run_begin(run);
    fake_hv_set_fault(run->fake, run->fault, n);
    start = g_get_monotonic_time();
    ok = run->scenario->action(run, &error);
    reached = fake_hv_release(run->fake);
    if (run->fault == FAKE_FAULT_HANG && !ok && !run->scenario->refuse_copy)
        check_hang(run, error, reached, start);
    g_assert_true(fake_hv_settle(run->fake));
    g_assert_cmpint(ok, ==, error == NULL);
    if (!ok) {
        g_test_message("call %u: %s", n, error->message);
        run->scenario->aftermath(run, error);
    }
    run_end(run);
    if (!reached && run->fault == FAKE_FAULT_HANG && !ok &&
        !run->scenario->refuse_copy) {
        run->wait.call_timeout *= 2;
        g_assert_cmpint(run->wait.call_timeout, <, MAX_CALL_TIMEOUT);
        return run_once(run, n);
    }
    g_assert_true(reached || ok || run->scenario->refuse_copy);
    return reached;
}

typedef struct {
    const Scenario *scenario;
    FakeFault fault;
} Sweep;

static void
test_sweep(gconstpointer data)
{
    const Sweep *sweep = data;
    guint n = 0;
    gboolean reached;

    do {
        Run run = {.scenario = sweep->scenario,
                   .fault = sweep->fault,
                   .wait = vmr_wait_for(-1, NULL)};

        if (sweep->fault == FAKE_FAULT_HANG)
            run.wait.call_timeout = CALL_TIMEOUT;
        reached = run_once(&run, ++n);
    } while (reached && n < MAX_CALLS);
    g_assert_false(reached);
    g_assert_cmpuint(n, >, 5);
}

/* New files take qemu-img and its time, so not every scenario makes some. */
static const Scenario scenarios[] = {
    {"create_1_disk", 1, FALSE, FALSE, NULL, create, after_create, NULL},
    {"create_1_disk_undone", 1, FALSE, FALSE, "vda", create, after_create, NULL},
    {"create_2_disks", 2, FALSE, FALSE, NULL, create, after_create, NULL},
    {"create_2_disks_undone", 2, TRUE, FALSE, "vdb", create, after_create, NULL},
    {"create_3_disks", 3, TRUE, FALSE, NULL, create, after_create, NULL},
    {"pivot_1_disk_pivot", 1, FALSE, TRUE, NULL, wait_and_pivot, pivot_again, NULL},
    {"pivot_2_disks_pivot", 2, TRUE, TRUE, NULL, wait_and_pivot, pivot_again, NULL},
    {"pivot_2_disks_abort", 2, TRUE, TRUE, NULL, wait_and_pivot, abort_again, NULL},
    {"pivot_2_disks_elsewhere", 2, TRUE, TRUE, NULL, wait_and_pivot,
     clean_up_elsewhere, NULL},
    {"cut_over_1_disk", 1, FALSE, TRUE, NULL, cut_over, recover_elsewhere, NULL},
    {"cut_over_2_disks", 2, TRUE, TRUE, NULL, cut_over, recover_elsewhere, NULL},
    {"cut_over_early", 1, FALSE, TRUE, NULL, cut_over_early, recover_limits, NULL},
    {"throttle_2_disks", 2, TRUE, TRUE, NULL, throttle, recover_limits, NULL},
    {"commit", 1, FALSE, FALSE, NULL, commit, commit_again, NULL},
    {"commit_hidden", 1, FALSE, FALSE, NULL, commit, commit_again,
     leave_hidden},
    {"recover_hidden", 1, FALSE, FALSE, NULL, recover, commit_again,
     leave_hidden},
    {"abort_1_disk_abort", 1, FALSE, TRUE, NULL, abort_it, abort_again, NULL},
    {"abort_2_disks_elsewhere", 2, TRUE, TRUE, NULL, abort_it,
     clean_up_elsewhere, NULL},
};

static const struct {
    FakeFault fault;
    const char *name;
} faults[] = {
    {FAKE_FAULT_BEFORE, "fails"},
    {FAKE_FAULT_AFTER, "fails_having_worked"},
    {FAKE_FAULT_DEATH, "is_the_last"},
    {FAKE_FAULT_HANG, "hangs"},
};

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    for (gsize i = 0; i < G_N_ELEMENTS(scenarios); i++) {
        for (gsize j = 0; j < G_N_ELEMENTS(faults); j++) {
            Sweep *sweep = g_new(Sweep, 1);
            g_autofree char *path = g_strdup_printf(
                "/faults/%s_each_call_%s", scenarios[i].name, faults[j].name);

            *sweep = (Sweep){&scenarios[i], faults[j].fault};
            g_test_add_data_func_full(path, sweep, test_sweep, g_free);
        }
    }
    status = g_test_run();
    fake_files_free(files);
    return status;
}
