/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Preloaded into a process that runs the engine: counts the calls of libvirt
 * that the engine makes and, at the n-th one, ends the process with SIGKILL, or
 * has the call fail. Counting starts with killshim_arm(). Calls that read are
 * marked "r" in the log and calls that change something "w". */

#define _GNU_SOURCE 1

#include <dlfcn.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int armed;
static int count;
static int kill_before;
static int kill_after;
static int kill_during;
static long kill_delay; /* µs */
static const char *kill_in; /* name of a function */
static int pivots;
static int fail_pivot;
static int log_fd = -1;

static void
die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static void *
die_later(void *unused)
{
    struct timespec delay = {.tv_sec = kill_delay / 1000000,
                             .tv_nsec = kill_delay % 1000000 * 1000};

    nanosleep(&delay, NULL);
    die();
    return unused;
}

/* Count from now on. A call's number, or 0: end before it, after it, or that
 * many µs after it was begun. */
void killshim_arm(const char *log, int before, int after, int during,
                  long delay);
void
killshim_arm(const char *log, int before, int after, int during, long delay)
{
    log_fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    kill_before = before;
    kill_after = after;
    kill_during = during;
    kill_delay = delay;
    armed = 1;
}

/* The same for the n-th call of the function @name alone; @name must stay. */
void killshim_arm_in(const char *log, const char *name, int n, long delay);
void
killshim_arm_in(const char *log, const char *name, int n, long delay)
{
    kill_in = name;
    killshim_arm(log, 0, 0, n, delay);
}

/* Have the n-th virDomainBlockJobAbort() with the PIVOT flag fail. */
void killshim_fail_pivot(int n);
void
killshim_fail_pivot(int n)
{
    pivots = 0;
    fail_pivot = n;
}

static int
enter(const char *name, char kind)
{
    char line[128];
    pthread_t thread;
    int n;

    pthread_mutex_lock(&mutex);
    if (!armed) {
        pthread_mutex_unlock(&mutex);
        return 0;
    }
    n = ++count;
    snprintf(line, sizeof(line), "%d %c %s\n", n, kind, name);
    if (write(log_fd, line, strlen(line)) < 0)
        die();
    if (n == kill_before)
        die();
    if (kill_in ? strcmp(name, kill_in) == 0 && --kill_during == 0
                : n == kill_during)
        pthread_create(&thread, NULL, die_later, NULL);
    pthread_mutex_unlock(&mutex);
    return n;
}

static void
leave(int n)
{
    if (n > 0 && n == kill_after)
        die();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* A function of libvirt with its parameters and its arguments. */
#define SHIM(kind, type, name, parameters, arguments)   \
    type name parameters                                \
    {                                                   \
        int n = enter(#name, kind);                     \
        type result = REAL(name) arguments;             \
                                                        \
        leave(n);                                       \
        return result;                                  \
    }

SHIM('r', int, virConnectGetLibVersion, (virConnectPtr conn, unsigned long *version),
     (conn, version))
SHIM('r', int, virConnectGetVersion, (virConnectPtr conn, unsigned long *version),
     (conn, version))
SHIM('r', char *, virDomainGetXMLDesc, (virDomainPtr dom, unsigned int flags),
     (dom, flags))
SHIM('r', int, virDomainGetState,
     (virDomainPtr dom, int *state, int *reason, unsigned int flags),
     (dom, state, reason, flags))
SHIM('r', int, virDomainIsPersistent, (virDomainPtr dom), (dom))
SHIM('w', virDomainPtr, virDomainDefineXMLFlags,
     (virConnectPtr conn, const char *xml, unsigned int flags),
     (conn, xml, flags))
SHIM('w', int, virDomainSuspend, (virDomainPtr dom), (dom))
SHIM('w', int, virDomainResume, (virDomainPtr dom), (dom))
SHIM('w', virDomainSnapshotPtr, virDomainSnapshotCreateXML,
     (virDomainPtr dom, const char *xml, unsigned int flags), (dom, xml, flags))
SHIM('r', int, virDomainListAllSnapshots,
     (virDomainPtr dom, virDomainSnapshotPtr **snaps, unsigned int flags),
     (dom, snaps, flags))
SHIM('r', char *, virDomainSnapshotGetXMLDesc,
     (virDomainSnapshotPtr snap, unsigned int flags), (snap, flags))
SHIM('r', int, virDomainSnapshotIsCurrent,
     (virDomainSnapshotPtr snap, unsigned int flags), (snap, flags))
SHIM('w', int, virDomainSnapshotDelete,
     (virDomainSnapshotPtr snap, unsigned int flags), (snap, flags))
SHIM('w', int, virDomainBlockCopy,
     (virDomainPtr dom, const char *disk, const char *xml,
      virTypedParameterPtr params, int n_params, unsigned int flags),
     (dom, disk, xml, params, n_params, flags))
SHIM('w', int, virDomainBlockCommit,
     (virDomainPtr dom, const char *disk, const char *base, const char *top,
      unsigned long bandwidth, unsigned int flags),
     (dom, disk, base, top, bandwidth, flags))
SHIM('w', int, virDomainBlockRebase,
     (virDomainPtr dom, const char *disk, const char *base,
      unsigned long bandwidth, unsigned int flags),
     (dom, disk, base, bandwidth, flags))
SHIM('r', int, virDomainGetBlockJobInfo,
     (virDomainPtr dom, const char *disk, virDomainBlockJobInfoPtr info,
      unsigned int flags),
     (dom, disk, info, flags))
SHIM('w', int, virDomainBlockJobSetSpeed,
     (virDomainPtr dom, const char *disk, unsigned long bandwidth,
      unsigned int flags),
     (dom, disk, bandwidth, flags))
SHIM('w', int, virDomainSetMetadata,
     (virDomainPtr dom, int type, const char *metadata, const char *key,
      const char *uri, unsigned int flags),
     (dom, type, metadata, key, uri, flags))
SHIM('r', int, virConnectDomainEventRegisterAny,
     (virConnectPtr conn, virDomainPtr dom, int id,
      virConnectDomainEventGenericCallback cb, void *opaque,
      virFreeCallback destroy),
     (conn, dom, id, cb, opaque, destroy))
SHIM('r', int, virConnectDomainEventDeregisterAny,
     (virConnectPtr conn, int callback_id), (conn, callback_id))

int
virDomainBlockJobAbort(virDomainPtr dom, const char *disk, unsigned int flags)
{
    int n = enter("virDomainBlockJobAbort", 'w');
    int result;

    /* libvirt itself shall report it, so it is asked for a disk there is not */
    if ((flags & VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) && ++pivots == fail_pivot)
        disk = "/no/such/disk";
    result = REAL(virDomainBlockJobAbort)(dom, disk, flags);
    leave(n);
    return result;
}
