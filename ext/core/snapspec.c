/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "snapspec.h"

#include <libvirt/virterror.h>
#include <string.h>

#include "text.h"

VmrSnapSpec *
vmr_snapspec_new(const char *name, const char *description)
{
    VmrSnapSpec *spec = g_new0(VmrSnapSpec, 1);

    spec->name = g_strdup(name);
    spec->description = g_strdup(description);
    spec->disks = g_ptr_array_new_with_free_func(
        (GDestroyNotify)vmr_diskspec_free);
    return spec;
}

void
vmr_snapspec_free(VmrSnapSpec *spec)
{
    if (!spec)
        return;
    g_free(spec->name);
    g_free(spec->description);
    g_ptr_array_unref(spec->disks);
    g_free(spec);
}

gboolean
vmr_diskspec_is_excluded(const VmrDiskSpec *disk)
{
    return g_strcmp0(disk->snapshot, "no") == 0;
}

/* libvirt makes a file name of it, and says no to some of these only after the
 * guest has been snapshotted. */
static void
review_name(const char *name, VmrFindings *findings)
{
    g_autofree char *clean = vmr_text_clean(name);
    const char *reason = NULL;

    if (*name == '\0')
        reason = "it is empty";
    else if (!vmr_text_is_plain(name, NULL))
        reason = "it has control characters or is not UTF-8";
    else if (strchr(name, '/'))
        reason = "it must not contain '/'";
    else if (*name == '.')
        reason = "it must not start with '.'";
    else if (strlen(name) > VMR_SNAPSPEC_MAX_NAME)
        reason = "it is longer than " G_STRINGIFY(VMR_SNAPSPEC_MAX_NAME)
                 " bytes";
    if (reason)
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "snapshot name '%s' is not valid: %s", clean, reason);
}

/* One of the two images of a disk. */
typedef struct {
    const char *what; /* "overlay" or "mirror" */
    const char *disk; /* name, fit for error texts */
    const char *path; /* or NULL */
    const char *format;
} Side;

static void
review_path(const Side *side, VmrFindings *findings)
{
    g_autofree char *clean = vmr_text_clean(side->path);
    const char *reason = NULL;

    if (*side->path == '\0')
        reason = "is empty";
    else if (*side->path != '/')
        reason = "is not absolute";
    else if (!vmr_text_is_plain(side->path, NULL))
        reason = "has control characters or is not UTF-8";
    else if (g_str_has_suffix(side->path, "/"))
        reason = "names a folder: add a file name";
    if (reason)
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "path '%s' of the %s of disk '%s' %s", clean,
                         side->what, side->disk, reason);
}

static void
review_format(const Side *side, VmrFindings *findings)
{
    g_autofree char *clean = NULL;

    if (!side->format || strcmp(side->format, "qcow2") == 0)
        return;
    clean = vmr_text_clean(side->format);
    if (strcmp(side->format, "raw") == 0)
        vmr_findings_add(findings, VIR_ERR_CONFIG_UNSUPPORTED,
                         "the %s of disk '%s' cannot be 'raw': a raw file has "
                         "no backing file and would lose the layers below, "
                         "use 'qcow2'", side->what, side->disk);
    else
        vmr_findings_add(findings, VIR_ERR_CONFIG_UNSUPPORTED,
                         "format '%s' of the %s of disk '%s' is not "
                         "supported: use 'qcow2'", clean, side->what,
                         side->disk);
}

/* Note who uses @side's path in @users (path -> who), and tell of a second
 * user: two images in one file would destroy each other. */
static void
review_user(const Side *side, GHashTable *users, VmrFindings *findings)
{
    g_autofree char *user = g_strdup_printf("the %s of disk '%s'", side->what,
                                            side->disk);
    const char *other = g_hash_table_lookup(users, side->path);

    if (other) {
        g_autofree char *clean = vmr_text_clean(side->path);

        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "'%s' is meant for %s and for %s", clean, other, user);
        return;
    }
    g_hash_table_insert(users, g_strdup(side->path), g_steal_pointer(&user));
}

static void
review_side(const Side *side, GHashTable *users, VmrFindings *findings)
{
    review_format(side, findings);
    if (!side->path)
        return;
    review_path(side, findings);
    review_user(side, users, findings);
}

/* Whether @disk is mirrored, excluded, or neither. */
static void
review_kind(const VmrDiskSpec *disk, const char *name, VmrFindings *findings)
{
    if (vmr_diskspec_is_excluded(disk)) {
        if (disk->driver || disk->file || disk->mirror)
            vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                             "disk '%s' has snapshot='no', but also a driver, "
                             "file or mirror", name);
        return;
    }
    if (!disk->mirror)
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "disk '%s' has no mirror: snapshot it separately, or "
                         "give it snapshot='no' or a mirror", name);
    else if (disk->snapshot && strcmp(disk->snapshot, "external") != 0) {
        g_autofree char *clean = vmr_text_clean(disk->snapshot);

        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "disk '%s' has snapshot='%s': only an external "
                         "snapshot can be mirrored", name, clean);
    }
}

static void
review_disk(const VmrDiskSpec *disk, GHashTable *names, GHashTable *users,
            VmrFindings *findings)
{
    g_autofree char *name = vmr_text_clean(disk->name);
    const Side overlay = {"overlay", name, disk->file, disk->driver};
    const Side mirror = {"mirror", name, disk->mirror, disk->mirror_format};

    if (*disk->name == '\0' || !vmr_text_is_plain(disk->name, NULL))
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "disk name '%s' is empty, has control characters or "
                         "is not UTF-8", name);
    if (!g_hash_table_add(names, disk->name))
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "disk '%s' is given twice", name);
    review_kind(disk, name, findings);
    if (vmr_diskspec_is_excluded(disk))
        return;
    review_side(&overlay, users, findings);
    review_side(&mirror, users, findings);
}

void
vmr_snapspec_review(const VmrSnapSpec *spec, VmrFindings *findings)
{
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GHashTable) users = g_hash_table_new_full(g_str_hash,
                                                        g_str_equal, g_free,
                                                        g_free);
    guint n_mirrored = 0;

    if (spec->name)
        review_name(spec->name, findings);
    if (spec->description && !vmr_text_is_plain(spec->description, "\t\n\r"))
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "the description has control characters or is not "
                         "UTF-8");
    for (guint i = 0; i < spec->disks->len; i++) {
        const VmrDiskSpec *disk = spec->disks->pdata[i];

        review_disk(disk, names, users, findings);
        n_mirrored += disk->mirror != NULL;
    }
    /* else the reason why there is none was found above */
    if (n_mirrored == 0 && vmr_findings_is_empty(findings))
        vmr_findings_add(findings, VIR_ERR_XML_DETAIL,
                         "no disk is to be mirrored: give at least one disk a "
                         "mirror");
}

gboolean
vmr_snapspec_check(const VmrSnapSpec *spec, GError **error)
{
    g_autoptr(VmrFindings) findings = vmr_findings_new();

    vmr_snapspec_review(spec, findings);
    return vmr_findings_report(findings, VMR_ERROR_INVALID_SPEC,
                               VIR_ERR_XML_DETAIL, error);
}

char *
vmr_snapspec_overlay_path(const char *source, const char *snapshot)
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
