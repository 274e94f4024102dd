/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "gauge.h"

#include "error.h"

/* Rates are measured over so long, µs; over the longer time where nothing has moved. */
#define PERIOD (1 * G_TIME_SPAN_SECOND)
#define LONG_PERIOD (10 * G_TIME_SPAN_SECOND)

#define MIB (1024.0 * 1024)

VmrGauge
vmr_gauge_new(VmrMirror *mirror, const VmrDisk *disk)
{
    mirror->figures = (VmrFigures){.budget = -1};
    return (VmrGauge){.mirror = mirror, .disk = disk};
}

static gboolean
add_job(VmrGauge *gauge, const VmrDisk *disk, const VmrWait *wait,
        GError **error)
{
    virDomainBlockJobInfo info;
    gboolean active;

    if (!vmr_hv_block_job_info(gauge->mirror->dom, disk->target, &info,
                               &active, wait, error))
        return FALSE;
    if (active) {
        gauge->current += info.cur;
        gauge->end += MAX(info.end, info.cur);
        return TRUE;
    }
    if (gauge->may_end)
        return TRUE;
    vmr_mirror_set_job_failed(disk, error);
    return FALSE;
}

static double
rate_of(guint64 before, guint64 now, gint64 time)
{
    /* jobs that have ended take their figures along */
    return now > before ? (double)(now - before) * 1e6 / (double)time : 0;
}

static void
update_rates(VmrGauge *gauge)
{
    VmrFigures *figures = &gauge->mirror->figures;
    gint64 now = g_get_monotonic_time();
    gint64 time = now - gauge->since;
    gboolean is_over = time >= (gauge->current != gauge->current_then
                                    ? PERIOD : LONG_PERIOD);

    if (time > 0 && (is_over || !gauge->is_measured)) {
        figures->mirrored = rate_of(gauge->current_then, gauge->current, time);
        figures->written = rate_of(gauge->end_then, gauge->end, time);
    }
    if (is_over) {
        vmr_gauge_restart(gauge);
        gauge->is_measured = TRUE;
        gauge->is_new = TRUE;
    }
}

gboolean
vmr_gauge_look(VmrGauge *gauge, const VmrWait *wait, GError **error)
{
    const GPtrArray *disks = gauge->mirror->record->disks;

    gauge->current = 0;
    gauge->end = 0;
    gauge->is_new = FALSE;
    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);
        gboolean wanted = gauge->disk ? disk == gauge->disk
                                      : disk->state != VMR_DISK_STATE_PIVOTED;

        if (wanted && !add_job(gauge, disk, wait, error))
            return FALSE;
    }
    gauge->mirror->figures.left = gauge->end - gauge->current;
    if (gauge->since == 0)
        vmr_gauge_restart(gauge);
    else
        update_rates(gauge);
    return TRUE;
}

void
vmr_gauge_restart(VmrGauge *gauge)
{
    gauge->since = g_get_monotonic_time();
    gauge->current_then = gauge->current;
    gauge->end_then = gauge->end;
}

void
vmr_gauge_note(const VmrGauge *gauge, const char *what, GError **error)
{
    const VmrFigures *figures = &gauge->mirror->figures;
    g_autofree char *budget = NULL;
    g_autofree char *limit = NULL;

    if (figures->budget >= 0)
        budget = g_strdup_printf(", the pause budget is %.1f s",
                                 figures->budget);
    if (figures->limit > 0)
        limit = g_strdup_printf(" (limited to %.1f MiB/s)",
                                (double)figures->limit / MIB);
    vmr_error_note(error,
                   "%s: %.1f MiB are left, the guest writes %.1f MiB/s%s, %.1f "
                   "MiB/s are mirrored%s",
                   what, (double)figures->left / MIB, figures->written / MIB,
                   limit ? limit : "", figures->mirrored / MIB,
                   budget ? budget : "");
}
