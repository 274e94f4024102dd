/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "mirror_fixture.h"
#include "recover.h"
#include "throttle.h"

static FakeFiles *files;

static const char *const xml =
    "<domain><devices>"
    "<disk><target dev='vda'/></disk>"
    "<disk><iotune><total_bytes_sec>1000</total_bytes_sec>"
    "<total_bytes_sec_max>2000</total_bytes_sec_max>"
    "<total_bytes_sec_max_length>3</total_bytes_sec_max_length>"
    "<write_iops_sec>7</write_iops_sec>"
    "<group_name>both</group_name></iotune><target dev='vdb'/></disk>"
    "</devices></domain>";

static void
test_parse_limits(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrIotune) none = vmr_iotune_parse(xml, "vda", &error);
    g_autoptr(VmrIotune) some = vmr_iotune_parse(xml, "vdb", &error);

    g_assert_no_error(error);
    for (guint i = 0; i < VMR_IOTUNE_LAST; i++)
        g_assert_cmpuint(none->values[i], ==, 0);
    g_assert_null(none->group);
    g_assert_cmpuint(some->values[VMR_IOTUNE_TOTAL_BYTES_SEC], ==, 1000);
    g_assert_cmpuint(some->values[VMR_IOTUNE_TOTAL_BYTES_SEC_MAX], ==, 2000);
    g_assert_cmpuint(some->values[VMR_IOTUNE_WRITE_IOPS_SEC], ==, 7);
    g_assert_cmpstr(some->group, ==, "both");
    g_assert_null(vmr_iotune_parse(xml, "vdc", &error));
    g_assert_no_error(error);
}

/* A total excludes a limit of writes alone, and a burst may not be lower. */
static void
test_lower_keeps_to_the_kind_of_limit(void)
{
    g_autoptr(VmrIotune) none = vmr_iotune_parse(xml, "vda", NULL);
    g_autoptr(VmrIotune) some = vmr_iotune_parse(xml, "vdb", NULL);
    g_autoptr(VmrIotune) writes = vmr_iotune_lower(none, 500);
    g_autoptr(VmrIotune) total = vmr_iotune_lower(some, 500);
    g_autoptr(VmrIotune) kept = vmr_iotune_lower(some, 5000);

    g_assert_cmpuint(writes->values[VMR_IOTUNE_WRITE_BYTES_SEC], ==, 500);
    g_assert_cmpuint(writes->values[VMR_IOTUNE_TOTAL_BYTES_SEC], ==, 0);
    g_assert_cmpuint(total->values[VMR_IOTUNE_TOTAL_BYTES_SEC], ==, 500);
    g_assert_cmpuint(total->values[VMR_IOTUNE_TOTAL_BYTES_SEC_MAX], ==, 0);
    g_assert_cmpuint(total->values[VMR_IOTUNE_WRITE_BYTES_SEC], ==, 0);
    g_assert_cmpuint(total->values[VMR_IOTUNE_WRITE_IOPS_SEC], ==, 7);
    g_assert_cmpstr(total->group, ==, "both");
    g_assert_cmpuint(kept->values[VMR_IOTUNE_TOTAL_BYTES_SEC], ==, 1000);
}

/* ---- on a domain ---- */

typedef struct {
    FakeHv *fake;
    VmrMirror *mirror;
    VmrWait wait;
} Fixture;

static void
set_up(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrIotune) own = vmr_iotune_parse(xml, "vdb", NULL);

    fixture->fake = fake_hv_new(files, 2);
    fixture->mirror = fixture_create(fixture->fake, 2, TRUE);
    fixture->wait = fixture_patience();
    fake_hv_set_iotune(fixture->fake, "vdb", own);
}

static void
tear_down(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    fixture_clean_up(fixture->fake);
    vmr_mirror_free(fixture->mirror);
    g_assert_true(fake_hv_settle(fixture->fake));
    fake_hv_free(fixture->fake);
}

/* Lower the limits as for mirrors that do @mirrored bytes/s, which the guest outruns. */
static gboolean
adjust(Fixture *fixture, double mirrored)
{
    g_autoptr(GError) error = NULL;
    gboolean changed;

    fixture->mirror->figures.mirrored = mirrored;
    fixture->mirror->figures.written = 2 * mirrored;
    vmr_throttle_adjust(fixture->mirror, &changed, &fixture->wait, &error);
    g_assert_no_error(error);
    return changed;
}

static void
check_limit(Fixture *fixture, const char *target, VmrIotuneField field,
            guint64 limit)
{
    g_autoptr(VmrIotune) tune = fake_hv_dup_iotune(fixture->fake, target);

    g_assert_cmpuint(tune->values[field], ==, limit);
}

static void
check_own_limits(Fixture *fixture)
{
    g_autoptr(VmrIotune) own = vmr_iotune_parse(xml, "vdb", NULL);

    for (guint i = 0; i < VMR_IOTUNE_LAST; i++) {
        check_limit(fixture, "vda", i, 0);
        check_limit(fixture, "vdb", i, own->values[i]);
    }
}

static void
test_adjust_lowers_step_by_step(Fixture *fixture,
                                gconstpointer unused G_GNUC_UNUSED)
{
    g_assert_true(adjust(fixture, 1024 * 1024));
    check_limit(fixture, "vda", VMR_IOTUNE_WRITE_BYTES_SEC, 512 * 1024);
    g_assert_true(adjust(fixture, 1024 * 1024));
    check_limit(fixture, "vda", VMR_IOTUNE_WRITE_BYTES_SEC, 256 * 1024);
    g_assert_cmpuint(fixture->mirror->figures.limit, ==, 256 * 1024);
    while (adjust(fixture, 1024 * 1024))
        continue;
    check_limit(fixture, "vda", VMR_IOTUNE_WRITE_BYTES_SEC, 16 * 1024);
    check_limit(fixture, "vdb", VMR_IOTUNE_TOTAL_BYTES_SEC, 1000);
}

static void
test_adjust_leaves_a_guest_that_is_slow_enough(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    gboolean changed = TRUE;

    fixture->mirror->figures.mirrored = 1024 * 1024;
    fixture->mirror->figures.written = 512 * 1024;
    g_assert_true(vmr_throttle_adjust(fixture->mirror, &changed,
                                      &fixture->wait, NULL));
    g_assert_false(changed);
    g_assert_cmpuint(fake_hv_count(fixture->fake, VMR_HV_SET_IOTUNE), ==, 0);
}

static void
test_put_back_as_it_was(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrRecord) record = NULL;

    adjust(fixture, 1024 * 1024);
    record = fixture_load(fixture->fake);
    g_assert_nonnull(((VmrDisk *)record->disks->pdata[1])->throttle);
    g_assert_true(
        vmr_throttle_put_back(fixture->mirror, &fixture->wait, NULL));
    check_own_limits(fixture);
    g_clear_pointer(&record, vmr_record_free);
    record = fixture_load(fixture->fake);
    g_assert_null(((VmrDisk *)record->disks->pdata[1])->throttle);
}

/* It is none of our business any more. */
static void
test_put_back_leaves_what_somebody_else_has_set(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrIotune) other = vmr_iotune_new();

    adjust(fixture, 1024 * 1024);
    other->values[VMR_IOTUNE_WRITE_BYTES_SEC] = 4711;
    fake_hv_set_iotune(fixture->fake, "vda", other);
    g_assert_true(
        vmr_throttle_put_back(fixture->mirror, &fixture->wait, NULL));
    check_limit(fixture, "vda", VMR_IOTUNE_WRITE_BYTES_SEC, 4711);
}

/* Its last limit was journalled, and not set. */
static void
test_put_back_after_a_death_before_the_last_limit(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    gboolean changed;

    adjust(fixture, 1024 * 1024);
    fixture->mirror->figures.mirrored = 1024 * 1024;
    fixture->mirror->figures.written = 2048 * 1024;
    fake_hv_set_fault_on(fixture->fake, FAKE_FAULT_DEATH, VMR_HV_SET_IOTUNE);
    g_assert_false(vmr_throttle_adjust(fixture->mirror, &changed,
                                       &fixture->wait, NULL));
    fake_hv_release(fixture->fake);
    fixture_clean_up(fixture->fake);
    check_own_limits(fixture);
}

static void
test_recover_puts_back_and_the_mirror_goes_on(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrRecovery) recovery = NULL;
    g_autoptr(GError) error = NULL;

    adjust(fixture, 1024 * 1024);
    recovery = vmr_recover(fake_hv_get(fixture->fake),
                           fake_hv_domain(fixture->fake), VMR_POLICY_RESUME,
                           &fixture->wait, &error);
    g_assert_no_error(error);
    g_assert_cmpint(recovery->verdict, ==, VMR_VERDICT_READY);
    g_assert_cmpuint(recovery->done->len, ==, 1);
    check_own_limits(fixture);
}

/* The limits ended with their QEMU. */
static void
test_recover_of_a_guest_that_is_off(Fixture *fixture,
                                    gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrRecovery) recovery = NULL;
    g_autoptr(GError) error = NULL;

    adjust(fixture, 1024 * 1024);
    fake_hv_shut_off(fixture->fake);
    recovery = vmr_recover(fake_hv_get(fixture->fake),
                           fake_hv_domain(fixture->fake), VMR_POLICY_ABORT,
                           &fixture->wait, &error);
    g_assert_no_error(error);
    g_assert_cmpint(recovery->verdict, ==, VMR_VERDICT_NOTHING);
}

typedef void (*TestFunc)(Fixture *fixture, gconstpointer unused);

static const struct {
    const char *path;
    TestFunc func;
} tests[] = {
    {"/throttle/adjust_lowers_step_by_step", test_adjust_lowers_step_by_step},
    {"/throttle/adjust_leaves_a_guest_that_is_slow_enough",
     test_adjust_leaves_a_guest_that_is_slow_enough},
    {"/throttle/put_back_as_it_was", test_put_back_as_it_was},
    {"/throttle/put_back_leaves_what_somebody_else_has_set",
     test_put_back_leaves_what_somebody_else_has_set},
    {"/throttle/put_back_after_a_death_before_the_last_limit",
     test_put_back_after_a_death_before_the_last_limit},
    {"/throttle/recover_puts_back_and_the_mirror_goes_on",
     test_recover_puts_back_and_the_mirror_goes_on},
    {"/throttle/recover_of_a_guest_that_is_off",
     test_recover_of_a_guest_that_is_off},
};

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    g_test_add_func("/throttle/parse_limits", test_parse_limits);
    g_test_add_func("/throttle/lower_keeps_to_the_kind_of_limit",
                    test_lower_keeps_to_the_kind_of_limit);
    for (gsize i = 0; i < G_N_ELEMENTS(tests); i++)
        g_test_add(tests[i].path, Fixture, NULL, set_up, tests[i].func,
                   tear_down);
    status = g_test_run();
    fake_files_free(files);
    return status;
}
