/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * wait: how long, and until whose word, the engine waits.
 *
 * Everything in the engine that can take time is given a VmrWait and waits
 * through this file: for a file descriptor, or for a call that runs in a
 * thread of its own. So one place holds the deadline and lets Ctrl-C out.
 */

#include <glib.h>

G_BEGIN_DECLS

#define VMR_WAIT_FOREVER G_MAXINT64
#define VMR_WAIT_SLICE_MS 100

typedef struct {
    gint64 deadline; /* µs, g_get_monotonic_time() clock, VMR_WAIT_FOREVER */
    gint64 call_timeout; /* µs that one call may take, VMR_WAIT_FOREVER; 0: it
                          * is not waited for */
    /* How often the caller was interrupted so far: asked in the waiting
     * thread, with no lock held, before each call and at least every
     * VMR_WAIT_SLICE_MS. May be NULL. */
    int (*interrupted)(gpointer data);
    gpointer data;
    int heeded; /* more than so often: the wait ends with CANCELLED */
} VmrWait;

typedef gboolean (*VmrWaitFunc)(gpointer data, GError **error);

/* A wait of @seconds (negative: for ever) with the hook of @like (or none). */
VmrWait vmr_wait_for(double seconds, const VmrWait *like);

/* @wait with @seconds more. */
VmrWait vmr_wait_extended(const VmrWait *wait, double seconds);

/* @wait, but with @seconds from now on if it would end before. */
VmrWait vmr_wait_at_least(const VmrWait *wait, double seconds);

/* A wait for cleaning up after @failed: whatever ended @failed does not end
 * it, a new interruption does; bounded by VMR_WAIT_CLEANUP_SECONDS. */
VmrWait vmr_wait_for_cleanup(const VmrWait *failed);

#define VMR_WAIT_CLEANUP_SECONDS 30.0

/* Wait until @fd is readable or @timeout_ms (-1: none) is over, within @wait;
 * a negative @fd only sleeps. *@ready tells which of the two it was.
 * Errors: TIMEOUT when the deadline passes, CANCELLED, IO. */
gboolean vmr_wait_fd(const VmrWait *wait, int fd, int timeout_ms,
                     gboolean *ready, GError **error);

typedef gboolean (*VmrWaitAttempt)(gpointer data, const VmrWait *wait,
                                   GError **error);

/* QEMU and libvirt take a moment for what they have said to be done already: try
 * @attempt(@data) again and again, at once, soon, and then less often, until it
 * succeeds, fails by another code than @code (a VmrErrorCode), or has failed for
 * VMR_WAIT_SETTLE_SECONDS. Errors: its last one, TIMEOUT, CANCELLED. */
gboolean vmr_wait_settle(const VmrWait *wait, int code, VmrWaitAttempt attempt,
                         gpointer data, GError **error);

#define VMR_WAIT_SETTLE_SECONDS 2.0

/* Run @func(@data) in a thread of its own and wait for it within @wait's
 * deadline and call_timeout; a deadline that is near, or over, still leaves it two
 * seconds, since calls answer soon, and one whose outcome is unknown is worse than
 * one that was late. @data is handed over: @destroy frees it when both
 * sides are done with it. When the wait ends first the error says so (TIMEOUT
 * with VIR_ERR_OPERATION_TIMEOUT, or CANCELLED), the call goes on and its
 * outcome is unknown and dropped. @collect (may be NULL) is called in the
 * waiting thread with @data once @func has succeeded, to take the results.
 * @what names the call in error texts. */
gboolean vmr_wait_call(const VmrWait *wait, const char *what, VmrWaitFunc func,
                       gpointer data, GDestroyNotify destroy,
                       void (*collect)(gpointer data, gpointer into),
                       gpointer into, GError **error);

G_END_DECLS
