/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hv.h"

#include <string.h>

#include "error.h"

static const char *const op_names[VMR_HV_LAST] = {
    [VMR_HV_GET_VERSIONS] = "virConnectGetVersion",
    [VMR_HV_GET_XML] = "virDomainGetXMLDesc",
    [VMR_HV_GET_STATE] = "virDomainGetState",
    [VMR_HV_GET_JOB] = "virDomainGetJobStats",
    [VMR_HV_IS_PERSISTENT] = "virDomainIsPersistent",
    [VMR_HV_DEFINE] = "virDomainDefineXMLFlags",
    [VMR_HV_SUSPEND] = "virDomainSuspend",
    [VMR_HV_RESUME] = "virDomainResume",
    [VMR_HV_SNAPSHOT_CREATE] = "virDomainSnapshotCreateXML",
    [VMR_HV_SNAPSHOT_LIST] = "virDomainListAllSnapshots",
    [VMR_HV_SNAPSHOT_GET_XML] = "virDomainSnapshotGetXMLDesc",
    [VMR_HV_SNAPSHOT_IS_CURRENT] = "virDomainSnapshotIsCurrent",
    [VMR_HV_SNAPSHOT_DELETE] = "virDomainSnapshotDelete",
    [VMR_HV_BLOCK_COPY] = "virDomainBlockCopy",
    [VMR_HV_BLOCK_COMMIT] = "virDomainBlockCommit",
    [VMR_HV_BLOCK_REBASE] = "virDomainBlockRebase",
    [VMR_HV_BLOCK_JOB_ABORT] = "virDomainBlockJobAbort",
    [VMR_HV_BLOCK_JOB_INFO] = "virDomainGetBlockJobInfo",
    [VMR_HV_BLOCK_JOB_SET_SPEED] = "virDomainBlockJobSetSpeed",
    [VMR_HV_SET_IOTUNE] = "virDomainSetBlockIoTune",
    [VMR_HV_QUERY_BLOCK] = "virDomainQemuMonitorCommand",
    [VMR_HV_GET_METADATA] = "virDomainGetMetadata",
    [VMR_HV_SET_METADATA] = "virDomainSetMetadata",
    [VMR_HV_EVENTS_OPEN] = "virConnectDomainEventRegisterAny",
    [VMR_HV_EVENTS_CLOSE] = "virConnectDomainEventDeregisterAny",
};

/* Whether @op changes nothing, so that it does not matter when it comes back. */
static gboolean
op_is_harmless(VmrHvOp op)
{
    switch (op) {
    case VMR_HV_GET_VERSIONS:
    case VMR_HV_GET_XML:
    case VMR_HV_GET_STATE:
    case VMR_HV_GET_JOB:
    case VMR_HV_IS_PERSISTENT:
    case VMR_HV_SNAPSHOT_LIST:
    case VMR_HV_SNAPSHOT_GET_XML:
    case VMR_HV_SNAPSHOT_IS_CURRENT:
    case VMR_HV_BLOCK_JOB_INFO:
    case VMR_HV_QUERY_BLOCK:
    case VMR_HV_GET_METADATA:
    case VMR_HV_EVENTS_OPEN:
    case VMR_HV_EVENTS_CLOSE:
        return TRUE;
    case VMR_HV_DEFINE:
    case VMR_HV_SUSPEND:
    case VMR_HV_RESUME:
    case VMR_HV_SNAPSHOT_CREATE:
    case VMR_HV_SNAPSHOT_DELETE:
    case VMR_HV_BLOCK_COPY:
    case VMR_HV_BLOCK_COMMIT:
    case VMR_HV_BLOCK_REBASE:
    case VMR_HV_BLOCK_JOB_ABORT:
    case VMR_HV_BLOCK_JOB_SET_SPEED:
    case VMR_HV_SET_IOTUNE:
    case VMR_HV_SET_METADATA:
    case VMR_HV_LAST:
        break;
    }
    return FALSE;
}

const char *
vmr_hv_op_name(VmrHvOp op)
{
    g_return_val_if_fail((unsigned)op < VMR_HV_LAST, "unknown");
    return op_names[op];
}

VmrDomain *
vmr_domain_new(VmrHv *hv, virDomainPtr ptr)
{
    VmrDomain *dom = g_new0(VmrDomain, 1);

    dom->hv = hv;
    dom->ptr = hv->domain_ref(ptr);
    return dom;
}

void
vmr_domain_free(VmrDomain *dom)
{
    if (!dom)
        return;
    dom->hv->domain_unref(dom->ptr);
    g_free(dom);
}

/* A call with all that it points to, so that it can outlive its caller. */
typedef struct {
    VmrHv *hv;
    VmrHvCall call;
    gboolean begun;
    gboolean ok;
    gboolean collected;
} OwnedCall;

static OwnedCall *
owned_call_new(const VmrDomain *dom, const VmrHvCall *call)
{
    OwnedCall *owned = g_new0(OwnedCall, 1);

    owned->hv = dom->hv;
    owned->call = *call;
    owned->call.dom = dom->hv->domain_ref(dom->ptr);
    owned->call.disk = g_strdup(call->disk);
    owned->call.name = g_strdup(call->name);
    owned->call.xml = g_strdup(call->xml);
    owned->call.base = g_strdup(call->base);
    owned->call.top = g_strdup(call->top);
    owned->call.key = g_strdup(call->key);
    owned->call.uri = g_strdup(call->uri);
    owned->call.iotune = vmr_iotune_copy(call->iotune);
    return owned;
}

/* A registration whose caller has stopped waiting for it: nobody else knows
 * that there is something to undo. */
static void
abandon_events(OwnedCall *owned)
{
    VmrDomain dom = {.hv = owned->hv, .ptr = owned->call.dom};
    VmrWait no_wait = {.call_timeout = 0};

    if (!owned->begun)
        owned->call.event_destroy(owned->call.event_data);
    else if (owned->ok && !owned->collected)
        (void)vmr_hv_events_close(&dom, owned->call.events, &no_wait, NULL);
}

static void
owned_call_free(gpointer data)
{
    OwnedCall *owned = data;

    if (owned->call.op == VMR_HV_EVENTS_OPEN)
        abandon_events(owned);
    owned->hv->domain_unref(owned->call.dom);
    g_free((char *)owned->call.disk);
    g_free((char *)owned->call.name);
    g_free((char *)owned->call.xml);
    g_free((char *)owned->call.base);
    g_free((char *)owned->call.top);
    g_free((char *)owned->call.key);
    g_free((char *)owned->call.uri);
    vmr_iotune_free((VmrIotune *)owned->call.iotune);
    g_free(owned->call.text);
    g_free(owned);
}

static gboolean
owned_call_perform(gpointer data, GError **error)
{
    OwnedCall *owned = data;

    owned->begun = TRUE;
    owned->ok = owned->hv->perform(owned->hv, &owned->call, error);
    return owned->ok;
}

/* Take over what the call has brought. */
static void
owned_call_collect(gpointer data, gpointer into)
{
    OwnedCall *owned = data;
    VmrHvCall *call = into;

    owned->collected = TRUE;
    call->text = g_steal_pointer(&owned->call.text);
    call->number = owned->call.number;
    call->reason = owned->call.reason;
    call->job = owned->call.job;
    memcpy(call->events, owned->call.events, sizeof(call->events));
}

static gboolean
call_perform(const VmrDomain *dom, VmrHvCall *call, const VmrWait *wait,
             GError **error)
{
    gboolean ok = vmr_wait_call(wait, vmr_hv_op_name(call->op),
                                owned_call_perform, owned_call_new(dom, call),
                                owned_call_free, owned_call_collect, call,
                                error);

    if (!ok)
        vmr_error_annotate(error, call->disk, NULL);
    if (!ok && op_is_harmless(call->op))
        vmr_error_set_unknown(error, FALSE);
    return ok;
}

gboolean
vmr_hv_get_versions(const VmrDomain *dom, int *libvirt, int *hypervisor,
                    const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_GET_VERSIONS};

    if (!call_perform(dom, &call, wait, error))
        return FALSE;
    *libvirt = call.number;
    *hypervisor = call.reason;
    return TRUE;
}

char *
vmr_hv_get_xml(const VmrDomain *dom, guint flags, const VmrWait *wait,
               GError **error)
{
    VmrHvCall call = {.op = VMR_HV_GET_XML, .flags = flags};

    return call_perform(dom, &call, wait, error) ? call.text : NULL;
}

gboolean
vmr_hv_get_state(const VmrDomain *dom, int *state, int *reason,
                 const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_GET_STATE};

    if (!call_perform(dom, &call, wait, error))
        return FALSE;
    *state = call.number;
    if (reason)
        *reason = call.reason;
    return TRUE;
}

gboolean
vmr_hv_get_job(const VmrDomain *dom, int *type, int *operation,
               const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_GET_JOB};

    if (!call_perform(dom, &call, wait, error))
        return FALSE;
    *type = call.number;
    *operation = call.reason;
    return TRUE;
}

gboolean
vmr_hv_is_persistent(const VmrDomain *dom, gboolean *persistent,
                     const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_IS_PERSISTENT};

    if (!call_perform(dom, &call, wait, error))
        return FALSE;
    *persistent = call.number != 0;
    return TRUE;
}

gboolean
vmr_hv_define(const VmrDomain *dom, const char *xml, const VmrWait *wait,
              GError **error)
{
    VmrHvCall call = {.op = VMR_HV_DEFINE, .xml = xml};

    return call_perform(dom, &call, wait, error);
}

gboolean
vmr_hv_suspend(const VmrDomain *dom, const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_SUSPEND};

    return call_perform(dom, &call, wait, error);
}

gboolean
vmr_hv_resume(const VmrDomain *dom, const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_RESUME};

    return call_perform(dom, &call, wait, error);
}

char *
vmr_hv_snapshot_create(const VmrDomain *dom, const char *xml, guint flags,
                       const VmrWait *wait, GError **error)
{
    VmrHvCall call = {
        .op = VMR_HV_SNAPSHOT_CREATE, .xml = xml, .flags = flags};

    return call_perform(dom, &call, wait, error) ? call.text : NULL;
}

char **
vmr_hv_snapshot_list(const VmrDomain *dom, const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_SNAPSHOT_LIST};
    g_autofree char *text = NULL;

    if (!call_perform(dom, &call, wait, error))
        return NULL;
    text = call.text;
    return g_strsplit(text ? text : "", "/", -1);
}

char *
vmr_hv_snapshot_get_xml(const VmrDomain *dom, const char *name,
                        const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_SNAPSHOT_GET_XML, .name = name};

    return call_perform(dom, &call, wait, error) ? call.text : NULL;
}

gboolean
vmr_hv_snapshot_is_current(const VmrDomain *dom, const char *name,
                           gboolean *current, const VmrWait *wait,
                           GError **error)
{
    VmrHvCall call = {.op = VMR_HV_SNAPSHOT_IS_CURRENT, .name = name};

    if (!call_perform(dom, &call, wait, error))
        return FALSE;
    *current = call.number != 0;
    return TRUE;
}

gboolean
vmr_hv_snapshot_delete(const VmrDomain *dom, const char *name, guint flags,
                       const VmrWait *wait, GError **error)
{
    VmrHvCall call = {
        .op = VMR_HV_SNAPSHOT_DELETE, .name = name, .flags = flags};

    return call_perform(dom, &call, wait, error);
}

gboolean
vmr_hv_block_copy(const VmrDomain *dom, const char *disk, const char *xml,
                  guint flags, const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_BLOCK_COPY,
                      .disk = disk,
                      .xml = xml,
                      .flags = flags};

    return call_perform(dom, &call, wait, error);
}

gboolean
vmr_hv_block_commit(const VmrDomain *dom, const char *disk, const char *base,
                    const char *top, guint flags, const VmrWait *wait,
                    GError **error)
{
    VmrHvCall call = {.op = VMR_HV_BLOCK_COMMIT,
                      .disk = disk,
                      .base = base,
                      .top = top,
                      .flags = flags};

    return call_perform(dom, &call, wait, error);
}

gboolean
vmr_hv_block_rebase(const VmrDomain *dom, const char *disk, const char *base,
                    gulong bandwidth, guint flags, const VmrWait *wait,
                    GError **error)
{
    VmrHvCall call = {.op = VMR_HV_BLOCK_REBASE,
                      .disk = disk,
                      .base = base,
                      .bandwidth = bandwidth,
                      .flags = flags};

    return call_perform(dom, &call, wait, error);
}

gboolean
vmr_hv_block_job_abort(const VmrDomain *dom, const char *disk, guint flags,
                       const VmrWait *wait, GError **error)
{
    VmrHvCall call = {
        .op = VMR_HV_BLOCK_JOB_ABORT, .disk = disk, .flags = flags};

    return call_perform(dom, &call, wait, error);
}

gboolean
vmr_hv_block_job_info(const VmrDomain *dom, const char *disk,
                      virDomainBlockJobInfo *info, gboolean *active,
                      const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_BLOCK_JOB_INFO, .disk = disk};

    if (!call_perform(dom, &call, wait, error))
        return FALSE;
    *info = call.job;
    *active = call.number != 0;
    return TRUE;
}

gboolean
vmr_hv_block_job_set_speed(const VmrDomain *dom, const char *disk,
                           gulong bandwidth, const VmrWait *wait,
                           GError **error)
{
    VmrHvCall call = {.op = VMR_HV_BLOCK_JOB_SET_SPEED,
                      .disk = disk,
                      .bandwidth = bandwidth};

    return call_perform(dom, &call, wait, error);
}

gboolean
vmr_hv_set_iotune(const VmrDomain *dom, const char *disk,
                  const VmrIotune *tune, const VmrWait *wait, GError **error)
{
    VmrHvCall call = {
        .op = VMR_HV_SET_IOTUNE, .disk = disk, .iotune = tune};

    return call_perform(dom, &call, wait, error);
}

gboolean
vmr_hv_query_block(const VmrDomain *dom, char **text, const VmrWait *wait,
                   GError **error)
{
    VmrHvCall call = {.op = VMR_HV_QUERY_BLOCK};

    if (!call_perform(dom, &call, wait, error))
        return FALSE;
    *text = call.text;
    return TRUE;
}

gboolean
vmr_hv_get_metadata(const VmrDomain *dom, const char *uri, guint flags,
                    char **text, const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_GET_METADATA, .uri = uri, .flags = flags};

    if (!call_perform(dom, &call, wait, error))
        return FALSE;
    *text = call.text;
    return TRUE;
}

gboolean
vmr_hv_set_metadata(const VmrDomain *dom, const char *xml, const char *key,
                    const char *uri, guint flags, const VmrWait *wait,
                    GError **error)
{
    VmrHvCall call = {.op = VMR_HV_SET_METADATA,
                      .xml = xml,
                      .key = key,
                      .uri = uri,
                      .flags = flags};

    return call_perform(dom, &call, wait, error);
}

gboolean
vmr_hv_events_open(const VmrDomain *dom, VmrHvEventFunc func, gpointer data,
                   GDestroyNotify destroy, int ids[VMR_HV_N_EVENTS],
                   const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_EVENTS_OPEN,
                      .event_func = func,
                      .event_data = data,
                      .event_destroy = destroy};

    if (!call_perform(dom, &call, wait, error))
        return FALSE;
    memcpy(ids, call.events, sizeof(call.events));
    return TRUE;
}

gboolean
vmr_hv_events_close(const VmrDomain *dom, const int ids[VMR_HV_N_EVENTS],
                    const VmrWait *wait, GError **error)
{
    VmrHvCall call = {.op = VMR_HV_EVENTS_CLOSE};

    memcpy(call.events, ids, sizeof(call.events));
    return call_perform(dom, &call, wait, error);
}
