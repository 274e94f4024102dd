/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <string.h>

#include "error.h"

/* Every code has a name and a code of libvirt's, no two the same name. */
static void
test_codes_have_names_and_defaults(void)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);

    for (int code = 0; code < VMR_ERROR_LAST; code++) {
        g_autoptr(GError) error = g_error_new(VMR_ERROR, code, "text");
        const char *name = vmr_error_code_name((VmrErrorCode)code);

        g_assert_true(g_hash_table_add(names, (gpointer)name));
        g_assert_cmpint(vmr_error_get_detail(error)->virt_code, !=,
                        VIR_ERR_OK);
        g_assert_cmpint(vmr_error_get_detail(error)->virt_domain, ==,
                        VIR_FROM_DOMAIN);
    }
}

static const struct {
    VmrErrorCode code;
    int virt_code;
} contract[] = {
    {VMR_ERROR_INVALID_SPEC, VIR_ERR_INVALID_ARG},
    {VMR_ERROR_INVALID_STATE, VIR_ERR_OPERATION_INVALID},
    {VMR_ERROR_EXISTS, VIR_ERR_CONFIG_UNSUPPORTED},
    {VMR_ERROR_NOT_READY, VIR_ERR_BLOCK_COPY_ACTIVE},
    /* not OPERATION_TIMEOUT: managers take that for a guest that hangs */
    {VMR_ERROR_TIMEOUT, VIR_ERR_BLOCK_COPY_ACTIVE},
};

static void
test_defaults_are_those_of_the_contract(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(contract); i++) {
        g_autoptr(GError) error =
            g_error_new(VMR_ERROR, (int)contract[i].code, "text");

        g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                        contract[i].virt_code);
    }
}

static void
test_set_virt_keeps_the_given_code(void)
{
    g_autoptr(GError) error = NULL;

    vmr_error_set_virt(&error, VMR_ERROR_IMAGE, VIR_ERR_XML_ERROR, "n %d", 1);
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IMAGE);
    g_assert_cmpstr(error->message, ==, "n 1");
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                    VIR_ERR_XML_ERROR);
}

static void
test_set_errno_missing_file_not_found(void)
{
    g_autoptr(GError) missing = NULL;
    g_autoptr(GError) other = NULL;

    vmr_error_set_errno(&missing, ENOENT, "open", "/a");
    vmr_error_set_errno(&other, EIO, "read", "/b");
    g_assert_error(missing, VMR_ERROR, VMR_ERROR_NOT_FOUND);
    g_assert_error(other, VMR_ERROR, VMR_ERROR_IO);
    g_assert_true(g_str_has_prefix(other->message, "cannot read '/b': "));
}

/* libvirt prints what fails, if nobody says otherwise. */
static void
ignore_error(void *data G_GNUC_UNUSED, virErrorPtr error G_GNUC_UNUSED)
{
}

static void
test_set_from_libvirt_takes_all_of_it(void)
{
    virConnectPtr conn = virConnectOpen("test:///default");
    g_autoptr(GError) error = NULL;
    const VmrErrorDetail *detail;

    g_assert_nonnull(conn);
    g_assert_null(virDomainLookupByName(conn, "missing"));
    vmr_error_set_from_libvirt(&error);
    g_assert_error(error, VMR_ERROR, VMR_ERROR_VIRT);
    detail = vmr_error_get_detail(error);
    g_assert_cmpint(detail->virt_code, ==, VIR_ERR_NO_DOMAIN);
    g_assert_cmpint(detail->virt_domain, ==, VIR_FROM_TEST);
    g_assert_cmpstr(detail->virt_text, ==, error->message);
    g_assert_nonnull(detail->virt_str[0]);
    virConnectClose(conn);
}

static void
test_set_from_libvirt_without_error_says_so(void)
{
    g_autoptr(GError) error = NULL;

    virResetLastError();
    vmr_error_set_from_libvirt(&error);
    g_assert_error(error, VMR_ERROR, VMR_ERROR_VIRT);
}

static void
test_annotate_keeps_the_first(void)
{
    g_autoptr(GError) error = g_error_new(VMR_ERROR, VMR_ERROR_BUSY, "text");

    vmr_error_annotate(&error, "vda", NULL);
    vmr_error_annotate(&error, "vdb", "pivot");
    g_assert_cmpstr(vmr_error_get_detail(error)->disk, ==, "vda");
    g_assert_cmpstr(vmr_error_get_detail(error)->phase, ==, "pivot");
}

static void
test_note_keeps_the_code(void)
{
    g_autoptr(GError) error = g_error_new(VMR_ERROR, VMR_ERROR_BUSY, "first");

    vmr_error_note(&error, "then %s", "this");
    g_assert_error(error, VMR_ERROR, VMR_ERROR_BUSY);
    g_assert_cmpstr(error->message, ==, "first; then this");
}

static void
test_copy_has_a_detail_of_its_own(void)
{
    g_autoptr(GError) error = g_error_new(VMR_ERROR, VMR_ERROR_BUSY, "text");
    g_autoptr(GError) copy = NULL;

    vmr_error_annotate(&error, "vda", "wait");
    vmr_error_mark_partial(&error);
    copy = g_error_copy(error);
    g_clear_error(&error);
    g_assert_cmpstr(vmr_error_get_detail(copy)->disk, ==, "vda");
    g_assert_true(vmr_error_get_detail(copy)->partial);
}

/* No error wanted, no error set, an error of somebody else: all fine. */
static void
test_no_error_nothing_happens(void)
{
    g_autoptr(GError) none = NULL;
    g_autoptr(GError) foreign =
        g_error_new(G_FILE_ERROR, G_FILE_ERROR_IO, "text");

    vmr_error_set_virt(NULL, VMR_ERROR_BUSY, VIR_ERR_OK + 1, "text");
    vmr_error_annotate(NULL, "vda", "wait");
    vmr_error_annotate(&none, "vda", "wait");
    vmr_error_annotate(&foreign, "vda", "wait");
    vmr_error_note(&none, "text");
    vmr_error_mark_partial(&foreign);
    vmr_error_set_unknown(&none, TRUE);
    g_assert_no_error(none);
    g_assert_null(vmr_error_get_detail(foreign));
    g_assert_false(vmr_error_is_unknown(foreign));
    g_assert_false(vmr_error_is_unknown(NULL));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    virInitialize();
    virSetErrorFunc(NULL, ignore_error);
    g_test_add_func("/error/codes_have_names_and_defaults",
                    test_codes_have_names_and_defaults);
    g_test_add_func("/error/defaults_are_those_of_the_contract",
                    test_defaults_are_those_of_the_contract);
    g_test_add_func("/error/set_virt_keeps_the_given_code",
                    test_set_virt_keeps_the_given_code);
    g_test_add_func("/error/set_errno_missing_file_not_found",
                    test_set_errno_missing_file_not_found);
    g_test_add_func("/error/set_from_libvirt_takes_all_of_it",
                    test_set_from_libvirt_takes_all_of_it);
    g_test_add_func("/error/set_from_libvirt_without_error_says_so",
                    test_set_from_libvirt_without_error_says_so);
    g_test_add_func("/error/annotate_keeps_the_first",
                    test_annotate_keeps_the_first);
    g_test_add_func("/error/note_keeps_the_code", test_note_keeps_the_code);
    g_test_add_func("/error/copy_has_a_detail_of_its_own",
                    test_copy_has_a_detail_of_its_own);
    g_test_add_func("/error/no_error_nothing_happens",
                    test_no_error_nothing_happens);
    return g_test_run();
}
