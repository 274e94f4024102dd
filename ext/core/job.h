/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * job: waiting for the block jobs of a domain without asking all the time.
 *
 * A VmrJobs only says "look again": when an event came, or, since events can
 * get lost or have no loop that delivers them, after 1, 2, 4 ... 10 seconds. What
 * is true is read from libvirt afterwards, never from the event.
 */

#include "hv.h"

G_BEGIN_DECLS

typedef struct VmrJobs VmrJobs;

/* Listen to the domain of @dom from now on; to be called before what is waited
 * for is started or looked at. Where libvirt has no events for us, polling is
 * quicker instead. Errors: TIMEOUT, CANCELLED. */
VmrJobs *vmr_jobs_open(const VmrDomain *dom, const VmrWait *wait,
                       GError **error);

/* Stop listening and free @jobs; does not block. NULL is fine. */
void vmr_jobs_close(VmrJobs *jobs);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrJobs, vmr_jobs_close)

/* What a look at the state of things says. */
typedef enum {
    VMR_LOOK_DONE,     /* as it was waited for */
    VMR_LOOK_AGAIN,    /* not yet: look again on the next event */
    VMR_LOOK_SETTLING, /* wrong, unless libvirt is a moment behind QEMU */
    VMR_LOOK_FAILED,   /* the error is set */
} VmrLook;

/* Looks; with @last, SETTLING is no answer any more but FAILED is. */
typedef VmrLook (*VmrLookFunc)(gpointer data, gboolean last,
                               const VmrWait *wait, GError **error);

/* Look until it is DONE (TRUE) or FAILED.
 * Errors: what @look sets, TIMEOUT, CANCELLED. */
gboolean vmr_jobs_wait_until(VmrJobs *jobs, VmrLookFunc look, gpointer data,
                             const VmrWait *wait, GError **error);

/* A file descriptor that is readable when it is time to look again because of
 * an event; borrowed. */
int vmr_jobs_get_fd(const VmrJobs *jobs);

G_END_DECLS
