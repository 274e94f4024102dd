/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "error.h"
#include "fake_hv.h"
#include "journal.h"

static FakeFiles *files;

typedef struct {
    FakeHv *fake;
    VmrDomain *dom;
    VmrWait wait;
} Fixture;

static void
set_up(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    fixture->fake = fake_hv_new(files, 1);
    fixture->dom = vmr_domain_new(fake_hv_get(fixture->fake),
                                  fake_hv_domain(fixture->fake));
    fixture->wait = vmr_wait_for(60, NULL);
}

static void
tear_down(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    vmr_domain_free(fixture->dom);
    fake_hv_free(fixture->fake);
}

/* A record named @name, of the domain @uuid. */
static VmrRecord *
new_record(const char *name, const char *uuid, guint64 sequence)
{
    VmrRecord *record = vmr_record_new(name, uuid);
    VmrDisk *disk = vmr_disk_new("vda");

    disk->source = vmr_file_new("/s", "qcow2");
    disk->overlay = vmr_file_new("/o", "qcow2");
    disk->mirror = vmr_file_new("/m", "qcow2");
    g_ptr_array_add(record->disks, disk);
    record->sequence = sequence;
    return record;
}

static void
store(Fixture *fixture, gboolean config, const char *name, const char *uuid,
      guint64 sequence)
{
    g_autoptr(VmrRecord) record = new_record(name, uuid, sequence);
    g_autofree char *xml = vmr_record_format(record);

    fake_hv_set_metadata(fixture->fake, config, xml);
}

/* Load, and check that the record found is named @name (NULL: none). */
static void
check_load(Fixture *fixture, const char *name)
{
    g_autoptr(VmrRecord) record = NULL;
    g_autoptr(GError) error = NULL;

    vmr_journal_load(fixture->dom, FAKE_UUID, &record, &fixture->wait, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(record ? record->snapshot : NULL, ==, name);
}

static void
check_load_fails(Fixture *fixture, const char *says)
{
    g_autoptr(VmrRecord) record = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_false(vmr_journal_load(fixture->dom, FAKE_UUID, &record,
                                    &fixture->wait, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_JOURNAL);
    g_assert_nonnull(strstr(error->message, says));
    g_assert_null(record);
}

static void
test_load_nothing_there_null(Fixture *fixture,
                             gconstpointer unused G_GNUC_UNUSED)
{
    check_load(fixture, NULL);
}

static void
test_load_newer_live_wins(Fixture *fixture,
                          gconstpointer unused G_GNUC_UNUSED)
{
    store(fixture, FALSE, "live", FAKE_UUID, 8);
    store(fixture, TRUE, "config", FAKE_UUID, 7);
    check_load(fixture, "live");
}

static void
test_load_newer_config_wins(Fixture *fixture,
                            gconstpointer unused G_GNUC_UNUSED)
{
    store(fixture, FALSE, "live", FAKE_UUID, 8);
    store(fixture, TRUE, "config", FAKE_UUID, 9);
    check_load(fixture, "config");
}

static void
test_load_config_alone_found(Fixture *fixture,
                             gconstpointer unused G_GNUC_UNUSED)
{
    store(fixture, TRUE, "config", FAKE_UUID, 1);
    check_load(fixture, "config");
}

/* After the host has gone down there is only the persistent copy. */
static void
test_load_domain_off_found(Fixture *fixture,
                           gconstpointer unused G_GNUC_UNUSED)
{
    store(fixture, TRUE, "config", FAKE_UUID, 1);
    fake_hv_shut_off(fixture->fake);
    check_load(fixture, "config");
}

static void
test_load_foreign_uuid_refused(Fixture *fixture,
                               gconstpointer unused G_GNUC_UNUSED)
{
    store(fixture, TRUE, "config", "another-uuid", 1);
    check_load_fails(fixture, "belongs to the domain with UUID");
}

static void
test_load_unusable_live_is_no_nothing(Fixture *fixture,
                                      gconstpointer unused G_GNUC_UNUSED)
{
    store(fixture, TRUE, "config", FAKE_UUID, 1);
    fake_hv_set_metadata(fixture->fake, FALSE, "<mirror version='9'/>");
    check_load_fails(fixture, "version 9");
}

static void
test_save_counts_up_and_stores_both(Fixture *fixture,
                                    gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrRecord) record = new_record("s", FAKE_UUID, 4);
    g_autofree char *live = NULL;
    g_autofree char *config = NULL;
    g_autoptr(GError) error = NULL;

    vmr_journal_save(fixture->dom, record, &fixture->wait, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(record->sequence, ==, 5);
    live = fake_hv_dup_metadata(fixture->fake, FALSE);
    config = fake_hv_dup_metadata(fixture->fake, TRUE);
    g_assert_nonnull(strstr(live, "sequence=\"5\""));
    g_assert_cmpstr(config, ==, live);
}

static void
test_save_transient_domain_stores_live(Fixture *fixture,
                                       gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(VmrRecord) record = new_record("s", FAKE_UUID, 4);
    g_autoptr(GError) error = NULL;

    fake_hv_knobs(fixture->fake)->transient = TRUE;
    vmr_journal_save(fixture->dom, record, &fixture->wait, &error);
    g_assert_no_error(error);
    check_load(fixture, "s");
}

static void
test_clear_removes_both(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    store(fixture, FALSE, "live", FAKE_UUID, 8);
    store(fixture, TRUE, "config", FAKE_UUID, 7);
    vmr_journal_clear(fixture->dom, &fixture->wait, &error);
    g_assert_no_error(error);
    check_load(fixture, NULL);
}

typedef void (*TestFunc)(Fixture *fixture, gconstpointer unused);

static const struct {
    const char *path;
    TestFunc func;
} tests[] = {
    {"/journal/load_nothing_there_null", test_load_nothing_there_null},
    {"/journal/load_newer_live_wins", test_load_newer_live_wins},
    {"/journal/load_newer_config_wins", test_load_newer_config_wins},
    {"/journal/load_config_alone_found", test_load_config_alone_found},
    {"/journal/load_domain_off_found", test_load_domain_off_found},
    {"/journal/load_foreign_uuid_refused", test_load_foreign_uuid_refused},
    {"/journal/load_unusable_live_is_no_nothing",
     test_load_unusable_live_is_no_nothing},
    {"/journal/save_counts_up_and_stores_both",
     test_save_counts_up_and_stores_both},
    {"/journal/save_transient_domain_stores_live",
     test_save_transient_domain_stores_live},
    {"/journal/clear_removes_both", test_clear_removes_both},
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
