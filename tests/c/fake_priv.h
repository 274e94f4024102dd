/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * fake_priv: what the parts of the fake hypervisor share: calls and faults
 * (fake_hv.c), events (fake_events.c), disks, jobs and locks (fake_disk.c),
 * copies that take their time (fake_flow.c), XML (fake_xml.c), the image files (fake_files.c), and what tests see of it
 * all (fake_look.c).
 */

#include <libvirt/virterror.h>
#include <pthread.h>

#include "domxml.h"
#include "error.h"
#include "fake_hv.h"

typedef struct {
    char *target;
    GPtrArray *chain; /* of char *, top first */
    char *inactive;   /* source in the persistent definition */
    int job;          /* virDomainBlockJobType, 0: none */
    GPtrArray *dest;  /* of char *: the chain that the end of the job brings */
    VmrReady ready;
    gboolean hidden;  /* the job is not in the XML */
    char *lingering;  /* where a copy that has failed went to, or NULL */
    VmrIotune *iotune;
    /* of a copy that takes its time */
    guint64 current;
    guint64 left;
    gint64 flowed_at; /* µs, 0: it has not begun */
} FakeDisk;

typedef struct {
    gint refs; /* atomic */
    int ids[VMR_HV_N_EVENTS];
    VmrHvEventFunc func;
    gpointer data;
    GDestroyNotify destroy;
} FakeListener;

struct FakeHv {
    VmrHv hv;  /* first: a VmrHv is a FakeHv */
    gint refs; /* atomic: on the domain */
    const FakeFiles *files;
    FakeKnobs knobs;
    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t cond;
    FakeFault fault;
    guint fault_in; /* calls until then */
    VmrHvOp fault_on; /* that count, LAST: all */
    gboolean reached;
    VmrHvOp fault_op;
    guint under_way;
    guint counts[VMR_HV_LAST + 1];
    GPtrArray *listeners;
    GQueue events; /* of VmrHvEvent, yet to be delivered */
    pthread_t thread;
    gboolean stop;
    int next_id;
    gboolean shut_off;
    gboolean paused;
    GPtrArray *disks;
    GHashTable *locks;     /* path -> descriptor that holds it */
    GHashTable *snapshots; /* name -> XML */
    char *current;
    char *metadata[2]; /* live, persistent */
};

/* Set @error as libvirt would. Always FALSE. */
gboolean fake_refuse(GError **error, int virt_code, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/* Tell the listeners, with the mutex held. */
void fake_emit(FakeHv *fake, const char *target, int type, int status);

/* fake_events.c: with the mutex held, but for the first three. */
void fake_listener_unref(gpointer listener);
void fake_event_free(gpointer event);
void *fake_run_events(void *fake);
void fake_deliver(FakeHv *fake);
gboolean fake_events_open(FakeHv *fake, VmrHvCall *call, GError **error);
gboolean fake_events_close(FakeHv *fake, VmrHvCall *call, GError **error);

/* fake_disk.c: with the mutex held. */
FakeDisk *fake_disk_new(const FakeHv *fake, guint index);
void fake_disk_free(FakeDisk *disk);
FakeDisk *fake_disk_find(FakeHv *fake, const char *target, GError **error);
void fake_disk_set_top(FakeHv *fake, FakeDisk *disk, GPtrArray *chain);
void fake_disk_sync_locks(FakeHv *fake);
void fake_disk_end_job(FakeHv *fake, FakeDisk *disk);
gboolean fake_block_copy(FakeHv *fake, VmrHvCall *call, GError **error);
gboolean fake_block_commit(FakeHv *fake, VmrHvCall *call, GError **error);
gboolean fake_block_rebase(FakeHv *fake, VmrHvCall *call, GError **error);
gboolean fake_block_job_abort(FakeHv *fake, VmrHvCall *call, GError **error);
gboolean fake_block_job_info(FakeHv *fake, VmrHvCall *call, GError **error);
void fake_disk_finish_job(FakeHv *fake, FakeDisk *disk, gboolean take,
                          int status);
gboolean fake_block_job_set_speed(FakeHv *fake, VmrHvCall *call,
                                  GError **error);

/* fake_flow.c: with the mutex held. */
void fake_flow(FakeHv *fake, FakeDisk *disk);
gboolean fake_set_iotune(FakeHv *fake, VmrHvCall *call, GError **error);

/* fake_xml.c: with the mutex held. */
char *fake_xml_of_domain(FakeHv *fake, gboolean inactive);
gboolean fake_snapshot_create(FakeHv *fake, VmrHvCall *call, GError **error);
char *fake_xml_copy_path(const char *xml);
