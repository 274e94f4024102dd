/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "sparse_pace.h"

#include "imgutil.h"

#define KIB 1024u
#define MS  G_TIME_SPAN_MILLISECOND

/* What may be under way. */
#define ALONE    (4 * 1024 * KIB)
#define COMPANY  (512 * KIB)
#define GENTLEST (128 * KIB)

/* A disk whose counters the test writes. */
typedef struct {
    char *folder;
    char *path;
} Disk;

static void
disk_set(const Disk *disk, guint done, guint under_way)
{
    g_autofree char *text = g_strdup_printf(
        "  %8u 0 0 0 0 0 0 0 %8u 0 0 0 0 0 0 0 0\n", done, under_way);
    int fd = open(disk->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    /* in place: it is open */
    g_assert_cmpint(write(fd, text, strlen(text)), ==, (gssize)strlen(text));
    close(fd);
}

static Disk
disk_new(void)
{
    Disk disk = {.folder = img_folder_new()};

    disk.path = img_path(disk.folder, "stat");
    disk_set(&disk, 1000, 0);
    return disk;
}

static void
disk_clear(Disk *disk)
{
    img_folder_free(disk->folder);
    g_free(disk->path);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Disk, disk_clear)

static VmrSparsePacer *
pacer_for(const Disk *disk)
{
    VmrDiskload *load = vmr_diskload_new();

    g_assert_true(vmr_diskload_add_file(load, disk->path));
    return vmr_sparse_pacer_new(VMR_SPARSE_PACE_AUTO, load);
}

/* Bytes that may be under way at @now, 0: nothing may be started. */
static guint
window(VmrSparsePacer *pacer, gint64 now)
{
    guint depth;
    guint block;

    if (vmr_sparse_pacer_get(pacer, now, &depth, &block) > 0)
        return 0;
    return depth * block;
}

/* Have requests of @latency µs from *@now on for @duration, one at a time, as soon
 * as they may be started. The µs that they took in all. */
static gint64
work(VmrSparsePacer *pacer, gint64 *now, gint64 duration, gint64 latency)
{
    gint64 busy = 0;

    for (gint64 end = *now + duration; *now < end;) {
        guint depth;
        guint block;
        gint64 pause = vmr_sparse_pacer_get(pacer, *now, &depth, &block);

        if (pause > 0) {
            *now += pause;
            continue;
        }
        vmr_sparse_pacer_begin(pacer, *now);
        *now += latency;
        busy += latency;
        vmr_sparse_pacer_end(pacer, block, latency, *now);
    }
    return busy;
}

static void
test_full_always_the_same(void)
{
    g_autoptr(VmrSparsePacer) pacer =
        vmr_sparse_pacer_new(VMR_SPARSE_PACE_FULL, NULL);
    gint64 now = 1;

    g_assert_cmpuint(window(pacer, now), ==, 8 * 1024 * KIB);
    work(pacer, &now, G_USEC_PER_SEC, 50 * MS);
    g_assert_cmpuint(window(pacer, now), ==, 8 * 1024 * KIB);
}

static void
test_auto_begins_by_keeping_still(void)
{
    g_auto(Disk) disk = disk_new();
    g_autoptr(VmrSparsePacer) pacer = pacer_for(&disk);

    g_assert_cmpuint(window(pacer, 1), ==, 0);
    g_assert_cmpuint(window(pacer, 7 * MS), ==, 0);
    g_assert_cmpuint(window(pacer, 9 * MS), ==, ALONE);
    g_assert_false(vmr_sparse_pacer_has_company(pacer));
}

/* Alone, the longer queue is what makes requests take longer. */
static void
test_auto_alone_slow_requests_stays(void)
{
    g_auto(Disk) disk = disk_new();
    g_autoptr(VmrSparsePacer) pacer = pacer_for(&disk);
    gint64 now = 1;

    work(pacer, &now, 300 * MS, 1 * MS);
    work(pacer, &now, 100 * MS, 20 * MS);
    g_assert_cmpuint(window(pacer, now), ==, ALONE);
}

/* Who has only just begun, and then leaves the disk to us. */
static void
test_auto_company_goes_at_once_rises(void)
{
    g_auto(Disk) disk = disk_new();
    g_autoptr(VmrSparsePacer) pacer = pacer_for(&disk);
    gint64 now = 1;

    g_assert_cmpuint(window(pacer, now), ==, 0);
    disk_set(&disk, 1010, 0);
    now = 10 * MS;
    work(pacer, &now, 120 * MS, MS / 4);
    g_assert_cmpuint(window(pacer, now), ==, ALONE);
}

static void
test_auto_company_comes_falls_and_goes_rises(void)
{
    g_auto(Disk) disk = disk_new();
    g_autoptr(VmrSparsePacer) pacer = pacer_for(&disk);
    gint64 now = 1;

    work(pacer, &now, 400 * MS, 1 * MS);
    while (window(pacer, now) > 0)
        now += MS;
    disk_set(&disk, 1010, 0); /* not ours: we keep still */
    now += 9 * MS;
    g_assert_cmpuint(window(pacer, now), ==, GENTLEST);
    g_assert_true(vmr_sparse_pacer_has_company(pacer));
    work(pacer, &now, 450 * MS, MS / 4);
    g_assert_cmpuint(window(pacer, now + MS), ==, COMPANY);
    work(pacer, &now, 500 * MS, 1 * MS); /* the disk is still now */
    g_assert_false(vmr_sparse_pacer_has_company(pacer));
    g_assert_cmpuint(window(pacer, now), ==, ALONE);
}

/* A pacer that has seen somebody else on @disk, at *@now. */
static VmrSparsePacer *
pacer_in_company(const Disk *disk, gint64 *now)
{
    VmrSparsePacer *pacer = pacer_for(disk);

    g_assert_cmpuint(window(pacer, 1), ==, 0);
    disk_set(disk, 1010, 0);
    g_assert_cmpuint(window(pacer, 10 * MS), ==, GENTLEST);
    /* the second look, after which there is none for long */
    g_assert_cmpuint(window(pacer, 111 * MS), ==, 0);
    disk_set(disk, 1020, 0);
    *now = 120 * MS;
    g_assert_cmpuint(window(pacer, *now), ==, GENTLEST);
    return pacer;
}

/* For the others: a part of the time, however long a request takes. */
static void
test_auto_company_leaves_time(void)
{
    static const gint64 latency_table[] = {60, 300, 3000, 20000};

    for (gsize i = 0; i < G_N_ELEMENTS(latency_table); i++) {
        g_auto(Disk) disk = disk_new();
        gint64 now;
        g_autoptr(VmrSparsePacer) pacer = pacer_in_company(&disk, &now);
        gint64 begin = now;
        gint64 busy = work(pacer, &now, 400 * MS, latency_table[i]);

        g_assert_cmpint(busy, <, (now - begin) * 71 / 100);
        g_assert_cmpint(busy, >, (now - begin) * 61 / 100);
    }
}

/* Requests for short extents: many at once, but not for ever. */
static void
test_auto_company_busy_for_long_pauses(void)
{
    g_auto(Disk) disk = disk_new();
    gint64 now;
    g_autoptr(VmrSparsePacer) pacer = pacer_in_company(&disk, &now);

    vmr_sparse_pacer_begin(pacer, now);
    vmr_sparse_pacer_begin(pacer, now);
    g_assert_cmpuint(window(pacer, now + MS / 4), >, 0);
    vmr_sparse_pacer_end(pacer, 64 * KIB, MS / 4, now + MS / 4);
    g_assert_cmpuint(window(pacer, now + MS), ==, 0);
    vmr_sparse_pacer_end(pacer, 64 * KIB, MS, now + MS);
    g_assert_cmpuint(window(pacer, now + MS + 490), ==, 0);
    g_assert_cmpuint(window(pacer, now + MS + 510), >, 0);
}

/* A guest whose one request hangs in the queue has done none. */
static void
test_auto_requests_under_way_company(void)
{
    g_auto(Disk) disk = disk_new();
    g_autoptr(VmrSparsePacer) pacer = pacer_for(&disk);

    g_assert_cmpuint(window(pacer, 1), ==, 0);
    disk_set(&disk, 1000, 3);
    window(pacer, 9 * MS);
    g_assert_true(vmr_sparse_pacer_has_company(pacer));
}

static void
test_auto_company_slow_requests_falls(void)
{
    g_auto(Disk) disk = disk_new();
    gint64 now;
    g_autoptr(VmrSparsePacer) pacer = pacer_in_company(&disk, &now);

    work(pacer, &now, 100 * MS, MS / 4);
    g_assert_cmpuint(window(pacer, now + MS), ==, COMPANY);
    work(pacer, &now, 200 * MS, MS);
    g_assert_cmpuint(window(pacer, now + MS), ==, GENTLEST);
}

/* Where already the smallest take long, somewhat bigger ones may, too. */
static void
test_auto_company_slow_storage_rises(void)
{
    g_auto(Disk) disk = disk_new();
    gint64 now;
    g_autoptr(VmrSparsePacer) pacer = pacer_in_company(&disk, &now);

    work(pacer, &now, 200 * MS, 8 * MS);
    g_assert_cmpuint(window(pacer, now + 4 * MS), ==, COMPANY);
}

/* What is under way would be counted as somebody else's. */
static void
test_auto_still_only_when_drained(void)
{
    g_auto(Disk) disk = disk_new();
    g_autoptr(VmrSparsePacer) pacer = pacer_for(&disk);
    gint64 now = 1;

    work(pacer, &now, 100 * MS, 1 * MS);
    vmr_sparse_pacer_begin(pacer, now);
    now += 600 * MS;
    g_assert_cmpuint(window(pacer, now), ==, 0);
    now += 100 * MS;
    g_assert_cmpuint(window(pacer, now), ==, 0);
    disk_set(&disk, 1500, 0);
    vmr_sparse_pacer_end(pacer, 1024 * KIB, 100 * MS, now);
    now += 9 * MS;
    g_assert_cmpuint(window(pacer, now), >, 0);
    g_assert_false(vmr_sparse_pacer_has_company(pacer));
}

static void
test_auto_unknown_disks_stays_gentle(void)
{
    g_autoptr(VmrSparsePacer) pacer =
        vmr_sparse_pacer_new(VMR_SPARSE_PACE_AUTO, NULL);
    gint64 now = 1;

    g_assert_cmpuint(window(pacer, now), ==, COMPANY);
    work(pacer, &now, G_USEC_PER_SEC, 1 * MS);
    g_assert_cmpuint(window(pacer, now), ==, 2 * 512 * KIB);
    work(pacer, &now, G_USEC_PER_SEC, 10 * MS);
    g_assert_cmpuint(window(pacer, now), <, 2 * 512 * KIB);
}

/* Bytes that a limit of @rate lets go in one second from *@now on. */
static guint64
spend(VmrSparseLimit *limit, gint64 *now)
{
    guint64 bytes = 0;

    for (gint64 end = *now + G_USEC_PER_SEC; *now < end; *now += MS) {
        guint block;

        while (vmr_sparse_limit_delay(limit, *now, &block) == 0) {
            vmr_sparse_limit_charge(limit, block, *now);
            bytes += block;
        }
    }
    return bytes;
}

static void
test_limit_rate_is_kept(void)
{
    static const guint64 rate_table[] = {16 * KIB, 300 * KIB, 4096 * KIB,
                                         700000 * KIB};

    for (gsize i = 0; i < G_N_ELEMENTS(rate_table); i++) {
        g_autoptr(VmrSparseLimit) limit = vmr_sparse_limit_new(rate_table[i]);
        gint64 now = G_USEC_PER_SEC;
        guint64 bytes;

        spend(limit, &now);
        bytes = spend(limit, &now);
        g_assert_cmpuint(bytes, >, rate_table[i] * 9 / 10 - 4 * KIB);
        g_assert_cmpuint(bytes, <, rate_table[i] * 11 / 10 + 4 * KIB);
    }
}

static void
test_limit_changed_nothing_waits_for_the_old_one(void)
{
    g_autoptr(VmrSparseLimit) limit = vmr_sparse_limit_new(1);
    gint64 now = G_USEC_PER_SEC;
    guint block;

    vmr_sparse_limit_charge(limit, 1024 * KIB, now);
    g_assert_cmpint(vmr_sparse_limit_delay(limit, now, &block), >,
                    G_USEC_PER_SEC);
    vmr_sparse_limit_set(limit, 1024 * KIB);
    g_assert_cmpint(vmr_sparse_limit_delay(limit, now, &block), ==, 0);
    vmr_sparse_limit_charge(limit, 1024 * KIB, now);
    vmr_sparse_limit_set(limit, 0);
    g_assert_cmpint(vmr_sparse_limit_delay(limit, now, &block), ==, 0);
    g_assert_cmpuint(block, ==, VMR_SPARSE_MAX_BLOCK);
}

static void
test_diskload_of_real_file_counts(void)
{
    g_autoptr(VmrDiskload) load = vmr_diskload_new();
    struct stat st = img_stat("/var/tmp");
    guint64 done;
    guint64 under_way;

    /* /var/tmp may be anywhere; where it has a disk, that has done something */
    if (vmr_diskload_add(load, &st)) {
        g_assert_true(vmr_diskload_add(load, &st));
        g_assert_true(vmr_diskload_get(load, &done, &under_way));
        g_assert_cmpuint(done, >, 0);
    } else {
        g_assert_false(vmr_diskload_get(load, &done, &under_way));
    }
}

static void
test_diskload_no_disk_unknown(void)
{
    g_autoptr(VmrDiskload) load = vmr_diskload_new();
    struct stat st = img_stat("/proc/self");
    guint64 done;
    guint64 under_way;

    g_assert_false(vmr_diskload_add(load, &st));
    g_assert_false(vmr_diskload_get(load, &done, &under_way));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sparse_pace/full_always_the_same",
                    test_full_always_the_same);
    g_test_add_func("/sparse_pace/auto_begins_by_keeping_still",
                    test_auto_begins_by_keeping_still);
    g_test_add_func("/sparse_pace/auto_alone_slow_requests_stays",
                    test_auto_alone_slow_requests_stays);
    g_test_add_func("/sparse_pace/auto_company_goes_at_once_rises",
                    test_auto_company_goes_at_once_rises);
    g_test_add_func("/sparse_pace/auto_company_comes_falls_and_goes_rises",
                    test_auto_company_comes_falls_and_goes_rises);
    g_test_add_func("/sparse_pace/auto_requests_under_way_company",
                    test_auto_requests_under_way_company);
    g_test_add_func("/sparse_pace/auto_company_leaves_time",
                    test_auto_company_leaves_time);
    g_test_add_func("/sparse_pace/auto_company_busy_for_long_pauses",
                    test_auto_company_busy_for_long_pauses);
    g_test_add_func("/sparse_pace/auto_company_slow_storage_rises",
                    test_auto_company_slow_storage_rises);
    g_test_add_func("/sparse_pace/auto_company_slow_requests_falls",
                    test_auto_company_slow_requests_falls);
    g_test_add_func("/sparse_pace/auto_still_only_when_drained",
                    test_auto_still_only_when_drained);
    g_test_add_func("/sparse_pace/auto_unknown_disks_stays_gentle",
                    test_auto_unknown_disks_stays_gentle);
    g_test_add_func("/sparse_pace/limit_rate_is_kept", test_limit_rate_is_kept);
    g_test_add_func("/sparse_pace/limit_changed_nothing_waits_for_the_old_one",
                    test_limit_changed_nothing_waits_for_the_old_one);
    g_test_add_func("/sparse_pace/diskload_of_real_file_counts",
                    test_diskload_of_real_file_counts);
    g_test_add_func("/sparse_pace/diskload_no_disk_unknown",
                    test_diskload_no_disk_unknown);
    return g_test_run();
}
