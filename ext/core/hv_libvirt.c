/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Each libvirt call that the engine makes, once. Where one fails, libvirt's
 * error is taken on the next line: the call after would wipe it. */

#include <dlfcn.h>
#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>
#include <stdlib.h>
#include <string.h>

#include "domxml.h"
#include "error.h"
#include "hv.h"

/* Take what libvirt returned, and allocated with malloc(). */
static gboolean
take_text(VmrHvCall *call, char *text)
{
    if (!text)
        return FALSE;
    call->text = g_strdup(text);
    free(text);
    return TRUE;
}

static gboolean
get_versions(VmrHvCall *call)
{
    virConnectPtr conn = virDomainGetConnect(call->dom);
    unsigned long version;

    if (virConnectGetLibVersion(conn, &version) < 0)
        return FALSE;
    call->number = (int)version;
    if (virConnectGetVersion(conn, &version) < 0)
        return FALSE;
    call->reason = (int)version;
    return TRUE;
}

static gboolean
get_xml(VmrHvCall *call)
{
    return take_text(call, virDomainGetXMLDesc(call->dom, call->flags));
}

static gboolean
get_state(VmrHvCall *call)
{
    return virDomainGetState(call->dom, &call->number, &call->reason, 0) == 0;
}

/* Drivers other than QEMU's may not know of jobs. */
static gboolean
get_job(VmrHvCall *call, GError **error)
{
    virTypedParameterPtr params = NULL;
    int n = 0;
    g_autoptr(GError) local = NULL;

    if (virDomainGetJobStats(call->dom, &call->number, &params, &n, 0) < 0) {
        vmr_error_set_from_libvirt(&local);
        if (vmr_error_get_detail(local)->virt_code == VIR_ERR_NO_SUPPORT)
            return TRUE;
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    (void)virTypedParamsGetInt(params, n, VIR_DOMAIN_JOB_OPERATION,
                               &call->reason);
    virTypedParamsFree(params, n);
    return TRUE;
}

static gboolean
is_persistent(VmrHvCall *call)
{
    call->number = virDomainIsPersistent(call->dom);
    return call->number >= 0;
}

static gboolean
define(VmrHvCall *call)
{
    virDomainPtr defined =
        virDomainDefineXMLFlags(virDomainGetConnect(call->dom), call->xml,
                                VIR_DOMAIN_DEFINE_VALIDATE);

    if (!defined)
        return FALSE;
    virDomainFree(defined);
    return TRUE;
}

static gboolean
suspend(VmrHvCall *call)
{
    return virDomainSuspend(call->dom) == 0;
}

static gboolean
resume(VmrHvCall *call)
{
    return virDomainResume(call->dom) == 0;
}

static gboolean
snapshot_create(VmrHvCall *call)
{
    virDomainSnapshotPtr snap =
        virDomainSnapshotCreateXML(call->dom, call->xml, call->flags);

    if (!snap)
        return FALSE;
    call->text = g_strdup(virDomainSnapshotGetName(snap));
    virDomainSnapshotFree(snap);
    return TRUE;
}

/* Joined by what no name can have in it. */
static gboolean
snapshot_list(VmrHvCall *call)
{
    virDomainSnapshotPtr *list = NULL;
    int n = virDomainListAllSnapshots(call->dom, &list, 0);
    g_autoptr(GString) names = g_string_new(NULL);

    if (n < 0)
        return FALSE;
    for (int i = 0; i < n; i++) {
        g_string_append_printf(names, "%s%s", i > 0 ? "/" : "",
                               virDomainSnapshotGetName(list[i]));
        virDomainSnapshotFree(list[i]);
    }
    free(list);
    call->text = g_strdup(names->str);
    return TRUE;
}

typedef gboolean (*SnapshotFunc)(virDomainSnapshotPtr snap, VmrHvCall *call);

/* Find a snapshot in the list of them: a look-up by name would, where there is
 * none, have libvirt print its error to the program's stderr. */
static virDomainSnapshotPtr
find_snapshot(VmrHvCall *call, GError **error)
{
    virDomainSnapshotPtr *list = NULL;
    virDomainSnapshotPtr found = NULL;
    int n = virDomainListAllSnapshots(call->dom, &list, 0);

    if (n < 0) {
        vmr_error_set_from_libvirt(error);
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        if (!found && strcmp(virDomainSnapshotGetName(list[i]),
                             call->name) == 0)
            found = list[i];
        else
            virDomainSnapshotFree(list[i]);
    }
    free(list);
    if (!found)
        vmr_error_set_virt(error, VMR_ERROR_VIRT, VIR_ERR_NO_DOMAIN_SNAPSHOT,
                           "no domain snapshot with matching name '%s'",
                           call->name);
    return found;
}

/* The calls on a snapshot: find it, call, and let go of it. */
static gboolean
with_snapshot(VmrHvCall *call, SnapshotFunc func, GError **error)
{
    virDomainSnapshotPtr snap = find_snapshot(call, error);
    gboolean ok;

    if (!snap)
        return FALSE;
    ok = func(snap, call);
    if (!ok)
        vmr_error_set_from_libvirt(error);
    virDomainSnapshotFree(snap);
    return ok;
}

static gboolean
snapshot_get_xml(virDomainSnapshotPtr snap, VmrHvCall *call)
{
    return take_text(call, virDomainSnapshotGetXMLDesc(snap, call->flags));
}

static gboolean
snapshot_is_current(virDomainSnapshotPtr snap, VmrHvCall *call)
{
    call->number = virDomainSnapshotIsCurrent(snap, 0);
    return call->number >= 0;
}

static gboolean
snapshot_delete(virDomainSnapshotPtr snap, VmrHvCall *call)
{
    return virDomainSnapshotDelete(snap, call->flags) == 0;
}

static gboolean
block_copy(VmrHvCall *call)
{
    return virDomainBlockCopy(call->dom, call->disk, call->xml, NULL, 0,
                              call->flags) == 0;
}

static gboolean
block_commit(VmrHvCall *call)
{
    return virDomainBlockCommit(call->dom, call->disk, call->base, call->top,
                                0, call->flags) == 0;
}

static gboolean
block_rebase(VmrHvCall *call)
{
    return virDomainBlockRebase(call->dom, call->disk, call->base,
                                call->bandwidth, call->flags) == 0;
}

static gboolean
block_job_abort(VmrHvCall *call)
{
    return virDomainBlockJobAbort(call->dom, call->disk, call->flags) == 0;
}

static gboolean
block_job_info(VmrHvCall *call)
{
    call->number =
        virDomainGetBlockJobInfo(call->dom, call->disk, &call->job,
                                 VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES);
    return call->number >= 0;
}

static gboolean
block_job_set_speed(VmrHvCall *call)
{
    return virDomainBlockJobSetSpeed(
               call->dom, call->disk, call->bandwidth,
               VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES) == 0;
}

/* All limits at once: libvirt sets those to 0 that are of one kind with a given one
 * and are not given themselves. The group only where the XML has one: libvirt makes one
 * up for QEMU where there is none. */
static gboolean
set_iotune(VmrHvCall *call)
{
    const VmrIotune *tune = call->iotune;
    virTypedParameterPtr params = NULL;
    int n = 0;
    int max = 0;
    gboolean ok = TRUE;

    for (guint i = 0; ok && i < VMR_IOTUNE_LAST; i++)
        ok = virTypedParamsAddULLong(&params, &n, &max,
                                     vmr_iotune_field_name(i),
                                     tune->values[i]) == 0;
    if (ok && tune->group)
        ok = virTypedParamsAddString(&params, &n, &max,
                                     VIR_DOMAIN_BLOCK_IOTUNE_GROUP_NAME,
                                     tune->group) == 0;
    ok = ok && virDomainSetBlockIoTune(call->dom, call->disk, params, n,
                                       VIR_DOMAIN_AFFECT_LIVE) == 0;
    virTypedParamsFree(params, n);
    return ok;
}

typedef int (*MonitorCommand)(virDomainPtr dom, const char *command,
                              char **result, unsigned int flags);

/* Looked up when it is needed, which is hardly ever: libvirt keeps what is
 * QEMU's alone in a library of its own. It stays loaded. */
static gboolean
query_block(VmrHvCall *call, GError **error)
{
    void *library = dlopen("libvirt-qemu.so.0", RTLD_NOW | RTLD_LOCAL);
    MonitorCommand monitor_command = NULL;
    char *text = NULL;

    if (library)
        *(void **)&monitor_command =
            dlsym(library, "virDomainQemuMonitorCommand");
    if (!monitor_command) {
        g_set_error_literal(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                            "libvirt-qemu.so.0 is not there: QEMU cannot be "
                            "asked");
        return FALSE;
    }
    if (monitor_command(call->dom, "info block", &text,
                        VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP) < 0) {
        vmr_error_set_from_libvirt(error);
        return FALSE;
    }
    return take_text(call, text);
}

/* From the domain's XML: virDomainGetMetadata() would, where there is none,
 * have libvirt print its error to the program's stderr. */
static gboolean
get_metadata(VmrHvCall *call, GError **error)
{
    guint flags = call->flags & VIR_DOMAIN_AFFECT_CONFIG
                      ? VIR_DOMAIN_XML_INACTIVE
                      : 0;
    char *xml = virDomainGetXMLDesc(call->dom, flags);
    gboolean ok;

    if (!xml) {
        vmr_error_set_from_libvirt(error);
        return FALSE;
    }
    ok = vmr_domxml_dup_metadata(xml, call->uri, &call->text, error);
    free(xml);
    return ok;
}

static gboolean
set_metadata(VmrHvCall *call)
{
    return virDomainSetMetadata(call->dom, VIR_DOMAIN_METADATA_ELEMENT,
                                call->xml, call->key, call->uri,
                                call->flags) == 0;
}

/* One listener, registered once for each kind of event. */
typedef struct {
    gint refs; /* atomic: one for each registration, one while registering */
    VmrHvEventFunc func;
    gpointer data;
    GDestroyNotify destroy;
} Listener;

static void
listener_unref(void *opaque)
{
    Listener *listener = opaque;

    if (!g_atomic_int_dec_and_test(&listener->refs))
        return;
    listener->destroy(listener->data);
    g_free(listener);
}

static void
on_block_job(virConnectPtr conn G_GNUC_UNUSED, virDomainPtr dom G_GNUC_UNUSED,
             const char *disk, int type, int status, void *opaque)
{
    Listener *listener = opaque;
    VmrHvEvent event = {.kind = VMR_HV_EVENT_BLOCK_JOB,
                        .disk = disk,
                        .type = type,
                        .status = status};

    listener->func(&event, listener->data);
}

static int
on_lifecycle(virConnectPtr conn G_GNUC_UNUSED, virDomainPtr dom G_GNUC_UNUSED,
             int what, int detail, void *opaque)
{
    Listener *listener = opaque;
    VmrHvEvent event = {.kind = VMR_HV_EVENT_LIFECYCLE,
                        .type = what,
                        .status = detail};

    listener->func(&event, listener->data);
    return 0;
}

/* VIR_DOMAIN_EVENT_CALLBACK() casts between two types of functions, of which
 * clang 19 and later warn, unless it is by way of this one. */
#define EVENT_CALLBACK(func) VIR_DOMAIN_EVENT_CALLBACK((void (*)(void))(func))

static int
listener_register(Listener *listener, virDomainPtr dom, int event_id,
                  virConnectDomainEventGenericCallback func, GError **error)
{
    int id;

    g_atomic_int_inc(&listener->refs);
    id = virConnectDomainEventRegisterAny(virDomainGetConnect(dom), dom,
                                          event_id, func, listener,
                                          listener_unref);
    if (id < 0) {
        vmr_error_set_from_libvirt(error);
        listener_unref(listener);
    }
    return id;
}

static gboolean
events_open(VmrHvCall *call, GError **error)
{
    virConnectPtr conn = virDomainGetConnect(call->dom);
    Listener *listener = g_new0(Listener, 1);
    gboolean ok = FALSE;

    listener->refs = 1;
    listener->func = call->event_func;
    listener->data = call->event_data;
    listener->destroy = call->event_destroy;
    call->events[0] = listener_register(
        listener, call->dom, VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
        EVENT_CALLBACK(on_block_job), error);
    if (call->events[0] < 0)
        goto out;
    call->events[1] = listener_register(
        listener, call->dom, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        EVENT_CALLBACK(on_lifecycle), error);
    if (call->events[1] < 0)
        virConnectDomainEventDeregisterAny(conn, call->events[0]);
    else
        ok = TRUE;
out:
    listener_unref(listener);
    return ok;
}

static gboolean
events_close(VmrHvCall *call, GError **error)
{
    virConnectPtr conn = virDomainGetConnect(call->dom);
    gboolean ok = TRUE;

    for (gsize i = 0; i < VMR_HV_N_EVENTS; i++) {
        if (virConnectDomainEventDeregisterAny(conn, call->events[i]) < 0) {
            if (ok)
                vmr_error_set_from_libvirt(error);
            ok = FALSE;
        }
    }
    return ok;
}

/* The plain ones, whose failure is always libvirt's last error. */
static gboolean (*const plain_ops[VMR_HV_LAST])(VmrHvCall *call) = {
    [VMR_HV_GET_VERSIONS] = get_versions,
    [VMR_HV_GET_XML] = get_xml,
    [VMR_HV_GET_STATE] = get_state,
    [VMR_HV_IS_PERSISTENT] = is_persistent,
    [VMR_HV_DEFINE] = define,
    [VMR_HV_SUSPEND] = suspend,
    [VMR_HV_RESUME] = resume,
    [VMR_HV_SNAPSHOT_CREATE] = snapshot_create,
    [VMR_HV_SNAPSHOT_LIST] = snapshot_list,
    [VMR_HV_BLOCK_COPY] = block_copy,
    [VMR_HV_BLOCK_COMMIT] = block_commit,
    [VMR_HV_BLOCK_REBASE] = block_rebase,
    [VMR_HV_BLOCK_JOB_ABORT] = block_job_abort,
    [VMR_HV_BLOCK_JOB_INFO] = block_job_info,
    [VMR_HV_BLOCK_JOB_SET_SPEED] = block_job_set_speed,
    [VMR_HV_SET_IOTUNE] = set_iotune,
    [VMR_HV_SET_METADATA] = set_metadata,
};

static const SnapshotFunc snapshot_ops[VMR_HV_LAST] = {
    [VMR_HV_SNAPSHOT_GET_XML] = snapshot_get_xml,
    [VMR_HV_SNAPSHOT_IS_CURRENT] = snapshot_is_current,
    [VMR_HV_SNAPSHOT_DELETE] = snapshot_delete,
};

static gboolean (*const other_ops[VMR_HV_LAST])(VmrHvCall *call,
                                                GError **error) = {
    [VMR_HV_GET_JOB] = get_job,
    [VMR_HV_QUERY_BLOCK] = query_block,
    [VMR_HV_GET_METADATA] = get_metadata,
    [VMR_HV_EVENTS_OPEN] = events_open,
    [VMR_HV_EVENTS_CLOSE] = events_close,
};

static gboolean
perform(VmrHv *hv G_GNUC_UNUSED, VmrHvCall *call, GError **error)
{
    if (snapshot_ops[call->op])
        return with_snapshot(call, snapshot_ops[call->op], error);
    if (other_ops[call->op])
        return other_ops[call->op](call, error);
    if (plain_ops[call->op](call))
        return TRUE;
    vmr_error_set_from_libvirt(error);
    return FALSE;
}

static virDomainPtr
domain_ref(virDomainPtr dom)
{
    virDomainRef(dom);
    return dom;
}

static void
domain_unref(virDomainPtr dom)
{
    virDomainFree(dom);
}

VmrHv *
vmr_hv_libvirt(void)
{
    static VmrHv hv = {.perform = perform,
                       .domain_ref = domain_ref,
                       .domain_unref = domain_unref};

    return &hv;
}
