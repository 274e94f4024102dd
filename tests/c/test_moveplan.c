/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <unistd.h>

#include "error.h"
#include "fake_hv.h"
#include "imgutil.h"
#include "moveplan.h"

static FakeFiles *files;
static const VmrMoveOptions options = {.snapshot = "snap"};

typedef struct {
    FakeHv *fake;
    VmrDomain *dom;
    VmrWait wait;
    char *folder; /* empty */
} Fixture;

static void
set_up(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    fixture->fake = fake_hv_new(files, 2);
    fixture->dom = vmr_domain_new(fake_hv_get(fixture->fake),
                                  fake_hv_domain(fixture->fake));
    fixture->wait = vmr_wait_for(30, NULL);
    fixture->folder = img_folder_new();
}

static void
tear_down(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    vmr_domain_free(fixture->dom);
    g_assert_true(fake_hv_settle(fixture->fake));
    fake_hv_free(fixture->fake);
    img_folder_free(fixture->folder);
}

static VmrMovePlan *
plan(Fixture *fixture, const char *a, const char *b, GError **error)
{
    const char *disks[] = {a, fixture->folder, b, fixture->folder, NULL};

    if (!b)
        disks[2] = NULL;
    return vmr_move_plan(fixture->dom, disks, &options, &fixture->wait, error);
}

/* Planning @a must fail by @code, saying @text. */
static void
plan_fails(Fixture *fixture, const char *a, VmrErrorCode code,
           const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrMovePlan) made = plan(fixture, a, NULL, &error);

    g_assert_null(made);
    g_assert_error(error, VMR_ERROR, (int)code);
    if (!strstr(error->message, text))
        g_error("'%s' is not in: %s", text, error->message);
}

/* Put something at the place @name of the folder. */
static void
occupy(Fixture *fixture, const char *name)
{
    g_free(img_make_raw(fixture->folder, name, 512));
}

static void
test_plan_tells_all_places(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    g_autofree char *mirror = img_path(fixture->folder, "vda.snap");
    g_autofree char *top = img_path(fixture->folder, "vda");
    g_autofree char *overlay = fake_files_path(files, "old", "vda.snap");
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrMovePlan) made = plan(fixture, "vda", "vdb", &error);
    const VmrMoveDisk *disk;
    const VmrLayerPlan *layer;

    g_assert_no_error(error);
    g_assert_cmpstr(made->domain, ==, "guest");
    g_assert_cmpstr(made->uuid, ==, FAKE_UUID);
    g_assert_cmpuint(made->disks->len, ==, 2);
    disk = made->disks->pdata[0];
    g_assert_cmpstr(disk->overlay, ==, overlay);
    g_assert_cmpstr(disk->mirror, ==, mirror);
    g_assert_cmpuint(disk->layers->len, ==, 2);
    layer = disk->layers->pdata[0];
    g_assert_cmpstr(layer->path, ==, top);
    g_assert_cmpstr(layer->backing_name, ==, "vda-base");
    g_assert_cmpuint(img_count(fixture->folder), ==, 0);
}

static void
test_plan_base_that_is_there_is_fine(Fixture *fixture,
                                     gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrMovePlan) made = NULL;

    occupy(fixture, "vda-base");
    made = plan(fixture, "vda", NULL, &error);
    g_assert_no_error(error);
    g_assert_nonnull(made);
}

static void
test_plan_new_names_taken_exists(Fixture *fixture,
                                 gconstpointer unused G_GNUC_UNUSED)
{
    occupy(fixture, "vda");
    plan_fails(fixture, "vda", VMR_ERROR_EXISTS, "the guest is to write to");
    occupy(fixture, "vda.snap");
    plan_fails(fixture, "vda", VMR_ERROR_EXISTS, "its mirror '");
}

static void
test_plan_same_folder_invalid(Fixture *fixture,
                              gconstpointer unused G_GNUC_UNUSED)
{
    g_autofree char *old = fake_files_path(files, "old", NULL);
    const char *disks[] = {"vda", old, NULL};
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_move_plan(fixture->dom, disks, &options, &fixture->wait,
                                &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
}

static void
test_plan_disk_given_twice_invalid(Fixture *fixture,
                                   gconstpointer unused G_GNUC_UNUSED)
{
    g_autofree char *source = fake_files_path(files, "old", "vda");
    g_autoptr(GError) error = NULL;

    g_assert_null(plan(fixture, "vda", source, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
    g_assert_nonnull(strstr(error->message, "given twice"));
}

static void
test_plan_name_that_is_no_file_name_invalid(
    Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    const char *disks[] = {"vda", fixture->folder, NULL};
    const VmrMoveOptions up = {.snapshot = "../up"};
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_move_plan(fixture->dom, disks, &up, &fixture->wait,
                                &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
    g_assert_nonnull(strstr(error->message, "must not contain '/'"));
}

static void
test_plan_findings_come_all_at_once(Fixture *fixture,
                                    gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;

    occupy(fixture, "vda");
    g_assert_null(plan(fixture, "vda", "vdz", &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
    g_assert_nonnull(strstr(error->message, "is there already"));
    g_assert_nonnull(strstr(error->message, "no disk 'vdz'"));
}

static void
test_plan_no_disk_invalid(Fixture *fixture,
                          gconstpointer unused G_GNUC_UNUSED)
{
    const char *disks[] = {NULL};
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_move_plan(fixture->dom, disks, &options, &fixture->wait,
                                &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
}

static void
test_plan_during_a_job_busy(Fixture *fixture, gconstpointer unused G_GNUC_UNUSED)
{
    fake_hv_knobs(fixture->fake)->job = VIR_DOMAIN_JOB_OPERATION_BACKUP;
    plan_fails(fixture, "vda", VMR_ERROR_BUSY, "(backup): wait for it");
    fake_hv_knobs(fixture->fake)->job = 1000;
    plan_fails(fixture, "vda", VMR_ERROR_BUSY, "(unknown)");
}

static void
test_plan_where_qemu_cannot_go_io(Fixture *fixture,
                                  gconstpointer unused G_GNUC_UNUSED)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(VmrMovePlan) made = NULL;

    /* the folder is 0700 */
    fake_hv_knobs(fixture->fake)->qemu_user = geteuid() + 12345;
    plan_fails(fixture, "vda", VMR_ERROR_IO, "let it through '");
    fake_hv_knobs(fixture->fake)->qemu_user = 0;
    made = plan(fixture, "vda", NULL, &error);
    g_assert_no_error(error);
}

typedef void (*TestFunc)(Fixture *fixture, gconstpointer unused);

static const struct {
    const char *path;
    TestFunc func;
} tests[] = {
    {"/moveplan/tells_all_places", test_plan_tells_all_places},
    {"/moveplan/base_that_is_there_is_fine",
     test_plan_base_that_is_there_is_fine},
    {"/moveplan/new_names_taken_exists", test_plan_new_names_taken_exists},
    {"/moveplan/same_folder_invalid", test_plan_same_folder_invalid},
    {"/moveplan/disk_given_twice_invalid", test_plan_disk_given_twice_invalid},
    {"/moveplan/name_that_is_no_file_name_invalid",
     test_plan_name_that_is_no_file_name_invalid},
    {"/moveplan/findings_come_all_at_once",
     test_plan_findings_come_all_at_once},
    {"/moveplan/no_disk_invalid", test_plan_no_disk_invalid},
    {"/moveplan/where_qemu_cannot_go_io", test_plan_where_qemu_cannot_go_io},
    {"/moveplan/during_a_job_busy", test_plan_during_a_job_busy},
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
