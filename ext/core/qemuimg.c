/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* prlimit, pipe2, ..._addclosefrom_np */

#include "qemuimg.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "autofd.h"
#include "error.h"
#include "text.h"

#define IMAGE_FD 3     /* as in VMR_QEMUIMG_FILE */
#define FIRST_FREE_FD 10 /* ours are moved here, out of the way of 0 to 3 */
#define MAX_COMPLAINT 4096
#define REAP_SECONDS 2.0

/* Exit code of "compare" for images that differ. */
#define EXIT_DIFFERENT 1

typedef struct {
    gboolean compares; /* reads images to their end; else writes headers only */
    gboolean differs;  /* what it has found, if it compares */
    pid_t pid;
    int pid_fd;
    int stderr_fd;     /* our end, non-blocking */
    GString *complaint;/* what it has written there */
} Child;

static const struct {
    int resource;
    rlim_t most;
} limit_table[] = {
    {RLIMIT_CPU, 10},                         /* seconds */
    {RLIMIT_AS, (rlim_t)2 * 1024 * 1024 * 1024},
    {RLIMIT_FSIZE, (rlim_t)256 * 1024 * 1024},/* L1 tables take up to 32 MiB */
    {RLIMIT_CORE, 0},
};

char *
vmr_qemuimg_escape(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);

    return g_strjoinv(",,", parts);
}

char *
vmr_qemuimg_quote_json(const char *text)
{
    GString *quoted = g_string_new("\"");

    for (const char *at = text; *at; at++) {
        if (*at == '"' || *at == '\\')
            g_string_append_printf(quoted, "\\%c", *at);
        else if ((guchar)*at < ' ')
            g_string_append_printf(quoted, "\\u%04x", (guchar)*at);
        else
            g_string_append_c(quoted, *at);
    }
    g_string_append_c(quoted, '"');
    return g_string_free(quoted, FALSE);
}

/* Little is passed on: sanitizers and preloaded libraries of the program that
 * we are part of are none of qemu-img's business. */
static char **
child_environment(void)
{
    const char *path = g_getenv("PATH");
    const char *libraries = g_getenv("LD_LIBRARY_PATH");
    g_auto(GStrv) env = g_new0(char *, 1);

    env = g_environ_setenv(g_steal_pointer(&env), "LC_ALL", "C", TRUE);
    if (path)
        env = g_environ_setenv(g_steal_pointer(&env), "PATH", path, TRUE);
    if (libraries)
        env = g_environ_setenv(g_steal_pointer(&env), "LD_LIBRARY_PATH",
                               libraries, TRUE);
    return g_steal_pointer(&env);
}

static int
set_up_files(posix_spawn_file_actions_t *files, int image_fd, int stderr_fd)
{
    int rc = posix_spawn_file_actions_addopen(files, 0, "/dev/null", O_RDWR, 0);

    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(files, 0, 1);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(files, stderr_fd, 2);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(files, image_fd, IMAGE_FD);
#if __GLIBC_PREREQ(2, 34)
    /* what this process should have marked close-on-exec and has not */
    if (rc == 0)
        rc = posix_spawn_file_actions_addclosefrom_np(files, IMAGE_FD + 1);
#endif
    return rc;
}

static int
set_up_signals(posix_spawnattr_t *attr)
{
    sigset_t none;
    sigset_t all;
    int rc;

    /* Python ignores SIGPIPE and SIGXFSZ, which would be inherited; a group
     * of its own keeps Ctrl-C for us: the caller's hook decides about it */
    sigemptyset(&none);
    sigfillset(&all);
    rc = posix_spawnattr_setsigmask(attr, &none);
    if (rc == 0)
        rc = posix_spawnattr_setsigdefault(attr, &all);
    if (rc == 0)
        rc = posix_spawnattr_setpgroup(attr, 0);
    if (rc == 0)
        rc = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK |
                                                POSIX_SPAWN_SETSIGDEF |
                                                POSIX_SPAWN_SETPGROUP);
    return rc;
}

/* posix_spawn() and not fork(): the caller's process is large and has other
 * threads, and its at-fork handlers must not run. */
static int
spawn(pid_t *pid, const char *program, char *const *argv, int image_fd,
      int stderr_fd)
{
    g_auto(GStrv) env = child_environment();
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    int rc;

    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    rc = set_up_files(&files, image_fd, stderr_fd);
    if (rc == 0)
        rc = set_up_signals(&attr);
    if (rc == 0)
        rc = posix_spawn(pid, program, &files, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return rc;
}

/* The limits come a moment after the start, which is early enough for a
 * process that runs wild. Where we may do less ourselves it keeps that. */
static void
child_limit(const Child *child)
{
    for (gsize i = 0; i < G_N_ELEMENTS(limit_table); i++) {
        struct rlimit limit;

        if (child->compares && limit_table[i].resource == RLIMIT_CPU)
            continue;
        if (getrlimit(limit_table[i].resource, &limit) < 0)
            continue;
        limit.rlim_cur = MIN(limit.rlim_cur, limit_table[i].most);
        limit.rlim_max = MIN(limit.rlim_max, limit_table[i].most);
        /* can fail only if it has ended already */
        (void)prlimit(child->pid, limit_table[i].resource, &limit, NULL);
    }
}

/* Take the status of @child; FALSE if there is none to have, because somebody
 * else in this process waits for every child. */
static gboolean
child_reap(Child *child, siginfo_t *info)
{
    int rc;

    memset(info, 0, sizeof(*info));
    do
        rc = waitid(P_PID, (id_t)child->pid, info, WEXITED);
    while (rc < 0 && errno == EINTR);
    child->pid = -1;
    return rc == 0;
}

static gboolean
child_start(Child *child, const char *program, char *const *argv, int fd,
            GError **error)
{
    vmr_autofd image_fd = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
    vmr_autofd stderr_fd = -1;
    vmr_autofd pipe_out = -1;
    int ends[2];
    int rc;

    if (image_fd < 0 || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        vmr_error_set_errno(error, errno, "start", program);
        return FALSE;
    }
    child->stderr_fd = ends[0];
    pipe_out = ends[1];
    stderr_fd = fcntl(pipe_out, F_DUPFD_CLOEXEC, FIRST_FREE_FD);
    rc = stderr_fd < 0
             ? errno
             : spawn(&child->pid, program, argv, image_fd, stderr_fd);
    if (rc != 0) {
        child->pid = -1;
        vmr_error_set_errno(error, rc, "start", program);
        return FALSE;
    }
    child_limit(child);
    child->pid_fd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    if (child->pid_fd < 0) {
        siginfo_t info;

        vmr_error_set_errno(error, errno, "watch", program);
        kill(child->pid, SIGKILL);
        (void)child_reap(child, &info);
        return FALSE;
    }
    return TRUE;
}

/* Read what it says until it ends. It is a line or two: what goes on talking
 * has run wild, and must not keep us busy beyond our wait. */
static gboolean
child_listen(Child *child, const VmrWait *wait, GError **error)
{
    char buffer[1024];

    for (;;) {
        gboolean ready;
        ssize_t n;

        if (!vmr_wait_fd(wait, child->stderr_fd, -1, &ready, error))
            return FALSE;
        n = read(child->stderr_fd, buffer, sizeof(buffer));
        if (n == 0)
            return TRUE;
        if (n < 0 && errno != EINTR && errno != EAGAIN) {
            vmr_error_set_errno(error, errno, "read from", "qemu-img");
            return FALSE;
        }
        if (n > 0)
            g_string_append_len(child->complaint, buffer, n);
        if (child->complaint->len > MAX_COMPLAINT) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_IO, "it floods stderr");
            return FALSE;
        }
    }
}

/* Kill it, and wait a little for its end: one that hangs in a dead file system
 * cannot be killed, and is left to itself then. */
static void
child_kill(Child *child, GError **error)
{
    VmrWait wait = vmr_wait_for(REAP_SECONDS, NULL);
    gboolean ready = FALSE;
    siginfo_t info;

    syscall(SYS_pidfd_send_signal, child->pid_fd, SIGKILL, NULL, 0);
    if (vmr_wait_fd(&wait, child->pid_fd, -1, &ready, NULL) && ready)
        (void)child_reap(child, &info);
    else
        vmr_error_note(error, "process %d does not end", (int)child->pid);
}

/* The first line that it wrote, without its name and the file's. */
static char *
child_reason(const Child *child)
{
    static const char *const prefix_table[] = {"qemu-img: ",
                                               VMR_QEMUIMG_FILE ": "};
    const char *text = child->complaint->str;
    g_autofree char *line = NULL;

    for (gsize i = 0; i < G_N_ELEMENTS(prefix_table); i++) {
        if (g_str_has_prefix(text, prefix_table[i]))
            text += strlen(prefix_table[i]);
    }
    line = g_strndup(text, strcspn(text, "\n"));
    return vmr_text_clean(line);
}

static gboolean
child_judge(Child *child, GError **error)
{
    g_autofree char *reason = NULL;
    siginfo_t info;

    /* without a status the image itself has to tell, which is looked at */
    if ((!child_reap(child, &info) && !child->compares) ||
        (info.si_code == CLD_EXITED && info.si_status == 0))
        return TRUE;
    child->differs = child->compares && info.si_code == CLD_EXITED &&
                     info.si_status == EXIT_DIFFERENT;
    if (child->differs)
        return TRUE;
    reason = child_reason(child);
    if (info.si_code == CLD_EXITED)
        g_set_error(error, VMR_ERROR, VMR_ERROR_IO, "qemu-img failed: %s",
                    reason[0] ? reason : "it does not say why");
    else
        g_set_error(error, VMR_ERROR, VMR_ERROR_IO,
                    "qemu-img was ended by signal %d", info.si_status);
    return FALSE;
}

/* The arguments with the program's name before them; the strings borrowed. */
static char **
make_argv(const char *const *args)
{
    GPtrArray *argv = g_ptr_array_new();

    g_ptr_array_add(argv, (gpointer) "qemu-img");
    for (gsize i = 0; args[i]; i++)
        g_ptr_array_add(argv, (gpointer)args[i]);
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, FALSE);
}

static gboolean
child_run(Child *child, const VmrWait *wait, GError **error)
{
    VmrWait patience =
        vmr_wait_for(child->compares ? -1 : VMR_QEMUIMG_SECONDS, wait);
    gboolean ready;

    patience.deadline = MIN(patience.deadline, wait->deadline);
    if (!child_listen(child, &patience, error) ||
        !vmr_wait_fd(&patience, child->pid_fd, -1, &ready, error)) {
        g_prefix_error(error, "qemu-img did not finish: ");
        child_kill(child, error);
        return FALSE;
    }
    return child_judge(child, error);
}

static gboolean
run(Child *child, const char *const *args, int fd, const VmrWait *wait,
    GError **error)
{
    g_autofree char *program = g_find_program_in_path("qemu-img");
    g_autofree char **argv = make_argv(args);
    gboolean ok;

    if (!program) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                    "qemu-img is not installed (Debian: qemu-utils, "
                    "Fedora: qemu-img)");
        return FALSE;
    }
    child->pid = -1;
    child->pid_fd = -1;
    child->stderr_fd = -1;
    child->complaint = g_string_new(NULL);
    ok = child_start(child, program, argv, fd, error) &&
         child_run(child, wait, error);
    vmr_fd_close(&child->pid_fd);
    vmr_fd_close(&child->stderr_fd);
    g_string_free(child->complaint, TRUE);
    return ok;
}

gboolean
vmr_qemuimg_run(const char *const *args, int fd, const VmrWait *wait,
                GError **error)
{
    Child child = {.compares = FALSE};

    return run(&child, args, fd, wait, error);
}

gboolean
vmr_qemuimg_compare(const char *a, const char *b, gboolean *same,
                    const VmrWait *wait, GError **error)
{
    const char *const args[] = {"compare", "-U", "-q", a, b, NULL};
    Child child = {.compares = TRUE};
    vmr_autofd nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (nothing < 0) {
        vmr_error_set_errno(error, errno, "open", "/dev/null");
        return FALSE;
    }
    if (!run(&child, args, nothing, wait, error))
        return FALSE;
    *same = !child.differs;
    return TRUE;
}
