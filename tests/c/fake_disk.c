/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* F_OFD_SETLK */

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "chain.h"
#include "fake_priv.h"

#define QEMU_WRITE_BYTE 101
#define JOB_LENGTH 65536

static GPtrArray *
paths_new(void)
{
    return g_ptr_array_new_with_free_func(g_free);
}

/* @top, unless NULL, and the layers of @below from @from on. */
static GPtrArray *
paths_on(const char *top, const GPtrArray *below, guint from)
{
    GPtrArray *paths = paths_new();

    if (top)
        g_ptr_array_add(paths, g_strdup(top));
    for (guint i = from; i < below->len; i++)
        g_ptr_array_add(paths, g_strdup(g_ptr_array_index(below, i)));
    return paths;
}

FakeDisk *
fake_disk_new(const FakeHv *fake, guint index)
{
    FakeDisk *disk = g_new0(FakeDisk, 1);
    g_autofree char *base = NULL;

    disk->target = g_strdup_printf("vd%c", 'a' + (int)index);
    base = g_strconcat(disk->target, "-base", NULL);
    disk->chain = paths_new();
    g_ptr_array_add(disk->chain,
                    fake_files_path(fake->files, "old", disk->target));
    g_ptr_array_add(disk->chain, fake_files_path(fake->files, "old", base));
    disk->inactive = g_strdup(disk->chain->pdata[0]);
    disk->iotune = vmr_iotune_new();
    return disk;
}

void
fake_disk_free(FakeDisk *disk)
{
    g_free(disk->target);
    g_free(disk->inactive);
    g_free(disk->lingering);
    vmr_iotune_free(disk->iotune);
    g_ptr_array_unref(disk->chain);
    g_clear_pointer(&disk->dest, g_ptr_array_unref);
    g_free(disk);
}

FakeDisk *
fake_disk_find(FakeHv *fake, const char *target, GError **error)
{
    for (guint i = 0; i < fake->disks->len; i++) {
        FakeDisk *disk = g_ptr_array_index(fake->disks, i);

        if (g_str_equal(disk->target, target))
            return disk;
    }
    fake_refuse(error, VIR_ERR_INVALID_ARG,
                "invalid argument: disk '%s' not found in domain", target);
    return NULL;
}

static void
lock_path(FakeHv *fake, GHashTable *wanted, const char *path)
{
    struct flock lock = {.l_type = F_RDLCK,
                         .l_whence = SEEK_SET,
                         .l_start = QEMU_WRITE_BYTE,
                         .l_len = 1};
    int fd;

    g_hash_table_add(wanted, (gpointer)path);
    if (g_hash_table_contains(fake->locks, path))
        return;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return; /* unlinked by somebody: QEMU would go on with its own */
    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    g_hash_table_insert(fake->locks, g_strdup(path), GINT_TO_POINTER(fd));
}

void
fake_disk_sync_locks(FakeHv *fake)
{
    g_autoptr(GHashTable) wanted = g_hash_table_new(g_str_hash, g_str_equal);
    GHashTableIter iter;
    gpointer path;

    for (guint i = 0; !fake->shut_off && i < fake->disks->len; i++) {
        const FakeDisk *disk = g_ptr_array_index(fake->disks, i);

        lock_path(fake, wanted, disk->chain->pdata[0]);
        if (disk->dest)
            lock_path(fake, wanted, disk->dest->pdata[0]);
    }
    if (fake->knobs.locked)
        lock_path(fake, wanted, fake->knobs.locked);
    if (fake->knobs.unlocked)
        g_hash_table_remove(wanted, fake->knobs.unlocked);
    g_hash_table_iter_init(&iter, fake->locks);
    while (g_hash_table_iter_next(&iter, &path, NULL)) {
        if (!g_hash_table_contains(wanted, path))
            g_hash_table_iter_remove(&iter);
    }
}

/* Take @chain for the disk's; the persistent definition follows, as libvirt
 * does it, if it was the same before. */
void
fake_disk_set_top(FakeHv *fake, FakeDisk *disk, GPtrArray *chain)
{
    if (!fake->knobs.keep_inactive &&
        g_str_equal(disk->inactive, disk->chain->pdata[0])) {
        g_free(disk->inactive);
        disk->inactive = g_strdup(chain->pdata[0]);
    }
    g_ptr_array_unref(disk->chain);
    disk->chain = chain;
}

static gboolean
is_two_phased(const FakeDisk *disk)
{
    return disk->job == VIR_DOMAIN_BLOCK_JOB_TYPE_COPY ||
           disk->job == VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT;
}

/* End the job, with its chain (@take) or without. */
void
fake_disk_finish_job(FakeHv *fake, FakeDisk *disk, gboolean take, int status)
{
    GPtrArray *dest = g_steal_pointer(&disk->dest);
    int job = disk->job;

    disk->job = 0;
    disk->hidden = FALSE;
    disk->ready = VMR_READY_NO;
    if (take)
        fake_disk_set_top(fake, disk, dest);
    else
        g_ptr_array_unref(dest);
    fake_disk_sync_locks(fake);
    fake_emit(fake, disk->target, job, status);
}

/* Let the job do what it does by itself. */
static void
advance(FakeHv *fake, FakeDisk *disk)
{
    if (disk->job == 0)
        return;
    if (!is_two_phased(disk)) {
        fake_disk_finish_job(fake, disk, TRUE, VIR_DOMAIN_BLOCK_JOB_COMPLETED);
    } else if (disk->ready == VMR_READY_ABORT) {
        fake_disk_finish_job(fake, disk, FALSE, VIR_DOMAIN_BLOCK_JOB_CANCELED);
    } else if (disk->ready == VMR_READY_NO) {
        disk->ready = VMR_READY_YES;
        fake_emit(fake, disk->target, disk->job, VIR_DOMAIN_BLOCK_JOB_READY);
    }
}

/* @dest is handed over. */
static void
start_job(FakeHv *fake, FakeDisk *disk, int job, GPtrArray *dest)
{
    disk->job = job;
    disk->dest = dest;
    disk->ready = VMR_READY_NO;
    disk->flowed_at = 0;
    fake_disk_sync_locks(fake);
    if (!fake->knobs.jobs_on_demand && fake->knobs.mirrors == 0)
        advance(fake, disk);
}

/* The disk of @call if a job may be started on it. */
static FakeDisk *
free_disk(FakeHv *fake, const VmrHvCall *call, GError **error)
{
    FakeDisk *disk = fake_disk_find(fake, call->disk, error);

    if (disk && disk->job != 0) {
        fake_refuse(error,
                    disk->hidden ? VIR_ERR_OPERATION_UNSUPPORTED
                                 : VIR_ERR_BLOCK_COPY_ACTIVE,
                    "disk '%s' already in active block job", disk->target);
        return NULL;
    }
    return disk;
}

gboolean
fake_block_copy(FakeHv *fake, VmrHvCall *call, GError **error)
{
    g_autofree char *path = fake_xml_copy_path(call->xml);
    g_autoptr(GPtrArray) images = NULL;
    FakeDisk *disk = free_disk(fake, call, error);
    GPtrArray *dest;

    /* the three that belong together; one more would corrupt the copy */
    g_assert_cmphex(call->flags, ==,
                    VIR_DOMAIN_BLOCK_COPY_SHALLOW |
                        VIR_DOMAIN_BLOCK_COPY_REUSE_EXT |
                        VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB);
    g_assert_nonnull(path);
    if (!disk)
        return FALSE;
    if (g_strcmp0(fake->knobs.refuse_copy, disk->target) == 0)
        return fake_refuse(error, VIR_ERR_SYSTEM_ERROR,
                           "Cannot access backing file of '%s'", path);
    images = vmr_chain_read(path, "qcow2", NULL);
    if (!images)
        return fake_refuse(error, VIR_ERR_SYSTEM_ERROR,
                           "Cannot access storage file '%s'", path);
    dest = paths_new();
    for (guint i = 0; i < images->len; i++)
        g_ptr_array_add(dest, g_strdup(((VmrImage *)images->pdata[i])->path));
    start_job(fake, disk, VIR_DOMAIN_BLOCK_JOB_TYPE_COPY, dest);
    return TRUE;
}

gboolean
fake_block_commit(FakeHv *fake, VmrHvCall *call, GError **error)
{
    FakeDisk *disk = free_disk(fake, call, error);

    if (!disk)
        return FALSE;
    g_assert_cmphex(call->flags, ==,
                    VIR_DOMAIN_BLOCK_COMMIT_SHALLOW |
                        VIR_DOMAIN_BLOCK_COMMIT_ACTIVE);
    g_assert_null(call->base);
    g_assert_null(call->top);
    start_job(fake, disk, VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT,
              paths_on(NULL, disk->chain, 1));
    return TRUE;
}

gboolean
fake_block_rebase(FakeHv *fake, VmrHvCall *call, GError **error)
{
    FakeDisk *disk = free_disk(fake, call, error);
    guint base = 0;

    if (!disk)
        return FALSE;
    while (base < disk->chain->len &&
           g_strcmp0(disk->chain->pdata[base], call->base) != 0)
        base++;
    /* an absolute name would tie the chain to its folder */
    g_assert_true(!call->base ||
                  (call->flags & VIR_DOMAIN_BLOCK_REBASE_RELATIVE));
    if (call->base && base == disk->chain->len)
        return fake_refuse(error, VIR_ERR_INVALID_ARG,
                           "invalid argument: could not find base '%s'",
                           call->base);
    start_job(fake, disk, VIR_DOMAIN_BLOCK_JOB_TYPE_PULL,
              paths_on(disk->chain->pdata[0], disk->chain, base));
    return TRUE;
}

static gboolean
pivot(FakeHv *fake, FakeDisk *disk, GError **error)
{
    GPtrArray *before;

    if (!is_two_phased(disk))
        return fake_refuse(error, VIR_ERR_OPERATION_INVALID,
                           "job type does not support pivot");
    if (disk->ready != VMR_READY_YES)
        return fake_refuse(error, VIR_ERR_BLOCK_COPY_ACTIVE,
                           "block copy still active: disk '%s' not ready for "
                           "pivot yet", disk->target);
    if (g_strcmp0(fake->knobs.refuse_pivot, disk->target) == 0)
        return fake_refuse(error, VIR_ERR_INTERNAL_ERROR,
                           "unable to execute QEMU command 'job-complete'");
    if (!fake->knobs.lie) {
        fake_disk_finish_job(fake, disk, TRUE, VIR_DOMAIN_BLOCK_JOB_COMPLETED);
        return TRUE;
    }
    before = paths_on(NULL, disk->chain, 0);
    fake_disk_finish_job(fake, disk, TRUE, VIR_DOMAIN_BLOCK_JOB_COMPLETED);
    fake_disk_set_top(fake, disk, before); /* and the locks stay */
    return TRUE;
}

gboolean
fake_block_job_abort(FakeHv *fake, VmrHvCall *call, GError **error)
{
    FakeDisk *disk = fake_disk_find(fake, call->disk, error);

    if (!disk)
        return FALSE;
    if (disk->job == 0)
        return fake_refuse(error, VIR_ERR_INVALID_ARG,
                           "invalid argument: disk %s does not have an active "
                           "block job", disk->target);
    /* libvirt would crash */
    g_assert_false(disk->hidden &&
                   disk->job == ((call->flags & VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
                                     ? VIR_DOMAIN_BLOCK_JOB_TYPE_COPY
                                     : VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT));
    if (call->flags & VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        return pivot(fake, disk, error);
    g_assert_true(call->flags & VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC);
    /* one that was ready once ends when both sides are the same */
    if (disk->ready != VMR_READY_NO && disk->flowed_at != 0) {
        disk->ready = VMR_READY_ABORT;
        return TRUE;
    }
    disk->ready = VMR_READY_ABORT;
    if (!fake->knobs.aborts_on_demand)
        fake_disk_finish_job(fake, disk, FALSE, VIR_DOMAIN_BLOCK_JOB_CANCELED);
    return TRUE;
}

gboolean
fake_block_job_info(FakeHv *fake, VmrHvCall *call, GError **error)
{
    FakeDisk *disk = fake_disk_find(fake, call->disk, error);

    if (!disk)
        return FALSE;
    g_usleep(fake->knobs.slow_info * 1000UL);
    fake_flow(fake, disk);
    memset(&call->job, 0, sizeof(call->job));
    call->number = disk->job != 0;
    if (call->number) {
        call->job.type = disk->job;
        call->job.end = JOB_LENGTH;
        call->job.cur = disk->ready == VMR_READY_NO ? JOB_LENGTH / 2
                                                    : JOB_LENGTH;
        if (fake->paused || !fake->knobs.behind_at_rest)
            call->job.end += fake->knobs.behind;
        if (disk->flowed_at != 0) {
            call->job.cur = disk->current;
            call->job.end = disk->current + disk->left;
        }
    }
    return TRUE;
}

gboolean
fake_block_job_set_speed(FakeHv *fake, VmrHvCall *call, GError **error)
{
    const FakeDisk *disk = fake_disk_find(fake, call->disk, error);

    if (disk && disk->job == 0)
        return fake_refuse(error, VIR_ERR_OPERATION_INVALID,
                           "no job is active on disk '%s'", disk->target);
    return disk != NULL;
}

void
fake_hv_advance(FakeHv *fake, const char *target)
{
    pthread_mutex_lock(&fake->mutex);
    advance(fake, fake_disk_find(fake, target, NULL));
    fake_disk_sync_locks(fake);
    pthread_mutex_unlock(&fake->mutex);
}

/* By itself: it is aborted if that was asked for, and fails if not. */
void
fake_disk_end_job(FakeHv *fake, FakeDisk *disk)
{
    gboolean well = fake->knobs.ends_well;
    int status = disk->ready == VMR_READY_ABORT ? VIR_DOMAIN_BLOCK_JOB_CANCELED
                                                : VIR_DOMAIN_BLOCK_JOB_FAILED;

    g_free(disk->lingering);
    disk->lingering = g_strdup(disk->dest->pdata[0]);
    if (well)
        status = VIR_DOMAIN_BLOCK_JOB_COMPLETED;
    fake_disk_finish_job(fake, disk, well, status);
}

void
fake_hv_hide_job(FakeHv *fake, const char *target)
{
    pthread_mutex_lock(&fake->mutex);
    fake_disk_find(fake, target, NULL)->hidden = TRUE;
    pthread_mutex_unlock(&fake->mutex);
}

void
fake_hv_fail_job(FakeHv *fake, const char *target)
{
    pthread_mutex_lock(&fake->mutex);
    fake_disk_end_job(fake, fake_disk_find(fake, target, NULL));
    pthread_mutex_unlock(&fake->mutex);
}

void
fake_hv_set_source(FakeHv *fake, const char *target, const char *path)
{
    FakeDisk *disk;
    GPtrArray *chain = paths_new();

    g_ptr_array_add(chain, g_strdup(path));
    pthread_mutex_lock(&fake->mutex);
    disk = fake_disk_find(fake, target, NULL);
    fake_disk_set_top(fake, disk, chain);
    fake_disk_sync_locks(fake);
    pthread_mutex_unlock(&fake->mutex);
}

char *
fake_hv_dup_source(FakeHv *fake, const char *target)
{
    char *path;

    pthread_mutex_lock(&fake->mutex);
    path = g_strdup(fake_disk_find(fake, target, NULL)->chain->pdata[0]);
    pthread_mutex_unlock(&fake->mutex);
    return path;
}
