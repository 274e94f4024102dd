/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "reserve.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"
#include "worker.h"

/* A call takes one descriptor; a libvirt in this process opens some files and pipes
 * besides when it writes down what has become of a domain. */
#define N_DESCRIPTORS 12

struct VmrReserve {
    int fds[N_DESCRIPTORS];
    VmrWorker *worker;
};

VmrReserve *
vmr_reserve_new(GError **error)
{
    g_autoptr(VmrReserve) reserve = g_new0(VmrReserve, 1);

    for (guint i = 0; i < N_DESCRIPTORS; i++)
        reserve->fds[i] = -1;
    for (guint i = 0; i < N_DESCRIPTORS; i++) {
        reserve->fds[i] = eventfd(0, EFD_CLOEXEC);
        if (reserve->fds[i] < 0) {
            vmr_error_set_errno(error, errno, "set aside", "descriptors");
            return NULL;
        }
    }
    reserve->worker = vmr_worker_new(error);
    return reserve->worker ? g_steal_pointer(&reserve) : NULL;
}

void
vmr_reserve_free(VmrReserve *reserve)
{
    if (!reserve)
        return;
    for (guint i = 0; i < N_DESCRIPTORS; i++) {
        if (reserve->fds[i] >= 0)
            close(reserve->fds[i]);
    }
    vmr_worker_release(reserve->worker);
    g_free(reserve);
}
