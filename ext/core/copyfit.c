/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "copyfit.h"

#include <string.h>

#include "autofd.h"
#include "copymark.h"
#include "headers.h"
#include "imagefile.h"
#include "sparse.h"
#include "trust.h"

static const char *const fit_names[VMR_COPYFIT_LAST] = {
    [VMR_COPYFIT_FITS] = "fits",
    [VMR_COPYFIT_INCOMPLETE] = "incomplete",
    [VMR_COPYFIT_OTHER] = "other",
    [VMR_COPYFIT_UNMARKED] = "none",
};

const char *
vmr_copyfit_name(VmrCopyFit fit)
{
    g_return_val_if_fail((unsigned)fit < VMR_COPYFIT_LAST, "unknown");
    return fit_names[fit];
}

/* Whether the source has the checksum of @mark; if so @mark is renewed, which saves
 * the next one who asks the reading. */
static gboolean
has_checksum(const char *source, const VmrStamp *source_stamp, int copy_fd,
             const char *copy, const VmrStamp *copy_stamp,
             const VmrCopymark *mark, gboolean *same, const VmrWait *wait,
             GError **error)
{
    char text[VMR_SPARSE_CHECKSUM_LENGTH + 1];
    VmrCopymark renewed;

    *same = FALSE;
    if (mark->checksum[0] == '\0')
        return TRUE;
    if (!vmr_sparse_checksum(source, wait, text, error))
        return FALSE;
    *same = strcmp(text, mark->checksum) == 0;
    if (*same) {
        vmr_copymark_complete(&renewed, source_stamp, copy_stamp, text);
        /* it may belong to somebody else */
        (void)vmr_copymark_set(copy_fd, copy, &renewed, NULL);
    }
    return TRUE;
}

static gboolean
look_at_mark(int fd, const char *source, const char *copy,
             const VmrCopymark *mark, VmrCopyFit *fit, const VmrWait *wait,
             GError **error)
{
    VmrStamp stamp[2];
    gboolean same = FALSE;

    if (!vmr_stamp_take(source, &stamp[0], error) ||
        !vmr_stamp_take_fd(fd, copy, &stamp[1], error))
        return FALSE;
    switch (vmr_copymark_compare(mark, &stamp[0], &stamp[1])) {
    case VMR_COPYMARK_FITS:
        same = TRUE;
        break;
    case VMR_COPYMARK_TOUCHED:
        if (!has_checksum(source, &stamp[0], fd, copy, &stamp[1], mark, &same,
                          wait, error))
            return FALSE;
        break;
    case VMR_COPYMARK_OTHER:
        break;
    }
    *fit = same ? VMR_COPYFIT_FITS : VMR_COPYFIT_OTHER;
    return TRUE;
}

gboolean
vmr_copyfit_look(const char *source, const char *copy, VmrCopyFit *fit,
                 const VmrWait *wait, GError **error)
{
    VmrTrust trust = vmr_trust_new_for_copy(NULL, source);
    VmrCopymark mark;
    struct stat st;
    vmr_autofd fd = vmr_imagefile_open(copy, &st, error);

    if (fd < 0 || !vmr_copymark_get(fd, copy, &mark, error))
        return FALSE;
    if (mark.state == VMR_COPYMARK_COMPLETE &&
        !vmr_trust_holds(&trust, fd, &st))
        mark.state = VMR_COPYMARK_NONE;
    switch (mark.state) {
    case VMR_COPYMARK_NONE:
        *fit = VMR_COPYFIT_UNMARKED;
        return TRUE;
    case VMR_COPYMARK_INCOMPLETE:
        *fit = VMR_COPYFIT_INCOMPLETE;
        return TRUE;
    case VMR_COPYMARK_COMPLETE:
    case VMR_COPYMARK_LAST:
        break;
    }
    return look_at_mark(fd, source, copy, &mark, fit, wait, error);
}

gboolean
vmr_copyfit_compare(const char *source, const char *copy, gboolean *same,
                    const VmrWait *wait, GError **error)
{
    char text[2][VMR_SPARSE_CHECKSUM_LENGTH + 1];
    VmrStamp stamp[2];

    *same = FALSE;
    if (!vmr_stamp_take(source, &stamp[0], error) ||
        !vmr_stamp_take(copy, &stamp[1], error))
        return FALSE;
    if (stamp[0].size != stamp[1].size)
        return TRUE;
    if (!vmr_sparse_checksum(source, wait, text[0], error) ||
        !vmr_sparse_checksum(copy, wait, text[1], error))
        return FALSE;
    *same = strcmp(text[0], text[1]) == 0;
    return TRUE;
}

gboolean
vmr_copyfit_compare_rebased(const char *source, const char *copy,
                            gboolean *same, const VmrWait *wait,
                            GError **error)
{
    char text[2][VMR_SPARSE_CHECKSUM_LENGTH + 1];
    struct stat st;
    vmr_autofd a = vmr_imagefile_open(source, &st, error);
    vmr_autofd b = a < 0 ? -1 : vmr_imagefile_open(copy, &st, error);

    *same = FALSE;
    if (b < 0 ||
        !vmr_headers_differ_in_names(a, source, b, copy, same, error))
        return FALSE;
    if (!*same)
        return TRUE;
    if (!vmr_sparse_checksum_of_rest(source, wait, text[0], error) ||
        !vmr_sparse_checksum_of_rest(copy, wait, text[1], error))
        return FALSE;
    *same = strcmp(text[0], text[1]) == 0;
    return TRUE;
}
