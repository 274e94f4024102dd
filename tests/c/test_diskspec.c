/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <libvirt/virterror.h>
#include <string.h>

#include "diskspec.h"
#include "error.h"

typedef struct {
    const char *text;
    const char *name;
    const char *snapshot;
    const char *driver;
    const char *file;
    const char *mirror;
} GoodCase;

/* as virsh 9.0 splits them */
static const GoodCase good_cases[] = {
    {"vda", "vda", NULL, NULL, NULL, NULL},
    {"vda,file=/path1/to/old.migrate,mirror=/path2/to/new.qcow2", "vda", NULL,
     NULL, "/path1/to/old.migrate", "/path2/to/new.qcow2"},
    {"vda,snapshot=external,driver=qcow2,file=/a,,b,mirror=/c", "vda",
     "external", "qcow2", "/a,b", "/c"},
    {"vda,mirror=/c,driver=qcow2,snapshot=no", "vda", "no", "qcow2", NULL,
     "/c"},
    {"/path1/old.qcow2,mirror=/c", "/path1/old.qcow2", NULL, NULL, NULL, "/c"},
    {"vda,,", "vda,", NULL, NULL, NULL, NULL},
    {",,x,file=/a", ",x", NULL, NULL, "/a", NULL},
    {"vda,,,file=/a", "vda,", NULL, NULL, "/a", NULL},
    {"vda,,,,,file=/a", "vda,,", NULL, NULL, "/a", NULL},
    {"vda,file=/a,,,mirror=,,b", "vda", NULL, NULL, "/a,", ",b"},
    {"vda,file=/a,,mirror=/b", "vda", NULL, NULL, "/a,mirror=/b", NULL},
    {"vda,file=file=/a", "vda", NULL, NULL, "file=/a", NULL},
    {"vda,file=/a:b 'c' \"d\" <e> &f;", "vda", NULL, NULL,
     "/a:b 'c' \"d\" <e> &f;", NULL},
    {"vda,file=/größe/ディスク", "vda", NULL, NULL, "/größe/ディスク", NULL},
    {"--vda,file=-o", "--vda", NULL, NULL, "-o", NULL},
};

typedef struct {
    const char *text;
    const char *reason;
} BadCase;

static const BadCase bad_cases[] = {
    {"", "diskspec '' is not valid: it names no disk"},
    {",", "it names no disk"},
    {",file=/a", "it names no disk"},
    {"vda,", "a field is empty"},
    {"vda,file=/a,", "a field is empty"},
    {"vda,,,", "a field is empty"},
    {"vda,file=", "'file=' has no value"},
    {"vda,file=,mirror=/b", "'file=' has no value"},
    {"vda,mirror=/a,mirror=/a", "'mirror=' is given twice"},
    {"vda,snapshot=no,snapshot=no", "'snapshot=' is given twice"},
    {"vda,driver=qcow2,driver=raw", "'driver=' is given twice"},
    {"vda,file=/a,file=/b", "'file=' is given twice"},
    {"vda,stype=block", "'stype=block' is unknown"},
    {"vda,File=/a", "'File=/a' is unknown"},
    {"vda, file=/a", "' file=/a' is unknown"},
    {"vda,mirror", "'mirror' is unknown"},
    {"vda,fi,,le=/a", "'fi,le=/a' is unknown"},
    {"vda,file=/a\nb", "diskspec 'vda,file=/a\\x0ab' is not valid: it has "
                       "control characters or is not UTF-8"},
    {"vd\x1b,file=/a", "control characters"},
    {"vda,file=/caf\xe9", "'vda,file=/caf\\xe9'"},
};

static void
test_parse_valid_text_fields(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(good_cases); i++) {
        const GoodCase *c = &good_cases[i];
        g_autoptr(GError) error = NULL;
        g_autoptr(VmrDiskSpec) spec = vmr_diskspec_parse(c->text, &error);

        g_assert_no_error(error);
        g_assert_cmpstr(spec->name, ==, c->name);
        g_assert_cmpstr(spec->snapshot, ==, c->snapshot);
        g_assert_cmpstr(spec->driver, ==, c->driver);
        g_assert_cmpstr(spec->file, ==, c->file);
        g_assert_cmpstr(spec->mirror, ==, c->mirror);
        g_assert_null(spec->mirror_format);
    }
}

static void
test_format_parsed_text_same_struct(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(good_cases); i++) {
        const GoodCase *c = &good_cases[i];
        g_autoptr(VmrDiskSpec) first = vmr_diskspec_parse(c->text, NULL);
        g_autofree char *text = vmr_diskspec_format(first);
        g_autoptr(GError) error = NULL;
        g_autoptr(VmrDiskSpec) again = vmr_diskspec_parse(text, &error);

        g_assert_no_error(error);
        g_assert_cmpstr(again->name, ==, c->name);
        g_assert_cmpstr(again->snapshot, ==, c->snapshot);
        g_assert_cmpstr(again->driver, ==, c->driver);
        g_assert_cmpstr(again->file, ==, c->file);
        g_assert_cmpstr(again->mirror, ==, c->mirror);
    }
}

static void
test_format_all_fields_in_the_documented_order(void)
{
    g_autoptr(VmrDiskSpec) spec = vmr_diskspec_parse(
        "v,,a,mirror=/d,,,file=/c,driver=qcow2,snapshot=external", NULL);
    g_autofree char *text = vmr_diskspec_format(spec);

    g_assert_cmpstr(text, ==, "v,,a,snapshot=external,driver=qcow2,file=/c,"
                              "mirror=/d,,");
}

static void
test_parse_invalid_text_error_says_why(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(bad_cases); i++) {
        const BadCase *c = &bad_cases[i];
        g_autoptr(GError) error = NULL;

        g_assert_null(vmr_diskspec_parse(c->text, &error));
        g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
        g_test_message("%s", error->message);
        g_assert_nonnull(strstr(error->message, c->reason));
        g_assert_nonnull(strstr(error->message, "[,mirror=name]"));
        g_assert_null(strchr(error->message, '\n'));
        g_assert_true(g_utf8_validate(error->message, -1, NULL));
        g_assert_cmpint(vmr_error_get_detail(error)->virt_code, ==,
                        VIR_ERR_INVALID_ARG);
    }
}

static void
test_parse_very_long_text_short_error(void)
{
    g_autofree char *fill = g_strnfill(1024 * 1024, 'x');
    g_autofree char *text = g_strconcat("vda,", fill, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_diskspec_parse(text, &error));
    g_assert_cmpuint(strlen(error->message), <, 600);
}

static void
test_free_null_nothing(void)
{
    vmr_diskspec_free(NULL);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/diskspec/parse_valid_text_fields",
                    test_parse_valid_text_fields);
    g_test_add_func("/diskspec/format_parsed_text_same_struct",
                    test_format_parsed_text_same_struct);
    g_test_add_func("/diskspec/format_all_fields_in_the_documented_order",
                    test_format_all_fields_in_the_documented_order);
    g_test_add_func("/diskspec/parse_invalid_text_error_says_why",
                    test_parse_invalid_text_error_says_why);
    g_test_add_func("/diskspec/parse_very_long_text_short_error",
                    test_parse_very_long_text_short_error);
    g_test_add_func("/diskspec/free_null_nothing", test_free_null_nothing);
    return g_test_run();
}
