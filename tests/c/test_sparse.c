/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* SEEK_DATA, F_OFD_SETLK */

#include "sparse.h"

#include "copymark.h"
#include "error.h"
#include "imgutil.h"

#include <sys/file.h>
#include <sys/xattr.h>

#define DENY(method) (1u << VMR_SPARSE_METHOD_##method)
#define KIB          1024u
#define MIB(n)      ((n) * 1024u * KIB)

/* What to deny so that one method is left. */
typedef struct {
    VmrSparseMethod method;
    guint deny;
} Only;

static const Only only_table[] = {
    {VMR_SPARSE_METHOD_URING, DENY(REFLINK) | DENY(RANGE) | DENY(THREADS)},
    {VMR_SPARSE_METHOD_RANGE, DENY(REFLINK) | DENY(URING) | DENY(THREADS)},
    {VMR_SPARSE_METHOD_THREADS, DENY(REFLINK) | DENY(URING) | DENY(RANGE)},
};

/* Two paths in a folder of their own. */
typedef struct {
    char *folder;
    char *source;
    char *destination;
} Pair;

static void
pair_clear(Pair *pair)
{
    img_folder_free(pair->folder);
    g_free(pair->source);
    g_free(pair->destination);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Pair, pair_clear)

/* Have the next one who reads @path read it from the storage. */
static void
drop_cache(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(fsync(fd), ==, 0);
    g_assert_cmpint(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), ==, 0);
    close(fd);
}

/* A source with holes: of @size bytes, with data that differ everywhere at
 * every other 64 KiB. */
static Pair
pair_new(gsize size)
{
    Pair pair = {.folder = img_folder_new()};
    g_autofree guint32 *data = g_malloc(64 * KIB);

    pair.source = img_make_raw(pair.folder, "source", (off_t)size);
    pair.destination = img_path(pair.folder, "destination");
    for (gsize at = 0; at < size; at += 128 * KIB) {
        for (gsize i = 0; i < 16 * KIB; i++)
            data[i] = (guint32)(at + i * 2654435761u) | 1;
        img_poke(pair.source, (off_t)at, data, MIN(64 * KIB, size - at));
    }
    drop_cache(pair.source);
    return pair;
}

static gboolean
run(const VmrSparseSpec *spec, VmrSparseReport *report, GError **error)
{
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autoptr(VmrSparse) copy = vmr_sparse_start(spec, error);

    return copy && vmr_sparse_finish(copy, &wait, report, error);
}

static VmrSparseReport
copy_pair(const Pair *pair, guint deny)
{
    const VmrSparseSpec spec = {.source = pair->source,
                                .destination = pair->destination,
                                .pace = VMR_SPARSE_PACE_FULL,
                                .reflink = TRUE,
                                .overwrite = TRUE,
                                .deny = deny};
    g_autoptr(GError) error = NULL;
    VmrSparseReport report = {0};

    run(&spec, &report, &error);
    g_assert_no_error(error);
    return report;
}

static void
assert_same(const Pair *pair)
{
    g_autofree char *a = NULL;
    g_autofree char *b = NULL;
    gsize size[2];

    g_assert_true(g_file_get_contents(pair->source, &a, &size[0], NULL));
    g_assert_true(g_file_get_contents(pair->destination, &b, &size[1], NULL));
    g_assert_cmpmem(a, size[0], b, size[1]);
}

static VmrCopymark
mark_of(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    VmrCopymark mark;

    g_assert_true(vmr_copymark_get(fd, path, &mark, NULL));
    close(fd);
    return mark;
}

static void
assert_same_extents(const Pair *pair)
{
    int a = open(pair->source, O_RDONLY | O_CLOEXEC);
    int b = open(pair->destination, O_RDONLY | O_CLOEXEC);
    off_t at = 0;

    for (int whence = SEEK_DATA; at >= 0;
         whence = whence == SEEK_DATA ? SEEK_HOLE : SEEK_DATA) {
        off_t next = lseek(a, at, whence);

        g_assert_cmpint(lseek(b, at, whence), ==, next);
        at = next;
    }
    close(a);
    close(b);
}

/* Sizes around what is treated on its own: nothing, the beginning, the last odd
 * block, the longest request. */
static void
test_copy_by_each_method_same_content_and_extents(void)
{
    static const gsize size_table[] = {
        0,        1,          511,           4096,           4097,
        64 * KIB, 65 * KIB,   64 * KIB + 1,  128 * KIB + 17, 200 * KIB,
        MIB(1),  MIB(1) + 1, MIB(3) - 513, MIB(9) + 4095};

    for (gsize i = 0; i < G_N_ELEMENTS(only_table); i++) {
        for (gsize j = 0; j < G_N_ELEMENTS(size_table); j++) {
            g_auto(Pair) pair = pair_new(size_table[j]);
            VmrSparseReport report = copy_pair(&pair, only_table[i].deny);

            g_assert_cmpint(report.method, ==, only_table[i].method);
            g_assert_cmpuint(report.size, ==, size_table[j]);
            assert_same(&pair);
            assert_same_extents(&pair);
        }
    }
}

static void
test_copy_by_each_method_same_checksum(void)
{
    g_auto(Pair) pair = pair_new(MIB(2) + 77);
    VmrWait wait = vmr_wait_for(60, NULL);
    char expected[VMR_SPARSE_CHECKSUM_LENGTH + 1];
    g_autoptr(GError) error = NULL;

    vmr_sparse_checksum(pair.source, &wait, expected, &error);
    g_assert_no_error(error);
    for (gsize i = 0; i < G_N_ELEMENTS(only_table); i++) {
        VmrSparseReport report = copy_pair(&pair, only_table[i].deny);

        g_assert_cmpstr(report.checksum, ==, expected);
        g_assert_cmpint(unlink(pair.destination), ==, 0);
    }
}

static void
test_checksum_holes_and_zeros_same(void)
{
    g_auto(Pair) pair = pair_new(MIB(1));
    VmrWait wait = vmr_wait_for(60, NULL);
    g_autofree char *data = NULL;
    char text[2][VMR_SPARSE_CHECKSUM_LENGTH + 1];
    gsize size;

    g_assert_true(g_file_get_contents(pair.source, &data, &size, NULL));
    g_assert_true(g_file_set_contents(pair.destination, data, (gssize)size,
                                      NULL));
    g_assert_true(vmr_sparse_checksum(pair.source, &wait, text[0], NULL));
    g_assert_true(vmr_sparse_checksum(pair.destination, &wait, text[1], NULL));
    g_assert_cmpstr(text[0], ==, text[1]);
}

/* libvirt has labelled the file and given it to QEMU's user. */
static void
test_copy_over_file_same_inode_and_mode(void)
{
    g_auto(Pair) pair = pair_new(MIB(1));
    struct stat before;
    struct stat after;

    g_assert_true(g_file_set_contents(pair.destination, "old", 3, NULL));
    g_assert_cmpint(chmod(pair.destination, 0640), ==, 0);
    before = img_stat(pair.destination);
    copy_pair(&pair, 0);
    after = img_stat(pair.destination);
    g_assert_cmpuint(after.st_ino, ==, before.st_ino);
    g_assert_cmpuint(after.st_mode, ==, before.st_mode);
    assert_same(&pair);
}

static void
test_copy_over_longer_file_old_data_gone(void)
{
    g_auto(Pair) pair = pair_new(300 * KIB);
    g_autofree char *old = g_strnfill(MIB(1), 'x');

    g_assert_true(g_file_set_contents(pair.destination, old, MIB(1), NULL));
    copy_pair(&pair, 0);
    assert_same(&pair);
    assert_same_extents(&pair);
}

static void
test_copy_new_file_like_its_source_and_marked_complete(void)
{
    g_auto(Pair) pair = pair_new(MIB(1));
    int mode = g_chmod(pair.source, 0640);
    VmrSparseReport report = copy_pair(&pair, 0);
    VmrCopymark mark = mark_of(pair.destination);
    VmrStamp source;
    VmrStamp destination;

    g_assert_cmpint(mode, ==, 0);
    g_assert_true(vmr_stamp_take(pair.source, &source, NULL));
    g_assert_true(vmr_stamp_take(pair.destination, &destination, NULL));
    g_assert_cmpuint(img_stat(pair.destination).st_mode & 07777, ==, 0640);
    g_assert_cmpint(mark.state, ==, VMR_COPYMARK_COMPLETE);
    g_assert_cmpstr(mark.checksum, ==, report.checksum);
    g_assert_cmpint(vmr_copymark_compare(&mark, &source, &destination), ==,
                    VMR_COPYMARK_FITS);
}

static void
test_copy_again_nothing_is_done(void)
{
    g_auto(Pair) pair = pair_new(MIB(1));
    VmrSparseReport first = copy_pair(&pair, 0);
    VmrSparseReport second = copy_pair(&pair, 0);

    g_assert_cmpint(second.method, ==, VMR_SPARSE_METHOD_NONE);
    g_assert_cmpuint(second.copied, ==, 0);
    g_assert_cmpstr(second.checksum, ==, first.checksum);
}

static void
test_copy_again_of_changed_source_or_copy_copied(void)
{
    g_auto(Pair) pair = pair_new(MIB(1));

    copy_pair(&pair, 0);
    img_poke(pair.source, 5, "x", 1);
    g_assert_cmpuint(copy_pair(&pair, 0).copied, >, 0);
    img_poke(pair.destination, 7, "y", 1);
    g_assert_cmpuint(copy_pair(&pair, 0).copied, >, 0);
    assert_same(&pair);
}

static void
test_copy_verified_verified(void)
{
    for (gsize i = 0; i < G_N_ELEMENTS(only_table); i++) {
        g_auto(Pair) pair = pair_new(MIB(2) + 5);
        VmrSparseSpec spec = {.source = pair.source,
                              .destination = pair.destination,
                              .verify = TRUE,
                              .reflink = TRUE,
                              .deny = only_table[i].deny};
        g_autoptr(GError) error = NULL;
        VmrSparseReport report;

        /* reading back needs one that can only read */
        if (only_table[i].method == VMR_SPARSE_METHOD_RANGE)
            spec.deny &= ~DENY(THREADS);
        run(&spec, &report, &error);
        g_assert_no_error(error);
        g_assert_true(report.verified);
    }
}

/* Start what must be refused. */
static void
assert_refused(const char *source, const char *destination, gboolean overwrite,
               VmrErrorCode code)
{
    const VmrSparseSpec spec = {.source = source,
                                .destination = destination,
                                .overwrite = overwrite};
    g_autoptr(GError) error = NULL;

    g_assert_null(vmr_sparse_start(&spec, &error));
    g_assert_error(error, VMR_ERROR, (int)code);
}

static void
test_start_bad_files_refused(void)
{
    g_auto(Pair) pair = pair_new(4096);
    g_autofree char *fifo = img_path(pair.folder, "fifo");
    g_autofree char *link = img_path(pair.folder, "link");
    g_autofree char *hard = img_path(pair.folder, "hard");
    g_autofree char *away = img_path(pair.folder, "none/away");

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    g_assert_cmpint(symlink("source", link), ==, 0);
    g_assert_cmpint(linkat(AT_FDCWD, pair.source, AT_FDCWD, hard, 0), ==, 0);
    assert_refused(away, pair.destination, TRUE, VMR_ERROR_NOT_FOUND);
    assert_refused(pair.source, away, TRUE, VMR_ERROR_NOT_FOUND);
    assert_refused(fifo, pair.destination, TRUE, VMR_ERROR_IMAGE);
    assert_refused(pair.source, fifo, TRUE, VMR_ERROR_IMAGE);
    assert_refused(link, pair.destination, TRUE, VMR_ERROR_IMAGE);
    assert_refused(pair.source, link, TRUE, VMR_ERROR_IMAGE);
    assert_refused(pair.folder, pair.destination, TRUE, VMR_ERROR_IMAGE);
    assert_refused(pair.source, hard, TRUE, VMR_ERROR_INVALID_SPEC);
    assert_refused(pair.source, pair.source, TRUE, VMR_ERROR_INVALID_SPEC);
    g_assert_false(img_exists(pair.destination));
}

static void
test_start_existing_without_overwrite_untouched(void)
{
    g_auto(Pair) pair = pair_new(4096);
    g_autofree char *content = NULL;

    g_assert_true(g_file_set_contents(pair.destination, "mine", 4, NULL));
    assert_refused(pair.source, pair.destination, FALSE, VMR_ERROR_EXISTS);
    g_assert_true(g_file_get_contents(pair.destination, &content, NULL, NULL));
    g_assert_cmpstr(content, ==, "mine");
}

/* Lock @byte of @path as QEMU does. */
static int
lock_byte(const char *path, off_t byte)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET,
                         .l_start = byte, .l_len = 1};
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    return fd;
}

static void
test_start_in_use_by_qemu_busy(void)
{
    static const off_t used_table[] = {100, 101, 201, 203};
    g_auto(Pair) pair = pair_new(4096);
    int fd = lock_byte(pair.source, 101);

    assert_refused(pair.source, pair.destination, TRUE, VMR_ERROR_BUSY);
    close(fd);
    g_assert_true(g_file_set_contents(pair.destination, "mine", 4, NULL));
    for (gsize i = 0; i < G_N_ELEMENTS(used_table); i++) {
        fd = lock_byte(pair.destination, used_table[i]);
        assert_refused(pair.source, pair.destination, TRUE, VMR_ERROR_BUSY);
        close(fd);
    }
    fd = lock_byte(pair.source, 100);
    copy_pair(&pair, 0);
    close(fd);
    assert_same(&pair);
}

static void
test_pace_parse_known_and_unknown(void)
{
    g_autoptr(GError) error = NULL;
    VmrSparsePace pace;

    g_assert_true(vmr_sparse_pace_parse("full", &pace, NULL));
    g_assert_cmpint(pace, ==, VMR_SPARSE_PACE_FULL);
    g_assert_true(vmr_sparse_pace_parse("auto", &pace, NULL));
    g_assert_cmpint(pace, ==, VMR_SPARSE_PACE_AUTO);
    g_assert_false(vmr_sparse_pace_parse("", &pace, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC);
}

static void
test_copy_nothing_left_not_supported(void)
{
    g_auto(Pair) pair = pair_new(MIB(1));
    const VmrSparseSpec spec = {.source = pair.source,
                                .destination = pair.destination,
                                .deny = ~0u};
    g_autoptr(GError) error = NULL;

    g_assert_false(run(&spec, NULL, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED);
    g_assert_false(img_exists(pair.destination));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sparse/copy_by_each_method_same_content_and_extents",
                    test_copy_by_each_method_same_content_and_extents);
    g_test_add_func("/sparse/copy_by_each_method_same_checksum",
                    test_copy_by_each_method_same_checksum);
    g_test_add_func("/sparse/checksum_holes_and_zeros_same",
                    test_checksum_holes_and_zeros_same);
    g_test_add_func("/sparse/copy_over_file_same_inode_and_mode",
                    test_copy_over_file_same_inode_and_mode);
    g_test_add_func("/sparse/copy_over_longer_file_old_data_gone",
                    test_copy_over_longer_file_old_data_gone);
    g_test_add_func("/sparse/copy_new_file_like_its_source_and_marked_complete",
                    test_copy_new_file_like_its_source_and_marked_complete);
    g_test_add_func("/sparse/copy_again_nothing_is_done",
                    test_copy_again_nothing_is_done);
    g_test_add_func("/sparse/copy_again_of_changed_source_or_copy_copied",
                    test_copy_again_of_changed_source_or_copy_copied);
    g_test_add_func("/sparse/copy_verified_verified",
                    test_copy_verified_verified);
    g_test_add_func("/sparse/start_bad_files_refused",
                    test_start_bad_files_refused);
    g_test_add_func("/sparse/start_existing_without_overwrite_untouched",
                    test_start_existing_without_overwrite_untouched);
    g_test_add_func("/sparse/start_in_use_by_qemu_busy",
                    test_start_in_use_by_qemu_busy);
    g_test_add_func("/sparse/pace_parse_known_and_unknown",
                    test_pace_parse_known_and_unknown);
    g_test_add_func("/sparse/copy_nothing_left_not_supported",
                    test_copy_nothing_left_not_supported);
    return g_test_run();
}
