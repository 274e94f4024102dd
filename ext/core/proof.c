/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "proof.h"

#include "autofd.h"
#include "copyfit.h"
#include "copymark.h"
#include "error.h"
#include "image.h"
#include "imagefile.h"
#include "qemuimg.h"

/* A layer and its copy. */
typedef struct {
    VmrFile *frozen; /* borrowed from the record, which lives longer */
    VmrFile *copy;
    VmrStamp frozen_stamp; /* as they were when they were proven */
    VmrStamp copy_stamp;
    gboolean fits;
} Pair;

struct VmrProof {
    GArray *pairs; /* of Pair, disk by disk, top first */
};

static VmrStamp
stamp_of_record(const VmrFile *file)
{
    return (VmrStamp){.dev = file->dev, .ino = file->ino, .born = file->born};
}

static gboolean
set_replaced(const VmrFile *file, GError **error)
{
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "'%s' was replaced by another file since the mirrored snapshot "
                "was begun: abort it, and do not rename files over it",
                file->path);
    return FALSE;
}

gboolean
vmr_proof_check_file(const VmrFile *file, VmrStamp *stamp, GError **error)
{
    VmrStamp recorded = stamp_of_record(file);

    return vmr_stamp_take(file->path, stamp, error) &&
           (vmr_stamp_same_file(stamp, &recorded) ||
            set_replaced(file, error));
}

/* libvirt may name a file otherwise than we do ("/a/./b"): what the name leads to
 * counts. */
static gboolean
check_layer(const char *target, const VmrLayer *layer, const VmrFile *file,
            GError **error)
{
    VmrStamp recorded = stamp_of_record(file);
    VmrStamp stamp;

    if (!layer->path) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "disk '%s' has a layer that is no file where '%s' was "
                    "recorded", target, file->path);
        return FALSE;
    }
    if (!vmr_stamp_take(layer->path, &stamp, error))
        return FALSE;
    if (vmr_stamp_same_file(&stamp, &recorded))
        return TRUE;
    if (g_strcmp0(layer->path, file->path) == 0)
        return set_replaced(file, error);
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "disk '%s' has the layer '%s' where '%s' was recorded: somebody "
                "else has changed its backing chain", target, layer->path,
                file->path);
    return FALSE;
}

/* The files (of VmrFile, borrowed) that @disk runs on, top first. */
static GPtrArray *
expected_chain(const VmrDisk *disk, VmrTruth truth)
{
    GPtrArray *files = g_ptr_array_new();
    const GPtrArray *below = disk->backing;

    if (truth == VMR_TRUTH_PIVOTED || truth == VMR_TRUTH_RETURNING) {
        g_ptr_array_add(files, disk->mirror);
        below = disk->copies;
    } else {
        if (truth != VMR_TRUTH_SOURCE)
            g_ptr_array_add(files, disk->overlay);
        g_ptr_array_add(files, disk->source);
    }
    for (guint i = 0; i < below->len; i++)
        g_ptr_array_add(files, g_ptr_array_index(below, i));
    return files;
}

gboolean
vmr_proof_check_chain(const VmrDisk *disk, const VmrDomDisk *now,
                      VmrTruth truth, GError **error)
{
    g_autoptr(GPtrArray) files = expected_chain(disk, truth);

    if (now->chain->len != files->len) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "the backing chain of disk '%s' has %u layers, but %u were "
                    "recorded: somebody else has changed it", disk->target,
                    now->chain->len, files->len);
        return FALSE;
    }
    for (guint i = 0; i < files->len; i++) {
        if (!check_layer(disk->target, g_ptr_array_index(now->chain, i),
                         g_ptr_array_index(files, i), error))
            return FALSE;
    }
    return TRUE;
}

static gboolean
take_stamps(Pair *pair, GError **error)
{
    return vmr_proof_check_file(pair->frozen, &pair->frozen_stamp, error) &&
           vmr_proof_check_file(pair->copy, &pair->copy_stamp, error);
}

static gboolean
set_incomplete(const char *path, GError **error)
{
    g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                "'%s' is a copy that was not completed: copy it again, over "
                "what is there", path);
    return FALSE;
}

gboolean
vmr_proof_check_complete(const VmrFile *copy, GError **error)
{
    VmrCopymark mark;
    struct stat st;
    vmr_autofd fd = vmr_imagefile_open(copy->path, &st, error);

    if (fd < 0 || !vmr_copymark_get(fd, copy->path, &mark, error))
        return FALSE;
    return mark.state != VMR_COPYMARK_INCOMPLETE ||
           set_incomplete(copy->path, error);
}

/* The pair by itself: by the mark, or the bytes of both files. */
static gboolean
look_at_pair(Pair *pair, const VmrWait *wait, GError **error)
{
    VmrCopyFit fit;

    if (!take_stamps(pair, error))
        return FALSE;
    /* a layer that lies on the new side already is on both */
    pair->fits = vmr_stamp_same_file(&pair->frozen_stamp, &pair->copy_stamp);
    if (pair->fits)
        return TRUE;
    if (!vmr_copyfit_look(pair->frozen->path, pair->copy->path, &fit, wait,
                          error))
        return FALSE;
    if (fit == VMR_COPYFIT_INCOMPLETE)
        return set_incomplete(pair->copy->path, error);
    pair->fits = fit == VMR_COPYFIT_FITS;
    return pair->fits ||
           vmr_copyfit_compare(pair->frozen->path, pair->copy->path,
                               &pair->fits, wait, error);
}

/* A pair for a layer that another disk has, too, and that was looked at. */
static const Pair *
find_pair(const VmrProof *proof, const Pair *pair)
{
    for (guint i = 0; i < proof->pairs->len; i++) {
        const Pair *other = &g_array_index(proof->pairs, Pair, i);

        if (vmr_stamp_same_file(&other->frozen_stamp, &pair->frozen_stamp) &&
            vmr_stamp_same_file(&other->copy_stamp, &pair->copy_stamp))
            return other;
    }
    return NULL;
}

/* The chain from number @first of @pairs down, as qemu-img takes it, so that no
 * header is followed; owned. */
static char *
format_chain(const GArray *pairs, guint first, gboolean copies)
{
    GString *text = g_string_new("json:");

    for (guint i = first; i < pairs->len; i++) {
        const Pair *pair = &g_array_index(pairs, Pair, i);
        const VmrFile *file = copies ? pair->copy : pair->frozen;
        g_autofree char *path = vmr_qemuimg_quote_json(file->path);

        g_string_append_printf(
            text, "%s{\"driver\":\"%s\",\"file\":{\"driver\":\"%s\","
                  "\"filename\":%s}",
            i > first ? ",\"backing\":" : "", file->format,
            vmr_file_is_block(file) ? "host_device" : "file", path);
    }
    for (guint i = first; i < pairs->len; i++)
        g_string_append(text, "}");
    return g_string_free(text, FALSE);
}

/* Whether a guest would read the same of both chains from number @i of @pairs down. */
static gboolean
compare_from(const VmrProof *proof, guint i, gboolean *same,
             const VmrWait *wait, GError **error)
{
    const Pair *pair = &g_array_index(proof->pairs, Pair, i);
    g_autofree char *frozen = format_chain(proof->pairs, i, FALSE);
    g_autofree char *copy = format_chain(proof->pairs, i, TRUE);

    if (vmr_qemuimg_compare(frozen, copy, same, wait, error))
        return TRUE;
    vmr_error_note(error, "it was to tell whether '%s' is a copy of '%s'",
                   pair->copy->path, pair->frozen->path);
    return FALSE;
}

/* The lowest layer of those from number @first on that makes the chains differ. */
static gboolean
find_wrong(const VmrProof *proof, guint first, guint *wrong,
           const VmrWait *wait, GError **error)
{
    for (*wrong = proof->pairs->len - 1; *wrong > first; --*wrong) {
        gboolean same;

        if (!compare_from(proof, *wrong, &same, wait, error))
            return FALSE;
        if (!same)
            return TRUE;
    }
    return TRUE;
}

/* A copy made by other means need not have the same bytes (qemu-img convert; other
 * backing names in its header): then what a guest reads of the whole chain counts. */
static gboolean
compare_chains(VmrProof *proof, guint first, const VmrWait *wait,
               GError **error)
{
    const Pair *pair;
    guint wrong = first;
    gboolean same;

    while (wrong < proof->pairs->len &&
           g_array_index(proof->pairs, Pair, wrong).fits)
        wrong++;
    if (wrong == proof->pairs->len)
        return TRUE;
    if (!compare_from(proof, first, &same, wait, error))
        return FALSE;
    if (same)
        return TRUE;
    if (!find_wrong(proof, first, &wrong, wait, error))
        return FALSE;
    pair = &g_array_index(proof->pairs, Pair, wrong);
    g_set_error(error, VMR_ERROR, VMR_ERROR_IMAGE,
                "'%s' does not hold what '%s' holds now: it was not copied, or "
                "the source has changed since: copy it again, over what is there",
                pair->copy->path, pair->frozen->path);
    return FALSE;
}

static gboolean
prove_disk(VmrProof *proof, const VmrDisk *disk, const VmrWait *wait,
           GError **error)
{
    guint first = proof->pairs->len;

    for (guint i = 0; i < disk->copies->len; i++) {
        Pair pair = {.frozen = (VmrFile *)vmr_disk_get_frozen(disk, i),
                     .copy = g_ptr_array_index(disk->copies, i)};
        const Pair *known;

        if (!pair.frozen) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                        "the record does not say which layer '%s' is a copy of",
                        pair.copy->path);
            return FALSE;
        }
        if (!take_stamps(&pair, error))
            return FALSE;
        known = find_pair(proof, &pair);
        if (known)
            pair.fits = known->fits;
        else if (!look_at_pair(&pair, wait, error))
            return FALSE;
        g_array_append_val(proof->pairs, pair);
    }
    return compare_chains(proof, first, wait, error);
}

VmrProof *
vmr_proof_new(const VmrRecord *record, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrProof) proof = g_new0(VmrProof, 1);

    proof->pairs = g_array_new(FALSE, FALSE, sizeof(Pair));
    for (guint i = 0; i < record->disks->len; i++) {
        const VmrDisk *disk = g_ptr_array_index(record->disks, i);

        if (disk->state != VMR_DISK_STATE_PIVOTED &&
            !prove_disk(proof, disk, wait, error)) {
            vmr_error_annotate(error, disk->target, NULL);
            return NULL;
        }
    }
    /* what was read must be what is there */
    return vmr_proof_still_holds(proof, error) ? g_steal_pointer(&proof) : NULL;
}

static gboolean
check_unchanged(const VmrFile *file, const VmrStamp *then, GError **error)
{
    VmrStamp now;

    if (!vmr_proof_check_file(file, &now, error))
        return FALSE;
    if (vmr_stamp_same_data(&now, then))
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                "'%s' has changed since its contents were proven: something else "
                "writes to it", file->path);
    return FALSE;
}

gboolean
vmr_proof_still_holds(const VmrProof *proof, GError **error)
{
    for (guint i = 0; i < proof->pairs->len; i++) {
        const Pair *pair = &g_array_index(proof->pairs, Pair, i);

        if (!check_unchanged(pair->frozen, &pair->frozen_stamp, error) ||
            !check_unchanged(pair->copy, &pair->copy_stamp, error))
            return FALSE;
    }
    return TRUE;
}

void
vmr_proof_free(VmrProof *proof)
{
    if (!proof)
        return;
    g_array_unref(proof->pairs);
    g_free(proof);
}
