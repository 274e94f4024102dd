/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "moveplan.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "copymark.h"
#include "error.h"
#include "lockprobe.h"
#include "preflight.h"
#include "snapspec.h"
#include "text.h"

#define STAT_BLOCK 512 /* bytes, of st_blocks */

#define MAX_NAMES 8 /* of snapshots that are told */

/* Bytes that qcow2's own tables of a new overlay and mirror may take. */
#define OVERLAY_BYTES (1024 * 1024)

/* What the plan wants of one file system. */
typedef struct {
    dev_t dev;
    guint64 bytes;
    const char *folder; /* one that is on it */
} Space;

typedef struct {
    VmrPreflight *flight;
    VmrMovePlan *plan;
    const VmrMoveOptions *options;
    GHashTable *places; /* path of a copy -> the layer that is to go there */
    GArray *space;      /* of Space */
} Planner;

static void
move_disk_free(VmrMoveDisk *disk)
{
    g_free(disk->target);
    g_free(disk->folder);
    g_free(disk->overlay);
    g_free(disk->mirror);
    g_ptr_array_unref(disk->layers); /* they borrow from the sources */
    g_ptr_array_unref(disk->sources);
    g_free(disk);
}

void
vmr_move_plan_free(VmrMovePlan *plan)
{
    if (!plan)
        return;
    g_free(plan->domain);
    g_free(plan->uuid);
    g_ptr_array_unref(plan->disks);
    g_ptr_array_unref(plan->notes);
    g_free(plan);
}

static VmrMovePlan *
move_plan_new(const VmrDomXml *live)
{
    VmrMovePlan *plan = g_new0(VmrMovePlan, 1);

    plan->domain = g_strdup(live->name);
    plan->uuid = g_strdup(live->uuid);
    plan->disks =
        g_ptr_array_new_with_free_func((GDestroyNotify)move_disk_free);
    plan->notes = g_ptr_array_new_with_free_func(g_free);
    return plan;
}

/* Note that @bytes are to be written below @folder. */
static void
need_space(Planner *planner, const char *folder, guint64 bytes)
{
    Space need = {.bytes = bytes, .folder = folder};
    struct stat st;

    if (stat(folder, &st) != 0)
        return; /* that is a finding already */
    need.dev = st.st_dev;
    for (guint i = 0; i < planner->space->len; i++) {
        Space *space = &g_array_index(planner->space, Space, i);

        if (space->dev == need.dev) {
            space->bytes += bytes;
            return;
        }
    }
    g_array_append_val(planner->space, need);
}

static void
check_space(Planner *planner)
{
    for (guint i = 0; i < planner->space->len; i++) {
        const Space *need = &g_array_index(planner->space, Space, i);
        struct statvfs fs;
        guint64 free_bytes;

        /* some file systems (FUSE) do not tell */
        if (statvfs(need->folder, &fs) != 0 || fs.f_blocks == 0)
            continue;
        free_bytes = (guint64)fs.f_bavail * fs.f_frsize;
        if (free_bytes < need->bytes)
            vmr_preflight_found(planner->flight, NULL, VMR_ERROR_IO,
                                VIR_ERR_OPERATION_FAILED,
                                "'%s' has %" G_GUINT64_FORMAT
                                " bytes free, and %" G_GUINT64_FORMAT
                                " are to be written: make room",
                                need->folder, free_bytes, need->bytes);
    }
}

/* Without marks nobody could tell, after a crash, a copy that is complete from one
 * that is not, and keep a guest off the latter. */
static void
check_marks(Planner *planner)
{
    for (guint i = 0; i < planner->space->len; i++) {
        const char *folder = g_array_index(planner->space, Space, i).folder;

        if (getxattr(folder, VMR_COPYMARK_NAME, NULL, 0) < 0 &&
            (errno == EOPNOTSUPP || errno == ENOSYS))
            vmr_preflight_found(planner->flight, NULL, VMR_ERROR_NOT_SUPPORTED,
                                VIR_ERR_CONFIG_UNSUPPORTED,
                                "the file system of '%s' keeps no extended "
                                "attributes (user.*), by which a complete copy "
                                "is known: use one that does (NFS from 4.2 "
                                "on), or mirror to copies of your own",
                                folder);
    }
}

/* Whether the place of @layer's copy is claimed by another layer; the same one,
 * of another disk, is copied once. *@known: somebody claimed it before. */
static void
claim_place(Planner *planner, const char *target, const VmrLayerPlan *layer,
            gboolean *known)
{
    const VmrLayerPlan *other =
        g_hash_table_lookup(planner->places, layer->path);

    *known = other != NULL;
    if (!other)
        g_hash_table_insert(planner->places, layer->path, (gpointer)layer);
    else if (!vmr_image_same(other->source, layer->source))
        vmr_preflight_found(planner->flight, target, VMR_ERROR_INVALID_SPEC,
                            VIR_ERR_CONFIG_UNSUPPORTED,
                            "both '%s' and '%s' would become '%s': give the "
                            "disks folders of their own",
                            other->source->path, layer->source->path,
                            layer->path);
}

/* A layer below the top may be there already: whether it is the same is found
 * out when its turn comes, since another guest may be copying it now. */
static void
check_there(Planner *planner, const char *target, const VmrLayerPlan *layer)
{
    GError *error = NULL;
    VmrLock lock;

    if (!vmr_lock_probe(layer->path, &lock, &error))
        vmr_preflight_found_error(planner->flight, target, error);
    else if (lock == VMR_LOCK_WRITER)
        vmr_preflight_found(planner->flight, target, VMR_ERROR_BUSY,
                            VIR_ERR_CONFIG_UNSUPPORTED,
                            "'%s' is there already, and a QEMU has it open "
                            "for writing", layer->path);
}

static void
check_layer(Planner *planner, const VmrMoveDisk *disk, guint i)
{
    const VmrLayerPlan *layer = g_ptr_array_index(disk->layers, i);
    struct stat st;
    gboolean known;

    g_autofree char *folder = g_path_get_dirname(layer->path);

    claim_place(planner, disk->target, layer, &known);
    vmr_preflight_writable(planner->flight, disk->target, folder);
    if (i == 0)
        vmr_preflight_unused(planner->flight, disk->target, layer->path);
    else
        vmr_preflight_shareable(planner->flight, disk->target, layer->path);
    if (known)
        return;
    if (lstat(layer->path, &st) == 0) {
        if (i > 0)
            check_there(planner, disk->target, layer);
        else
            vmr_preflight_found(planner->flight, disk->target,
                                VMR_ERROR_EXISTS, VIR_ERR_CONFIG_UNSUPPORTED,
                                "'%s' is there already, and the guest is to "
                                "write to that file: remove it, or give "
                                "another folder", layer->path);
        return;
    }
    if (stat(layer->source->path, &st) == 0)
        need_space(planner, disk->folder,
                   S_ISBLK(st.st_mode) ? layer->source->file_size
                                       : (guint64)st.st_blocks * STAT_BLOCK);
}

/* Where @path, of a new top on @source, is to be made. */
static void
check_where(Planner *planner, const char *target, const VmrImage *source,
            const char *path, const char *role, gboolean named)
{
    g_autofree char *folder = g_path_get_dirname(path);

    /* no name of a file; that is told of by itself */
    if (strchr(planner->options->snapshot, '/'))
        return;
    vmr_preflight_writable(planner->flight, target, folder);
    if (vmr_preflight_lasts_less(planner->flight, target, source->path, path,
                                 role, named))
        g_ptr_array_add(planner->plan->notes,
                        g_strdup_printf("disk '%s': its %s '%s' is in memory, "
                                        "and gone with the host's power",
                                        target, role, path));
}

/* A new top: must not be there, nor be the place of anything else. */
static void
check_new(Planner *planner, const VmrMoveDisk *disk, const char *path,
          const char *role)
{
    struct stat st;

    if (lstat(path, &st) == 0)
        vmr_preflight_found(planner->flight, disk->target, VMR_ERROR_EXISTS,
                            VIR_ERR_CONFIG_UNSUPPORTED,
                            "its %s '%s' exists already: choose another name "
                            "for the migration", role, path);
    if (g_hash_table_contains(planner->places, path))
        vmr_preflight_found(planner->flight, disk->target,
                            VMR_ERROR_INVALID_SPEC,
                            VIR_ERR_CONFIG_UNSUPPORTED,
                            "its %s '%s' is also the place of a layer: choose "
                            "another name for the migration", role, path);
}

static char *
choose_overlay(const VmrMoveOptions *options, const VmrImage *source)
{
    g_autofree char *beside =
        vmr_snapspec_overlay_path(source->path, options->snapshot);
    g_autofree char *name = g_path_get_basename(beside);

    return options->overlay_folder
               ? g_build_filename(options->overlay_folder, name, NULL)
               : g_steal_pointer(&beside);
}

/* Takes @layers. */
static VmrMoveDisk *
move_disk_new(const char *target, const char *folder, const char *overlay,
              GPtrArray *sources, GPtrArray *layers)
{
    VmrMoveDisk *disk = g_new0(VmrMoveDisk, 1);
    g_autofree char *name = g_path_get_basename(overlay);

    disk->target = g_strdup(target);
    disk->folder = g_strdup(folder);
    disk->sources = g_ptr_array_ref(sources);
    disk->overlay = g_strdup(overlay);
    disk->mirror = g_build_filename(folder, name, NULL);
    disk->layers = layers;
    return disk;
}

static void
plan_disk(Planner *planner, const char *name, const char *folder)
{
    g_autoptr(GPtrArray) sources = NULL;
    g_autofree char *overlay = NULL;
    const VmrDomDisk *now =
        vmr_preflight_disk(planner->flight, name, &sources);
    VmrMoveDisk *disk;
    GError *error = NULL;
    GPtrArray *layers;

    if (!sources)
        return;
    overlay = choose_overlay(planner->options, g_ptr_array_index(sources, 0));
    check_where(planner, now->target, g_ptr_array_index(sources, 0), overlay,
                "overlay", planner->options->overlay_folder != NULL);
    layers = vmr_chain_plan(planner->flight->live, sources, folder, &error);
    if (!layers) {
        vmr_preflight_found_error(planner->flight, now->target, error);
        return;
    }
    disk = move_disk_new(now->target, folder, overlay, sources, layers);
    g_ptr_array_add(planner->plan->disks, disk);
    check_where(planner, disk->target, g_ptr_array_index(sources, 0),
                disk->mirror, "mirror", TRUE);
    for (guint i = 0; i < layers->len; i++)
        check_layer(planner, disk, i);
    need_space(planner, disk->folder, OVERLAY_BYTES);
}

/* What can be said of the snapshot by itself: names, and nothing twice. */
static void
review_snapshot(Planner *planner)
{
    g_autoptr(VmrSnapSpec) spec =
        vmr_snapspec_new(planner->options->snapshot, NULL);

    for (guint i = 0; i < planner->plan->disks->len; i++) {
        const VmrMoveDisk *disk = g_ptr_array_index(planner->plan->disks, i);
        VmrDiskSpec *one = g_new0(VmrDiskSpec, 1);

        one->name = g_strdup(disk->target);
        one->file = g_strdup(disk->overlay);
        one->mirror = g_strdup(disk->mirror);
        g_ptr_array_add(spec->disks, one);
        check_new(planner, disk, disk->overlay, "overlay");
        check_new(planner, disk, disk->mirror, "mirror");
    }
    if (planner->plan->disks->len > 0)
        vmr_snapspec_review(spec, planner->flight->findings);
}

/* The names of snapshots, for people; owned. */
static char *
tell_names(char *const *names)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (guint i = 0; names[i] && i < MAX_NAMES; i++) {
        g_autofree char *clean = vmr_text_clean(names[i]);

        g_string_append_printf(text, "%s'%s'", i > 0 ? ", " : "", clean);
    }
    if (g_strv_length((char **)names) > MAX_NAMES)
        g_string_append(text, ", ...");
    return g_strdup(text->str);
}

/* libvirt's record of a snapshot has the definition that the domain had, and so the
 * files that the disks were on: a revert starts it on those. */
static gboolean
check_snapshots(Planner *planner, const VmrWait *wait, GError **error)
{
    g_auto(GStrv) names = vmr_hv_snapshot_list(planner->flight->dom, wait, error);
    g_autofree char *text = NULL;

    if (!names)
        return FALSE;
    if (!names[0])
        return TRUE;
    text = tell_names(names);
    if (!planner->options->keep_snapshots)
        vmr_preflight_found(planner->flight, NULL, VMR_ERROR_INVALID_STATE,
                            VIR_ERR_OPERATION_INVALID,
                            "the domain has snapshots (%s), and a revert to one "
                            "would lead back to the old storage: delete them, "
                            "or keep them for that (snapshots='keep')", text);
    else if (planner->options->remove_source)
        vmr_preflight_found(planner->flight, NULL, VMR_ERROR_INVALID_STATE,
                            VIR_ERR_OPERATION_INVALID,
                            "the domain has snapshots (%s), which need the old "
                            "files: keep those (remove_source), or delete the "
                            "snapshots", text);
    return TRUE;
}

VmrMovePlan *
vmr_move_plan(const VmrDomain *dom, const char *const *disks,
              const VmrMoveOptions *options, const VmrWait *wait,
              GError **error)
{
    g_autoptr(VmrPreflight) flight = vmr_preflight_open(dom, wait, error);
    g_autoptr(VmrMovePlan) plan = NULL;
    g_autoptr(GHashTable) places = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GArray) space = g_array_new(FALSE, FALSE, sizeof(Space));
    Planner planner = {.flight = flight, .options = options,
                       .places = places, .space = space};

    if (!flight ||
        !vmr_preflight_check_domain(flight, options->snapshot, wait, error))
        return NULL;
    plan = move_plan_new(flight->live);
    planner.plan = plan;
    if (!check_snapshots(&planner, wait, error))
        return NULL;
    if (!disks[0])
        vmr_preflight_found(flight, NULL, VMR_ERROR_INVALID_SPEC,
                            VIR_ERR_INVALID_ARG, "no disk is given");
    for (guint i = 0; disks[i]; i += 2)
        plan_disk(&planner, disks[i], disks[i + 1]);
    review_snapshot(&planner);
    check_space(&planner);
    check_marks(&planner);
    if (!vmr_preflight_report(flight, error)) {
        vmr_error_annotate(error, NULL, "plan");
        return NULL;
    }
    return g_steal_pointer(&plan);
}
