/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "preflight.h"

#include <libvirt/virterror.h>
#include <string.h>
#include <sys/stat.h>

#include "error.h"
#include "journal.h"
#include "live.h"
#include "storage.h"
#include "text.h"

#define MIN_LIBVIRT 6002000
#define MIN_QEMU 5000000
#define MIN_MACHINE 7.0 /* a libvirt that knows it is new enough, too */

VmrPreflight *
vmr_preflight_open(const VmrDomain *dom, const VmrWait *wait, GError **error)
{
    g_autoptr(VmrPreflight) flight = g_new0(VmrPreflight, 1);

    flight->dom = dom;
    flight->findings = vmr_findings_new();
    flight->folders =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    flight->live = vmr_live_read(dom, wait, error);
    if (!flight->live ||
        !vmr_live_read_inactive(dom, &flight->inactive, wait, error))
        return NULL;
    return g_steal_pointer(&flight);
}

void
vmr_preflight_free(VmrPreflight *flight)
{
    if (!flight)
        return;
    vmr_findings_free(flight->findings);
    g_clear_pointer(&flight->folders, g_hash_table_unref);
    vmr_domxml_free(flight->live);
    vmr_domxml_free(flight->inactive);
    g_free(flight);
}

void
vmr_preflight_found(VmrPreflight *flight, const char *target,
                    VmrErrorCode code, int virt_code, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    if (vmr_findings_is_empty(flight->findings))
        flight->code = code;
    else if (flight->code != code)
        flight->code = VMR_ERROR_INVALID_SPEC;
    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    if (target)
        vmr_findings_add(flight->findings, virt_code, "disk '%s': %s", target,
                         text);
    else
        vmr_findings_add(flight->findings, virt_code, "%s", text);
}

void
vmr_preflight_found_error(VmrPreflight *flight, const char *target,
                          GError *error)
{
    vmr_preflight_found(flight, target, error->code,
                        vmr_error_get_detail(error)->virt_code, "%s",
                        error->message);
    g_error_free(error);
}

gboolean
vmr_preflight_report(const VmrPreflight *flight, GError **error)
{
    return vmr_findings_report(flight->findings, flight->code,
                               VIR_ERR_CONFIG_UNSUPPORTED, error);
}

gboolean
vmr_preflight_same_place(const char *a, const char *b)
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

/* Whether two files, if they are there, are the same or on the same storage. */
static gboolean
overlap(const char *a, const char *b)
{
    struct stat sa;
    struct stat sb;
    VmrStorage x;
    VmrStorage y;

    if (stat(a, &sa) != 0 || stat(b, &sb) != 0)
        return FALSE;
    x = vmr_storage_of(&sa);
    y = vmr_storage_of(&sb);
    return vmr_storage_overlaps(&x, &y);
}

const char *
vmr_preflight_clash(const char *a, const char *b)
{
    if (vmr_preflight_same_place(a, b))
        return "the same file as";
    return overlap(a, b) ? "on the same storage as" : NULL;
}

void
vmr_preflight_absent(VmrPreflight *flight, const char *target,
                     const char *path, const char *role)
{
    g_autofree char *folder = g_path_get_dirname(path);
    struct stat st;

    if (stat(folder, &st) != 0 || !S_ISDIR(st.st_mode))
        vmr_preflight_found(flight, target, VMR_ERROR_NOT_FOUND,
                            VIR_ERR_CONFIG_UNSUPPORTED,
                            "'%s', the folder of its %s, is no folder", folder,
                            role);
    else if (lstat(path, &st) == 0)
        vmr_preflight_found(flight, target, VMR_ERROR_EXISTS,
                            VIR_ERR_CONFIG_UNSUPPORTED,
                            "its %s '%s' exists already: reuse it "
                            "(reuse_external) if it was made for this, or "
                            "choose another name",
                            role, path);
    else
        vmr_preflight_writable(flight, target, folder);
}

/* @clash: what @path has in common with @layer, of the disk @now. */
static void
refuse_clash(VmrPreflight *flight, const char *target, const char *path,
             const char *clash, const VmrLayer *layer, const VmrDomDisk *now)
{
    vmr_preflight_found(flight, target, VMR_ERROR_INVALID_SPEC,
                        VIR_ERR_CONFIG_UNSUPPORTED,
                        "'%s' is %s '%s', which disk '%s' uses", path, clash,
                        layer->path, now->target);
}

static void
check_unused(VmrPreflight *flight, const char *target, const char *path,
             gboolean below_is_fine)
{
    for (guint i = 0; i < flight->live->disks->len; i++) {
        const VmrDomDisk *now = g_ptr_array_index(flight->live->disks, i);

        for (guint j = 0; j < now->chain->len; j++) {
            const VmrLayer *layer = g_ptr_array_index(now->chain, j);
            const char *clash =
                layer->path ? vmr_preflight_clash(layer->path, path) : NULL;

            if (clash && !(below_is_fine && j > 0 &&
                           vmr_preflight_same_place(layer->path, path)))
                refuse_clash(flight, target, path, clash, layer, now);
        }
    }
}

void
vmr_preflight_unused(VmrPreflight *flight, const char *target,
                     const char *path)
{
    check_unused(flight, target, path, FALSE);
}

void
vmr_preflight_shareable(VmrPreflight *flight, const char *target,
                        const char *path)
{
    check_unused(flight, target, path, TRUE);
}

/* Whether @machine ("pc-i440fx-7.2") is one that a QEMU before 5.0 lacks. */
static gboolean
is_new_machine(const char *machine)
{
    const char *dash = machine ? strrchr(machine, '-') : NULL;

    return dash && g_ascii_strtod(dash + 1, NULL) >= MIN_MACHINE;
}

static gboolean
check_versions(const VmrPreflight *flight, const VmrWait *wait, GError **error)
{
    int libvirt;
    int qemu;

    /* libvirt answers the question by probing all QEMUs that are installed,
     * which takes it seconds the first time */
    if (is_new_machine(flight->live->machine))
        return TRUE;
    if (!vmr_hv_get_versions(flight->dom, &libvirt, &qemu, wait, error))
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
check_snapshot(const VmrPreflight *flight, const char *name,
               const VmrWait *wait, GError **error)
{
    g_autoptr(VmrRecord) other = NULL;
    g_autoptr(GError) local = NULL;
    g_autofree char *xml = NULL;

    if (!vmr_journal_load(flight->dom, flight->live->uuid, &other, wait,
                          error))
        return FALSE;
    if (other) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                    "the domain has the mirrored snapshot '%s' already: pivot "
                    "or abort it first",
                    other->snapshot);
        return FALSE;
    }
    xml = vmr_hv_snapshot_get_xml(flight->dom, name, wait, &local);
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

/* What a job of libvirt on the domain is called; static. */
static const char *
operation_name(int operation)
{
    static const char *const names[] = {
        [VIR_DOMAIN_JOB_OPERATION_UNKNOWN] = "unknown",
        [VIR_DOMAIN_JOB_OPERATION_START] = "start",
        [VIR_DOMAIN_JOB_OPERATION_SAVE] = "save",
        [VIR_DOMAIN_JOB_OPERATION_RESTORE] = "restore",
        [VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN] = "incoming migration",
        [VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT] = "outgoing migration",
        [VIR_DOMAIN_JOB_OPERATION_SNAPSHOT] = "snapshot",
        [VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT] = "revert to a snapshot",
        [VIR_DOMAIN_JOB_OPERATION_DUMP] = "dump",
        [VIR_DOMAIN_JOB_OPERATION_BACKUP] = "backup",
    };

    return operation >= 0 && operation < (int)G_N_ELEMENTS(names)
               ? names[operation]
               : "unknown";
}

/* A job that reads or moves the disks, or the guest. */
static gboolean
check_job(VmrPreflight *flight, const VmrWait *wait, GError **error)
{
    int operation = 0;
    int type = VIR_DOMAIN_JOB_NONE;

    if (!vmr_hv_get_job(flight->dom, &type, &operation, wait, error))
        return FALSE;
    if (type == VIR_DOMAIN_JOB_BOUNDED || type == VIR_DOMAIN_JOB_UNBOUNDED)
        vmr_preflight_found(flight, NULL, VMR_ERROR_BUSY,
                            VIR_ERR_OPERATION_INVALID,
                            "a job of libvirt works on the domain (%s): wait "
                            "for it or end it first",
                            operation_name(operation));
    return TRUE;
}

gboolean
vmr_preflight_check_domain(VmrPreflight *flight, const char *snapshot,
                           const VmrWait *wait, GError **error)
{
    return check_versions(flight, wait, error) &&
           check_snapshot(flight, snapshot, wait, error) &&
           check_job(flight, wait, error);
}
