/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>
#include <string.h>

#include "findings.h"

static void
test_report_nothing_found_true(void)
{
    g_autoptr(VmrFindings) findings = vmr_findings_new();
    g_autoptr(GError) error = NULL;

    g_assert_true(vmr_findings_is_empty(findings));
    g_assert_true(vmr_findings_report(findings, VMR_ERROR_INVALID_SPEC,
                                      VIR_ERR_XML_DETAIL, &error));
    g_assert_no_error(error);
}

static void
check_virt_code(int first, int second, int expected)
{
    g_autoptr(VmrFindings) findings = vmr_findings_new();
    g_autoptr(GError) error = NULL;

    vmr_findings_add(findings, first, "one %d", 1);
    vmr_findings_add(findings, second, "two '%s'", "%s");
    g_assert_false(vmr_findings_is_empty(findings));
    g_assert_false(vmr_findings_report(findings, VMR_ERROR_IMAGE,
                                       VIR_ERR_XML_DETAIL, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IMAGE);
    g_assert_cmpstr(error->message, ==, "one 1; two '%s'");
    g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==, expected);
}

static void
test_report_one_kind_keeps_its_code(void)
{
    check_virt_code(VIR_ERR_CONFIG_UNSUPPORTED, VIR_ERR_CONFIG_UNSUPPORTED,
                    VIR_ERR_CONFIG_UNSUPPORTED);
}

static void
test_report_mixed_kinds_have_the_callers_code(void)
{
    check_virt_code(VIR_ERR_CONFIG_UNSUPPORTED, VIR_ERR_INVALID_ARG,
                    VIR_ERR_XML_DETAIL);
}

static void
test_report_too_many_counted(void)
{
    g_autoptr(VmrFindings) findings = vmr_findings_new();
    g_autoptr(GError) error = NULL;

    for (int i = 0; i < VMR_FINDINGS_MAX + 3; i++)
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL, "finding %d", i);
    g_assert_false(vmr_findings_report(findings, VMR_ERROR_INVALID_SPEC,
                                       VIR_ERR_XML_DETAIL, &error));
    g_assert_true(g_str_has_suffix(error->message,
                                   "; finding 15; and 3 more"));
}

static void
test_report_no_error_wanted_false(void)
{
    g_autoptr(VmrFindings) findings = vmr_findings_new();

    for (int i = 0; i < VMR_FINDINGS_MAX + 3; i++)
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL, "finding %d", i);
    g_assert_false(vmr_findings_report(findings, VMR_ERROR_INVALID_SPEC,
                                       VIR_ERR_XML_DETAIL, NULL));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/findings/report_nothing_found_true",
                    test_report_nothing_found_true);
    g_test_add_func("/findings/report_one_kind_keeps_its_code",
                    test_report_one_kind_keeps_its_code);
    g_test_add_func("/findings/report_mixed_kinds_have_the_callers_code",
                    test_report_mixed_kinds_have_the_callers_code);
    g_test_add_func("/findings/report_too_many_counted",
                    test_report_too_many_counted);
    g_test_add_func("/findings/report_no_error_wanted_false",
                    test_report_no_error_wanted_false);
    return g_test_run();
}
