/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Everything that can be known to be wrong before anything is changed. */

#include <libvirt/virterror.h>
#include <string.h>
#include <sys/stat.h>

#include "chain.h"
#include "error.h"
#include "findings.h"
#include "journal.h"
#include "lockprobe.h"
#include "mirror_priv.h"

#define MIN_LIBVIRT 6002000
#define MIN_QEMU 5000000
#define MIN_MACHINE 7.0 /* a libvirt that knows it is new enough, too */

typedef struct {
    VmrMirror *mirror;
    gboolean reuse;
    VmrDomXml *live;
    VmrDomXml *inactive; /* NULL: transient domain */
    VmrFindings *findings;
    VmrErrorCode code;   /* that all findings have, or INVALID_SPEC */
} Plan;

/* One disk as it is planned. */
typedef struct {
    Plan *plan;
    const VmrDomDisk *now;
    GPtrArray *frozen; /* of VmrImage: the chain in use */
    VmrDisk *disk;
} DiskPlan;

/* Note a finding on the disk @target (NULL: on the whole). */
static void G_GNUC_PRINTF(5, 6)
found(Plan *plan, const char *target, VmrErrorCode code, int virt_code,
      const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    if (vmr_findings_is_empty(plan->findings))
        plan->code = code;
    else if (plan->code != code)
        plan->code = VMR_ERROR_INVALID_SPEC;
    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    if (target)
        vmr_findings_add(plan->findings, virt_code, "disk '%s': %s", target,
                         text);
    else
        vmr_findings_add(plan->findings, virt_code, "%s", text);
}

/* The same for what a function found; takes @error. */
static void
found_error(Plan *plan, const char *target, GError *error)
{
    found(plan, target, error->code, vmr_error_get_detail(error)->virt_code,
          "%s", error->message);
    g_error_free(error);
}

/* Whether two paths are, or would be, the same file. */
static gboolean
same_place(const char *a, const char *b)
{
    g_autofree char *folder_a = g_path_get_dirname(a);
    g_autofree char *folder_b = g_path_get_dirname(b);
    g_autofree char *name_a = g_path_get_basename(a);
    g_autofree char *name_b = g_path_get_basename(b);
    struct stat sa;
    struct stat sb;
    gboolean have_a = stat(a, &sa) == 0;
    gboolean have_b = stat(b, &sb) == 0;

    if (have_a && have_b) {
        if (S_ISBLK(sa.st_mode) && S_ISBLK(sb.st_mode))
            return sa.st_rdev == sb.st_rdev;
        return sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
    }
    return !have_a && !have_b && g_str_equal(name_a, name_b) &&
           stat(folder_a, &sa) == 0 && stat(folder_b, &sb) == 0 &&
           sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

static void
identify(VmrFile *file, const VmrImage *image)
{
    file->dev = image->dev;
    file->ino = image->ino;
}

static VmrFile *
file_of_image(const VmrImage *image)
{
    VmrFile *file = vmr_file_new(image->path, image->format);

    identify(file, image);
    return file;
}

static void
check_kind(Plan *plan, const VmrDomDisk *now)
{
    const char *why = NULL;

    if (!g_str_equal(now->device, "disk"))
        why = "only devices of type 'disk' can be mirrored";
    else if (now->readonly)
        why = "it is read-only";
    else if (now->shareable)
        why = "it is shareable, so other guests write to it, too";
    else if (now->transient)
        why = "it is transient";
    else if (g_strcmp0(now->bus, "sd") == 0)
        why = "the 'sd' bus cannot change its image while the guest runs";
    else if (now->chain->len == 0)
        why = "it has no medium";
    if (why)
        found(plan, now->target, VMR_ERROR_NOT_SUPPORTED,
              VIR_ERR_CONFIG_UNSUPPORTED, "%s", why);
    if (now->mirror)
        found(plan, now->target, VMR_ERROR_BUSY, VIR_ERR_BLOCK_COPY_ACTIVE,
              "a block job works on it: wait for it or end it first");
}

static void
check_persistent(Plan *plan, const VmrDomDisk *now)
{
    const VmrDomDisk *persistent =
        plan->inactive ? vmr_domxml_find(plan->inactive, now->target) : NULL;

    if (!plan->inactive ||
        (persistent && g_strcmp0(vmr_domdisk_source(persistent),
                                 vmr_domdisk_source(now)) == 0))
        return;
    found(plan, now->target, VMR_ERROR_INVALID_STATE,
          VIR_ERR_OPERATION_INVALID,
          "the persistent definition has another source than the running "
          "domain, so it would not follow: make them equal first");
}

/* As libvirt names an overlay: the snapshot's name in place of the suffix. */
static char *
generate_overlay_path(const char *source, const char *snapshot)
{
    g_autofree char *folder = g_path_get_dirname(source);
    g_autofree char *name = g_path_get_basename(source);
    g_autofree char *overlay = NULL;
    char *dot = strrchr(name, '.');

    if (dot)
        *dot = '\0';
    overlay = g_strdup_printf("%s.%s", name, snapshot);
    return g_build_filename(folder, overlay, NULL);
}

/* A file that is to be created: must not be there, and its folder must. */
static void
check_absent(DiskPlan *dp, const VmrFile *file, const char *role)
{
    g_autofree char *folder = g_path_get_dirname(file->path);
    struct stat st;

    if (stat(folder, &st) != 0 || !S_ISDIR(st.st_mode))
        found(dp->plan, dp->disk->target, VMR_ERROR_NOT_FOUND,
              VIR_ERR_CONFIG_UNSUPPORTED,
              "'%s', the folder of its %s, is no folder", folder, role);
    else if (lstat(file->path, &st) == 0)
        found(dp->plan, dp->disk->target, VMR_ERROR_EXISTS,
              VIR_ERR_CONFIG_UNSUPPORTED,
              "its %s '%s' exists already: reuse it (reuse_external) if it "
              "was made for this, or choose another name",
              role, file->path);
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
    GError *error = NULL;
    g_autoptr(VmrImage) image = vmr_image_read(file->path, file->format, &error);
    VmrLock lock;
    const char *why;

    if (!image || !vmr_lock_probe(file->path, &lock, &error)) {
        vmr_error_note(&error, "it is to be the %s", role);
        found_error(plan, dp->disk->target, error);
        return NULL;
    }
    why = judge_header(dp, image);
    if (!why && lock == VMR_LOCK_WRITER)
        why = "is open for writing in another process";
    if (why) {
        found(plan, dp->disk->target, VMR_ERROR_IMAGE,
              VIR_ERR_CONFIG_UNSUPPORTED, "its %s '%s' %s", role, file->path,
              why);
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

    if (!dp->plan->reuse) {
        check_absent(dp, file, "overlay");
        return;
    }
    image = check_existing(dp, file, "overlay");
    if (!image)
        return;
    backing = vmr_image_dup_backing_path(image);
    if (!backing || !same_place(backing, source->path))
        found(dp->plan, dp->disk->target, VMR_ERROR_IMAGE,
              VIR_ERR_CONFIG_UNSUPPORTED,
              "its overlay '%s' has the backing file '%s', not '%s'",
              file->path, image->backing_name, source->path);
    else if (!source->is_block && !vmr_image_backing_is_relative(image))
        found(dp->plan, dp->disk->target, VMR_ERROR_IMAGE,
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
    found(dp->plan, dp->disk->target, VMR_ERROR_IMAGE,
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

static void
check_mirror(DiskPlan *dp)
{
    g_autoptr(GPtrArray) copies = NULL;
    GError *error = NULL;

    if (dp->plan->reuse && !check_reused_mirror(dp))
        return;
    if (!dp->plan->reuse)
        check_absent(dp, dp->disk->mirror, "mirror");
    copies = read_copies(dp, &error);
    if (!dp->plan->reuse && error && error->code == VMR_ERROR_NOT_FOUND)
        vmr_error_note(&error, "the mirror '%s' needs the chain of its "
                       "backing files beside it: make its skeleton with "
                       "prepare_chain() first", dp->disk->mirror->path);
    if (!copies || !vmr_chain_check_copy(dp->frozen, copies, &error)) {
        found_error(dp->plan, dp->disk->target, error);
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
        overlay = generate_overlay_path(source->path,
                                        plan->mirror->record->snapshot);
    disk->source = file_of_image(source);
    disk->overlay = vmr_file_new(overlay, "qcow2");
    disk->mirror = vmr_file_new(spec->mirror, "qcow2");
    disk->overlay->created = !plan->reuse;
    disk->mirror->created = !plan->reuse;
    return g_steal_pointer(&disk);
}

static void
plan_disk(Plan *plan, const VmrDiskSpec *spec)
{
    const VmrDomDisk *now = vmr_domxml_find(plan->live, spec->name);
    g_autoptr(GPtrArray) frozen = NULL;
    GError *error = NULL;
    DiskPlan dp;

    if (!now) {
        found(plan, NULL, VMR_ERROR_NOT_FOUND, VIR_ERR_CONFIG_UNSUPPORTED,
              "domain '%s' has no disk '%s'", plan->live->name, spec->name);
        return;
    }
    check_kind(plan, now);
    check_persistent(plan, now);
    if (now->chain->len == 0)
        return;
    frozen = vmr_chain_read_live(now->chain, &error);
    if (!frozen) {
        found_error(plan, now->target, error);
        return;
    }
    dp = (DiskPlan){.plan = plan, .now = now, .frozen = frozen,
                    .disk = plan_files(plan, now, spec, frozen)};
    g_ptr_array_add(plan->mirror->record->disks, dp.disk);
    check_overlay(&dp);
    check_mirror(&dp);
}

/* Whether @path is the place of a file that is in use by the domain, or that
 * is planned for another disk, or for another purpose. */
static void
check_place(Plan *plan, const VmrDisk *disk, const VmrFile *file)
{
    const GPtrArray *disks = plan->mirror->record->disks;

    for (guint i = 0; i < plan->live->disks->len; i++) {
        const VmrDomDisk *now = g_ptr_array_index(plan->live->disks, i);

        for (guint j = 0; j < now->chain->len; j++) {
            const VmrLayer *layer = g_ptr_array_index(now->chain, j);

            if (layer->path && same_place(layer->path, file->path))
                found(plan, disk->target, VMR_ERROR_INVALID_SPEC,
                      VIR_ERR_CONFIG_UNSUPPORTED,
                      "'%s' is the same file as '%s', which disk '%s' uses",
                      file->path, layer->path, now->target);
        }
    }
    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *other = g_ptr_array_index(disks, i);

        if ((other->overlay != file &&
             same_place(other->overlay->path, file->path)) ||
            (other->mirror != file &&
             same_place(other->mirror->path, file->path)))
            found(plan, disk->target, VMR_ERROR_INVALID_SPEC,
                  VIR_ERR_CONFIG_UNSUPPORTED,
                  "'%s' is wanted twice, also for disk '%s'", file->path,
                  other->target);
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
                found(plan, disk->target, VMR_ERROR_INVALID_SPEC,
                      VIR_ERR_XML_DETAIL, "it is named twice");
        }
        check_place(plan, disk, disk->overlay);
        check_place(plan, disk, disk->mirror);
    }
}

/* Whether @machine ("pc-i440fx-7.2") is one that a QEMU before 5.0 lacks. */
static gboolean
is_new_machine(const char *machine)
{
    const char *dash = machine ? strrchr(machine, '-') : NULL;

    return dash && g_ascii_strtod(dash + 1, NULL) >= MIN_MACHINE;
}

static gboolean
check_versions(VmrMirror *mirror, const char *machine, const VmrWait *wait,
               GError **error)
{
    int libvirt;
    int qemu;

    /* libvirt answers the question by probing all QEMUs that are installed,
     * which takes it seconds the first time */
    if (is_new_machine(machine))
        return TRUE;
    if (!vmr_hv_get_versions(mirror->dom, &libvirt, &qemu, wait, error))
        return FALSE;
    if (libvirt >= MIN_LIBVIRT && qemu >= MIN_QEMU)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                "libvirt %d.%d and QEMU %d.%d are too old: 6.2 and 5.0 open "
                "the backing chain of a mirror late enough",
                libvirt / 1000000, libvirt / 1000 % 1000, qemu / 1000000,
                qemu / 1000 % 1000);
    return FALSE;
}

/* No mirrored snapshot may be under way, nor a snapshot have the name. */
static gboolean
check_name(VmrMirror *mirror, const char *uuid, const VmrWait *wait,
           GError **error)
{
    const char *name = mirror->record->snapshot;
    g_autoptr(VmrRecord) other = NULL;
    g_autoptr(GError) local = NULL;
    g_autofree char *xml = NULL;

    if (!vmr_journal_load(mirror->dom, uuid, &other, wait, error))
        return FALSE;
    if (other) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                    "the domain has the mirrored snapshot '%s' already: pivot "
                    "or abort it first",
                    other->snapshot);
        return FALSE;
    }
    xml = vmr_hv_snapshot_get_xml(mirror->dom, name, wait, &local);
    if (xml) {
        vmr_error_set_virt(error, VMR_ERROR_EXISTS, VIR_ERR_OPERATION_INVALID,
                           "the domain has a snapshot '%s' already", name);
        return FALSE;
    }
    if (vmr_error_get_detail(local)->virt_code != VIR_ERR_NO_DOMAIN_SNAPSHOT) {
        g_propagate_error(error, g_steal_pointer(&local));
        return FALSE;
    }
    return TRUE;
}

static gboolean
plan_all(Plan *plan, const VmrSnapSpec *spec, GError **error)
{
    g_autoptr(VmrFindings) findings = vmr_findings_new();
    GPtrArray *disks = plan->mirror->record->disks;

    plan->findings = findings;
    for (guint i = 0; i < spec->disks->len; i++) {
        const VmrDiskSpec *disk = g_ptr_array_index(spec->disks, i);

        if (!vmr_diskspec_is_excluded(disk))
            plan_disk(plan, disk);
    }
    check_disks(plan);
    if (vmr_findings_report(findings, plan->code, VIR_ERR_CONFIG_UNSUPPORTED,
                            error))
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
    g_autoptr(VmrDomXml) live = NULL;
    g_autoptr(VmrDomXml) inactive = NULL;
    g_autofree char *name = g_strdup(spec->name);
    Plan plan = {.mirror = mirror,
                 .reuse = (flags & VMR_MIRROR_REUSE_EXTERNAL) != 0};

    if (!vmr_snapspec_check(spec, error))
        return FALSE;
    live = vmr_live_read(mirror->dom, wait, error);
    if (!live ||
        !vmr_live_read_inactive(mirror->dom, &inactive, wait, error))
        return FALSE;
    if (!name)
        name = g_strdup_printf("%" G_GINT64_FORMAT,
                               g_get_real_time() / G_USEC_PER_SEC);
    mirror->record = vmr_record_new(name, live->uuid);
    plan.live = live;
    plan.inactive = inactive;
    return check_versions(mirror, live->machine, wait, error) &&
           check_name(mirror, live->uuid, wait, error) &&
           plan_all(&plan, spec, error);
}
