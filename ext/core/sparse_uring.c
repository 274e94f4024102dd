/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The backend of io_uring: one thread keeps as many requests under way as the
 * pacer allows. Each range has a slot: it is read, hashed while it is written,
 * and done. What is in the page cache is taken from there, since reading it from
 * the storage again would cost the guest, too. */

#define _GNU_SOURCE 1

#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sparse_priv.h"

/* Big slots for long extents, and more of small ones, so that as much is under
 * way where all extents are short: 12 MiB in all, used as far as needed. */
#define BIG_SLOTS   8
#define SMALL_SLOTS 32
#define SLOTS       (BIG_SLOTS + SMALL_SLOTS)
#define SMALL_BLOCK (VMR_SPARSE_MAX_BLOCK / 8)
#define BUFFERS     (BIG_SLOTS * VMR_SPARSE_MAX_BLOCK + SMALL_SLOTS * SMALL_BLOCK)

#define PAGE 4096

/* At so many places it is looked what of the source is in the page cache. */
#define SAMPLES 256

/* So many requests are handed over at a time. */
#define BATCH 4

typedef enum { SLOT_FREE, SLOT_READING, SLOT_WRITING } SlotState;

typedef struct {
    SlotState state;
    gboolean hashed;
    guint8 *buffer;
    gsize capacity;
    VmrSparseRange range;
    gsize done;     /* bytes of the request that is under way */
    gint64 started; /* µs, of that request */
    VmrSparseSum sum;
} Slot;

typedef struct {
    VmrSparseTransfer *transfer;
    struct io_uring uring;
    Slot slots[SLOTS];
    guint8 *buffers;
    guint8 *mapping;     /* of the source, never touched; NULL: not cached */
    guint busy;          /* slots that are not free */
    guint64 bytes;       /* in them */
} Ring;

/* Whether all of @range is in the page cache. */
static gboolean
is_cached(const Ring *ring, VmrSparseRange range)
{
    guint8 pages[VMR_SPARSE_MAX_BLOCK / PAGE];
    gsize n = (range.length + PAGE - 1) / PAGE;

    if (!ring->mapping ||
        mincore(ring->mapping + range.offset, range.length, pages) != 0)
        return FALSE;
    for (gsize i = 0; i < n; i++) {
        if (!(pages[i] & 1))
            return FALSE;
    }
    return TRUE;
}

/* Whether nearly all of the source's data are in the page cache, by some samples. */
static gboolean
is_mostly_cached(const Ring *ring)
{
    const VmrSparseTransfer *transfer = ring->transfer;
    VmrSparseRange page = {.length = PAGE};
    guint seen = 0;
    guint cached = 0;

    for (guint i = 0; i < SAMPLES; i++) {
        guint64 from = transfer->size / SAMPLES * i;
        VmrSparseRange data;

        if (!vmr_sparse_next_data(transfer->in, from, transfer->size, &data))
            return FALSE;
        if (data.length == 0)
            break;
        data.offset -= data.offset % PAGE;
        if (seen > 0 && data.offset == page.offset)
            continue; /* beyond a hole, as the one before */
        page.offset = data.offset;
        seen++;
        cached += is_cached(ring, page) ? 1 : 0;
    }
    return cached >= seen - seen / 16;
}

/* Make the mapping if the source is to be taken from the page cache. Where but a
 * part of it is there it is not: reading that would have the kernel read ahead, and
 * on and on, until all of the file has come through the cache, and much slower. */
static void
look_into_cache(Ring *ring)
{
    const VmrSparseTransfer *transfer = ring->transfer;
    void *mapping = mmap(NULL, transfer->size, PROT_READ, MAP_SHARED,
                         transfer->in, 0);

    if (mapping == MAP_FAILED)
        return;
    ring->mapping = mapping;
    if (!is_mostly_cached(ring)) {
        munmap(mapping, transfer->size);
        ring->mapping = NULL;
    }
}

static gboolean
ring_open(Ring *ring, VmrSparseTransfer *transfer)
{
    gsize used = 0;

    ring->transfer = transfer;
    ring->buffers = vmr_sparse_buffers_new(BUFFERS);
    if (!ring->buffers)
        return FALSE;
    if (io_uring_queue_init(SLOTS, &ring->uring, 0) < 0) {
        vmr_sparse_buffers_free(ring->buffers, BUFFERS);
        return FALSE;
    }
    for (guint i = 0; i < SLOTS; i++) {
        Slot *slot = &ring->slots[i];

        slot->capacity = i < BIG_SLOTS ? VMR_SPARSE_MAX_BLOCK : SMALL_BLOCK;
        slot->buffer = ring->buffers + used;
        used += slot->capacity;
    }
    if (!transfer->past_cache)
        look_into_cache(ring);
    return TRUE;
}

static void
ring_close(Ring *ring)
{
    if (ring->mapping)
        munmap(ring->mapping, ring->transfer->size);
    io_uring_queue_exit(&ring->uring);
    vmr_sparse_buffers_free(ring->buffers, BUFFERS);
}

/* Queue what is left of @slot's request. There is room: as many entries as
 * slots. */
static void
queue_request(Ring *ring, Slot *slot)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    guint8 *data = slot->buffer + slot->done;
    unsigned len = (unsigned)(slot->range.length - slot->done);
    guint64 offset = slot->range.offset + slot->done;

    if (slot->state == SLOT_READING)
        io_uring_prep_read(sqe, ring->transfer->in_direct, data, len, offset);
    else
        io_uring_prep_write(sqe, ring->transfer->out_direct, data, len,
                            offset);
    io_uring_sqe_set_data(sqe, slot);
}

static void
begin_request(Ring *ring, Slot *slot, SlotState state)
{
    slot->state = state;
    slot->done = 0;
    slot->started = g_get_monotonic_time();
    vmr_sparse_pacer_begin(ring->transfer->pacer, slot->started);
    queue_request(ring, slot);
}

static void
free_slot(Ring *ring, Slot *slot)
{
    slot->state = SLOT_FREE;
    ring->busy--;
    ring->bytes -= slot->range.length;
}

static void
hash_slot(Slot *slot)
{
    if (slot->hashed)
        return;
    vmr_sparse_sum_add(&slot->sum, slot->buffer, slot->range.length,
                       slot->range.offset);
    slot->hashed = TRUE;
}

static void
finish_slot(Ring *ring, Slot *slot)
{
    hash_slot(slot);
    vmr_sparse_transfer_finish(ring->transfer, slot->range, slot->sum);
    free_slot(ring, slot);
}

/* The data of @slot are there. */
static void
end_reading(Ring *ring, Slot *slot)
{
    slot->sum = (VmrSparseSum){0, 0};
    slot->hashed = FALSE;
    if (ring->transfer->out < 0)
        finish_slot(ring, slot);
    else if (vmr_sparse_transfer_stopped(ring->transfer)) {
        vmr_sparse_plan_give_back(ring->transfer->plan, slot->range);
        free_slot(ring, slot);
    } else
        begin_request(ring, slot, SLOT_WRITING);
}

static void
start_slot(Ring *ring, Slot *slot, VmrSparseRange range)
{
    slot->range = range;
    ring->busy++;
    ring->bytes += range.length;
    if (is_cached(ring, range) &&
        vmr_sparse_read_full(ring->transfer->in, slot->buffer, range.length,
                             range.offset)) {
        slot->state = SLOT_READING;
        end_reading(ring, slot);
    } else {
        begin_request(ring, slot, SLOT_READING);
    }
}

/* The first free slot, NULL: none. The big ones come first. */
static Slot *
find_free_slot(Ring *ring)
{
    for (guint i = 0; i < SLOTS; i++) {
        if (ring->slots[i].state == SLOT_FREE)
            return &ring->slots[i];
    }
    return NULL;
}

/* Start as much as may be under way; *@delay: µs until the limit lets more be
 * started. */
static void
fill(Ring *ring, gint64 *delay)
{
    VmrSparseTransfer *transfer = ring->transfer;

    *delay = VMR_SPARSE_STOP_SLICE;
    while (!vmr_sparse_transfer_stopped(transfer)) {
        gint64 now = g_get_monotonic_time();
        VmrSparseRange range;
        guint depth;
        guint block;
        guint limited;
        gint64 limit = vmr_sparse_limit_delay(transfer->limit, now, &limited);
        gint64 pause =
            vmr_sparse_pacer_get(transfer->pacer, now, &depth, &block);
        Slot *slot = find_free_slot(ring);

        pause = MAX(pause, limit);
        if (pause > 0)
            *delay = MIN(*delay, pause);
        if (pause > 0 || !slot || ring->bytes >= (guint64)depth * block)
            break;
        block = MIN(MIN(block, limited), (guint)slot->capacity);
        if (!vmr_sparse_transfer_claim(transfer, block, &range))
            break;
        vmr_sparse_limit_charge(transfer->limit, range.length, now);
        start_slot(ring, slot, range);
        /* while the next one is taken from the page cache, the device works; a
         * refusal comes again when all is handed over */
        if (io_uring_sq_ready(&ring->uring) >= BATCH)
            (void)io_uring_submit(&ring->uring);
    }
}

static void
fail_slot(Ring *ring, Slot *slot, int errnum)
{
    VmrSparseTransfer *transfer = ring->transfer;
    gboolean reading = slot->state == SLOT_READING;

    if (errnum == 0)
        vmr_sparse_transfer_fail_short(transfer, slot->range.offset +
                                                     slot->range.length);
    else if (vmr_sparse_is_refusal(errnum))
        vmr_sparse_transfer_pass_on(transfer, slot->range);
    else
        vmr_sparse_transfer_fail(
            transfer, errnum, reading ? "read" : "write",
            reading ? transfer->source : transfer->destination,
            slot->range.offset + slot->done);
    free_slot(ring, slot);
}

/* A request has ended with @result. */
static void
end_request(Ring *ring, Slot *slot, int result)
{
    gint64 now = g_get_monotonic_time();
    gint64 latency = now - slot->started;
    guint length = (guint)slot->range.length;

    if (result == -EINTR || result == -EAGAIN) {
        queue_request(ring, slot);
        return;
    }
    /* a part that ends amid a block: what is left cannot be asked for with
     * O_DIRECT, so let somebody else find out what is going on there */
    if (result > 0 && result % VMR_SPARSE_BLOCK != 0)
        result = -EINVAL;
    if (result > 0)
        slot->done += (gsize)result;
    if (result > 0 && slot->done < slot->range.length) {
        queue_request(ring, slot);
        return;
    }
    if (result == 0 && slot->state == SLOT_WRITING)
        result = -ENOSPC;
    if (result <= 0)
        fail_slot(ring, slot, -result);
    else if (slot->state == SLOT_READING)
        end_reading(ring, slot);
    else
        finish_slot(ring, slot);
    /* after the write that follows a read has begun: the pacer, when it keeps
     * still, must not take that for somebody else's */
    vmr_sparse_pacer_end(ring->transfer->pacer, length, latency, now);
}

/* Hash what is just being written. */
static void
hash_all(Ring *ring)
{
    for (guint i = 0; i < SLOTS; i++) {
        if (ring->slots[i].state == SLOT_WRITING)
            hash_slot(&ring->slots[i]);
    }
}

/* Take all that has ended; FALSE: nothing had. */
static gboolean
reap(Ring *ring)
{
    struct io_uring_cqe *cqe;
    gboolean any = FALSE;

    while (io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        Slot *slot = io_uring_cqe_get_data(cqe);
        int result = cqe->res;

        io_uring_cqe_seen(&ring->uring, cqe);
        end_request(ring, slot, result);
        any = TRUE;
    }
    return any;
}

/* Hand the queue over and wait for something to end, @delay µs at most. FALSE:
 * the kernel refuses. */
static gboolean
submit_and_wait(Ring *ring, gint64 delay)
{
    struct __kernel_timespec timeout = {.tv_sec = delay / G_USEC_PER_SEC,
                                        .tv_nsec =
                                            delay % G_USEC_PER_SEC * 1000};
    struct io_uring_cqe *cqe;
    int rc = io_uring_submit(&ring->uring);

    if (rc < 0 && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY)
        return FALSE;
    hash_all(ring);
    if (reap(ring))
        return TRUE;
    if (ring->busy == 0) {
        g_usleep((gulong)delay);
        return TRUE;
    }
    rc = io_uring_wait_cqe_timeout(&ring->uring, &cqe, &timeout);
    reap(ring);
    return rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EAGAIN;
}

/* The kernel takes nothing more: wait for what it has, and give back the rest. */
static void
abandon(Ring *ring)
{
    while (ring->busy > io_uring_sq_ready(&ring->uring)) {
        if (!reap(ring))
            g_usleep(1000);
    }
    for (guint i = 0; i < SLOTS; i++) {
        Slot *slot = &ring->slots[i];

        if (slot->state == SLOT_FREE)
            continue;
        vmr_sparse_pacer_end(ring->transfer->pacer, 0, 0,
                             g_get_monotonic_time());
        vmr_sparse_transfer_pass_on(ring->transfer, slot->range);
        free_slot(ring, slot);
    }
    vmr_sparse_transfer_give_up(ring->transfer);
}

static void
run(Ring *ring)
{
    for (;;) {
        gint64 delay;

        fill(ring, &delay);
        if (ring->busy == 0 &&
            (vmr_sparse_transfer_exhausted(ring->transfer) ||
             vmr_sparse_transfer_stopped(ring->transfer)))
            break;
        if (!submit_and_wait(ring, delay)) {
            abandon(ring);
            break;
        }
    }
}

VmrSparseRun
vmr_sparse_uring_run(VmrSparseTransfer *transfer)
{
    Ring *ring;

    if (transfer->in_direct < 0 ||
        (transfer->out >= 0 && transfer->out_direct < 0))
        return VMR_SPARSE_RUN_UNSUITABLE;
    ring = g_new0(Ring, 1);
    if (!ring_open(ring, transfer)) {
        g_free(ring);
        return VMR_SPARSE_RUN_UNSUITABLE;
    }
    /* older kernels take a request for each time-out, and end it as one */
    if (ring->uring.features & IORING_FEAT_EXT_ARG)
        run(ring);
    else
        vmr_sparse_transfer_give_up(transfer);
    ring_close(ring);
    g_free(ring);
    return vmr_sparse_transfer_outcome(transfer);
}
