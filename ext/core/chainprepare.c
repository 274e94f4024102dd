/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <sys/stat.h>

#include "backingname.h"
#include "chain.h"
#include "error.h"
#include "lockprobe.h"
#include "storage.h"
#include "text.h"
#include "trust.h"

static void
layer_plan_free(VmrLayerPlan *layer)
{
    g_free(layer->path);
    g_free(layer->backing_name);
    vmr_image_free(layer->made);
    g_free(layer);
}

/* How the copy of @upper is to name the copy of @lower: as it is named now if
 * that leads to a place in the new folder, else by its own name alone. */
static char *
choose_name(const VmrImage *upper, const VmrImage *lower)
{
    g_autofree char *base = NULL;

    if (upper->backing_name &&
        vmr_backing_name_stays_inside(upper->backing_name))
        return vmr_backing_name_protect(upper->backing_name);
    base = g_path_get_basename(lower->path);
    return vmr_backing_name_protect(base);
}

static gboolean
lies_at(const VmrImage *image, const char *path)
{
    VmrStorage is = {image->dev, image->ino, image->is_block};
    struct stat st;
    VmrStorage there;

    if (stat(path, &st) < 0)
        return FALSE;
    there = vmr_storage_of(&st);
    return vmr_storage_same(&is, &there);
}

static GPtrArray *
plan_layers(const GPtrArray *sources, const char *folder)
{
    GPtrArray *plan =
        g_ptr_array_new_with_free_func((GDestroyNotify)layer_plan_free);
    const VmrImage *top = g_ptr_array_index(sources, 0);
    g_autofree char *base = g_path_get_basename(top->path);
    g_autofree char *path = g_build_filename(folder, base, NULL);

    for (guint i = 0; i < sources->len; i++) {
        VmrLayerPlan *planned = g_new0(VmrLayerPlan, 1);

        planned->source = g_ptr_array_index(sources, i);
        planned->path = g_steal_pointer(&path);
        planned->in_place = i > 0 && lies_at(planned->source, planned->path);
        if (i + 1 < sources->len) {
            const VmrImage *lower = g_ptr_array_index(sources, i + 1);

            planned->backing_name = choose_name(planned->source, lower);
            planned->backing_format = lower->format;
            path = vmr_backing_name_resolve(planned->path,
                                            planned->backing_name);
        }
        g_ptr_array_add(plan, planned);
    }
    return plan;
}

static gboolean
stat_folder(const char *folder, struct stat *st, GError **error)
{
    if (stat(folder, st) < 0) {
        if (errno == ENOENT)
            g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_FOUND,
                        "folder '%s' is missing: create it first", folder);
        else
            vmr_error_set_errno(error, errno, "look at", folder);
        return FALSE;
    }
    if (!S_ISDIR(st->st_mode)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "'%s' is not a folder", folder);
        return FALSE;
    }
    return TRUE;
}

static gboolean
check_folder(const char *folder, const VmrImage *top, GError **error)
{
    g_autofree char *home = g_path_get_dirname(top->path);
    struct stat new_st;
    struct stat old_st;

    if (!g_path_is_absolute(folder) || !vmr_text_is_plain(folder, NULL)) {
        g_autofree char *clean = vmr_text_clean(folder);

        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "'%s' is not the absolute path of a folder, in UTF-8 and "
                    "without control characters", clean);
        return FALSE;
    }
    if (!stat_folder(folder, &new_st, error) ||
        !stat_folder(home, &old_st, error))
        return FALSE;
    if (new_st.st_dev == old_st.st_dev && new_st.st_ino == old_st.st_ino) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "'%s' is the folder that '%s' is in: give another one",
                    folder, top->path);
        return FALSE;
    }
    return TRUE;
}

/* What the skeleton cannot stand for, or no copy in place could fill. */
static gboolean
check_source(const VmrImage *source, GError **error)
{
    if (!source->data_file && !source->encrypted)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                "'%s' %s, which is not supported", source->path,
                source->encrypted ? "is encrypted by qcow2"
                                  : "keeps its data in another file");
    return FALSE;
}

/* What lies in the folder already stays as it is, so all that it names must lie there,
 * too. */
static gboolean
check_in_place(const GPtrArray *plan, guint i, GError **error)
{
    const VmrLayerPlan *planned = g_ptr_array_index(plan, i);
    const VmrLayerPlan *below =
        i + 1 < plan->len ? g_ptr_array_index(plan, i + 1) : NULL;

    if (!planned->in_place || !below ||
        (below->in_place && vmr_backing_name_stays_inside(
                                planned->source->backing_name)))
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_NOT_SUPPORTED,
                "'%s' lies in the new folder already, but its backing file '%s' "
                "('%s' in its header) is not there by a relative name: give another "
                "folder",
                planned->path, below->source->path,
                planned->source->backing_name);
    return FALSE;
}

/* All that can be told before anything is created. */
static gboolean
check_plan(const VmrDomXml *dom, const GPtrArray *plan, GError **error)
{
    g_autoptr(GHashTable) paths = g_hash_table_new(g_str_hash, g_str_equal);

    for (guint i = 0; i < plan->len; i++) {
        const VmrLayerPlan *planned = g_ptr_array_index(plan, i);
        g_autofree char *folder = g_path_get_dirname(planned->path);
        VmrTrust trust =
            vmr_trust_new_for_folder(dom, planned->source->path);
        struct stat st;

        if (!check_source(planned->source, error) ||
            !stat_folder(folder, &st, error) ||
            !vmr_trust_check_folder(&trust, folder, error) ||
            !check_in_place(plan, i, error))
            return FALSE;
        if (!g_hash_table_add(paths, planned->path)) {
            g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                        "two layers of the disk would both become '%s'",
                        planned->path);
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean
names_fit(const char *a, const char *b)
{
    return g_strcmp0(a ? vmr_backing_name_skip_dot(a) : NULL,
                     b ? vmr_backing_name_skip_dot(b) : NULL) == 0;
}

/* Several guests may share a base that was copied once, but a file that one of
 * them writes to is its own. */
static gboolean
check_not_written(const char *path, GError **error)
{
    VmrLock lock;

    if (!vmr_lock_probe(path, &lock, error))
        return FALSE;
    if (lock != VMR_LOCK_WRITER)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                "'%s' is there already, and a QEMU has it open for writing",
                path);
    return FALSE;
}

/* Whether the file that is there already can be what is planned. It may hold
 * data, so it is kept as it is or refused. */
static gboolean
check_kept(const VmrDomXml *dom, const VmrLayerPlan *planned,
           const GPtrArray *plan, GError **error)
{
    const VmrImage *source = planned->source;
    VmrTrust trust = vmr_trust_new_for_copy(dom, source->path);
    g_autoptr(VmrImage) image =
        vmr_image_read(planned->path, source->format, error);

    if (!image) {
        g_prefix_error(error, "what is there already does not fit: ");
        return FALSE;
    }
    for (guint i = 0; i < plan->len; i++) {
        const VmrLayerPlan *other = g_ptr_array_index(plan, i);

        if (!vmr_image_overlaps(image, other->source))
            continue;
        g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                    "'%s' is %s '%s' that is to be copied", planned->path,
                    vmr_image_same(image, other->source)
                        ? "the very file"
                        : "on the same storage as",
                    other->source->path);
        return FALSE;
    }
    if (image->virtual_size != source->virtual_size || image->data_file ||
        image->encrypted ||
        !names_fit(image->backing_name, planned->backing_name) ||
        g_strcmp0(image->backing_format, planned->backing_format) != 0) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_EXISTS,
                    "'%s' is there already, with another size or backing file "
                    "than '%s': remove it, or give another folder",
                    planned->path, source->path);
        return FALSE;
    }
    return vmr_trust_check_path(&trust, planned->path, error) &&
           check_not_written(planned->path, error);
}

static gboolean
make_layer(const VmrDomXml *dom, VmrLayerPlan *planned, const GPtrArray *plan,
           const VmrWait *wait, GError **error)
{
    const VmrImage *source = planned->source;
    gboolean is_raw = g_str_equal(source->format, "raw");
    /* a raw file of an odd length gets that very length */
    VmrImageNew image = {
        .path = planned->path,
        .format = source->format,
        .virtual_size = is_raw ? source->file_size : source->virtual_size,
        .backing_name = planned->backing_name,
        .backing_format = planned->backing_format,
        .like = source->path,
    };
    g_autoptr(GError) local = NULL;

    if (planned->in_place)
        return TRUE;
    if (vmr_image_create(&image, &planned->made, wait, &local))
        return TRUE;
    if (g_error_matches(local, VMR_ERROR, VMR_ERROR_EXISTS))
        return check_kept(dom, planned, plan, error);
    g_propagate_error(error, g_steal_pointer(&local));
    return FALSE;
}

static void
undo_layers(const GPtrArray *plan, GError **error)
{
    for (guint i = 0; i < plan->len; i++) {
        const VmrLayerPlan *planned = g_ptr_array_index(plan, i);
        g_autoptr(GError) local = NULL;

        if (planned->made &&
            !vmr_image_remove(planned->path, planned->made->dev,
                              planned->made->ino, planned->made->born,
                              &local))
            vmr_error_note(error, "%s", local->message);
    }
}

/* From the bottom up, so that no header ever names a file that is missing. */
static gboolean
make_layers(const VmrDomXml *dom, const GPtrArray *plan, const VmrWait *wait,
            GError **error)
{
    for (guint i = plan->len; i-- > 0;) {
        if (!make_layer(dom, g_ptr_array_index(plan, i), plan, wait, error)) {
            undo_layers(plan, error);
            return FALSE;
        }
    }
    return TRUE;
}

GPtrArray *
vmr_chain_plan(const VmrDomXml *dom, const GPtrArray *sources,
               const char *folder, GError **error)
{
    g_autoptr(GPtrArray) plan = NULL;

    if (!check_folder(folder, g_ptr_array_index(sources, 0), error))
        return NULL;
    plan = plan_layers(sources, folder);
    return check_plan(dom, plan, error) ? g_steal_pointer(&plan) : NULL;
}

char **
vmr_chain_prepare(const VmrDomXml *dom, const VmrDomDisk *disk,
                  const char *folder, const VmrWait *wait, GError **error)
{
    g_autoptr(GPtrArray) sources = vmr_chain_read_live(disk->chain, error);
    g_autoptr(GPtrArray) plan =
        sources ? vmr_chain_plan(dom, sources, folder, error) : NULL;
    GPtrArray *paths;

    if (!plan || !make_layers(dom, plan, wait, error))
        return NULL;
    paths = g_ptr_array_new();
    for (guint i = 0; i < plan->len; i++) {
        VmrLayerPlan *planned = g_ptr_array_index(plan, i);

        g_ptr_array_add(paths, g_steal_pointer(&planned->path));
    }
    g_ptr_array_add(paths, NULL);
    return (char **)g_ptr_array_free(paths, FALSE);
}
