/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* O_PATH */

#include "trust.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "autofd.h"
#include "error.h"
#include "imagefile.h"

#define ACL_NAME "system.posix_acl_access"

/* Of one user or group; NSS may need more, but not for groups of one. */
#define NSS_BUFFER 16384

VmrTrust
vmr_trust_new(const VmrDomXml *dom, int original_fd)
{
    VmrTrust trust = {.has_original = FALSE};
    struct stat st;

    if (dom) {
        trust.has_qemu_user = dom->has_qemu_user;
        trust.qemu_uid = dom->qemu_uid;
        trust.qemu_gid = dom->qemu_gid;
    }
    if (original_fd >= 0 && fstat(original_fd, &st) == 0) {
        trust.has_original = TRUE;
        trust.original_uid = st.st_uid;
        trust.original_gid = st.st_gid;
        trust.original_mode = st.st_mode;
        vmr_imagefile_get_lasting_owner(original_fd, &st, &trust.lasting_uid,
                                        &trust.lasting_gid);
    }
    return trust;
}

VmrTrust
vmr_trust_new_for_copy(const VmrDomXml *dom, const char *original)
{
    struct stat st;
    vmr_autofd fd = vmr_imagefile_open(original, &st, NULL);

    return vmr_trust_new(dom, fd);
}

VmrTrust
vmr_trust_new_for_folder(const VmrDomXml *dom, const char *original)
{
    g_autofree char *folder = g_path_get_dirname(original);
    vmr_autofd fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);

    return vmr_trust_new(dom, fd);
}

static gboolean
trusts_user(const VmrTrust *trust, uid_t uid)
{
    return uid == geteuid() || uid == 0 ||
           (trust->has_qemu_user && uid == trust->qemu_uid) ||
           (trust->has_original &&
            (uid == trust->original_uid || uid == trust->lasting_uid));
}

/* Whether @gid is a group of this user alone, as many systems make one for each
 * user, and let it write what the user makes. */
static gboolean
is_private_group(gid_t gid)
{
    g_autofree char *user_text = g_malloc(NSS_BUFFER);
    g_autofree char *group_text = g_malloc(NSS_BUFFER);
    struct passwd user;
    struct passwd *found_user;
    struct group group;
    struct group *found_group;

    if (gid != getegid() ||
        getpwuid_r(geteuid(), &user, user_text, NSS_BUFFER, &found_user) ||
        !found_user ||
        getgrgid_r(gid, &group, group_text, NSS_BUFFER, &found_group) ||
        !found_group || user.pw_gid != gid ||
        strcmp(user.pw_name, group.gr_name) != 0)
        return FALSE;
    for (char **member = group.gr_mem; *member; member++) {
        if (strcmp(*member, user.pw_name) != 0)
            return FALSE;
    }
    return TRUE;
}

static gboolean
trusts_group(const VmrTrust *trust, gid_t gid)
{
    return (trust->has_qemu_user && gid == trust->qemu_gid) ||
           (trust->has_original &&
            (gid == trust->original_gid || gid == trust->lasting_gid) &&
            (trust->original_mode & S_IWGRP)) ||
           is_private_group(gid);
}

/* Who else may write what is behind @st, as a part of a sentence; NULL: nobody;
 * owned. An access control list whose users or groups may write shows as writable
 * by the group (its mask). */
static char *
dup_stranger(const VmrTrust *trust, const struct stat *st, gboolean has_list)
{
    if (!trusts_user(trust, st->st_uid))
        return g_strdup_printf("belongs to another user (uid %u)",
                               (unsigned)st->st_uid);
    if (st->st_mode & S_IWOTH)
        return g_strdup("may be written by everybody");
    /* who may write which device is the system's affair */
    if (S_ISBLK(st->st_mode) || !(st->st_mode & S_IWGRP))
        return NULL;
    if (has_list)
        return g_strdup("may be written by those in its access control list");
    if (!trusts_group(trust, st->st_gid))
        return g_strdup_printf("may be written by a group (gid %u)",
                               (unsigned)st->st_gid);
    return NULL;
}

static char *
dup_stranger_of_file(const VmrTrust *trust, int fd, const struct stat *st)
{
    return dup_stranger(trust, st, fgetxattr(fd, ACL_NAME, NULL, 0) > 0);
}

gboolean
vmr_trust_holds(const VmrTrust *trust, int fd, const struct stat *st)
{
    g_autofree char *stranger = dup_stranger_of_file(trust, fd, st);

    return stranger == NULL;
}

gboolean
vmr_trust_check_file(const VmrTrust *trust, int fd, const char *path,
                     GError **error)
{
    g_autofree char *stranger = NULL;
    struct stat st;

    if (fstat(fd, &st) < 0) {
        vmr_error_set_errno(error, errno, "look at", path);
        return FALSE;
    }
    stranger = dup_stranger_of_file(trust, fd, &st);
    if (!stranger)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_EXISTS,
                "'%s' %s, who could change it: remove it, or see to it that "
                "it can be used (chown, chmod)",
                path, stranger);
    return FALSE;
}

gboolean
vmr_trust_check_path(const VmrTrust *trust, const char *path, GError **error)
{
    struct stat st;
    vmr_autofd fd = vmr_imagefile_open(path, &st, error);

    return fd >= 0 && vmr_trust_check_file(trust, fd, path, error);
}

/* Whether @path is a link of somebody else's, who can have it lead elsewhere. */
static gboolean
check_link(const VmrTrust *trust, const char *path, GError **error)
{
    g_autofree char *bare = g_strdup(path);
    struct stat st;

    for (gsize n = strlen(bare); n > 1 && bare[n - 1] == '/'; n--)
        bare[n - 1] = '\0';
    if (lstat(bare, &st) < 0) {
        vmr_error_set_errno(error, errno, "look at", path);
        return FALSE;
    }
    if (!S_ISLNK(st.st_mode) || trusts_user(trust, st.st_uid))
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                "'%s' is a link that belongs to another user (uid %u): name the "
                "folder itself",
                path, (unsigned)st.st_uid);
    return FALSE;
}

gboolean
vmr_trust_check_folder(const VmrTrust *trust, const char *path, GError **error)
{
    g_autofree char *stranger = NULL;
    struct stat st;

    if (!check_link(trust, path, error))
        return FALSE;
    if (stat(path, &st) < 0) {
        vmr_error_set_errno(error, errno, "look at", path);
        return FALSE;
    }
    /* there the owner may take away what is in it, the others what is theirs */
    if (st.st_mode & S_ISVTX)
        st.st_mode &= ~(mode_t)(S_IWGRP | S_IWOTH);
    stranger =
        dup_stranger(trust, &st, getxattr(path, ACL_NAME, NULL, 0) > 0);
    if (!stranger)
        return TRUE;
    g_set_error(error, VMR_ERROR, VMR_ERROR_INVALID_SPEC,
                "folder '%s' %s, who could exchange what is in it: give another "
                "one, or correct that (chown, chmod)",
                path, stranger);
    return FALSE;
}
