/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "fake_priv.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SETTLE_SECONDS 5

gboolean
fake_refuse(GError **error, int virt_code, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    vmr_error_set_virt(error, VMR_ERROR_VIRT, virt_code, "%s", text);
    return FALSE;
}

/* ---- the plain calls ---- */

static gboolean
get_versions(FakeHv *fake, VmrHvCall *call, GError **error G_GNUC_UNUSED)
{
    call->number = fake->knobs.libvirt_version;
    call->reason = fake->knobs.qemu_version;
    return TRUE;
}

static gboolean
get_xml(FakeHv *fake, VmrHvCall *call, GError **error G_GNUC_UNUSED)
{
    call->text = fake_xml_of_domain(
        fake, (call->flags & VIR_DOMAIN_XML_INACTIVE) != 0);
    return TRUE;
}

static gboolean
get_state(FakeHv *fake, VmrHvCall *call, GError **error G_GNUC_UNUSED)
{
    call->number = fake->shut_off ? VIR_DOMAIN_SHUTOFF
                   : fake->paused ? VIR_DOMAIN_PAUSED
                                  : VIR_DOMAIN_RUNNING;
    call->reason = 1;
    return TRUE;
}

static gboolean
get_job(FakeHv *fake, VmrHvCall *call, GError **error G_GNUC_UNUSED)
{
    call->number = fake->knobs.job ? VIR_DOMAIN_JOB_UNBOUNDED
                                   : VIR_DOMAIN_JOB_NONE;
    call->reason = fake->knobs.job;
    return TRUE;
}

static gboolean
is_persistent(FakeHv *fake, VmrHvCall *call, GError **error G_GNUC_UNUSED)
{
    call->number = !fake->knobs.transient;
    return TRUE;
}

/* As if somebody had just written to @path. */
static void
touch(const char *path)
{
    g_assert_cmpint(utimensat(AT_FDCWD, path, NULL, 0), ==, 0);
}

static gboolean
suspend(FakeHv *fake, VmrHvCall *call G_GNUC_UNUSED,
        GError **error G_GNUC_UNUSED)
{
    fake->paused = TRUE;
    if (fake->knobs.written_at_rest)
        touch(fake->knobs.written_at_rest);
    if (fake->knobs.on_suspend)
        fake->knobs.on_suspend(fake->knobs.on_suspend_data);
    return TRUE;
}

static gboolean
resume(FakeHv *fake, VmrHvCall *call G_GNUC_UNUSED, GError **error)
{
    if (fake->knobs.no_resume > 0) {
        fake->knobs.no_resume--;
        return fake_refuse(error, VIR_ERR_SYSTEM_ERROR,
                           "cannot create pipe: Too many open files");
    }
    fake->paused = FALSE;
    return TRUE;
}

static gboolean
define(FakeHv *fake, VmrHvCall *call, GError **error)
{
    g_autoptr(VmrDomXml) xml = vmr_domxml_parse(call->xml, error);

    for (guint i = 0; xml && i < fake->disks->len; i++) {
        FakeDisk *disk = fake->disks->pdata[i];
        const VmrDomDisk *wanted = vmr_domxml_find(xml, disk->target);

        g_free(disk->inactive);
        disk->inactive = g_strdup(vmr_domdisk_source(wanted));
    }
    return xml != NULL;
}

static const char *
find_snapshot(FakeHv *fake, const VmrHvCall *call, GError **error)
{
    const char *xml = g_hash_table_lookup(fake->snapshots, call->name);

    if (!xml)
        fake_refuse(error, VIR_ERR_NO_DOMAIN_SNAPSHOT,
                    "Domain snapshot not found: no domain snapshot with "
                    "matching name '%s'", call->name);
    return xml;
}

static gboolean
snapshot_list(FakeHv *fake, VmrHvCall *call, GError **error G_GNUC_UNUSED)
{
    g_autofree gpointer *names =
        g_hash_table_get_keys_as_array(fake->snapshots, NULL);

    call->text = g_strjoinv("/", (char **)names);
    return TRUE;
}

static gboolean
snapshot_get_xml(FakeHv *fake, VmrHvCall *call, GError **error)
{
    call->text = g_strdup(find_snapshot(fake, call, error));
    return call->text != NULL;
}

static gboolean
snapshot_is_current(FakeHv *fake, VmrHvCall *call, GError **error)
{
    call->number = g_strcmp0(fake->current, call->name) == 0;
    return find_snapshot(fake, call, error) != NULL;
}

static gboolean
snapshot_delete(FakeHv *fake, VmrHvCall *call, GError **error)
{
    if (!find_snapshot(fake, call, error))
        return FALSE;
    /* anything else would have libvirt touch the images */
    g_assert_cmphex(call->flags, ==,
                    VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY);
    g_hash_table_remove(fake->snapshots, call->name);
    if (g_strcmp0(fake->current, call->name) == 0)
        g_clear_pointer(&fake->current, g_free);
    return TRUE;
}

/* Which of the two stores @flags mean, as a bit mask. */
static gboolean
find_stores(const FakeHv *fake, guint flags, guint *stores, GError **error)
{
    if (flags == VIR_DOMAIN_AFFECT_CURRENT)
        flags = fake->shut_off ? VIR_DOMAIN_AFFECT_CONFIG
                               : VIR_DOMAIN_AFFECT_LIVE;
    if ((flags & VIR_DOMAIN_AFFECT_LIVE) && fake->shut_off)
        return fake_refuse(error, VIR_ERR_OPERATION_INVALID,
                           "Requested operation is not valid: domain is not "
                           "running");
    if ((flags & VIR_DOMAIN_AFFECT_CONFIG) && fake->knobs.transient)
        return fake_refuse(error, VIR_ERR_OPERATION_INVALID,
                           "Requested operation is not valid: transient "
                           "domains do not have any persistent config");
    *stores = ((flags & VIR_DOMAIN_AFFECT_LIVE) ? 1 : 0) |
              ((flags & VIR_DOMAIN_AFFECT_CONFIG) ? 2 : 0);
    return TRUE;
}

static gboolean
get_metadata(FakeHv *fake, VmrHvCall *call, GError **error G_GNUC_UNUSED)
{
    gboolean config = (call->flags & VIR_DOMAIN_AFFECT_CONFIG) != 0;

    /* it is read from the XML, of which a domain always has some */
    config = (config || fake->shut_off) && !fake->knobs.transient;
    call->text = g_strdup(fake->metadata[config]);
    return TRUE;
}

static gboolean
set_metadata(FakeHv *fake, VmrHvCall *call, GError **error)
{
    guint stores;

    if (!find_stores(fake, call->flags, &stores, error))
        return FALSE;
    g_assert_true(!call->xml || call->key);
    for (guint i = 0; i < G_N_ELEMENTS(fake->metadata); i++) {
        if (!(stores & (1U << i)))
            continue;
        g_free(fake->metadata[i]);
        fake->metadata[i] = g_strdup(call->xml);
    }
    return TRUE;
}

static gboolean (*const ops[VMR_HV_LAST])(FakeHv *fake, VmrHvCall *call,
                                          GError **error) = {
    [VMR_HV_GET_VERSIONS] = get_versions,
    [VMR_HV_GET_XML] = get_xml,
    [VMR_HV_GET_STATE] = get_state,
    [VMR_HV_GET_JOB] = get_job,
    [VMR_HV_IS_PERSISTENT] = is_persistent,
    [VMR_HV_DEFINE] = define,
    [VMR_HV_SUSPEND] = suspend,
    [VMR_HV_RESUME] = resume,
    [VMR_HV_SNAPSHOT_CREATE] = fake_snapshot_create,
    [VMR_HV_SNAPSHOT_LIST] = snapshot_list,
    [VMR_HV_SNAPSHOT_GET_XML] = snapshot_get_xml,
    [VMR_HV_SNAPSHOT_IS_CURRENT] = snapshot_is_current,
    [VMR_HV_SNAPSHOT_DELETE] = snapshot_delete,
    [VMR_HV_BLOCK_COPY] = fake_block_copy,
    [VMR_HV_BLOCK_COMMIT] = fake_block_commit,
    [VMR_HV_BLOCK_REBASE] = fake_block_rebase,
    [VMR_HV_BLOCK_JOB_ABORT] = fake_block_job_abort,
    [VMR_HV_BLOCK_JOB_INFO] = fake_block_job_info,
    [VMR_HV_BLOCK_JOB_SET_SPEED] = fake_block_job_set_speed,
    [VMR_HV_SET_IOTUNE] = fake_set_iotune,
    [VMR_HV_GET_METADATA] = get_metadata,
    [VMR_HV_SET_METADATA] = set_metadata,
    [VMR_HV_EVENTS_OPEN] = fake_events_open,
    [VMR_HV_EVENTS_CLOSE] = fake_events_close,
};

/* ---- faults ---- */

/* The fault that this call has, which is then used up; but death is for ever. */
static FakeFault
take_fault(FakeHv *fake, VmrHvOp op)
{
    FakeFault fault = fake->fault;

    if (fault == FAKE_FAULT_NONE)
        return fault;
    if (op == VMR_HV_EVENTS_CLOSE)
        return fault == FAKE_FAULT_DEATH && fake->reached ? fault
                                                          : FAKE_FAULT_NONE;
    if (!fake->reached && fake->fault_on != VMR_HV_LAST &&
        fake->fault_on != op)
        return FAKE_FAULT_NONE;
    if (!fake->reached && --fake->fault_in > 0)
        return FAKE_FAULT_NONE;
    if (fake->reached && fault != FAKE_FAULT_DEATH)
        return FAKE_FAULT_NONE;
    fake->reached = TRUE;
    fake->fault_op = op;
    return fault;
}

static gboolean
fail_call(VmrHvCall *call, GError **error)
{
    /* as any failing registration does */
    if (call->op == VMR_HV_EVENTS_OPEN)
        call->event_destroy(call->event_data);
    return fake_refuse(error, VIR_ERR_OPERATION_FAILED,
                       "operation failed: fault in %s",
                       vmr_hv_op_name(call->op));
}

/* With the mutex held. */
static gboolean
perform_with(FakeHv *fake, FakeFault fault, VmrHvCall *call, GError **error)
{
    if (fault == FAKE_FAULT_AFTER && call->op == VMR_HV_EVENTS_OPEN)
        fault = FAKE_FAULT_BEFORE;
    if (fault == FAKE_FAULT_BEFORE || fault == FAKE_FAULT_DEATH)
        return fail_call(call, error);
    while (fault == FAKE_FAULT_HANG && fake->fault == FAKE_FAULT_HANG)
        pthread_cond_wait(&fake->cond, &fake->mutex);
    if (!ops[call->op])
        return fake_refuse(error, VIR_ERR_NO_SUPPORT,
                           "this function is not supported by the connection "
                           "driver: %s", vmr_hv_op_name(call->op));
    if (!ops[call->op](fake, call, error))
        return FALSE;
    return fault == FAKE_FAULT_AFTER ? fail_call(call, error) : TRUE;
}

/* What happens between this call and the next one. */
static void
go_on(FakeHv *fake, VmrHvOp op)
{
    FakeKnobs *knobs = &fake->knobs;

    if (knobs->ends_in > 0 && op == knobs->ends_after && --knobs->ends_in == 0)
        fake_disk_end_job(fake, g_ptr_array_index(fake->disks, 0));
}

static gboolean
perform(VmrHv *hv, VmrHvCall *call, GError **error)
{
    FakeHv *fake = (FakeHv *)hv;
    gboolean ok;

    g_assert_true(call->dom == fake_hv_domain(fake));
    pthread_mutex_lock(&fake->mutex);
    fake->under_way++;
    fake->counts[call->op]++;
    fake->counts[VMR_HV_LAST]++;
    ok = perform_with(fake, take_fault(fake, call->op), call, error);
    go_on(fake, call->op);
    if (fake->knobs.events == FAKE_EVENTS_SYNC)
        fake_deliver(fake);
    fake->under_way--;
    pthread_cond_broadcast(&fake->cond);
    pthread_mutex_unlock(&fake->mutex);
    return ok;
}

static void
set_fault(FakeHv *fake, FakeFault fault, guint n, VmrHvOp op)
{
    pthread_mutex_lock(&fake->mutex);
    fake->fault = fault;
    fake->fault_in = n;
    fake->fault_on = op;
    fake->reached = FALSE;
    pthread_mutex_unlock(&fake->mutex);
}

void
fake_hv_set_fault(FakeHv *fake, FakeFault fault, guint n)
{
    set_fault(fake, fault, n, VMR_HV_LAST);
}

void
fake_hv_set_fault_on(FakeHv *fake, FakeFault fault, VmrHvOp op)
{
    set_fault(fake, fault, 1, op);
}

gboolean
fake_hv_release(FakeHv *fake)
{
    gboolean reached;

    pthread_mutex_lock(&fake->mutex);
    reached = fake->reached;
    /* the connection of a dead process takes its listeners along */
    if (reached && fake->fault == FAKE_FAULT_DEATH)
        g_ptr_array_set_size(fake->listeners, 0);
    fake->fault = FAKE_FAULT_NONE;
    pthread_cond_broadcast(&fake->cond);
    pthread_mutex_unlock(&fake->mutex);
    return reached;
}

/* ---- the domain ---- */

static virDomainPtr
domain_ref(virDomainPtr dom)
{
    FakeHv *fake = (FakeHv *)dom;

    g_atomic_int_inc(&fake->refs);
    return dom;
}

static void
domain_unref(virDomainPtr dom)
{
    FakeHv *fake = (FakeHv *)dom;
    gint before = g_atomic_int_add(&fake->refs, -1);

    g_assert_cmpint(before, >, 0);
}

VmrHv *
fake_hv_get(FakeHv *fake)
{
    return &fake->hv;
}

virDomainPtr
fake_hv_domain(FakeHv *fake)
{
    return (virDomainPtr)fake;
}

FakeKnobs *
fake_hv_knobs(FakeHv *fake)
{
    return &fake->knobs;
}

static void
unlock_path(gpointer fd)
{
    close(GPOINTER_TO_INT(fd));
}

FakeHv *
fake_hv_new(const FakeFiles *files, guint n_disks)
{
    FakeHv *fake = g_new0(FakeHv, 1);

    fake->hv.perform = perform;
    fake->hv.domain_ref = domain_ref;
    fake->hv.domain_unref = domain_unref;
    fake->files = files;
    fake->knobs.libvirt_version = 9000000;
    fake->knobs.qemu_version = 7002000;
    pthread_mutex_init(&fake->mutex, NULL);
    pthread_cond_init(&fake->cond, NULL);
    g_queue_init(&fake->events);
    fake->listeners = g_ptr_array_new_with_free_func(fake_listener_unref);
    fake->disks =
        g_ptr_array_new_with_free_func((GDestroyNotify)fake_disk_free);
    fake->locks = g_hash_table_new_full(g_str_hash, g_str_equal, g_free,
                                        unlock_path);
    fake->snapshots =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    for (guint i = 0; i < n_disks; i++)
        g_ptr_array_add(fake->disks, fake_disk_new(fake, i));
    fake_disk_sync_locks(fake);
    g_assert_cmpint(
        pthread_create(&fake->thread, NULL, fake_run_events, fake), ==, 0);
    return fake;
}

/* Whether nothing is on its way, with the mutex held. */
static gboolean
is_settled(const FakeHv *fake)
{
    return fake->under_way == 0 && fake->listeners->len == 0 &&
           g_queue_is_empty((GQueue *)&fake->events);
}

gboolean
fake_hv_settle(FakeHv *fake)
{
    gint64 end = g_get_monotonic_time() + SETTLE_SECONDS * G_USEC_PER_SEC;
    gboolean settled;

    for (;;) {
        pthread_mutex_lock(&fake->mutex);
        settled = is_settled(fake);
        pthread_mutex_unlock(&fake->mutex);
        if (settled || g_get_monotonic_time() > end)
            return settled;
        g_usleep(200);
    }
}

void
fake_hv_free(FakeHv *fake)
{
    gint64 end = g_get_monotonic_time() + SETTLE_SECONDS * G_USEC_PER_SEC;

    fake_hv_release(fake);
    while (g_atomic_int_get(&fake->refs) != 0 && g_get_monotonic_time() < end)
        g_usleep(200);
    g_assert_cmpint(g_atomic_int_get(&fake->refs), ==, 0);
    pthread_mutex_lock(&fake->mutex);
    g_assert_cmpuint(fake->under_way, ==, 0);
    fake->stop = TRUE;
    pthread_cond_broadcast(&fake->cond);
    pthread_mutex_unlock(&fake->mutex);
    pthread_join(fake->thread, NULL);
    g_queue_clear_full(&fake->events, fake_event_free);
    g_ptr_array_unref(fake->listeners);
    g_ptr_array_unref(fake->disks);
    g_hash_table_unref(fake->locks);
    g_hash_table_unref(fake->snapshots);
    g_free(fake->current);
    for (guint i = 0; i < G_N_ELEMENTS(fake->metadata); i++)
        g_free(fake->metadata[i]);
    pthread_cond_destroy(&fake->cond);
    pthread_mutex_destroy(&fake->mutex);
    g_free(fake);
}
