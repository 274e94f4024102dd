/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* F_OFD_SETLK */

#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "copymark.h"
#include "error.h"

/* So many bytes of users are noted; more are "many", which is nobody's own. */
#define MAX_TEXT 2048
#define MANY     "many"

char *
vmr_share_user(const char *uuid, const char *snapshot)
{
    g_autofree char *sum =
        g_compute_checksum_for_string(G_CHECKSUM_SHA256, snapshot, -1);

    return g_strdup_printf("%s:%.16s", uuid, sum);
}

static gboolean
means_no_note(int errnum)
{
    return errnum == EOPNOTSUPP || errnum == ENODATA || errnum == EPERM ||
           errnum == ENOSYS;
}

/* Those who are noted, separated by spaces; "" where nobody is; owned. */
static gboolean
read_users(int fd, const char *path, char **users, GError **error)
{
    char text[MAX_TEXT + 1];
    ssize_t len = fgetxattr(fd, VMR_SHARE_NAME, text, MAX_TEXT);

    if (len < 0 && errno == ERANGE)
        *users = g_strdup(MANY);
    else if (len >= 0)
        *users = g_strndup(text, (gsize)len);
    else if (means_no_note(errno))
        *users = g_strdup("");
    else {
        vmr_error_set_errno(error, errno, "read who uses", path);
        return FALSE;
    }
    return TRUE;
}

/* Whether it does not matter that nothing could be noted: a file without a mark is none
 * that a migration has made, and would remove. */
static gboolean
is_nobodys_to_remove(int fd, int errnum)
{
    return errnum == EOPNOTSUPP || errnum == ENOSYS ||
           ((errnum == EACCES || errnum == EPERM || errnum == EROFS) &&
            fgetxattr(fd, VMR_COPYMARK_NAME, NULL, 0) < 0);
}

static gboolean
set_not_noted(const char *path, int errnum, GError **error)
{
    vmr_error_set_errno(error, errnum, "note who uses", path);
    vmr_error_note(error, "who has made it could remove it: use a copy of your "
                   "own");
    return FALSE;
}

gboolean
vmr_share_note(int fd, const char *path, const char *user, GError **error)
{
    g_autofree char *users = NULL;
    g_autofree char *more = NULL;
    g_auto(GStrv) each = NULL;

    if (!read_users(fd, path, &users, error))
        return FALSE;
    each = g_strsplit(users, " ", -1);
    if (g_strv_contains((const char *const *)each, user))
        return TRUE;
    more = users[0] ? g_strconcat(users, " ", user, NULL) : g_strdup(user);
    if (strlen(more) > MAX_TEXT)
        g_strlcpy(more, MANY, sizeof(MANY));
    if (fsetxattr(fd, VMR_SHARE_NAME, more, strlen(more), 0) == 0)
        return TRUE;
    return is_nobodys_to_remove(fd, errno) || set_not_noted(path, errno, error);
}

static gboolean
set_lock(int fd, short type)
{
    struct flock lock = {
        .l_type = type,
        .l_whence = SEEK_SET,
        .l_start = VMR_SHARE_LOCK_BYTE,
        .l_len = 1,
    };

    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

gboolean
vmr_share_note_locked(int fd, const char *path, const char *user,
                      GError **error)
{
    struct stat st;
    gboolean ok;

    /* where there are no locks nobody else has one either */
    if (!set_lock(fd, F_RDLCK) && (errno == EAGAIN || errno == EACCES)) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_BUSY,
                    "'%s' is being filled, changed or removed by somebody: try "
                    "again", path);
        return FALSE;
    }
    if (fstat(fd, &st) == 0 && st.st_nlink == 0) {
        g_set_error(error, VMR_ERROR, VMR_ERROR_DIVERGED,
                    "'%s' was removed by somebody: copy again", path);
        ok = FALSE;
    } else {
        ok = vmr_share_note(fd, path, user, error);
    }
    /* a child that was forked meanwhile has the descriptor, too */
    (void)set_lock(fd, F_UNLCK);
    return ok;
}

gboolean
vmr_share_has_others(int fd, const char *path, const char *uuid,
                     const char *snapshot, gboolean *others, GError **error)
{
    g_autofree char *own =
        snapshot ? vmr_share_user(uuid, snapshot) : g_strconcat(uuid, ":", NULL);
    g_autofree char *users = NULL;
    g_auto(GStrv) each = NULL;

    *others = FALSE;
    if (!read_users(fd, path, &users, error))
        return FALSE;
    each = g_strsplit(users, " ", -1);
    for (guint i = 0; each[i]; i++) {
        gboolean mine = snapshot ? g_str_equal(each[i], own)
                                 : g_str_has_prefix(each[i], own);

        *others = *others || (each[i][0] != '\0' && !mine);
    }
    return TRUE;
}
