/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "imgutil.h"
#include "medium.h"

#define NOBODY 65534

static void
test_probe_memory_is_memory(void)
{
    g_autoptr(GError) error = NULL;
    VmrMedium medium;

    g_assert_true(vmr_medium_probe("/dev/shm", &medium, &error));
    g_assert_no_error(error);
    g_assert_cmpint(medium, ==, VMR_MEDIUM_MEMORY);
}

static void
test_probe_nothing_not_found(void)
{
    g_autoptr(GError) error = NULL;
    VmrMedium medium;

    g_assert_false(vmr_medium_probe("/dev/shm/none/at/all", &medium, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND);
}

/* What @folder is for an ordinary user. */
static const char *
why_for_a_user(const char *folder)
{
    uid_t uid = geteuid();
    const char *why;

    if (uid == 0)
        g_assert_cmpint(seteuid(NOBODY), ==, 0);
    why = vmr_medium_why_unwritable(folder);
    if (uid == 0)
        g_assert_cmpint(seteuid(0), ==, 0);
    return why;
}

static void
test_unwritable_for_the_user_told(void)
{
    g_autofree char *folder = img_folder_new();

    g_assert_cmpint(chmod(folder, 0555), ==, 0);
    g_assert_cmpstr(why_for_a_user(folder), ==,
                    "may not be written to by this user");
    g_assert_cmpint(chmod(folder, 0777), ==, 0);
    g_assert_null(why_for_a_user(folder));
    g_clear_pointer(&folder, img_folder_free);
}

static void
test_unwritable_no_folder_told(void)
{
    g_autofree char *folder = img_folder_new();
    g_autofree char *file = img_make_raw(folder, "file", 512);

    g_assert_cmpstr(vmr_medium_why_unwritable(file), ==, "is no folder");
    g_assert_cmpstr(vmr_medium_why_unwritable("/dev/shm/none"), ==,
                    "is no folder");
    g_clear_pointer(&folder, img_folder_free);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/medium/memory_is_memory", test_probe_memory_is_memory);
    g_test_add_func("/medium/nothing_not_found", test_probe_nothing_not_found);
    g_test_add_func("/medium/unwritable_for_the_user_told",
                    test_unwritable_for_the_user_told);
    g_test_add_func("/medium/unwritable_no_folder_told",
                    test_unwritable_no_folder_told);
    return g_test_run();
}
