/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * trust: who may write a file that is to be used, or the folder that it is in. A
 * guest is not put onto what another user of this host could change, and what is
 * noted on such a file is not believed.
 *
 * Trusted are: this user, root, the user of the guest's QEMU, and whoever may
 * write the original, who has the guest's data in hand anyway.
 */

#include "domxml.h"

#include <sys/stat.h>

G_BEGIN_DECLS

typedef struct {
    gboolean has_qemu_user;
    uid_t qemu_uid;
    gid_t qemu_gid;
    gboolean has_original; /* the rest is known */
    uid_t original_uid;    /* of the file that is copied, or of its folder */
    uid_t lasting_uid;     /* whose it is when libvirt does not lend it to a QEMU */
    gid_t original_gid;
    gid_t lasting_gid;
    mode_t original_mode;
} VmrTrust;

/* This user, root, the QEMU of @dom (NULL: not known), and who may write the open file
 * or folder @original_fd (-1: there is none). */
VmrTrust vmr_trust_new(const VmrDomXml *dom, int original_fd);

/* The same of the file @original; one that cannot be opened has no writers. */
VmrTrust vmr_trust_new_for_copy(const VmrDomXml *dom, const char *original);

/* The same of the folder that @original is in. */
VmrTrust vmr_trust_new_for_folder(const VmrDomXml *dom, const char *original);

/* Whether only they may write the open file or device @fd, behind @st; ask again by
 * vmr_trust_check_file() for the reason. */
gboolean vmr_trust_holds(const VmrTrust *trust, int fd, const struct stat *st);

/* The same of the open file @fd; @path is for error texts. Errors: EXISTS (says who
 * else may write it, and what to do), IO. */
gboolean vmr_trust_check_file(const VmrTrust *trust, int fd, const char *path,
                              GError **error);

/* The same of the file @path, which must be there; links are followed to devices
 * only. Errors: as vmr_imagefile_open(), and EXISTS. */
gboolean vmr_trust_check_path(const VmrTrust *trust, const char *path,
                              GError **error);

/* Whether only they may put files into the folder @path and take them away, or those
 * who own them (the sticky bit); a link to it must be theirs, too. Errors:
 * INVALID_SPEC (says who else may), NOT_FOUND, IO. */
gboolean vmr_trust_check_folder(const VmrTrust *trust, const char *path,
                                GError **error);

G_END_DECLS
