/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * fake_hv: a hypervisor of our own behind VmrHv: one domain with up to three
 * disks on real image files, which answers as libvirt does, holds QEMU's locks,
 * and can be told to fail, to hang, or to be slow at any call.
 */

#include "hv.h"
#include "snapspec.h"

#define FAKE_MAX_DISKS 3
#define FAKE_UUID "c7a5fdbd-cdaf-9455-926a-d65c16db1809"
#define FAKE_SNAPSHOT "snap"

/* The images: for each disk DIR/old/vda on top of DIR/old/vda-base, an empty
 * copy of both in DIR/new, and DIR/old/vda.reuse and DIR/new/vda.reuse on top
 * of the two. No test writes to them, so one set serves many domains. */
typedef struct {
    char *folder;
} FakeFiles;

/* Make all of it in a new folder. */
FakeFiles *fake_files_new(void);

/* The same in a folder below @parent, not in memory. */
FakeFiles *fake_files_new_in(const char *parent);

/* Remove it with all that is there by then. */
void fake_files_free(FakeFiles *files);

/* The path of DIR/SIDE/NAME; owned. */
char *fake_files_path(const FakeFiles *files, const char *side,
                      const char *name);

/* Remove DIR/old/vda.snap and the like, which a test has left behind. */
void fake_files_tidy(const FakeFiles *files);

typedef enum {
    FAKE_EVENTS_THREAD, /* delivered from a thread, as by an event loop */
    FAKE_EVENTS_SYNC,   /* delivered before the call returns */
    FAKE_EVENTS_LOST,   /* registered, and never delivered */
    FAKE_EVENTS_NONE,   /* cannot be registered */
} FakeEvents;

/* What a test may change while no call is under way. */
typedef struct {
    FakeEvents events;
    gboolean jobs_on_demand;   /* a job is ready (a pull: ends) by
                                * fake_hv_advance(), else at once */
    gboolean aborts_on_demand; /* an asynchronous abort ends by that, too */
    gboolean transient;        /* no persistent definition */
    guint qemu_user;           /* uid and gid of QEMU, or 0: nothing is told */
    int job;                   /* a virDomainJobOperation that goes on, or 0 */
    gboolean keep_inactive;    /* the persistent definition does not follow */
    gboolean lie;              /* a pivot changes the locks, but no XML */
    VmrHvOp ends_after;        /* the job of the first disk ends right after a
                                * call of this ... */
    guint ends_in;             /* ... the so manieth from now on, 0: none */
    gboolean ends_well;        /* and that as if it were pivoted */
    guint lingers;             /* so often the XML shows a job that has failed */
    const char *refuse_copy;   /* target whose copy cannot be started */
    const char *refuse_pivot;  /* target that cannot be pivoted */
    const char *unlocked;      /* path whose lock is not held */
    const char *locked;        /* path that is always locked */
    guint64 behind;            /* bytes that a copy never makes good */
    gboolean behind_at_rest;   /* only while the guest is suspended */
    const char *written_at_rest; /* path that changes once the guest is suspended */
    guint64 mirrors;           /* bytes/s: a copy takes its time, see fake_flow.c */
    guint64 writes;            /* bytes/s that the guest writes to each disk then */
    guint64 working_set;       /* bytes that it writes to again and again */
    guint slow_info;           /* ms that it takes to tell of a job */
    guint no_resume;           /* so often a resume fails for want of descriptors */
    void (*on_suspend)(gpointer data); /* while the guest is being suspended */
    gpointer on_suspend_data;
    int libvirt_version;
    int qemu_version;
} FakeKnobs;

typedef enum {
    FAKE_FAULT_NONE,
    FAKE_FAULT_BEFORE, /* the call fails and has done nothing */
    FAKE_FAULT_AFTER,  /* the call fails, but has worked */
    FAKE_FAULT_HANG,   /* the call works, but not before fake_hv_release() */
    FAKE_FAULT_DEATH,  /* this and all later calls fail, doing nothing */
} FakeFault;

typedef struct FakeHv FakeHv;

/* A running, persistent domain "guest" with the disks vda, vdb, ... */
FakeHv *fake_hv_new(const FakeFiles *files, guint n_disks);

/* Free it once all references to the domain are dropped, for which there is a
 * little time: calls that nobody waits for may be on their way. */
void fake_hv_free(FakeHv *fake);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FakeFiles, fake_files_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(FakeHv, fake_hv_free)

/* It as the engine wants it; borrowed. */
VmrHv *fake_hv_get(FakeHv *fake);
virDomainPtr fake_hv_domain(FakeHv *fake);

/* Its knobs; borrowed. */
FakeKnobs *fake_hv_knobs(FakeHv *fake);

/* A mirrored snapshot of the first @n_disks disks, in new files or (@reuse) in
 * those that are there; owned. */
VmrSnapSpec *fake_hv_spec(const FakeHv *fake, guint n_disks, gboolean reuse);

/* Let the @n-th call from now on (1: the next) have @fault. Deregistering
 * events is not counted: it happens at any time in a thread of its own. */
void fake_hv_set_fault(FakeHv *fake, FakeFault fault, guint n);

/* Let the next call of @op have @fault. */
void fake_hv_set_fault_on(FakeHv *fake, FakeFault fault, VmrHvOp op);

/* Take the fault away; whether it was reached. Calls that hang go on. */
gboolean fake_hv_release(FakeHv *fake);

/* The call that had the last fault. */
VmrHvOp fake_hv_fault_op(FakeHv *fake);

/* How many calls of @op (VMR_HV_LAST: of all) there were. */
guint fake_hv_count(FakeHv *fake, VmrHvOp op);

/* Wait until no call is under way and all listeners are gone, FALSE if that
 * takes longer than a few seconds. */
gboolean fake_hv_settle(FakeHv *fake);

/* Let the job of @target, if any, go on as far as it can without being told;
 * lock what the knobs say. */
void fake_hv_advance(FakeHv *fake, const char *target);

/* Have libvirt forget the <mirror> of @target's job, as when it dies starting it. */
void fake_hv_hide_job(FakeHv *fake, const char *target);

/* Let the job of @target fail. */
void fake_hv_fail_job(FakeHv *fake, const char *target);

/* Put the disk @target on @path, whatever the engine thinks. */
void fake_hv_set_source(FakeHv *fake, const char *target, const char *path);

/* Shut the domain off. */
void fake_hv_shut_off(FakeHv *fake);

/* Send an event of the job of @target that says nothing new. */
void fake_hv_ring(FakeHv *fake, const char *target);

/* What the guest's disk @target runs on; owned. */
char *fake_hv_dup_source(FakeHv *fake, const char *target);

/* Set the limits of the disk @target as somebody else would; @tune is copied. */
void fake_hv_set_iotune(FakeHv *fake, const char *target, const VmrIotune *tune);

/* Its limits; owned. */
VmrIotune *fake_hv_dup_iotune(FakeHv *fake, const char *target);

/* Metadata as stored, live or (@config) persistent; owned, NULL: none. */
char *fake_hv_dup_metadata(FakeHv *fake, gboolean config);
void fake_hv_set_metadata(FakeHv *fake, gboolean config, const char *xml);

/* Whether it has the snapshot @name. */
gboolean fake_hv_has_snapshot(FakeHv *fake, const char *name);

/* Add the snapshot @name and make it the current one. */
void fake_hv_add_snapshot(FakeHv *fake, const char *name);

/* All that there is to tell: chains, jobs, snapshots, metadata (only whether
 * there is any), listeners, locks, and the names of the files; owned. */
char *fake_hv_describe(FakeHv *fake);
