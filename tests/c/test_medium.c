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

static void
test_barrier_by_owner_group_and_others(void)
{
    static const struct {
        mode_t mode;
        gboolean is_owner, is_group, is_barrier;
    } cases[] = {
        {0700, FALSE, FALSE, TRUE}, {0711, FALSE, FALSE, FALSE},
        {0700, TRUE, FALSE, FALSE}, {0677, TRUE, FALSE, TRUE},
        {0710, FALSE, TRUE, FALSE}, {0701, FALSE, TRUE, TRUE},
        {0710, FALSE, FALSE, FALSE}, /* it may be in that group */
    };
    g_autofree char *folder = img_folder_new();
    g_autofree char *below = g_build_filename(folder, "below", NULL);
    struct stat st;

    g_assert_cmpint(mkdir(below, 0777), ==, 0);
    g_assert_cmpint(stat(folder, &st), ==, 0);
    for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
        uid_t uid = cases[i].is_owner ? st.st_uid : st.st_uid + NOBODY;
        gid_t gid = cases[i].is_group ? st.st_gid : st.st_gid + NOBODY;
        g_autofree char *barrier = NULL;

        /* root goes anywhere */
        if (uid == 0)
            continue;
        g_assert_cmpint(chmod(folder, cases[i].mode), ==, 0);
        barrier = vmr_medium_find_barrier(below, uid, gid);
        g_assert_cmpstr(barrier, ==, cases[i].is_barrier ? folder : NULL);
    }
    g_assert_cmpint(chmod(folder, 0700), ==, 0);
    g_assert_null(vmr_medium_find_barrier(below, 0, 0));
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
    g_test_add_func("/medium/barrier_by_owner_group_and_others",
                    test_barrier_by_owner_group_and_others);
    return g_test_run();
}
