/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libvirt's two calls as if libvirt knew mirrored snapshots: what each flag
 * and state is answered by. */

#include <libvirt/virterror.h>
#include <string.h>

#include "mirror_fixture.h"
#include "snapshot.h"

#define ABORT VMR_SNAPSHOT_DELETE_MIRROR_ABORT
#define PIVOT VMR_SNAPSHOT_DELETE_MIRROR_PIVOT
#define CHILDREN VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN
#define CHILDREN_ONLY VIR_DOMAIN_SNAPSHOT_DELETE_CHILDREN_ONLY
#define METADATA_ONLY VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY
#define REUSE VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT

static FakeFiles *files;

static char *
mirrored_xml(FakeHv *fake, gboolean reuse)
{
    g_autoptr(VmrSnapSpec) spec = fake_hv_spec(fake, 1, reuse);

    return vmr_snapxml_format(spec);
}

static gboolean
create(FakeHv *fake, const char *xml, guint flags, char **name,
       GError **error)
{
    VmrWait wait = vmr_wait_for(60, NULL);

    return vmr_snapshot_create_xml(fake_hv_get(fake), fake_hv_domain(fake),
                                   xml, flags, name, &wait, error);
}

static gboolean
delete(FakeHv *fake, const char *name, guint flags, gboolean *done,
       GError **error)
{
    VmrWait wait = vmr_wait_for(60, NULL);

    return vmr_snapshot_delete(fake_hv_get(fake), fake_hv_domain(fake), name,
                               flags, done, &wait, error);
}

/* ---- create ---- */

static void
test_create_mirrored_returns_its_name(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autofree char *xml = mirrored_xml(fake, TRUE);
    g_autofree char *name = NULL;
    g_autoptr(GError) error = NULL;

    create(fake, xml,
           REUSE | VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY |
               VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC,
           &name, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(name, ==, FAKE_SNAPSHOT);
    fixture_clean_up(fake);
}

static void
test_create_plain_is_passed_on(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autofree char *name = NULL;
    g_autoptr(GError) error = NULL;

    g_assert_true(create(fake, "<domainsnapshot/>",
                         VIR_DOMAIN_SNAPSHOT_CREATE_HALT, &name, &error));
    g_assert_no_error(error);
    g_assert_null(name);
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_SNAPSHOT_CREATE), ==, 0);
}

static void
test_create_plain_of_inactive_domain_is_passed_on(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autofree char *name = NULL;
    g_autoptr(GError) error = NULL;

    fake_hv_shut_off(fake);
    g_assert_true(create(fake, "<domainsnapshot/>", 0, &name, &error));
    g_assert_no_error(error);
}

static void
test_create_plain_while_mirrored_busy(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autofree char *name = NULL;
    g_autoptr(GError) error = NULL;

    vmr_mirror_free(fixture_create(fake, 1, TRUE));
    g_assert_false(create(fake, "<domainsnapshot/>", 0, &name, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_BUSY);
    g_assert_nonnull(strstr(error->message, "pivot or abort it"));
    fixture_clean_up(fake);
}

typedef struct {
    const char *name;
    guint flags;
    gboolean shut_off;
    gboolean existing; /* the files are there */
    VmrErrorCode code;
    int virt_code;
    const char *says;
} CreateRow;

static const CreateRow create_rows[] = {
    {"halt", VIR_DOMAIN_SNAPSHOT_CREATE_HALT, FALSE, FALSE,
     VMR_ERROR_NOT_SUPPORTED, VIR_ERR_OPERATION_UNSUPPORTED, "cannot halt"},
    {"no_metadata", VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA, FALSE, FALSE,
     VMR_ERROR_NOT_SUPPORTED, VIR_ERR_OPERATION_UNSUPPORTED,
     "needs its metadata"},
    {"redefine", VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE, FALSE, FALSE,
     VMR_ERROR_NOT_SUPPORTED, VIR_ERR_OPERATION_UNSUPPORTED,
     "cannot be redefined"},
    {"unknown_flag", 1U << 30, FALSE, FALSE, VMR_ERROR_INVALID_SPEC,
     VIR_ERR_INVALID_ARG, "unsupported flags (0x40000000)"},
    {"inactive_domain", 0, TRUE, FALSE, VMR_ERROR_INVALID_STATE,
     VIR_ERR_OPERATION_INVALID, "is not running"},
    {"existing_file_without_reuse", 0, FALSE, TRUE, VMR_ERROR_EXISTS,
     VIR_ERR_CONFIG_UNSUPPORTED, "exists already"},
    {"missing_file_with_reuse", REUSE, FALSE, FALSE, VMR_ERROR_NOT_FOUND,
     VIR_ERR_SYSTEM_ERROR, "No such file"},
};

static void
test_create_row(gconstpointer data)
{
    const CreateRow *row = data;
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autofree char *xml = mirrored_xml(fake, row->existing);
    g_autofree char *name = NULL;
    g_autoptr(GError) error = NULL;

    if (row->shut_off)
        fake_hv_shut_off(fake);
    g_assert_false(create(fake, xml, row->flags, &name, &error));
    g_assert_error(error, VMR_ERROR, (int)row->code);
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                    row->virt_code);
    g_assert_nonnull(strstr(error->message, row->says));
    g_assert_null(name);
    g_assert_cmpuint(fake_hv_count(fake, VMR_HV_SET_METADATA), ==, 0);
}

/* ---- delete ---- */

typedef enum {
    NOT_MIRRORED,     /* "snap" is a plain snapshot */
    MIRRORED,         /* and not ready yet */
    READY,
    NOT_CURRENT,      /* "snap" is mirrored, "other" the current one */
    OTHER_MIRRORED,   /* "snap" is mirrored, and "other" is asked for */
} Before;

typedef struct {
    const char *name;
    Before before;
    guint flags;
    VmrErrorCode code; /* LAST: no error */
    int virt_code;
    const char *says;
} DeleteRow;

static const DeleteRow delete_rows[] = {
    {"both_mirror_flags", READY, ABORT | PIVOT, VMR_ERROR_INVALID_SPEC,
     VIR_ERR_INVALID_ARG, "delete mirror flags are mutually exclusive"},
    {"both_children_flags", READY, PIVOT | CHILDREN | CHILDREN_ONLY,
     VMR_ERROR_INVALID_SPEC, VIR_ERR_INVALID_ARG,
     "delete children flags are mutually exclusive"},
    {"unknown_flag", READY, PIVOT | 32, VMR_ERROR_INVALID_SPEC,
     VIR_ERR_INVALID_ARG, "unsupported flags (0x20)"},
    {"mirrored_without_flag", READY, 0, VMR_ERROR_INVALID_STATE,
     VIR_ERR_OPERATION_INVALID, "--mirror-pivot"},
    {"mirrored_metadata_only", READY, METADATA_ONLY, VMR_ERROR_INVALID_STATE,
     VIR_ERR_OPERATION_INVALID, "--mirror-abort"},
    {"mirrored_children_only", READY, PIVOT | CHILDREN_ONLY,
     VMR_ERROR_INVALID_SPEC, VIR_ERR_INVALID_ARG, "itself is kept"},
    {"pivot_of_not_mirrored", NOT_MIRRORED, PIVOT, VMR_ERROR_INVALID_STATE,
     VIR_ERR_OPERATION_INVALID, "no mirror to pivot to"},
    {"abort_of_not_mirrored", NOT_MIRRORED, ABORT, VMR_ERROR_INVALID_STATE,
     VIR_ERR_OPERATION_INVALID, "no mirror to abort"},
    {"pivot_of_other", OTHER_MIRRORED, PIVOT, VMR_ERROR_INVALID_STATE,
     VIR_ERR_OPERATION_INVALID, "'other' is not mirrored"},
    {"children_of_other", OTHER_MIRRORED, CHILDREN, VMR_ERROR_INVALID_STATE,
     VIR_ERR_OPERATION_INVALID, "pivot or abort it first"},
    {"pivot_of_not_current", NOT_CURRENT, PIVOT, VMR_ERROR_INVALID_STATE,
     VIR_ERR_OPERATION_INVALID, "not the current one"},
    {"pivot_before_ready", MIRRORED, PIVOT, VMR_ERROR_NOT_READY,
     VIR_ERR_BLOCK_COPY_ACTIVE, "disk 'vda' is not ready yet: wait for it"},
    {"abort_before_ready", MIRRORED, ABORT, VMR_ERROR_LAST, 0, NULL},
    {"pivot_ready", READY, PIVOT, VMR_ERROR_LAST, 0, NULL},
    {"pivot_ready_metadata_only", READY, PIVOT | METADATA_ONLY,
     VMR_ERROR_LAST, 0, NULL},
    {"abort_ready", READY, ABORT, VMR_ERROR_LAST, 0, NULL},
};

static void
set_up(FakeHv *fake, Before before)
{
    if (before == NOT_MIRRORED) {
        fake_hv_add_snapshot(fake, FAKE_SNAPSHOT);
        return;
    }
    fake_hv_knobs(fake)->jobs_on_demand = before == MIRRORED;
    vmr_mirror_free(fixture_create(fake, 1, TRUE));
    if (before == NOT_CURRENT || before == OTHER_MIRRORED)
        fake_hv_add_snapshot(fake, "other");
}

static void
test_delete_row(gconstpointer data)
{
    const DeleteRow *row = data;
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    const char *name = row->before == OTHER_MIRRORED ? "other" : FAKE_SNAPSHOT;
    g_autofree char *before = NULL;
    g_autofree char *after = NULL;
    g_autoptr(GError) error = NULL;
    gboolean done;
    gboolean ok;

    set_up(fake, row->before);
    before = fake_hv_describe(fake);
    ok = delete(fake, name, row->flags, &done, &error);
    if (row->code == VMR_ERROR_LAST) {
        g_assert_no_error(error);
        g_assert_true(ok && done);
        g_assert_cmpint(fixture_is_pivoted(fake, 0), ==,
                        (row->flags & PIVOT) != 0);
        fixture_check_ended(fake, files);
        return;
    }
    g_assert_error(error, VMR_ERROR, (int)row->code);
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                    row->virt_code);
    g_assert_nonnull(strstr(error->message, row->says));
    g_assert_true(fake_hv_settle(fake));
    after = fake_hv_describe(fake);
    g_assert_cmpstr(after, ==, before);
    fixture_clean_up(fake);
}

static void
test_delete_plain_is_passed_on(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(GError) error = NULL;
    gboolean done = TRUE;

    fake_hv_add_snapshot(fake, "plain");
    g_assert_true(delete(fake, "plain", CHILDREN, &done, &error));
    g_assert_no_error(error);
    g_assert_false(done);
    g_assert_true(fake_hv_has_snapshot(fake, "plain"));
}

static void
test_delete_other_while_mirrored_is_passed_on(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(GError) error = NULL;
    gboolean done = TRUE;

    set_up(fake, OTHER_MIRRORED);
    g_assert_true(delete(fake, "other", 0, &done, &error));
    g_assert_no_error(error);
    g_assert_false(done);
    fixture_clean_up(fake);
}

/* The record of the snapshot goes before the journal: between the two there is
 * a mirrored snapshot that libvirt does not know. */
static void
test_delete_snapshot_record_lost_ends_it(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);
    g_autoptr(VmrDomain) dom =
        vmr_domain_new(fake_hv_get(fake), fake_hv_domain(fake));
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;
    gboolean done;

    set_up(fake, READY);
    g_assert_true(vmr_hv_snapshot_delete(dom, FAKE_SNAPSHOT, METADATA_ONLY,
                                         &wait, NULL));
    g_assert_true(delete(fake, FAKE_SNAPSHOT, ABORT, &done, &error));
    g_assert_no_error(error);
    fixture_check_ended(fake, files);
}

/* ---- XML ---- */

static void
check_xml(FakeHv *fake, const char *name, gboolean mirrored)
{
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char *xml =
        vmr_snapshot_get_xml(fake_hv_get(fake), fake_hv_domain(fake), name,
                             &wait, &error);

    g_assert_no_error(error);
    g_assert_cmpint(strstr(xml, "<mirror") != NULL, ==, mirrored);
    g_assert_cmpint(strstr(xml, "/new/vda.reuse") != NULL, ==, mirrored);
}

static void
test_get_xml_has_mirrors_while_mirrored(void)
{
    g_autoptr(FakeHv) fake = fake_hv_new(files, 1);

    set_up(fake, OTHER_MIRRORED);
    check_xml(fake, FAKE_SNAPSHOT, TRUE);
    check_xml(fake, "other", FALSE);
    fixture_clean_up(fake);
}

static void
add_rows(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(create_rows); i++) {
        g_autofree char *path = g_strdup_printf(
            "/snapshot/create_%s_refused", create_rows[i].name);

        g_test_add_data_func(path, &create_rows[i], test_create_row);
    }
    for (gsize i = 0; i < G_N_ELEMENTS(delete_rows); i++) {
        g_autofree char *path = g_strdup_printf(
            "/snapshot/delete_%s_%s", delete_rows[i].name,
            delete_rows[i].code == VMR_ERROR_LAST ? "works" : "refused");

        g_test_add_data_func(path, &delete_rows[i], test_delete_row);
    }
}

int
main(int argc, char **argv)
{
    int status;

    g_test_init(&argc, &argv, NULL);
    files = fake_files_new();
    g_test_add_func("/snapshot/create_mirrored_returns_its_name",
                    test_create_mirrored_returns_its_name);
    g_test_add_func("/snapshot/create_plain_is_passed_on",
                    test_create_plain_is_passed_on);
    g_test_add_func("/snapshot/create_plain_of_inactive_domain_is_passed_on",
                    test_create_plain_of_inactive_domain_is_passed_on);
    g_test_add_func("/snapshot/create_plain_while_mirrored_busy",
                    test_create_plain_while_mirrored_busy);
    g_test_add_func("/snapshot/delete_plain_is_passed_on",
                    test_delete_plain_is_passed_on);
    g_test_add_func("/snapshot/delete_other_while_mirrored_is_passed_on",
                    test_delete_other_while_mirrored_is_passed_on);
    g_test_add_func("/snapshot/delete_snapshot_record_lost_ends_it",
                    test_delete_snapshot_record_lost_ends_it);
    g_test_add_func("/snapshot/get_xml_has_mirrors_while_mirrored",
                    test_get_xml_has_mirrors_while_mirrored);
    add_rows();
    status = g_test_run();
    fake_files_free(files);
    return status;
}
