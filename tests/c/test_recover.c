/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* inspect and recover: each verdict, made on the fake, and what becomes of it
 * under each policy. */

#include <fcntl.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <sys/stat.h>

#include "mirror_fixture.h"
#include "recover.h"

static FakeFiles *files;

typedef struct {
    const char *name;
    guint n_disks;
    void (*make)(FakeHv *fake);
    VmrVerdict verdict;
    /* what recovery leads to, and whether a person has something left to do */
    VmrVerdict after[VMR_POLICY_LAST];
    gboolean left;
} Case;

static VmrInspection *
inspect(FakeHv *fake)
{
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;
    VmrInspection *found = vmr_inspect(fake_hv_get(fake), fake_hv_domain(fake),
                                       &wait, &error);

    g_assert_no_error(error);
    return found;
}

static VmrRecovery *
recover(FakeHv *fake, VmrPolicy policy)
{
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;
    VmrRecovery *recovery = vmr_recover(
        fake_hv_get(fake), fake_hv_domain(fake), policy, &wait, &error);

    g_assert_no_error(error);
    return recovery;
}

/* ---- how each verdict comes about ---- */

static void
make_nothing(FakeHv *fake G_GNUC_UNUSED)
{
}

static void
make_ready(FakeHv *fake)
{
    vmr_mirror_free(fixture_create(fake, 1, FALSE));
}

static void
make_mirroring(FakeHv *fake)
{
    fake_hv_knobs(fake)->jobs_on_demand = TRUE;
    vmr_mirror_free(fixture_create(fake, 1, FALSE));
    fake_hv_knobs(fake)->jobs_on_demand = FALSE;
}

static void
make_aborted(FakeHv *fake)
{
    make_ready(fake);
    fake_hv_fail_job(fake, "vda");
}

/* The process dies at the snapshot. */
static void
make_creating(FakeHv *fake)
{
    g_autoptr(VmrSnapSpec) spec = fake_hv_spec(fake, 1, FALSE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    fake_hv_set_fault_on(fake, FAKE_FAULT_DEATH, VMR_HV_SNAPSHOT_CREATE);
    g_assert_null(vmr_mirror_create(fake_hv_get(fake), fake_hv_domain(fake),
                                    spec, 0, &wait, &error));
    g_assert_true(fake_hv_release(fake));
}

static void
pivot_and_fail(FakeHv *fake, guint n_disks)
{
    g_autoptr(VmrMirror) mirror = fixture_create(fake, n_disks, FALSE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_mirror_pivot(mirror, &wait, &error));
    fake_hv_release(fake);
}

static void
make_pivoted(FakeHv *fake)
{
    fake_hv_set_fault_on(fake, FAKE_FAULT_DEATH, VMR_HV_SNAPSHOT_DELETE);
    pivot_and_fail(fake, 1);
}

static void
make_cut_over(FakeHv *fake)
{
    fake_hv_knobs(fake)->refuse_pivot = "vdb";
    pivot_and_fail(fake, 2);
    fake_hv_knobs(fake)->refuse_pivot = NULL;
}

/* The mirror of the disk whose turn it was not yet ends, too. */
static void
make_cut_over_ended(FakeHv *fake)
{
    make_cut_over(fake);
    fake_hv_fail_job(fake, "vdb");
}

/* libvirt dies before it has saved the persistent definition. */
static void
make_behind(FakeHv *fake)
{
    g_autoptr(VmrMirror) mirror = fixture_create(fake, 1, FALSE);
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fake)->keep_inactive = TRUE;
    g_assert_false(vmr_mirror_pivot(mirror, &wait, &error));
    fake_hv_knobs(fake)->keep_inactive = FALSE;
}

static void
make_lying(FakeHv *fake)
{
    fake_hv_knobs(fake)->lie = TRUE;
    pivot_and_fail(fake, 1);
}

static void
make_off(FakeHv *fake)
{
    make_ready(fake);
    fake_hv_shut_off(fake);
}

static void
make_lost(FakeHv *fake)
{
    static char path[4096]; /* the knobs only borrow it */
    g_autofree char *overlay = fake_files_path(files, "old", "vda.snap");

    g_strlcpy(path, overlay, sizeof(path));
    make_ready(fake);
    fake_hv_knobs(fake)->locked = path;
    fake_hv_shut_off(fake);
}

static void
make_foreign(FakeHv *fake)
{
    g_autofree char *other = fake_files_path(files, "new", "vda.reuse");

    make_ready(fake);
    fake_hv_fail_job(fake, "vda");
    fake_hv_set_source(fake, "vda", other);
}

#define NOTHING                                                          \
    {                                                                    \
        VMR_VERDICT_NOTHING, VMR_VERDICT_NOTHING, VMR_VERDICT_NOTHING    \
    }

static const Case cases[] = {
    {"nothing", 1, make_nothing, VMR_VERDICT_NOTHING, NOTHING, FALSE},
    {"ready",
     1,
     make_ready,
     VMR_VERDICT_READY,
     {VMR_VERDICT_READY, VMR_VERDICT_NOTHING, VMR_VERDICT_NOTHING},
     FALSE},
    {"mirroring",
     1,
     make_mirroring,
     VMR_VERDICT_MIRRORING,
     {VMR_VERDICT_MIRRORING, VMR_VERDICT_NOTHING, VMR_VERDICT_LAST},
     FALSE},
    {"aborted", 1, make_aborted, VMR_VERDICT_ABORTED, NOTHING, FALSE},
    {"creating", 1, make_creating, VMR_VERDICT_CREATING, NOTHING, FALSE},
    {"pivoted", 1, make_pivoted, VMR_VERDICT_PIVOTED, NOTHING, FALSE},
    {"cut_over", 2, make_cut_over, VMR_VERDICT_CUT_OVER, NOTHING, FALSE},
    {"cut_over_ended", 2, make_cut_over_ended, VMR_VERDICT_CUT_OVER, NOTHING,
     FALSE},
    {"behind", 1, make_behind, VMR_VERDICT_PIVOTED, NOTHING, FALSE},
    {"off", 1, make_off, VMR_VERDICT_OFF, NOTHING, FALSE},
    {"lying",
     1,
     make_lying,
     VMR_VERDICT_LYING,
     {VMR_VERDICT_LYING, VMR_VERDICT_LYING, VMR_VERDICT_LYING},
     TRUE},
    {"lost",
     1,
     make_lost,
     VMR_VERDICT_LOST,
     {VMR_VERDICT_LOST, VMR_VERDICT_LOST, VMR_VERDICT_LOST},
     TRUE},
    {"foreign",
     1,
     make_foreign,
     VMR_VERDICT_FOREIGN,
     {VMR_VERDICT_FOREIGN, VMR_VERDICT_FOREIGN, VMR_VERDICT_FOREIGN},
     TRUE},
};

typedef struct {
    const Case *one;
    VmrPolicy policy;
} Run;

static void
test_case(gconstpointer data)
{
    const Run *run = data;
    const Case *one = run->one;
    g_autoptr(FakeHv) fake = fake_hv_new(files, one->n_disks);
    g_autoptr(VmrInspection) found = NULL;
    g_autoptr(VmrRecovery) recovery = NULL;
    g_autoptr(VmrRecovery) again = NULL;
    g_autofree char *before = NULL;
    g_autofree char *after = NULL;

    one->make(fake);
    found = inspect(fake);
    g_assert_cmpstr(vmr_verdict_name(found->verdict), ==,
                    vmr_verdict_name(one->verdict));
    recovery = recover(fake, run->policy);
    g_assert_cmpint(recovery->found, ==, one->verdict);
    g_assert_cmpstr(vmr_verdict_name(recovery->verdict), ==,
                    vmr_verdict_name(one->after[run->policy]));
    g_assert_cmpint(recovery->left->len > 0, ==, one->left);
    if (found->running && recovery->verdict == VMR_VERDICT_NOTHING)
        fixture_check_ended(fake, files);
    /* a second time there is nothing to be done */
    before = fake_hv_describe(fake);
    again = recover(fake, run->policy);
    g_assert_cmpuint(again->done->len, ==, 0);
    after = fake_hv_describe(fake);
    g_assert_cmpstr(before, ==, after);
    fake_hv_knobs(fake)->locked = NULL;
    fake_files_tidy(files);
}

static void
test_lying_sets_the_persistent_source(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrRecovery) recovery = NULL;
    g_autoptr(VmrInspection) found = NULL;
    const VmrDiskInspection *disk;

    make_lying(fake);
    recovery = recover(fake, VMR_POLICY_RESUME);
    found = inspect(fake);
    disk = found->disks->pdata[0];
    g_assert_cmpstr(disk->persistent, ==, disk->disk->mirror->path);
    g_assert_cmpstr(disk->live, ==, disk->disk->overlay->path);
    g_assert_true(vmr_disk_inspection_written(disk) == disk->disk->mirror);
    fake_files_tidy(files);
}

/* Have @record, changed, be the journal. */
static void
save(FakeHv *fake, VmrRecord *record)
{
    g_autofree char *xml = NULL;

    record->sequence++;
    xml = vmr_record_format(record);
    fake_hv_set_metadata(fake, FALSE, xml);
    fake_hv_set_metadata(fake, TRUE, xml);
}

static int
state_of(VmrDomain *dom)
{
    VmrWait wait = fixture_patience();
    g_autoptr(GError) error = NULL;
    int state;

    vmr_hv_get_state(dom, &state, NULL, &wait, &error);
    g_assert_no_error(error);
    return state;
}

/* Have @path be written to @seconds later. */
static void
make_younger(const char *path, int seconds)
{
    struct stat st;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}};

    g_assert_cmpint(stat(path, &st), ==, 0);
    times[1] = st.st_mtim;
    times[1].tv_sec += seconds;
    g_assert_cmpint(utimensat(AT_FDCWD, path, times, 0), ==, 0);
}

static void
test_guest_suspended_by_us_is_resumed_no_other(gconstpointer by_us)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrDomain) dom =
        vmr_domain_new(fake_hv_get(fake), fake_hv_domain(fake));
    g_autoptr(VmrRecovery) recovery = NULL;
    g_autoptr(VmrRecord) record = NULL;
    g_autoptr(GError) error = NULL;
    VmrWait wait = fixture_patience();

    make_ready(fake);
    record = fixture_load(fake);
    record->paused = GPOINTER_TO_INT(by_us);
    save(fake, record);
    vmr_hv_suspend(dom, &wait, &error);
    g_assert_no_error(error);
    recovery = recover(fake, VMR_POLICY_RESUME);
    g_assert_cmpint(state_of(dom), ==,
                    by_us ? VIR_DOMAIN_RUNNING : VIR_DOMAIN_PAUSED);
    fixture_clean_up(fake);
    fake_files_tidy(files);
}

/* One disk is pivoted, one can be, and the mirror of one has ended. */
static void
test_guest_suspended_by_us_is_resumed_if_the_pivot_fails(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 3);
    g_autoptr(VmrDomain) dom =
        vmr_domain_new(fake_hv_get(fake), fake_hv_domain(fake));
    g_autoptr(VmrRecovery) recovery = NULL;
    g_autoptr(VmrRecord) record = NULL;
    g_autoptr(GError) error = NULL;
    VmrWait wait = fixture_patience();

    fake_hv_knobs(fake)->refuse_pivot = "vdb";
    pivot_and_fail(fake, 3);
    fake_hv_knobs(fake)->refuse_pivot = NULL;
    fake_hv_fail_job(fake, "vdc");
    record = fixture_load(fake);
    record->paused = TRUE;
    save(fake, record);
    vmr_hv_suspend(dom, &wait, &error);
    g_assert_no_error(error);
    recovery = vmr_recover(fake_hv_get(fake), fake_hv_domain(fake),
                           VMR_POLICY_PIVOT, &wait, &error);
    g_assert_null(recovery);
    g_assert_error(error, VMR_ERROR, VMR_ERROR_JOB_FAILED);
    g_assert_cmpint(state_of(dom), ==, VIR_DOMAIN_RUNNING);
    fixture_clean_up(fake);
    fake_files_tidy(files);
}

typedef struct {
    VmrDiskState state; /* of the disk whose persistent source is the overlay */
    gboolean paused;
    int younger;        /* seconds, that the mirror was written to later */
    VmrVerdict after;
} Off;

/* The host loses its power in the cut-over. */
static void
test_off_mirror_may_be_newer_nothing_is_removed(void)
{
    static const Off off_table[] = {
        {VMR_DISK_STATE_MIRRORING, FALSE, 60, VMR_VERDICT_NOTHING},
        {VMR_DISK_STATE_PIVOTING, TRUE, 1, VMR_VERDICT_NOTHING},
        {VMR_DISK_STATE_PIVOTING, TRUE, 60, VMR_VERDICT_OFF},
        {VMR_DISK_STATE_PIVOTING, FALSE, 0, VMR_VERDICT_OFF},
        {VMR_DISK_STATE_PIVOTED, FALSE, 0, VMR_VERDICT_OFF},
    };

    for (gsize i = 0; i < G_N_ELEMENTS(off_table); i++) {
        const Off *off = &off_table[i];
        g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
        g_autoptr(VmrRecovery) recovery = NULL;
        g_autoptr(VmrRecord) record = NULL;
        g_autofree char *mirror = NULL;

        make_off(fake);
        record = fixture_load(fake);
        record->paused = off->paused;
        record->state = VMR_STATE_PIVOTING;
        ((VmrDisk *)record->disks->pdata[0])->state = off->state;
        mirror = g_strdup(((VmrDisk *)record->disks->pdata[0])->mirror->path);
        save(fake, record);
        make_younger(mirror, off->younger);
        recovery = recover(fake, VMR_POLICY_ABORT);
        g_assert_cmpstr(vmr_verdict_name(recovery->verdict), ==,
                        vmr_verdict_name(off->after));
        if (off->after == VMR_VERDICT_OFF) {
            g_assert_nonnull(strstr(recovery->left->pdata[0], mirror));
            g_assert_true(g_file_test(mirror, G_FILE_TEST_EXISTS));
        }
        fake_files_tidy(files);
    }
}

static void
test_policy_names(void)
{
    g_autoptr(GError) error = NULL;
    VmrPolicy policy;

    g_assert_true(vmr_policy_parse("pivot", &policy, &error));
    g_assert_cmpint(policy, ==, VMR_POLICY_PIVOT);
    g_assert_false(vmr_policy_parse("hope", &policy, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
}

static void
add_cases(void)
{
    static const char *const policies[] = {"resume", "abort", "pivot"};

    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (guint policy = 0; policy < VMR_POLICY_LAST; policy++) {
            Run *run = g_new(Run, 1);
            g_autofree char *path = g_strdup_printf(
                "/recover/%s_%s", cases[i].name, policies[policy]);

            /* a mirror that never gets ready would be waited for */
            if (cases[i].after[policy] == VMR_VERDICT_LAST) {
                g_free(run);
                continue;
            }
            *run = (Run){&cases[i], policy};
            g_test_add_data_func_full(path, run, test_case, g_free);
        }
    }
}

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    add_cases();
    g_test_add_func("/recover/lying_sets_the_persistent_source",
                    test_lying_sets_the_persistent_source);
    g_test_add_data_func("/recover/guest_suspended_by_us_is_resumed",
                         GINT_TO_POINTER(TRUE),
                         test_guest_suspended_by_us_is_resumed_no_other);
    g_test_add_data_func("/recover/guest_suspended_by_others_is_not",
                         GINT_TO_POINTER(FALSE),
                         test_guest_suspended_by_us_is_resumed_no_other);
    g_test_add_func("/recover/guest_suspended_by_us_is_resumed_if_the_pivot_"
                    "fails",
                    test_guest_suspended_by_us_is_resumed_if_the_pivot_fails);
    g_test_add_func("/recover/off_mirror_may_be_newer_nothing_is_removed",
                    test_off_mirror_may_be_newer_nothing_is_removed);
    g_test_add_func("/recover/policy_names", test_policy_names);
    status = g_test_run();
    fake_files_free(files);
    return status;
}
