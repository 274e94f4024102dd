/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* secure_getenv() */

#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "autofd.h"
#include "error.h"

/* A file that its last holder removes while we open it: try again so often. */
#define ATTEMPTS 100

struct VmrGuard {
    int folder; /* the folder's descriptor */
    int file;   /* the locked one */
    char *name;
};

char *
vmr_guard_dup_folder(void)
{
    const char *own = secure_getenv("VIRMIRROR_RUNTIME_DIR");
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");

    if (own && g_path_is_absolute(own))
        return g_strdup(own);
    if (geteuid() == 0)
        return g_strdup("/run/virmirror");
    if (runtime && g_path_is_absolute(runtime))
        return g_build_filename(runtime, "virmirror", NULL);
    return g_strdup_printf("/tmp/virmirror-%u", geteuid());
}

/* The folder, which nobody else may be able to put anything into; or -1. */
static int
open_folder(const char *path, GError **error)
{
    vmr_autofd fd = -1;
    struct stat st;

    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        vmr_error_set_errno(error, errno, "create", path);
        return -1;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "open", path);
        return -1;
    }
    if (st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_IO,
                    "folder '%s' must belong to this user and have mode 0700: "
                    "remove it, or set VIRMIRROR_RUNTIME_DIR to another one",
                    path);
        return -1;
    }
    return vmr_fd_steal(&fd);
}

static void
set_busy(int file, GError **error)
{
    char pid[24] = "";
    ssize_t length = pread(file, pid, sizeof(pid) - 1, 0);

    pid[MAX(length, 0)] = '\0';
    pid[strspn(pid, "0123456789")] = '\0';
    g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                "process %s is at work on the mirrored snapshot of this "
                "domain: wait for it to end",
                pid[0] ? pid : "another one");
}

/* Whether @file is still what @name stands for. */
static gboolean
is_current(const VmrGuard *guard, int file)
{
    struct stat ours;
    struct stat now;

    return fstat(file, &ours) == 0 &&
           fstatat(guard->folder, guard->name, &now, AT_SYMLINK_NOFOLLOW) ==
               0 &&
           ours.st_dev == now.st_dev && ours.st_ino == now.st_ino;
}

/* One attempt. Neither an error nor a file: its last holder has just removed
 * it. */
static gboolean
try_lock(VmrGuard *guard, GError **error)
{
    vmr_autofd file =
        openat(guard->folder, guard->name,
               O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (file < 0) {
        vmr_error_set_errno(error, errno, "open", guard->name);
        return FALSE;
    }
    if (flock(file, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            set_busy(file, error);
        else
            vmr_error_set_errno(error, errno, "lock", guard->name);
        return FALSE;
    }
    if (is_current(guard, file))
        guard->file = vmr_fd_steal(&file);
    return TRUE;
}

/* For the message of others only, so that a full disk does no harm. */
static void
write_pid(const VmrGuard *guard)
{
    g_autofree char *pid = g_strdup_printf("%d\n", getpid());

    if (ftruncate(guard->file, 0) == 0)
        (void)!pwrite(guard->file, pid, strlen(pid), 0);
}

VmrGuard *
vmr_guard_take_in(const char *folder, const char *uuid, GError **error)
{
    g_autoptr(VmrGuard) guard = g_new0(VmrGuard, 1);

    guard->file = -1;
    guard->name = g_strdup(uuid);
    guard->folder = -1;
    if (!g_uuid_string_is_valid(uuid)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "'%s' is not the UUID of a domain", uuid);
        return NULL;
    }
    guard->folder = open_folder(folder, error);
    if (guard->folder < 0)
        return NULL;
    for (int i = 0; guard->file < 0 && i < ATTEMPTS; i++) {
        if (!try_lock(guard, error))
            return NULL;
    }
    if (guard->file < 0) {
        vmr_error_set_errno(error, ESTALE, "lock", uuid);
        return NULL;
    }
    write_pid(guard);
    return g_steal_pointer(&guard);
}

VmrGuard *
vmr_guard_take(const char *uuid, GError **error)
{
    g_autofree char *folder = vmr_guard_dup_folder();

    return vmr_guard_take_in(folder, uuid, error);
}

void
vmr_guard_release(VmrGuard *guard)
{
    if (!guard)
        return;
    /* removed under its lock: whoever waits for it sees that and makes anew */
    if (guard->file >= 0) {
        if (is_current(guard, guard->file))
            (void)unlinkat(guard->folder, guard->name, 0);
        (void)close(guard->file);
    }
    if (guard->folder >= 0)
        (void)close(guard->folder);
    g_free(guard->name);
    g_free(guard);
}
