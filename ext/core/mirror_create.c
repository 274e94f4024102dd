/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Creating is all or nothing: journal, files, snapshot, copies; or what was
 * done of it is undone in reverse, as the truth shows it, not as we recall. */

#include <libvirt/virterror.h>

#include "backingname.h"
#include "collapse.h"
#include "error.h"
#include "image.h"
#include "imagefile.h"
#include "journal.h"
#include "mirror_priv.h"

/* The name of @path relative to @folder, both real; owned. */
static char *
relative_name(const char *folder, const char *path)
{
    g_auto(GStrv) from = g_strsplit(folder, "/", -1);
    g_auto(GStrv) to = g_strsplit(path, "/", -1);
    g_autoptr(GString) name = g_string_new(NULL);
    guint common = 0;

    while (from[common] && to[common] && g_str_equal(from[common], to[common]))
        common++;
    for (guint i = common; from[i]; i++) {
        if (from[i][0] != '\0')
            g_string_append(name, "../");
    }
    for (guint i = common; to[i]; i++)
        g_string_append_printf(name, "%s%s", i > common ? "/" : "", to[i]);
    return vmr_backing_name_protect(name->str);
}

/* How @overlay is to name @backing in its header: relative, unless that is a
 * device, which no folder moves with; owned. */
static char *
backing_name_for(const char *overlay, const char *backing, gboolean is_block,
                 GError **error)
{
    g_autofree char *folder = g_path_get_dirname(overlay);
    g_autofree char *below = g_path_get_dirname(backing);
    g_autofree char *name = g_path_get_basename(backing);
    g_autofree char *real_folder = NULL;
    g_autofree char *real_below = NULL;
    g_autofree char *path = NULL;

    if (is_block)
        return g_strdup(backing);
    real_folder = vmr_imagefile_dup_real_path(folder, error);
    real_below =
        real_folder ? vmr_imagefile_dup_real_path(below, error) : NULL;
    if (!real_below)
        return NULL;
    path = g_build_filename(real_below, name, NULL);
    return relative_name(real_folder, path);
}

/* A file of a disk that is made, and not to be seen yet. */
typedef struct {
    VmrFile *file; /* borrowed */
    VmrImageDraft *draft;
    gboolean published;
} Draft;

static void
draft_free(gpointer data)
{
    Draft *draft = data;

    /* what had no name yet is gone, and somebody's file may get its inode */
    if (!draft->published) {
        draft->file->dev = 0;
        draft->file->ino = 0;
        draft->file->born = 0;
    }
    vmr_image_draft_free(draft->draft);
    g_free(draft);
}

/* Make @file, empty, on top of an image like @source, named @backing_name. */
static gboolean
make_file(VmrFile *file, const VmrImage *source, const char *backing_name,
          GPtrArray *drafts, const VmrWait *wait, GError **error)
{
    VmrImageNew wanted = {.path = file->path,
                          .format = file->format,
                          .virtual_size = source->virtual_size,
                          .backing_name = backing_name,
                          .backing_format = source->format,
                          .like = source->path};
    VmrImageDraft *made = vmr_image_draft_new(&wanted, wait, error);
    const VmrImage *image;
    Draft *draft;

    if (!made)
        return FALSE;
    image = vmr_image_draft_get_image(made);
    draft = g_new0(Draft, 1);
    draft->file = file;
    draft->draft = made;
    file->dev = image->dev;
    file->ino = image->ino;
    file->born = image->born;
    g_ptr_array_add(drafts, draft);
    return TRUE;
}

static gboolean
make_disk_files(VmrDisk *disk, GPtrArray *drafts, const VmrWait *wait,
                GError **error)
{
    const VmrFile *copy = g_ptr_array_index(disk->copies, 0);
    g_autoptr(VmrImage) source =
        vmr_image_read(disk->source->path, disk->source->format, error);
    g_autofree char *below_overlay = NULL;
    g_autofree char *below_mirror = NULL;

    if (!source)
        return FALSE;
    below_overlay = backing_name_for(disk->overlay->path, source->path,
                                     source->is_block, error);
    below_mirror = backing_name_for(disk->mirror->path, copy->path, FALSE,
                                    error);
    return below_overlay && below_mirror &&
           make_file(disk->overlay, source, below_overlay, drafts, wait,
                     error) &&
           make_file(disk->mirror, source, below_mirror, drafts, wait, error);
}

static gboolean
make_files(VmrMirror *mirror, GPtrArray *drafts, const VmrWait *wait,
           GError **error)
{
    GPtrArray *disks = mirror->record->disks;

    for (guint i = 0; i < disks->len; i++) {
        VmrDisk *disk = g_ptr_array_index(disks, i);

        if (disk->overlay->created &&
            !make_disk_files(disk, drafts, wait, error)) {
            vmr_error_annotate(error, disk->target, NULL);
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean
publish_files(GPtrArray *drafts, GError **error)
{
    for (guint i = 0; i < drafts->len; i++) {
        Draft *draft = g_ptr_array_index(drafts, i);

        if (!vmr_image_draft_publish(draft->draft, error))
            return FALSE;
        draft->published = TRUE;
    }
    return TRUE;
}

/* What libvirt gets to see: the record's disks, and no other one. */
static char *
format_snapshot(const VmrMirror *mirror, const char *description,
                const VmrDomXml *live)
{
    const VmrRecord *record = mirror->record;
    g_autoptr(VmrSnapSpec) spec =
        vmr_snapspec_new(record->snapshot, description);
    g_autoptr(GPtrArray) others = g_ptr_array_new();
    g_autoptr(GHashTable) named = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(record->disks, i);
        VmrDiskSpec *one = g_new0(VmrDiskSpec, 1);

        one->name = g_strdup(disk->target);
        one->snapshot = g_strdup("external");
        one->driver = g_strdup(disk->overlay->format);
        one->file = g_strdup(disk->overlay->path);
        g_ptr_array_add(spec->disks, one);
        g_hash_table_add(named, disk->target);
    }
    for (guint i = 0; i < live->disks->len; i++) {
        const VmrDomDisk *now = g_ptr_array_index(live->disks, i);

        if (!g_hash_table_contains(named, now->target))
            g_ptr_array_add(others, now->target);
    }
    g_ptr_array_add(others, NULL);
    return vmr_snapxml_format_libvirt(
        spec, (const char *const *)others->pdata, live);
}

/* What was planned must still be so: a guard does not hold back another host,
 * or virsh. */
static gboolean
check_unchanged(const VmrMirror *mirror, const VmrDomXml *live, GError **error)
{
    for (guint i = 0; i < mirror->record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(mirror->record->disks, i);
        VmrTruth truth = vmr_truth_of(disk, live);

        if (truth == VMR_TRUTH_SOURCE)
            continue;
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "disk '%s' does not run on '%s' alone any more: somebody "
                    "else has changed it just now",
                    disk->target, disk->source->path);
        vmr_error_annotate(error, disk->target, NULL);
        return FALSE;
    }
    return TRUE;
}

static gboolean
take_snapshot(VmrMirror *mirror, const char *description, guint flags,
              const VmrWait *wait, GError **error)
{
    /* REUSE_EXT: the overlays are ours, with relative backing names. Not VALIDATE:
     * libvirt compiles its schema for that each time, which takes longer than the
     * snapshot; what is made here keeps to it, and is proven below. */
    guint virt_flags = VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY |
                       VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT |
                       VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC;
    g_autoptr(VmrDomXml) live = vmr_live_read(mirror->dom, wait, error);
    g_autofree char *xml = NULL;
    g_autofree char *name = NULL;

    if (!live || !check_unchanged(mirror, live, error) ||
        !vmr_mirror_check_chains(mirror, live, VMR_TRUTH_SOURCE, error))
        return FALSE;
    if (flags & VMR_MIRROR_QUIESCE)
        virt_flags |= VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE;
    xml = format_snapshot(mirror, description, live);
    name = vmr_hv_snapshot_create(mirror->dom, xml, virt_flags, wait, error);
    if (!name)
        return FALSE;
    for (guint i = 0; i < mirror->record->disks->len; i++) {
        if (!vmr_mirror_prove(mirror,
                              g_ptr_array_index(mirror->record->disks, i),
                              VMR_TRUTH_OVERLAY, wait, error))
            return FALSE;
    }
    return TRUE;
}

static gboolean
start_copies(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = NULL;

    for (guint i = 0; i < mirror->record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(mirror->record->disks, i);

        if (!vmr_mirror_start_copy(mirror, disk, disk->mirror, wait, error))
            return FALSE;
    }
    /* what is frozen from here on must be what the mirrors were planned for */
    live = vmr_live_read(mirror->dom, wait, error);
    return live && vmr_mirror_check_chains(mirror, live, VMR_TRUTH_MIRRORING,
                                           error);
}

/* The journal knows each file before it can be seen, so that there is none that
 * nobody would remove if we died here. */
static gboolean
create_files(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    g_autoptr(GPtrArray) drafts = g_ptr_array_new_with_free_func(draft_free);

    return vmr_mirror_save(mirror, VMR_STATE_CREATING,
                           VMR_DISK_STATE_PLANNED, wait, error) &&
           make_files(mirror, drafts, wait, error) &&
           vmr_mirror_save(mirror, VMR_STATE_CREATING,
                           VMR_DISK_STATE_OVERLAY, wait, error) &&
           publish_files(drafts, error);
}

static gboolean
carry_out(VmrMirror *mirror, const char *description, guint flags,
          const VmrWait *wait, GError **error)
{
    return create_files(mirror, wait, error) &&
           take_snapshot(mirror, description, flags, wait, error) &&
           vmr_mirror_save(mirror, VMR_STATE_MIRRORING,
                           VMR_DISK_STATE_MIRRORING, wait, error) &&
           start_copies(mirror, wait, error);
}

/* Undo what @disk shows; *@committed says that its overlay was written to. */
static gboolean
undo_disk(VmrMirror *mirror, const VmrDisk *disk, gboolean *committed,
          const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read_settled(mirror->dom, wait, error);
    VmrTruth truth;

    *committed = FALSE;
    if (!live)
        return FALSE;
    truth = vmr_truth_of(disk, live);
    if (truth == VMR_TRUTH_SOURCE)
        return TRUE;
    if (truth == VMR_TRUTH_MIRRORING || truth == VMR_TRUTH_READY ||
        truth == VMR_TRUTH_UNDOING) {
        if (!vmr_mirror_abort_copy(mirror, disk, NULL, wait, error))
            return FALSE;
        truth = VMR_TRUTH_OVERLAY;
    }
    if (truth != VMR_TRUTH_OVERLAY) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "disk '%s' is in state '%s'", disk->target,
                    vmr_truth_name(truth));
        return FALSE;
    }
    *committed = TRUE;
    return vmr_collapse_commit(mirror->dom, disk->target, disk->overlay->path,
                               wait, error) &&
           vmr_mirror_prove(mirror, disk, VMR_TRUTH_SOURCE, wait, error);
}

/* Back to how it was; @failure is told of files that are not as they were. */
static gboolean
undo_all(VmrMirror *mirror, gboolean *taken, GError **failure,
         const VmrWait *wait, GError **error)
{
    GPtrArray *disks = mirror->record->disks;

    for (guint i = disks->len; i-- > 0;) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);
        gboolean committed;

        if (!undo_disk(mirror, disk, &committed, wait, error))
            return FALSE;
        *taken = *taken || committed;
        if (committed && !disk->overlay->created)
            vmr_error_note(failure,
                           "'%s' was in use and holds stale data now: create "
                           "it anew before it is used again",
                           disk->overlay->path);
    }
    for (guint i = 0; i < disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(disks, i);

        if (!vmr_mirror_drop_file(mirror, disk->overlay, wait, error) ||
            !vmr_mirror_drop_file(mirror, disk->mirror, wait, error))
            return FALSE;
    }
    /* a snapshot of that name that is not ours stays */
    return *taken ? vmr_mirror_forget(mirror, wait, error)
                  : vmr_journal_clear(mirror->dom, wait, error);
}

gboolean
vmr_mirror_undo_create(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    /* there was no other snapshot of that name when the journal began */
    gboolean taken = TRUE;

    return undo_all(mirror, &taken, NULL, wait, error);
}

/* Whether the first step of all was forbidden, as on a read-only connection: there
 * is nothing to be undone then, nor a right to do it. */
static gboolean
was_forbidden(const VmrMirror *mirror, const GError *error)
{
    const VmrErrorDetail *detail = vmr_error_get_detail(error);

    return mirror->record->sequence == 1 && detail &&
           detail->virt_code == VIR_ERR_OPERATION_DENIED;
}

/* Say of *@error what is still there that was made. */
static void
note_leftovers(const VmrMirror *mirror, GError **error)
{
    for (guint i = 0; i < mirror->leftovers->len; i++) {
        vmr_error_note(error, "'%s' is left, since it could not be removed",
                       (const char *)g_ptr_array_index(mirror->leftovers, i));
        vmr_error_mark_partial(error);
    }
}

/* After *@error: undo, or say what is left. The journal stays in the latter
 * case, and whoever opens the mirrored snapshot can go on from there. */
static void
undo(VmrMirror *mirror, const VmrWait *failed, GError **error)
{
    VmrWait wait = vmr_wait_for_cleanup(failed);
    g_autoptr(GError) local = NULL;
    gboolean taken = FALSE;

    if (vmr_error_is_unknown(*error)) {
        vmr_error_note(error, "nothing was undone, since the call may still "
                       "take effect");
    } else if (undo_all(mirror, &taken, error, &wait, &local)) {
        note_leftovers(mirror, error);
        return;
    } else {
        vmr_error_note(error, "undoing it failed, too: %s", local->message);
    }
    vmr_error_note(error, "the journal of mirrored snapshot '%s' is kept",
                   mirror->record->snapshot);
    vmr_error_mark_partial(error);
}

/* From here on no other process plans with what we are about to change. */
static gboolean
take_guard(VmrMirror *mirror, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrDomXml) live = vmr_live_read(mirror->dom, wait, error);

    if (!live)
        return FALSE;
    mirror->guard = vmr_guard_take(live->uuid, error);
    return mirror->guard != NULL;
}

VmrMirror *
vmr_mirror_create(VmrHv *hv, virDomainPtr dom, const VmrSnapSpec *spec,
                  guint flags, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrMirror) mirror = vmr_mirror_new(hv, dom);
    g_autoptr(GError) local = NULL;

    if (take_guard(mirror, wait, &local) &&
        vmr_mirror_plan(mirror, spec, flags, wait, &local)) {
        if (carry_out(mirror, spec->description, flags, wait, &local)) {
            g_clear_pointer(&mirror->guard, vmr_guard_release);
            return g_steal_pointer(&mirror);
        }
        if (!was_forbidden(mirror, local))
            undo(mirror, wait, &local);
    }
    vmr_error_annotate(&local, NULL, "create");
    g_propagate_error(error, g_steal_pointer(&local));
    return NULL;
}
