/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A guest that writes, and mirrors that follow as fast as they can: with the knob
 * "mirrors" a copy is ready, and ends when it is aborted, only when nothing is left to be
 * mirrored. Time passes when somebody looks. */

#include "fake_priv.h"

/* What the guest may write to @disk, bytes/s. */
static guint64
rate_of_guest(const FakeHv *fake, const FakeDisk *disk)
{
    guint64 limit = disk->iotune->values[vmr_iotune_write_field(disk->iotune)];

    if (fake->paused)
        return 0;
    return limit > 0 ? MIN(limit, fake->knobs.writes) : fake->knobs.writes;
}

static void
become_level(FakeHv *fake, FakeDisk *disk)
{
    if (disk->ready == VMR_READY_ABORT) {
        fake_disk_finish_job(fake, disk, FALSE, VIR_DOMAIN_BLOCK_JOB_CANCELED);
    } else if (disk->ready == VMR_READY_NO) {
        disk->ready = VMR_READY_YES;
        fake_emit(fake, disk->target, disk->job, VIR_DOMAIN_BLOCK_JOB_READY);
    }
}

void
fake_flow(FakeHv *fake, FakeDisk *disk)
{
    gint64 now = g_get_monotonic_time();
    double seconds = (double)(now - disk->flowed_at) / 1e6;
    guint64 mirrored;

    if (fake->knobs.mirrors == 0 || disk->job != VIR_DOMAIN_BLOCK_JOB_TYPE_COPY)
        return;
    if (disk->flowed_at == 0) {
        disk->current = 0;
        disk->left = fake->knobs.working_set;
    } else {
        disk->left += (guint64)((double)rate_of_guest(fake, disk) * seconds);
        mirrored = MIN((guint64)((double)fake->knobs.mirrors * seconds),
                       disk->left);
        disk->current += mirrored;
        /* what is written to again was left already */
        disk->left = MIN(disk->left - mirrored, fake->knobs.working_set);
    }
    disk->flowed_at = now;
    if (disk->left == 0)
        become_level(fake, disk);
}

gboolean
fake_set_iotune(FakeHv *fake, VmrHvCall *call, GError **error)
{
    FakeDisk *disk = fake_disk_find(fake, call->disk, error);

    if (!disk)
        return FALSE;
    if (call->iotune->values[VMR_IOTUNE_TOTAL_BYTES_SEC] > 0 &&
        call->iotune->values[VMR_IOTUNE_WRITE_BYTES_SEC] > 0)
        return fake_refuse(error, VIR_ERR_INVALID_ARG,
                           "invalid argument: total and read/write of bytes_sec "
                           "cannot be set at the same time");
    fake_flow(fake, disk);
    vmr_iotune_free(disk->iotune);
    disk->iotune = vmr_iotune_copy(call->iotune);
    return TRUE;
}

void
fake_hv_set_iotune(FakeHv *fake, const char *target, const VmrIotune *tune)
{
    FakeDisk *disk;

    pthread_mutex_lock(&fake->mutex);
    disk = fake_disk_find(fake, target, NULL);
    vmr_iotune_free(disk->iotune);
    disk->iotune = vmr_iotune_copy(tune);
    pthread_mutex_unlock(&fake->mutex);
}

VmrIotune *
fake_hv_dup_iotune(FakeHv *fake, const char *target)
{
    VmrIotune *tune;

    pthread_mutex_lock(&fake->mutex);
    tune = vmr_iotune_copy(fake_disk_find(fake, target, NULL)->iotune);
    pthread_mutex_unlock(&fake->mutex);
    return tune;
}
