/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* F_OFD_SETLK */

#include "lockprobe.h"

#include "error.h"
#include "imgutil.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static VmrLock
probe(const char *path)
{
    g_autoptr(GError) error = NULL;
    VmrLock lock = VMR_LOCK_LAST;
    gboolean ok = vmr_lock_probe(path, &lock, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
    return lock;
}

static void
test_probe_nobody_free(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);

    g_assert_cmpint(probe(path), ==, VMR_LOCK_FREE);
}

/* Hold a lock on one byte as QEMU does, and probe by another descriptor. */
static VmrLock
probe_with_lock(short type, off_t byte)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET,
                         .l_start = byte, .l_len = 1};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    VmrLock found;

    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    found = probe(path);
    close(fd);
    g_assert_cmpint(probe(path), ==, VMR_LOCK_FREE);
    return found;
}

static void
test_probe_write_byte_writer(void)
{
    g_assert_cmpint(probe_with_lock(F_RDLCK, 101), ==, VMR_LOCK_WRITER);
    g_assert_cmpint(probe_with_lock(F_WRLCK, 101), ==, VMR_LOCK_WRITER);
}

static void
test_probe_other_bytes_free(void)
{
    static const off_t other_table[] = {0, 100, 102, 103, 200, 201, 203};

    for (gsize i = 0; i < G_N_ELEMENTS(other_table); i++)
        g_assert_cmpint(probe_with_lock(F_RDLCK, other_table[i]), ==,
                        VMR_LOCK_FREE);
}

static void
test_probe_takes_no_lock(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int probed = open(path, O_RDONLY | O_CLOEXEC);
    int other = open(path, O_RDWR | O_CLOEXEC);
    VmrLock found;

    g_assert_true(vmr_lock_probe_fd(probed, path, &found, NULL));
    g_assert_cmpint(fcntl(other, F_OFD_SETLK, &lock), ==, 0);
    close(other);
    close(probed);
}

/* A qemu program that has @path open, until it is ended. */
typedef struct {
    GPid pid;
    int in;
    int out;
} Holder;

/* Start @argv and wait until it has said @sign, by when the image is open. */
static Holder
holder_start(char **argv, const char *sign)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) said = g_string_new(NULL);
    Holder holder = {0};

    g_spawn_async_with_pipes(NULL, argv, NULL,
                             G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD,
                             NULL, NULL, &holder.pid, &holder.in, &holder.out,
                             NULL, &error);
    g_assert_no_error(error);
    while (!strstr(said->str, sign)) {
        char buffer[256];
        gssize n = read(holder.out, buffer, sizeof(buffer));

        g_assert_cmpint(n, >, 0);
        g_string_append_len(said, buffer, n);
    }
    return holder;
}

static void
holder_end(Holder *holder)
{
    int status;

    kill(holder->pid, SIGKILL);
    g_assert_cmpint(waitpid(holder->pid, &status, 0), ==, holder->pid);
    close(holder->in);
    close(holder->out);
}

static Holder
qemu_io_start(const char *mode, const char *path)
{
    char *argv[] = {(char *)"qemu-io", (char *)"-f", (char *)"qcow2",
                    (char *)mode, (char *)path, NULL};

    return holder_start(argv, "qemu-io> ");
}

static void
test_probe_qemu_io_writing_writer(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    Holder holder = qemu_io_start("--cache=writeback", path);

    g_assert_cmpint(probe(path), ==, VMR_LOCK_WRITER);
    holder_end(&holder);
    g_assert_cmpint(probe(path), ==, VMR_LOCK_FREE);
}

static void
test_probe_qemu_io_reading_free(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    Holder holder = qemu_io_start("-r", path);

    g_assert_cmpint(probe(path), ==, VMR_LOCK_FREE);
    holder_end(&holder);
}

/* A paused guest writes to its top layer and only reads the one below. */
static void
test_probe_paused_guest_top_only(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *base = img_make(folder, "base", NULL);
    g_autofree char *top = img_make_over(folder, "top", "base", "qcow2");
    g_autofree char *drive =
        g_strdup_printf("if=virtio,format=qcow2,file=%s", top);
    char *argv[] = {(char *)"qemu-system-x86_64", (char *)"-S",
                    (char *)"-accel", (char *)"tcg", (char *)"-m",
                    (char *)"32", (char *)"-nodefaults", (char *)"-display",
                    (char *)"none", (char *)"-qmp", (char *)"stdio",
                    (char *)"-drive", drive, NULL};
    Holder holder = holder_start(argv, "QMP");

    g_assert_cmpint(probe(top), ==, VMR_LOCK_WRITER);
    g_assert_cmpint(probe(base), ==, VMR_LOCK_FREE);
    holder_end(&holder);
    g_assert_cmpint(probe(top), ==, VMR_LOCK_FREE);
}

static void
test_probe_symbolic_link_followed(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *path = img_make(folder, "a", NULL);
    g_autofree char *link = img_path(folder, "link");
    Holder holder = qemu_io_start("--cache=writeback", path);

    g_assert_cmpint(symlink("a", link), ==, 0);
    g_assert_cmpint(probe(link), ==, VMR_LOCK_WRITER);
    holder_end(&holder);
}

static void
test_probe_no_image_unknown(void)
{
    g_autoptr(ImgFolder) folder = img_folder_new();
    g_autofree char *fifo = img_path(folder, "fifo");
    g_autofree char *name = img_path(folder, "socket");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    g_strlcpy(address.sun_path, name, sizeof(address.sun_path));
    g_assert_cmpint(bind(sock, (struct sockaddr *)&address, sizeof(address)),
                    ==, 0);
    g_assert_cmpint(probe(fifo), ==, VMR_LOCK_UNKNOWN);
    g_assert_cmpint(probe(name), ==, VMR_LOCK_UNKNOWN);
    g_assert_cmpint(probe(folder), ==, VMR_LOCK_UNKNOWN);
    g_assert_cmpint(probe("/dev/null"), ==, VMR_LOCK_UNKNOWN);
    close(sock);
}

static void
test_probe_missing_not_found(void)
{
    g_autoptr(GError) error = NULL;
    VmrLock lock;

    g_assert_false(vmr_lock_probe("/nonexistent/a", &lock, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND);
    g_assert_cmpint(lock, ==, VMR_LOCK_UNKNOWN);
}

static void
test_probe_bad_descriptor_io(void)
{
    g_autoptr(GError) error = NULL;
    VmrLock lock;

    g_assert_false(vmr_lock_probe_fd(-1, "a", &lock, &error));
    g_assert_error(error, VMR_ERROR, VMR_ERROR_IO);
}

static void
test_name_all_known(void)
{
    g_assert_cmpstr(vmr_lock_name(VMR_LOCK_FREE), ==, "free");
    g_assert_cmpstr(vmr_lock_name(VMR_LOCK_WRITER), ==, "writer");
    g_assert_cmpstr(vmr_lock_name(VMR_LOCK_UNKNOWN), ==, "unknown");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/lockprobe/probe_nobody_free", test_probe_nobody_free);
    g_test_add_func("/lockprobe/probe_write_byte_writer",
                    test_probe_write_byte_writer);
    g_test_add_func("/lockprobe/probe_other_bytes_free",
                    test_probe_other_bytes_free);
    g_test_add_func("/lockprobe/probe_takes_no_lock", test_probe_takes_no_lock);
    g_test_add_func("/lockprobe/probe_qemu_io_writing_writer",
                    test_probe_qemu_io_writing_writer);
    g_test_add_func("/lockprobe/probe_qemu_io_reading_free",
                    test_probe_qemu_io_reading_free);
    g_test_add_func("/lockprobe/probe_paused_guest_top_only",
                    test_probe_paused_guest_top_only);
    g_test_add_func("/lockprobe/probe_symbolic_link_followed",
                    test_probe_symbolic_link_followed);
    g_test_add_func("/lockprobe/probe_no_image_unknown",
                    test_probe_no_image_unknown);
    g_test_add_func("/lockprobe/probe_missing_not_found",
                    test_probe_missing_not_found);
    g_test_add_func("/lockprobe/probe_bad_descriptor_io",
                    test_probe_bad_descriptor_io);
    g_test_add_func("/lockprobe/name_all_known", test_name_all_known);
    return g_test_run();
}
