/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * hv: every call that the engine makes to the hypervisor, as a value.
 *
 * A call is a struct that one function, VmrHv.perform, carries out. So what
 * applies to all calls (a deadline, a fault on the n-th call, a simulated
 * hypervisor) is written once and knows nothing of the single call. The typed
 * functions below fill the struct in and are all that the engine uses.
 */

#include <libvirt/libvirt.h>

#include "iotune.h"
#include "wait.h"

G_BEGIN_DECLS

typedef enum {
    VMR_HV_GET_VERSIONS,
    VMR_HV_GET_XML,
    VMR_HV_GET_STATE,
    VMR_HV_GET_JOB,
    VMR_HV_IS_PERSISTENT,
    VMR_HV_DEFINE,
    VMR_HV_SUSPEND,
    VMR_HV_RESUME,
    VMR_HV_SNAPSHOT_CREATE,
    VMR_HV_SNAPSHOT_LIST,
    VMR_HV_SNAPSHOT_GET_XML,
    VMR_HV_SNAPSHOT_IS_CURRENT,
    VMR_HV_SNAPSHOT_DELETE,
    VMR_HV_BLOCK_COPY,
    VMR_HV_BLOCK_COMMIT,
    VMR_HV_BLOCK_REBASE,
    VMR_HV_BLOCK_JOB_ABORT,
    VMR_HV_BLOCK_JOB_INFO,
    VMR_HV_BLOCK_JOB_SET_SPEED,
    VMR_HV_SET_IOTUNE,
    VMR_HV_QUERY_BLOCK,
    VMR_HV_GET_METADATA,
    VMR_HV_SET_METADATA,
    VMR_HV_EVENTS_OPEN,
    VMR_HV_EVENTS_CLOSE,
    VMR_HV_LAST
} VmrHvOp;

/* What an event says; called in the thread of the event loop. */
typedef enum { VMR_HV_EVENT_BLOCK_JOB, VMR_HV_EVENT_LIFECYCLE } VmrHvEventKind;

typedef struct {
    VmrHvEventKind kind;
    const char *disk; /* target name, BLOCK_JOB only */
    int type;         /* virDomainBlockJobType or virDomainEventType */
    int status;       /* virConnectDomainEventBlockJobStatus, or detail */
} VmrHvEvent;

typedef void (*VmrHvEventFunc)(const VmrHvEvent *event, gpointer data);

#define VMR_HV_N_EVENTS 2

typedef struct {
    VmrHvOp op;
    virDomainPtr dom;
    /* in; each op uses what it needs, see hv.c */
    const char *disk;  /* target name */
    const char *name;  /* of a snapshot */
    const char *xml;
    const char *base;
    const char *top;
    const char *key;
    const char *uri;
    gulong bandwidth;  /* bytes/s, 0 for no limit */
    const VmrIotune *iotune;
    guint flags;
    VmrHvEventFunc event_func;
    gpointer event_data;
    GDestroyNotify event_destroy;
    /* out, owned by the call */
    char *text;
    int number;
    int reason;
    virDomainBlockJobInfo job;
    int events[VMR_HV_N_EVENTS]; /* also in for EVENTS_CLOSE */
} VmrHvCall;

typedef struct VmrHv VmrHv;

/* Carry out @call: fill its out members, or set @error and return FALSE. */
typedef gboolean (*VmrHvFunc)(VmrHv *hv, VmrHvCall *call, GError **error);

struct VmrHv {
    VmrHvFunc perform;
    virDomainPtr (*domain_ref)(virDomainPtr dom);
    void (*domain_unref)(virDomainPtr dom);
};

/* The real one, on libvirt; static. */
VmrHv *vmr_hv_libvirt(void);

/* The name of the libvirt function behind @op ("virDomainBlockCopy"). */
const char *vmr_hv_op_name(VmrHvOp op);

/* A domain together with the way to talk to it. */
typedef struct {
    VmrHv *hv;
    virDomainPtr ptr;
} VmrDomain;

/* A new reference on the domain behind @ptr; vmr_domain_free() drops it. */
VmrDomain *vmr_domain_new(VmrHv *hv, virDomainPtr ptr);

/* Drop the reference; NULL is fine. */
void vmr_domain_free(VmrDomain *dom);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(VmrDomain, vmr_domain_free)

/* The functions below each make one libvirt call, under @wait's deadline in a
 * thread of its own. Errors: VIRT as libvirt gave it, TIMEOUT, CANCELLED. */

/* The version of the libvirt that runs the domain, and of its hypervisor, both
 * as major * 1000000 + minor * 1000 + release (virConnectGetLibVersion,
 * virConnectGetVersion). */
gboolean vmr_hv_get_versions(const VmrDomain *dom, int *libvirt,
                             int *hypervisor, const VmrWait *wait,
                             GError **error);

/* The domain's XML (virDomainGetXMLDesc); owned by the caller. */
char *vmr_hv_get_xml(const VmrDomain *dom, guint flags, const VmrWait *wait,
                     GError **error);

/* *@state a virDomainState, *@reason (may be NULL) why (virDomainGetState). */
gboolean vmr_hv_get_state(const VmrDomain *dom, int *state, int *reason,
                          const VmrWait *wait, GError **error);

/* *@type a virDomainJobType, *@operation a virDomainJobOperation: what works on the
 * domain as a whole, as a backup does; block jobs are none of these
 * (virDomainGetJobStats). Drivers that have no jobs have none now. */
gboolean vmr_hv_get_job(const VmrDomain *dom, int *type, int *operation,
                        const VmrWait *wait, GError **error);

/* Whether the domain has a persistent definition (virDomainIsPersistent). */
gboolean vmr_hv_is_persistent(const VmrDomain *dom, gboolean *persistent,
                              const VmrWait *wait, GError **error);

/* Make @xml the persistent definition of the domain it names
 * (virDomainDefineXMLFlags, validated); a running domain is not touched. */
gboolean vmr_hv_define(const VmrDomain *dom, const char *xml,
                       const VmrWait *wait, GError **error);

/* Stop the guest's CPUs (virDomainSuspend). */
gboolean vmr_hv_suspend(const VmrDomain *dom, const VmrWait *wait,
                        GError **error);

/* Let the guest's CPUs run on (virDomainResume). */
gboolean vmr_hv_resume(const VmrDomain *dom, const VmrWait *wait,
                       GError **error);

/* Take a snapshot (virDomainSnapshotCreateXML); the name it got is returned
 * and owned by the caller. */
char *vmr_hv_snapshot_create(const VmrDomain *dom, const char *xml,
                             guint flags, const VmrWait *wait, GError **error);

/* The names of the domain's snapshots, NULL-terminated, owned
 * (virDomainListAllSnapshots). */
char **vmr_hv_snapshot_list(const VmrDomain *dom, const VmrWait *wait,
                            GError **error);

/* The XML of the snapshot @name (virDomainSnapshotGetXMLDesc); owned. */
char *vmr_hv_snapshot_get_xml(const VmrDomain *dom, const char *name,
                              const VmrWait *wait, GError **error);

/* Whether the snapshot @name is the current one (virDomainSnapshotIsCurrent). */
gboolean vmr_hv_snapshot_is_current(const VmrDomain *dom, const char *name,
                                    gboolean *current, const VmrWait *wait,
                                    GError **error);

/* Delete the snapshot @name (virDomainSnapshotDelete). */
gboolean vmr_hv_snapshot_delete(const VmrDomain *dom, const char *name,
                                guint flags, const VmrWait *wait,
                                GError **error);

/* Start a copy of @disk to the <disk> described by @xml (virDomainBlockCopy). */
gboolean vmr_hv_block_copy(const VmrDomain *dom, const char *disk,
                           const char *xml, guint flags, const VmrWait *wait,
                           GError **error);

/* Start committing @top (NULL: the active layer) of @disk into @base (NULL:
 * the layer below, with VIR_DOMAIN_BLOCK_COMMIT_SHALLOW; virDomainBlockCommit). */
gboolean vmr_hv_block_commit(const VmrDomain *dom, const char *disk,
                             const char *base, const char *top, guint flags,
                             const VmrWait *wait, GError **error);

/* Start pulling the layers between @base (NULL: all) and the top of @disk into
 * the top, at most @bandwidth bytes/s (virDomainBlockRebase). */
gboolean vmr_hv_block_rebase(const VmrDomain *dom, const char *disk,
                             const char *base, gulong bandwidth, guint flags,
                             const VmrWait *wait, GError **error);

/* End the block job of @disk (virDomainBlockJobAbort). */
gboolean vmr_hv_block_job_abort(const VmrDomain *dom, const char *disk,
                                guint flags, const VmrWait *wait,
                                GError **error);

/* The figures of the block job of @disk (virDomainGetBlockJobInfo); *@active
 * is FALSE and @info is zeroed when there is no job. */
gboolean vmr_hv_block_job_info(const VmrDomain *dom, const char *disk,
                               virDomainBlockJobInfo *info, gboolean *active,
                               const VmrWait *wait, GError **error);

/* Limit the block job of @disk to @bandwidth bytes/s, 0: none
 * (virDomainBlockJobSetSpeed). */
gboolean vmr_hv_block_job_set_speed(const VmrDomain *dom, const char *disk,
                                    gulong bandwidth, const VmrWait *wait,
                                    GError **error);

/* Set all limits of @disk, for as long as its QEMU runs (virDomainSetBlockIoTune, live
 * only). */
gboolean vmr_hv_set_iotune(const VmrDomain *dom, const char *disk,
                           const VmrIotune *tune, const VmrWait *wait,
                           GError **error);

/* QEMU's own words on what each of its disks runs on, for people to read
 * (virDomainQemuMonitorCommand, "info block"); owned. libvirt calls a domain
 * tainted afterwards, so this is for where nothing else can tell. Errors:
 * NOT_SUPPORTED without libvirt's library for it. */
gboolean vmr_hv_query_block(const VmrDomain *dom, char **text,
                            const VmrWait *wait, GError **error);

/* The metadata element stored under @uri (virDomainGetMetadata), owned by the
 * caller; *@text is NULL where there is none. */
gboolean vmr_hv_get_metadata(const VmrDomain *dom, const char *uri,
                             guint flags, char **text, const VmrWait *wait,
                             GError **error);

/* Store (@xml NULL: remove) an element under @uri (virDomainSetMetadata). */
gboolean vmr_hv_set_metadata(const VmrDomain *dom, const char *xml,
                             const char *key, const char *uri, guint flags,
                             const VmrWait *wait, GError **error);

/* Have @func called for the block-job and lifecycle events of the domain
 * (virConnectDomainEventRegisterAny, once each). @data is handed over, also
 * when this fails: @destroy frees it after the last call of @func. @ids is
 * what vmr_hv_events_close() wants. */
gboolean vmr_hv_events_open(const VmrDomain *dom, VmrHvEventFunc func,
                            gpointer data, GDestroyNotify destroy,
                            int ids[VMR_HV_N_EVENTS], const VmrWait *wait,
                            GError **error);

/* Undo vmr_hv_events_open() (virConnectDomainEventDeregisterAny). */
gboolean vmr_hv_events_close(const VmrDomain *dom,
                             const int ids[VMR_HV_N_EVENTS],
                             const VmrWait *wait, GError **error);

G_END_DECLS
