/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "diskload.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <unistd.h>


#define MAX_DISKS 2 /* of a source and a destination */

/* Columns of a "stat" file, see Documentation/block/stat.rst in Linux. */
enum {
    COLUMN_READS = 0,
    COLUMN_WRITES = 4,
    COLUMN_UNDER_WAY = 8,
    COLUMN_DISCARDS = 11,
    COLUMN_FLUSHES = 15,
    COLUMN_COUNT = 17
};

struct VmrDiskload {
    guint n;
    int fd[MAX_DISKS]; /* of the "stat" files */
    dev_t dev[MAX_DISKS];
};

VmrDiskload *
vmr_diskload_new(void)
{
    return g_new0(VmrDiskload, 1);
}

void
vmr_diskload_free(VmrDiskload *load)
{
    if (!load)
        return;
    for (guint i = 0; i < load->n; i++)
        close(load->fd[i]);
    g_free(load);
}

gboolean
vmr_diskload_add_file(VmrDiskload *load, const char *path)
{
    int fd = load->n < MAX_DISKS ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return FALSE;
    load->dev[load->n] = 0;
    load->fd[load->n] = fd;
    load->n++;
    return TRUE;
}

gboolean
vmr_diskload_add(VmrDiskload *load, const struct stat *st)
{
    dev_t dev = S_ISBLK(st->st_mode) ? st->st_rdev : st->st_dev;
    g_autofree char *folder =
        g_strdup_printf("/sys/dev/block/%u:%u", major(dev), minor(dev));
    g_autofree char *partition = g_build_filename(folder, "partition", NULL);
    /* who uses another partition of a disk uses the same disk */
    gboolean is_part = access(partition, F_OK) == 0;
    g_autofree char *path =
        g_build_filename(folder, is_part ? "../stat" : "stat", NULL);

    for (guint i = 0; i < load->n; i++) {
        if (load->dev[i] == dev)
            return TRUE;
    }
    if (!vmr_diskload_add_file(load, path))
        return FALSE;
    load->dev[load->n - 1] = dev;
    return TRUE;
}

static gboolean
add_counts(int fd, guint64 *done, guint64 *under_way)
{
    char text[512];
    char *at = text;
    guint64 column[COLUMN_COUNT] = {0};
    ssize_t len = pread(fd, text, sizeof(text) - 1, 0);

    if (len <= 0)
        return FALSE;
    text[len] = '\0';
    /* older kernels have fewer columns */
    for (guint i = 0; i < COLUMN_COUNT; i++) {
        char *end;

        column[i] = g_ascii_strtoull(at, &end, 10);
        if (end == at)
            break;
        at = end;
    }
    *done += column[COLUMN_READS] + column[COLUMN_WRITES] +
             column[COLUMN_DISCARDS] + column[COLUMN_FLUSHES];
    *under_way += column[COLUMN_UNDER_WAY];
    return TRUE;
}

gboolean
vmr_diskload_get(const VmrDiskload *load, guint64 *done, guint64 *under_way)
{
    *done = 0;
    *under_way = 0;
    for (guint i = 0; i < load->n; i++) {
        if (!add_counts(load->fd[i], done, under_way))
            return FALSE;
    }
    return load->n > 0;
}
