/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Everything that can be known to be wrong before anything is changed. */

#include <libvirt/virterror.h>

#include "error.h"
#include "lockprobe.h"
#include "mirror_priv.h"
#include "preflight.h"
#include "trust.h"

typedef struct {
    VmrMirror *mirror;
    gboolean reuse;
    VmrPreflight *flight;
} Plan;

/* One disk as it is planned. */
typedef struct {
    Plan *plan;
    GPtrArray *frozen; /* of VmrImage: the chain in use */
    VmrDisk *disk;
    gboolean named;    /* the caller has said where the overlay is to be */
} DiskPlan;

static void
identify(VmrFile *file, const VmrImage *image)
{
    file->dev = image->dev;
    file->ino = image->ino;
    file->born = image->born;
}

static VmrFile *
file_of_image(const VmrImage *image)
{
    VmrFile *file = vmr_file_new(image->path, image->format);

    identify(file, image);
    return file;
}

/* What is wrong with the header of an existing overlay or mirror; static. */
static const char *
judge_header(const DiskPlan *dp, const VmrImage *image)
{
    const VmrImage *source = g_ptr_array_index(dp->frozen, 0);

    if (image->version < 3)
        return "is qcow2 version 2, which cannot hide zeroes written over "
               "its backing file: create it with compat=1.1";
    if (image->virtual_size != source->virtual_size)
        return "has another virtual size than the disk";
    if (!image->backing_name)
        return "has no backing file, so the layers below would be lost";
    if (!image->backing_format)
        return "does not give the format of its backing file: create it with "
               "backing_fmt";
    if (g_strcmp0(image->backing_format, source->format) != 0)
        return "gives another format of its backing file than libvirt";
    if (image->data_file)
        return "keeps its data in another file";
    if (image->encrypted)
        return "is encrypted, which is not supported";
    if (image->dirty)
        return "was not closed properly: check it with qemu-img";
    if (image->has_snapshots || image->has_bitmaps)
        return "has internal snapshots or bitmaps";
    if (!image->empty)
        return "holds data of its own, which would hide the disk's: create "
               "it anew";
    return NULL;
}

/* Read an existing overlay or mirror; NULL if there was a finding. */
static VmrImage *
check_existing(DiskPlan *dp, VmrFile *file, const char *role)
{
    Plan *plan = dp->plan;
    const VmrImage *source = g_ptr_array_index(dp->frozen, 0);
    VmrTrust trust = vmr_trust_new_for_copy(plan->flight->live, source->path);
    GError *error = NULL;
    g_autoptr(VmrImage) image = vmr_image_read(file->path, file->format, &error);
    VmrLock lock;
    const char *why;

    if (!image || !vmr_trust_check_path(&trust, file->path, &error) ||
        !vmr_lock_probe(file->path, &lock, &error)) {
        vmr_error_note(&error, "it is to be the %s", role);
        vmr_preflight_found_error(plan->flight, dp->disk->target, error);
        return NULL;
    }
    why = judge_header(dp, image);
    if (!why && lock == VMR_LOCK_WRITER)
        why = "is open for writing in another process";
    if (why) {
        vmr_preflight_found(plan->flight, dp->disk->target, VMR_ERROR_IMAGE,
                            VIR_ERR_CONFIG_UNSUPPORTED, "its %s '%s' %s", role,
                            file->path, why);
        return NULL;
    }
    identify(file, image);
    return g_steal_pointer(&image);
}

static void
check_overlay(DiskPlan *dp)
{
    const VmrImage *source = g_ptr_array_index(dp->frozen, 0);
    VmrFile *file = dp->disk->overlay;
    g_autoptr(VmrImage) image = NULL;
    g_autofree char *backing = NULL;

    vmr_preflight_lasts_less(dp->plan->flight, dp->disk->target, source->path,
                             file->path, "overlay", dp->named);
    if (!dp->plan->reuse) {
        vmr_preflight_absent(dp->plan->flight, dp->disk->target, file->path,
                             "overlay");
        return;
    }
    image = check_existing(dp, file, "overlay");
    if (!image)
        return;
    backing = vmr_image_dup_backing_path(image);
    if (!backing || !vmr_preflight_same_place(backing, source->path))
        vmr_preflight_found(dp->plan->flight, dp->disk->target, VMR_ERROR_IMAGE,
              VIR_ERR_CONFIG_UNSUPPORTED,
              "its overlay '%s' has the backing file '%s', not '%s'",
              file->path, image->backing_name, source->path);
    else if (!source->is_block && !vmr_image_backing_is_relative(image))
        vmr_preflight_found(dp->plan->flight, dp->disk->target, VMR_ERROR_IMAGE,
              VIR_ERR_CONFIG_UNSUPPORTED,
              "its overlay '%s' names its backing file by an absolute path: "
              "make it relative (qemu-img rebase -u)",
              file->path);
}

/* Whether the mirror that is to be reused can be; tells of it if not. */
static gboolean
check_reused_mirror(DiskPlan *dp)
{
    VmrFile *file = dp->disk->mirror;
    g_autoptr(VmrImage) image = check_existing(dp, file, "mirror");

    if (!image)
        return FALSE;
    if (vmr_image_backing_is_relative(image))
        return TRUE;
    vmr_preflight_found(dp->plan->flight, dp->disk->target, VMR_ERROR_IMAGE,
          VIR_ERR_CONFIG_UNSUPPORTED,
          "its mirror '%s' has the backing file '%s', which is not relative "
          "to its own folder, so a pivot would stay with the source: make it "
          "relative (qemu-img rebase -u)",
          file->path, image->backing_name);
    return FALSE;
}

/* The chain below the mirror, which is there already, or is to be made beside
 * a layer of the source's name; NULL is an error. */
static GPtrArray *
read_copies(DiskPlan *dp, GError **error)
{
    const VmrImage *source = g_ptr_array_index(dp->frozen, 0);
    const VmrFile *file = dp->disk->mirror;
    g_autofree char *folder = g_path_get_dirname(file->path);
    g_autofree char *name = g_path_get_basename(source->path);
    g_autofree char *below = g_build_filename(folder, name, NULL);
    GPtrArray *chain;

    if (!dp->plan->reuse)
        return vmr_chain_read(below, source->format, error);
    chain = vmr_chain_read(file->path, file->format, error);
    if (chain)
        g_ptr_array_remove_index(chain, 0);
    return chain;
}

/* Nobody but who may write the chain in use may change the files of the new one, or
 * put others in their place. */
static gboolean
check_trusted(const DiskPlan *dp, const GPtrArray *copies, GError **error)
{
    const VmrDomXml *dom = dp->plan->flight->live;
    const VmrImage *source = g_ptr_array_index(dp->frozen, 0);
    g_autofree char *folder = g_path_get_dirname(dp->disk->mirror->path);
    VmrTrust trust = vmr_trust_new_for_folder(dom, source->path);

    if (!vmr_trust_check_folder(&trust, folder, error))
        return FALSE;
    for (guint i = 0; i < copies->len; i++) {
        const VmrImage *frozen = g_ptr_array_index(dp->frozen, i);
        const VmrImage *copy = g_ptr_array_index(copies, i);

        trust = vmr_trust_new_for_copy(dom, frozen->path);
        if (!vmr_trust_check_path(&trust, copy->path, error))
            return FALSE;
    }
    return TRUE;
}

static void
check_mirror(DiskPlan *dp)
{
    g_autoptr(GPtrArray) copies = NULL;
    GError *error = NULL;

    vmr_preflight_lasts_less(dp->plan->flight, dp->disk->target,
                             dp->disk->source->path, dp->disk->mirror->path,
                             "mirror", TRUE);
    if (dp->plan->reuse && !check_reused_mirror(dp))
        return;
    if (!dp->plan->reuse)
        vmr_preflight_absent(dp->plan->flight, dp->disk->target,
                             dp->disk->mirror->path, "mirror");
    copies = read_copies(dp, &error);
    if (!dp->plan->reuse && error && error->code == VMR_ERROR_NOT_FOUND)
        vmr_error_note(&error, "the mirror '%s' needs the chain of its "
                       "backing files beside it: make its skeleton with "
                       "prepare_chain() first", dp->disk->mirror->path);
    if (!copies || !vmr_chain_check_copy(dp->frozen, copies, &error) ||
        !check_trusted(dp, copies, &error)) {
        vmr_preflight_found_error(dp->plan->flight, dp->disk->target, error);
        return;
    }
    for (guint i = 0; i < copies->len; i++)
        g_ptr_array_add(dp->disk->copies,
                        file_of_image(g_ptr_array_index(copies, i)));
}

static VmrDisk *
plan_files(Plan *plan, const VmrDomDisk *now, const VmrDiskSpec *spec,
           GPtrArray *frozen)
{
    const VmrImage *source = g_ptr_array_index(frozen, 0);
    g_autofree char *overlay = g_strdup(spec->file);
    g_autoptr(VmrDisk) disk = vmr_disk_new(now->target);

    if (!overlay)
        overlay = vmr_snapspec_overlay_path(source->path,
                                            plan->mirror->record->snapshot);
    disk->source = file_of_image(source);
    for (guint i = 1; i < frozen->len; i++)
        g_ptr_array_add(disk->backing,
                        file_of_image(g_ptr_array_index(frozen, i)));
    disk->overlay = vmr_file_new(overlay, "qcow2");
    disk->mirror = vmr_file_new(spec->mirror, "qcow2");
    disk->overlay->created = !plan->reuse;
    disk->mirror->created = !plan->reuse;
    return g_steal_pointer(&disk);
}

static void
plan_disk(Plan *plan, const VmrDiskSpec *spec)
{
    g_autoptr(GPtrArray) frozen = NULL;
    const VmrDomDisk *now =
        vmr_preflight_disk(plan->flight, spec->name, &frozen);
    DiskPlan dp;

    if (!frozen)
        return;
    dp = (DiskPlan){.plan = plan, .frozen = frozen,
                    .named = spec->file != NULL,
                    .disk = plan_files(plan, now, spec, frozen)};
    g_ptr_array_add(plan->mirror->record->disks, dp.disk);
    check_overlay(&dp);
    check_mirror(&dp);
}

/* @file and @other, of the disk @owner, are to be two places. */
static void
check_apart(Plan *plan, const VmrDisk *disk, const VmrFile *file,
            const VmrDisk *owner, const VmrFile *other)
{
    const char *clash =
        other == file ? NULL : vmr_preflight_clash(other->path, file->path);

    if (!clash)
        return;
    if (vmr_preflight_same_place(other->path, file->path))
        vmr_preflight_found(plan->flight, disk->target, VMR_ERROR_INVALID_SPEC,
                            VIR_ERR_CONFIG_UNSUPPORTED,
                            "'%s' is wanted twice, also for disk '%s'",
                            file->path, owner->target);
    else
        vmr_preflight_found(plan->flight, disk->target, VMR_ERROR_INVALID_SPEC,
                            VIR_ERR_CONFIG_UNSUPPORTED,
                            "'%s' is %s '%s', which is for disk '%s'",
                            file->path, clash, other->path, owner->target);
}

/* Whether @file is the place of a file that is in use by the domain, or that
 * is planned for another disk, or for another purpose. */
static void
check_place(Plan *plan, const VmrDisk *disk, const VmrFile *file)
{
    const GPtrArray *disks = plan->mirror->record->disks;

    vmr_preflight_unused(plan->flight, disk->target, file->path);
    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *other = g_ptr_array_index(disks, i);

        check_apart(plan, disk, file, other, other->overlay);
        check_apart(plan, disk, file, other, other->mirror);
        for (guint j = 0; j < other->copies->len; j++)
            check_apart(plan, disk, file, other,
                        g_ptr_array_index(other->copies, j));
    }
}

static void
check_disks(Plan *plan)
{
    const GPtrArray *disks = plan->mirror->record->disks;

    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);

        for (guint j = 0; j < i; j++) {
            const VmrDisk *other = g_ptr_array_index(disks, j);

            if (g_str_equal(disk->target, other->target))
                vmr_preflight_found(plan->flight, disk->target,
                                    VMR_ERROR_INVALID_SPEC,
                                    VIR_ERR_XML_DETAIL, "it is named twice");
        }
        check_place(plan, disk, disk->overlay);
        check_place(plan, disk, disk->mirror);
    }
}

static gboolean
plan_all(Plan *plan, const VmrSnapSpec *spec, GError **error)
{
    GPtrArray *disks = plan->mirror->record->disks;

    for (guint i = 0; i < spec->disks->len; i++) {
        const VmrDiskSpec *disk = g_ptr_array_index(spec->disks, i);

        if (!vmr_diskspec_is_excluded(disk))
            plan_disk(plan, disk);
    }
    check_disks(plan);
    if (vmr_preflight_report(plan->flight, error))
        return TRUE;
    if (disks->len == 1)
        vmr_error_annotate(
            error, ((VmrDisk *)g_ptr_array_index(disks, 0))->target, NULL);
    return FALSE;
}

gboolean
vmr_mirror_plan(VmrMirror *mirror, const VmrSnapSpec *spec, guint flags,
                const VmrWait *wait, GError **error)
{
    g_autoptr(VmrPreflight) flight = NULL;
    g_autofree char *name = g_strdup(spec->name);
    Plan plan = {.mirror = mirror,
                 .reuse = (flags & VMR_MIRROR_REUSE_EXTERNAL) != 0};

    if (!vmr_snapspec_check(spec, error))
        return FALSE;
    flight = vmr_preflight_open(mirror->dom, wait, error);
    if (!flight)
        return FALSE;
    if (!name)
        name = g_strdup_printf("%" G_GINT64_FORMAT,
                               g_get_real_time() / G_USEC_PER_SEC);
    mirror->record = vmr_record_new(name, flight->live->uuid);
    plan.flight = flight;
    return vmr_preflight_check_domain(flight, name, wait, error) &&
           plan_all(&plan, spec, error);
}
