/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "copymark.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "error.h"

#define VERSION "2"
#define MAX_TEXT 512 /* bytes; ours has 250 at most */

enum {
    FIELD_VERSION,
    FIELD_STATE,
    FIELD_SOURCE_DEV,
    FIELD_SOURCE_INO,
    FIELD_SOURCE_BORN,
    FIELD_SOURCE_SIZE,
    FIELD_SOURCE_MTIME,
    FIELD_SOURCE_CTIME,
    FIELD_DESTINATION_SIZE,
    FIELD_DESTINATION_MTIME,
    FIELD_CHECKSUM,
    FIELD_COUNT
};

void
vmr_copymark_complete(VmrCopymark *mark, const VmrStamp *source,
                      const VmrStamp *destination, const char *checksum)
{
    *mark = (VmrCopymark){
        .state = VMR_COPYMARK_COMPLETE,
        .source = *source,
        .size = destination->size,
        .mtime = destination->mtime,
    };
    g_strlcpy(mark->checksum, checksum, sizeof(mark->checksum));
}

char *
vmr_copymark_format(const VmrCopymark *mark)
{
    switch (mark->state) {
    case VMR_COPYMARK_INCOMPLETE:
        return g_strdup(VERSION " incomplete");
    case VMR_COPYMARK_COMPLETE:
        return g_strdup_printf(
            VERSION " complete %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT
                    " %" G_GUINT64_FORMAT " %" G_GUINT64_FORMAT
                    " %" G_GINT64_FORMAT " %" G_GINT64_FORMAT
                    " %" G_GUINT64_FORMAT " %" G_GINT64_FORMAT " %s",
            mark->source.dev, mark->source.ino, mark->source.born,
            mark->source.size, mark->source.mtime, mark->source.ctime,
            mark->size, mark->mtime, mark->checksum[0] ? mark->checksum : "-");
    case VMR_COPYMARK_NONE:
    case VMR_COPYMARK_LAST:
        break;
    }
    return NULL;
}

static gboolean
parse_unsigned(const char *text, guint64 *value)
{
    return g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT64, value, NULL);
}

static gboolean
parse_signed(const char *text, gint64 *value)
{
    return g_ascii_string_to_signed(text, 10, G_MININT64, G_MAXINT64, value,
                                    NULL);
}

static gboolean
parse_checksum(const char *text, char *checksum, gsize size)
{
    if (g_str_equal(text, "-"))
        return TRUE;
    if (strlen(text) != size - 1 ||
        strspn(text, "0123456789abcdef") != size - 1)
        return FALSE;
    g_strlcpy(checksum, text, size);
    return TRUE;
}

static gboolean
parse_fields(char **fields, VmrCopymark *mark)
{
    return g_str_equal(fields[FIELD_VERSION], VERSION) &&
           g_str_equal(fields[FIELD_STATE], "complete") &&
           parse_unsigned(fields[FIELD_SOURCE_DEV], &mark->source.dev) &&
           parse_unsigned(fields[FIELD_SOURCE_INO], &mark->source.ino) &&
           parse_unsigned(fields[FIELD_SOURCE_BORN], &mark->source.born) &&
           parse_unsigned(fields[FIELD_SOURCE_SIZE], &mark->source.size) &&
           parse_signed(fields[FIELD_SOURCE_MTIME], &mark->source.mtime) &&
           parse_signed(fields[FIELD_SOURCE_CTIME], &mark->source.ctime) &&
           parse_unsigned(fields[FIELD_DESTINATION_SIZE], &mark->size) &&
           parse_signed(fields[FIELD_DESTINATION_MTIME], &mark->mtime) &&
           parse_checksum(fields[FIELD_CHECKSUM], mark->checksum,
                          sizeof(mark->checksum));
}

void
vmr_copymark_parse(const char *text, gsize len, VmrCopymark *mark)
{
    g_autofree char *copy = g_strndup(text, MIN(len, MAX_TEXT));
    g_auto(GStrv) fields = g_strsplit(copy, " ", FIELD_COUNT + 1);
    guint n = g_strv_length(fields);

    memset(mark, 0, sizeof(*mark));
    /* a text with a NUL in it is none of ours */
    if (len > MAX_TEXT || strlen(copy) != len)
        return;
    /* that a copy is not complete is believed of any version */
    if (n == FIELD_STATE + 1 &&
        g_str_equal(fields[FIELD_STATE], "incomplete")) {
        mark->state = VMR_COPYMARK_INCOMPLETE;
        return;
    }
    if (n == FIELD_COUNT && parse_fields(fields, mark))
        mark->state = VMR_COPYMARK_COMPLETE;
    else
        memset(mark, 0, sizeof(*mark));
}

/* EPERM: no regular file. */
static gboolean
means_no_mark(int errnum)
{
    return errnum == EOPNOTSUPP || errnum == ENODATA || errnum == EPERM ||
           errnum == ENOSYS;
}

gboolean
vmr_copymark_get(int fd, const char *path, VmrCopymark *mark, GError **error)
{
    char text[MAX_TEXT];
    ssize_t len = fgetxattr(fd, VMR_COPYMARK_NAME, text, sizeof(text));

    memset(mark, 0, sizeof(*mark));
    if (len >= 0) {
        vmr_copymark_parse(text, (gsize)len, mark);
        return TRUE;
    }
    /* ERANGE: too long to be one of ours */
    if (means_no_mark(errno) || errno == ERANGE)
        return TRUE;
    vmr_error_set_errno(error, errno, "read the copy mark of", path);
    return FALSE;
}

gboolean
vmr_copymark_set(int fd, const char *path, const VmrCopymark *mark,
                 GError **error)
{
    g_autofree char *text = vmr_copymark_format(mark);
    int rc = text ? fsetxattr(fd, VMR_COPYMARK_NAME, text, strlen(text), 0)
                  : fremovexattr(fd, VMR_COPYMARK_NAME);

    if (rc == 0 || means_no_mark(errno))
        return TRUE;
    vmr_error_set_errno(error, errno, "set the copy mark of", path);
    return FALSE;
}

VmrCopymarkFit
vmr_copymark_compare(const VmrCopymark *mark, const VmrStamp *source,
                     const VmrStamp *destination)
{
    if (mark->state != VMR_COPYMARK_COMPLETE ||
        !vmr_stamp_same_data(&mark->source, source) ||
        mark->size != destination->size || mark->mtime != destination->mtime ||
        mark->size != source->size)
        return VMR_COPYMARK_OTHER;
    /* a device has no times that would tell of a change */
    return source->ino != 0 && mark->source.ctime == source->ctime
               ? VMR_COPYMARK_FITS
               : VMR_COPYMARK_TOUCHED;
}
