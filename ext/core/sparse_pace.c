/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "sparse_pace.h"

#include <pthread.h>


#define KIB 1024u
#define MS  G_TIME_SPAN_MILLISECOND

typedef struct {
    guint depth;
    guint block;
} Level;

/* From the gentlest on; each has twice as much under way as the one before. */
static const Level level_table[] = {
    {1, 128 * KIB}, {1, 256 * KIB}, {1, 512 * KIB},
    {2, 512 * KIB}, {4, 512 * KIB}, {4, 1024 * KIB},
};

#define LEVEL_ALONE   (G_N_ELEMENTS(level_table) - 1)
#define LEVEL_COMPANY 2 /* at most, while there is somebody else */
#define LEVEL_UNKNOWN 3 /* at most, where that cannot be told */

static const Level full_level = {8, 1024 * KIB};

/* How long to keep still, and how often. The first look sees those, too, who have
 * only just begun beside us, such as copies that then wait for this one. */
#define STILL_TIME     (8 * MS)
#define STILL_INTERVAL (500 * MS)
#define STILL_SOON     (100 * MS)

/* So many requests of others in that time are company: less is what any host
 * does by itself. */
#define COMPANY_REQUESTS 2

/* In company the storage is kept busy for so long, and then left alone for
 * PAUSE_SHARE of the time that it was; what others ask of it meanwhile is served
 * between the requests, which makes that a half. */
#define BURST_TIME  (MS / 2)
#define PAUSE_SHARE 0.5
#define PAUSE_MAX   (50 * MS)

/* How often the level changes by one, up or down. */
#define STEP_INTERVAL (20 * MS)

/* A request in company is to take no longer than BEARABLE_TIME µs, or than
 * BEARABLE_FACTOR times what the storage takes for the smallest ones. */
#define BEARABLE_TIME   500.0
#define BEARABLE_FACTOR 1.5
#define FINE_SHARE      0.8 /* of it: so far the level may still rise */

/* Where nobody can be seen: requests that take so much longer than they did are
 * queued behind others. */
#define SLOW_FACTOR 2.0
#define FINE_FACTOR 1.4

typedef enum { PHASE_RUN, PHASE_DRAIN, PHASE_STILL } Phase;

struct VmrSparsePacer {
    VmrSparsePace pace;
    VmrDiskload *load; /* NULL: not known */
    pthread_mutex_t mutex; /* guards what follows */
    Phase phase;
    gint64 phase_end;  /* µs: when to go on to the next one */
    gint64 interval;   /* µs, from this look at the disks to the next one */
    guint64 done;      /* requests of the disks when it became still */
    gboolean company;
    guint level;
    gint64 next_step;  /* µs: when the level may change again */
    guint active;      /* requests under way */
    gint64 changed;    /* µs: since when there are any, or none */
    gint64 owed;       /* µs: to be left to others from then on */
    double mean;       /* µs that requests of this level take, 0: not known */
    double best[G_N_ELEMENTS(level_table)]; /* the least that it has been */
};

VmrSparsePacer *
vmr_sparse_pacer_new(VmrSparsePace pace, VmrDiskload *load)
{
    VmrSparsePacer *pacer = g_new0(VmrSparsePacer, 1);

    pthread_mutex_init(&pacer->mutex, NULL);
    pacer->pace = pace;
    pacer->load = load;
    pacer->phase = load ? PHASE_DRAIN : PHASE_RUN;
    pacer->phase_end = G_MAXINT64;
    pacer->interval = STILL_SOON;
    pacer->level = load ? 0 : LEVEL_COMPANY;
    return pacer;
}

void
vmr_sparse_pacer_free(VmrSparsePacer *pacer)
{
    if (!pacer)
        return;
    vmr_diskload_free(pacer->load);
    pthread_mutex_destroy(&pacer->mutex);
    g_free(pacer);
}

static void
set_level(VmrSparsePacer *pacer, guint level, gint64 now)
{
    pacer->level = level;
    pacer->mean = 0;
    pacer->next_step = now + STEP_INTERVAL;
}

/* The disks could be looked at no more: go on without. */
static void
lose_sight(VmrSparsePacer *pacer)
{
    g_clear_pointer(&pacer->load, vmr_diskload_free);
    pacer->phase = PHASE_RUN;
    pacer->phase_end = G_MAXINT64;
}

static void
begin_still(VmrSparsePacer *pacer, gint64 now)
{
    guint64 under_way;

    if (!vmr_diskload_get(pacer->load, &pacer->done, &under_way)) {
        lose_sight(pacer);
        return;
    }
    pacer->phase = PHASE_STILL;
    pacer->phase_end = now + STILL_TIME;
}

static void
end_still(VmrSparsePacer *pacer, gint64 now)
{
    guint64 done;
    guint64 under_way;

    if (!vmr_diskload_get(pacer->load, &done, &under_way)) {
        lose_sight(pacer);
        return;
    }
    pacer->next_step = MAX(pacer->next_step, now + STEP_INTERVAL);
    pacer->company = done - pacer->done + under_way >= COMPANY_REQUESTS;
    pacer->phase = PHASE_RUN;
    pacer->phase_end = now + pacer->interval;
    pacer->interval = STILL_INTERVAL;
    pacer->owed = 0;
    if (!pacer->company)
        set_level(pacer, LEVEL_ALONE, now);
    else if (pacer->level > LEVEL_COMPANY)
        set_level(pacer, 0, now);
}

static void
next_phase(VmrSparsePacer *pacer, gint64 now)
{
    switch (pacer->phase) {
    case PHASE_RUN:
        if (now >= pacer->phase_end)
            pacer->phase = PHASE_DRAIN;
        break;
    case PHASE_STILL:
        if (now >= pacer->phase_end)
            end_still(pacer, now);
        break;
    case PHASE_DRAIN:
        break;
    }
    if (pacer->phase == PHASE_DRAIN && pacer->active == 0)
        begin_still(pacer, now);
}

/* Rise or fall by one, as the requests of this level bear it. */
static void
step(VmrSparsePacer *pacer, gint64 now)
{
    guint highest = pacer->load ? LEVEL_COMPANY : LEVEL_UNKNOWN;
    double best = pacer->best[pacer->level];
    double slow = SLOW_FACTOR * best;
    double fine = FINE_FACTOR * best;

    if (pacer->load) {
        slow = MAX(BEARABLE_TIME, BEARABLE_FACTOR * pacer->best[0]);
        fine = FINE_SHARE * slow;
    }
    if (now < pacer->next_step || pacer->mean <= 0)
        return;
    if (pacer->mean > slow && pacer->level > 0)
        set_level(pacer, pacer->level - 1, now);
    else if (pacer->mean < fine && pacer->level < highest)
        set_level(pacer, pacer->level + 1, now);
}

/* For how long the storage is still to be left to others. */
static gint64
pause_left(const VmrSparsePacer *pacer, gint64 now)
{
    gint64 since = now - pacer->changed;

    if (pacer->active == 0)
        return MAX(pacer->owed - since, 0);
    /* until those have ended, which whoever waits for them is told of */
    return since < BURST_TIME ? 0 : PAUSE_MAX;
}

gint64
vmr_sparse_pacer_get(VmrSparsePacer *pacer, gint64 now, guint *depth,
                     guint *block)
{
    const Level *level = &full_level;
    gint64 pause = 0;

    pthread_mutex_lock(&pacer->mutex);
    if (pacer->pace == VMR_SPARSE_PACE_AUTO) {
        next_phase(pacer, now);
        if (pacer->phase != PHASE_RUN) {
            pause = MS;
        } else if (!pacer->load) {
            step(pacer, now);
        } else if (pacer->company) {
            pause = pause_left(pacer, now);
            step(pacer, now);
        }
        level = &level_table[pacer->level];
    }
    pthread_mutex_unlock(&pacer->mutex);
    *depth = level->depth;
    *block = level->block;
    return pause;
}

void
vmr_sparse_pacer_begin(VmrSparsePacer *pacer, gint64 now)
{
    pthread_mutex_lock(&pacer->mutex);
    if (pacer->active++ == 0) {
        pacer->owed = MAX(pacer->owed - (now - pacer->changed), 0);
        pacer->changed = now;
    }
    pthread_mutex_unlock(&pacer->mutex);
}

void
vmr_sparse_pacer_end(VmrSparsePacer *pacer, guint bytes, gint64 latency,
                     gint64 now)
{
    pthread_mutex_lock(&pacer->mutex);
    if (--pacer->active == 0) {
        pacer->owed += (gint64)(PAUSE_SHARE * (double)(now - pacer->changed));
        pacer->owed = MIN(pacer->owed, PAUSE_MAX);
        pacer->changed = now;
    }
    /* shorter requests, of the last level or of a short extent, tell nothing */
    if (bytes == level_table[pacer->level].block) {
        double *best = &pacer->best[pacer->level];

        pacer->mean = pacer->mean > 0
                          ? 0.9 * pacer->mean + 0.1 * (double)latency
                          : (double)latency;
        if (*best <= 0 || pacer->mean < *best)
            *best = pacer->mean;
    }
    next_phase(pacer, now);
    pthread_mutex_unlock(&pacer->mutex);
}

gboolean
vmr_sparse_pacer_has_company(VmrSparsePacer *pacer)
{
    gboolean company;

    pthread_mutex_lock(&pacer->mutex);
    company = pacer->company;
    pthread_mutex_unlock(&pacer->mutex);
    return company;
}
