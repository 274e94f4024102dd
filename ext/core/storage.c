/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* makedev */

#include "storage.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "autofd.h"
#include "imagefile.h"

/* Devices stand on one another, but not endlessly. */
#define MAX_DEPTH 16

VmrStorage
vmr_storage_of(const struct stat *st)
{
    VmrStorage storage = {.is_block = S_ISBLK(st->st_mode)};

    vmr_imagefile_identify(st, &storage.dev, &storage.ino);
    return storage;
}

gboolean
vmr_storage_same(const VmrStorage *a, const VmrStorage *b)
{
    return !a->is_block == !b->is_block && a->dev == b->dev &&
           a->ino == b->ino;
}

/* What sysfs has of the device @dev under @name; owned. */
static char *
sysfs_path(dev_t dev, const char *name)
{
    return g_strdup_printf("/sys/dev/block/%u:%u/%s", major(dev), minor(dev),
                           name);
}

/* The text of a small file of sysfs, without its line end; NULL: there is none. */
static char *
read_sysfs(const char *path)
{
    char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return NULL;
    return g_strchomp(text);
}

/* Read the number of a device from the file @path of sysfs. */
static gboolean
read_number(const char *path, VmrStorage *device)
{
    g_autofree char *text = read_sysfs(path);
    char *colon = text ? strchr(text, ':') : NULL;

    if (!colon)
        return FALSE;
    *device = (VmrStorage){
        .dev = makedev((unsigned)strtoul(text, NULL, 10),
                       (unsigned)strtoul(colon + 1, NULL, 10)),
        .is_block = TRUE,
    };
    return TRUE;
}

/* The node of @dev in /dev, opened; -1: there is none, or not for us. */
static int
open_node(dev_t dev)
{
    g_autofree char *path = sysfs_path(dev, "uevent");
    g_autofree char *text = read_sysfs(path);
    const char *name = text ? strstr(text, "DEVNAME=") : NULL;
    g_autofree char *node = NULL;
    struct stat st;
    vmr_autofd fd = -1;

    if (!name)
        return -1;
    name += strlen("DEVNAME=");
    node = g_strdup_printf("/dev/%.*s", (int)strcspn(name, "\n"), name);
    fd = open(node, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode) ||
        st.st_rdev != dev)
        return -1;
    return vmr_fd_steal(&fd);
}

/* What the loop device @dev is over, if it is one in use. The kernel knows by
 * inode; by path (which may be one of another mount namespace, or gone) only where
 * the device cannot be opened. */
static gboolean
find_loop_file(dev_t dev, VmrStorage *file)
{
    g_autofree char *path = sysfs_path(dev, "loop/backing_file");
    g_autofree char *name = read_sysfs(path);
    vmr_autofd fd = name ? open_node(dev) : -1;
    struct loop_info64 info;
    struct stat st;

    if (!name)
        return FALSE;
    if (fd >= 0 && ioctl(fd, LOOP_GET_STATUS64, &info) == 0) {
        gboolean is_block =
            info.lo_rdevice != 0 && info.lo_rdevice != info.lo_device;

        *file = (VmrStorage){
            .dev = is_block ? info.lo_rdevice : info.lo_device,
            .ino = is_block ? 0 : info.lo_inode,
            .is_block = is_block,
        };
        return TRUE;
    }
    if (stat(name, &st) < 0)
        return FALSE;
    *file = vmr_storage_of(&st);
    return TRUE;
}

/* Two loop devices over one file are that file. */
static VmrStorage
look_through_loops(const VmrStorage *storage)
{
    VmrStorage end = *storage;
    VmrStorage below;

    for (guint i = 0; i < MAX_DEPTH && end.is_block &&
                      find_loop_file(end.dev, &below); i++)
        end = below;
    return end;
}

static void
add(GArray *found, const VmrStorage *storage)
{
    for (guint i = 0; i < found->len; i++) {
        if (vmr_storage_same(&g_array_index(found, VmrStorage, i), storage))
            return;
    }
    g_array_append_val(found, *storage);
}

/* The devices that @dev is made of, as device mapper and md have it. */
static void
add_slaves(GArray *found, dev_t dev)
{
    g_autofree char *folder = sysfs_path(dev, "slaves");
    g_autoptr(GDir) slaves = g_dir_open(folder, 0, NULL);
    const char *name;

    while (slaves && (name = g_dir_read_name(slaves))) {
        g_autofree char *path = g_build_filename(folder, name, "dev", NULL);
        VmrStorage slave;

        if (read_number(path, &slave))
            add(found, &slave);
    }
}

/* What @storage stands on, by one step. */
static void
add_below(GArray *found, const VmrStorage *storage)
{
    g_autofree char *partition = sysfs_path(storage->dev, "partition");
    g_autofree char *whole = sysfs_path(storage->dev, "../dev");
    VmrStorage below;

    if (!storage->is_block) {
        /* of a file system without a device there is none of that number */
        below = (VmrStorage){.dev = storage->dev, .is_block = TRUE};
        add(found, &below);
        return;
    }
    if (find_loop_file(storage->dev, &below))
        add(found, &below);
    if (g_file_test(partition, G_FILE_TEST_EXISTS) &&
        read_number(whole, &below))
        add(found, &below);
    add_slaves(found, storage->dev);
}

static gboolean
stands_on(const VmrStorage *upper, const VmrStorage *lower)
{
    g_autoptr(GArray) found = g_array_new(FALSE, FALSE, sizeof(VmrStorage));

    /* in one file system no file stands on another */
    if (!upper->is_block && !lower->is_block && upper->dev == lower->dev)
        return FALSE;
    add_below(found, upper);
    for (guint i = 0; i < found->len; i++) {
        VmrStorage below = g_array_index(found, VmrStorage, i);

        if (vmr_storage_same(&below, lower))
            return TRUE;
        add_below(found, &below);
    }
    return FALSE;
}

gboolean
vmr_storage_overlaps(const VmrStorage *a, const VmrStorage *b)
{
    VmrStorage x;
    VmrStorage y;

    if (vmr_storage_same(a, b))
        return TRUE;
    x = look_through_loops(a);
    y = look_through_loops(b);
    return vmr_storage_same(&x, &y) || stands_on(&x, &y) || stands_on(&y, &x);
}
