/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * autofd: file descriptors that close themselves at the end of their block.
 */

#include <errno.h>
#include <unistd.h>

/* Close *@fd if there is one; errno stays, so that an error that is on its way
 * out keeps its reason. */
static inline void
vmr_fd_close(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

/* The descriptor in *@fd, which no longer closes itself. */
static inline int
vmr_fd_steal(int *fd)
{
    int stolen = *fd;

    *fd = -1;
    return stolen;
}

#define vmr_autofd __attribute__((cleanup(vmr_fd_close))) int
