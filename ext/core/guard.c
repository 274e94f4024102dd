/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Locks: guard_mutex, a leaf: nothing is called under it but system calls on the
 * sockets. It is held across fork(), so that a child finds the list whole. */

#define _GNU_SOURCE 1 /* secure_getenv(), struct ucred */

#include "guard.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "autofd.h"
#include "error.h"

/* Whoever has the name does not answer: it is about to, or has given it back, and a
 * child that it has just forked has not closed it yet. Try again so often. */
#define ATTEMPTS 200
#define ATTEMPT_STEP 5000 /* us */

/* Each question of others is a connection that nobody takes up; when there are so many,
 * they are no longer told who it is. */
#define QUESTIONS 4096

/* A socket that this process has bound, for as long as some guard refers to it. */
typedef struct Holding Holding;
struct Holding {
    Holding *next;
    char *uuid;
    int fd;          /* -1: it was the parent's */
    guint refs;
    gboolean job;    /* taken by vmr_guard_hold() */
    pthread_t owner;
};

struct VmrGuard {
    Holding *holding;
};

static pthread_mutex_t guard_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t guard_once = PTHREAD_ONCE_INIT;
static Holding *guard_holdings; /* guarded by guard_mutex */

static void
before_fork(void)
{
    pthread_mutex_lock(&guard_mutex);
}

static void
after_fork(void)
{
    pthread_mutex_unlock(&guard_mutex);
}

/* The names are the parent's, and are free as soon as it closes them. */
static void
after_fork_in_child(void)
{
    for (Holding *one = guard_holdings; one; one = one->next)
        vmr_fd_close(&one->fd);
    guard_holdings = NULL;
    pthread_mutex_unlock(&guard_mutex);
}

static void
set_up(void)
{
    (void)pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* The name of the socket; its length, 0 if @uuid is no UUID. */
static socklen_t
address_of(const char *uuid, struct sockaddr_un *address)
{
    const char *prefix = secure_getenv("VIRMIRROR_LOCK_PREFIX");
    g_autofree char *lower = g_ascii_strdown(uuid, -1);
    int length;

    if (!g_uuid_string_is_valid(uuid))
        return 0;
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    /* abstract: it begins with a NUL, and is as long as it is said to be */
    length = g_snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1,
                        "virmirror/%s/%.36s", lower, prefix ? prefix : "");
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                       (size_t)length);
}

static int
socket_new(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* The pid behind a name that is taken: 0 if nobody listens there, -1 if not known. */
static pid_t
ask(const struct sockaddr_un *address, socklen_t length)
{
    vmr_autofd fd = socket_new();
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);

    if (fd < 0)
        return -1;
    if (connect(fd, (const struct sockaddr *)address, length) < 0)
        return errno == ECONNREFUSED ? 0 : -1;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
        peer.pid == 0)
        return -1;
    return peer.pid;
}

static void
set_busy(pid_t pid, GError **error)
{
    g_autofree char *process = pid > 0
                                   ? g_strdup_printf("process %d", (int)pid)
                                   : g_strdup("another process");

    g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                "%s is at work on the disks of this domain: wait for it to end",
                process);
}

/* A socket of that name, which nobody else can have then; or -1: with an error, or
 * without one where nobody answers to the name. */
static int
bind_name(const char *uuid, GError **error)
{
    struct sockaddr_un address;
    socklen_t length = address_of(uuid, &address);
    vmr_autofd fd = socket_new();
    pid_t pid;

    if (fd < 0) {
        vmr_error_set_errno(error, errno, "make a socket to lock", uuid);
        return -1;
    }
    if (bind(fd, (const struct sockaddr *)&address, length) == 0 &&
        listen(fd, QUESTIONS) == 0)
        return vmr_fd_steal(&fd);
    if (errno != EADDRINUSE) {
        vmr_error_set_errno(error, errno, "lock", uuid);
        return -1;
    }
    pid = ask(&address, length);
    if (pid != 0)
        set_busy(pid, error);
    return -1;
}

/* What this process has of @uuid; under guard_mutex. */
static Holding *
find_holding(const char *uuid)
{
    for (Holding *one = guard_holdings; one; one = one->next) {
        if (g_ascii_strcasecmp(one->uuid, uuid) == 0)
            return one;
    }
    return NULL;
}

/* A new holding, or the job's that the calling thread is at; NULL as bind_name(). */
static Holding *
take_holding_locked(const char *uuid, gboolean job, GError **error)
{
    Holding *one = find_holding(uuid);
    int fd;

    if (one) {
        if (!job && one->job && pthread_equal(one->owner, pthread_self())) {
            one->refs++;
            return one;
        }
        set_busy(getpid(), error);
        return NULL;
    }
    fd = bind_name(uuid, error);
    if (fd < 0)
        return NULL;
    one = g_new0(Holding, 1);
    one->uuid = g_strdup(uuid);
    one->fd = fd;
    one->refs = 1;
    one->job = job;
    one->owner = pthread_self();
    one->next = guard_holdings;
    guard_holdings = one;
    return one;
}

static Holding *
take_holding(const char *uuid, gboolean job, GError **error)
{
    for (int i = 0; i < ATTEMPTS; i++) {
        g_autoptr(GError) local = NULL;
        Holding *holding;

        pthread_mutex_lock(&guard_mutex);
        holding = take_holding_locked(uuid, job, &local);
        pthread_mutex_unlock(&guard_mutex);
        if (holding)
            return holding;
        if (local) {
            g_propagate_error(error, g_steal_pointer(&local));
            return NULL;
        }
        g_usleep(ATTEMPT_STEP);
    }
    set_busy(-1, error);
    return NULL;
}

static VmrGuard *
guard_new(const char *uuid, gboolean job, GError **error)
{
    Holding *holding;
    VmrGuard *guard;

    if (!g_uuid_string_is_valid(uuid)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "'%s' is not the UUID of a domain", uuid);
        return NULL;
    }
    pthread_once(&guard_once, set_up);
    holding = take_holding(uuid, job, error);
    if (!holding)
        return NULL;
    guard = g_new0(VmrGuard, 1);
    guard->holding = holding;
    return guard;
}

VmrGuard *
vmr_guard_take(const char *uuid, GError **error)
{
    return guard_new(uuid, FALSE, error);
}

VmrGuard *
vmr_guard_hold(const char *uuid, GError **error)
{
    return guard_new(uuid, TRUE, error);
}

gboolean
vmr_guard_is_held(const VmrGuard *guard)
{
    gboolean held;

    pthread_mutex_lock(&guard_mutex);
    held = guard->holding->fd >= 0;
    pthread_mutex_unlock(&guard_mutex);
    return held;
}

/* Take @holding off the list, if it is on it: a child's is not. */
static void
unlink_holding(const Holding *holding)
{
    for (Holding **at = &guard_holdings; *at; at = &(*at)->next) {
        if (*at == holding) {
            *at = holding->next;
            return;
        }
    }
}

void
vmr_guard_release(VmrGuard *guard)
{
    Holding *holding;

    if (!guard)
        return;
    holding = guard->holding;
    pthread_mutex_lock(&guard_mutex);
    if (--holding->refs == 0) {
        unlink_holding(holding);
        /* from here on nobody answers, though a child may have it open for a moment */
        if (holding->fd >= 0)
            (void)shutdown(holding->fd, SHUT_RDWR);
        vmr_fd_close(&holding->fd);
        g_free(holding->uuid);
        g_free(holding);
    }
    pthread_mutex_unlock(&guard_mutex);
    g_free(guard);
}

pid_t
vmr_guard_find_holder(const char *uuid)
{
    struct sockaddr_un address;
    socklen_t length = address_of(uuid, &address);

    return length == 0 ? 0 : ask(&address, length);
}
