/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * imagefile: opening image files so that what was checked is what is read,
 * and so that nothing that is opened can hang or act.
 */

#include <glib.h>
#include <sys/stat.h>

G_BEGIN_DECLS

/* Open @path for reading if it is a regular file, a block device, or a
 * symbolic link to the latter; *@st tells which. Returns the descriptor or -1.
 * Errors: IMAGE (what it is instead), NOT_FOUND, IO. */
int vmr_imagefile_open(const char *path, struct stat *st, GError **error);

/* Open anew, for reading, the file behind @path_fd (O_PATH); @path is for
 * error texts. Returns the descriptor or -1. Errors: IO. */
int vmr_imagefile_reopen(int path_fd, const char *path, GError **error);

/* The same for any open descriptor of a file, with @flags of open() in place of
 * O_RDONLY. Returns the descriptor or -1, with errno beside the error. */
int vmr_imagefile_reopen_as(int fd, int flags, const char *path,
                            GError **error);

/* Open the folder that @path is in; @base (owned by the caller) is its name
 * there. Returns the descriptor or -1. Errors: INVALID_SPEC, NOT_FOUND, IO. */
int vmr_imagefile_open_folder(const char *path, char **base, GError **error);

/* @path with no links on its way; owned. Errors: NOT_FOUND, IO. */
char *vmr_imagefile_dup_real_path(const char *path, GError **error);

/* The identity of the file behind @st: device and inode, or of a block device
 * its number and 0. */
void vmr_imagefile_identify(const struct stat *st, dev_t *dev, ino_t *ino);

/* When the file behind @fd (O_PATH will do) was made, in ns since 1970; 0 where
 * the file system does not know. An inode's number is used again when its file
 * is gone, soon on some file systems: this tells the two apart. */
guint64 vmr_imagefile_get_birth(int fd);

/* Who the file @fd, behind @st, belongs to while no QEMU uses it: libvirt lends files to
 * a QEMU's user, and notes from whom, which only root can read. */
void vmr_imagefile_get_lasting_owner(int fd, const struct stat *st, uid_t *uid,
                                     gid_t *gid);

/* Give the new file @fd (@path, for error texts) the owner, group and mode of the
 * image @like that it stands for, so that whoever opens that one can open it, too; but
 * not the right of everybody to write. While libvirt has lent that to a QEMU it is the
 * owner from before that counts. An ordinary user gives what it can, and without the
 * group no mode. Errors: IO (root may not, on this storage), NOT_FOUND, IMAGE. */
gboolean vmr_imagefile_give_owner(int fd, const char *path, const char *like,
                                  GError **error);

/* The same, with @like open as @like_fd. Errors: IO. */
gboolean vmr_imagefile_give_owner_of(int fd, const char *path, int like_fd,
                                     GError **error);

/* Read @len bytes at @offset, less at the end of the file; *@got says how
 * many. Errors: IO. */
gboolean vmr_imagefile_read(int fd, const char *path, guint8 *data, gsize len,
                            goffset offset, gsize *got, GError **error);

G_END_DECLS
