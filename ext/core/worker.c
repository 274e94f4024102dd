/* SPDX-License-Identifier: LGPL-2.1-or-later */

#define _GNU_SOURCE 1 /* pthread_cond_clockwait */

#include "worker.h"

#include <signal.h>
#include <time.h>

#include "error.h"

/* So many wait for work, for so long (seconds); what more there are end when theirs
 * is done. */
#define MAX_IDLE  4
#define IDLE_TIME 10

typedef struct VmrWorker Worker;

struct VmrWorker {
    Worker *next;          /* idle, too */
    pthread_cond_t wanted; /* there is a func, or it is released */
    gboolean is_reserved;  /* vmr_worker_release() has not been called */
    void (*func)(gpointer data);
    gpointer data;
};

static pthread_mutex_t worker_mutex = PTHREAD_MUTEX_INITIALIZER;
/* guarded by worker_mutex, and the Workers in it */
static Worker *idle_list;
static guint n_idle;

/* A child has only the thread that forked. What the others were is left where it
 * is: they had it from the parent's memory. */
static void
before_fork(void)
{
    pthread_mutex_lock(&worker_mutex);
}

static void
after_fork(void)
{
    pthread_mutex_unlock(&worker_mutex);
}

static void
after_fork_in_child(void)
{
    idle_list = NULL;
    n_idle = 0;
    pthread_mutex_unlock(&worker_mutex);
}

static void
watch_forks(void)
{
    (void)pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* Take @worker out of the list of those who are idle; the mutex is held. */
static void
remove_idle(const Worker *worker)
{
    Worker **link = &idle_list;

    while (*link != worker)
        link = &(*link)->next;
    *link = worker->next;
    n_idle--;
}

/* Add @worker to it. */
static void
add_idle(Worker *worker)
{
    worker->next = idle_list;
    idle_list = worker;
    n_idle++;
}

/* Wait, in the list of those who are idle, for work; the mutex is held. */
static void
wait_idle(Worker *worker)
{
    struct timespec end;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += IDLE_TIME;
    while (!worker->func && rc == 0)
        rc = pthread_cond_clockwait(&worker->wanted, &worker_mutex,
                                    CLOCK_MONOTONIC, &end);
    if (!worker->func)
        remove_idle(worker);
}

/* Wait for work; FALSE: there are enough who do, or there is none. */
static gboolean
wait_for_work(Worker *worker)
{
    gboolean has_work;

    pthread_mutex_lock(&worker_mutex);
    worker->func = NULL;
    if (n_idle < MAX_IDLE) {
        add_idle(worker);
        wait_idle(worker);
    }
    has_work = worker->func != NULL;
    pthread_mutex_unlock(&worker_mutex);
    return has_work;
}

/* The same until @worker is released, and then as one that is idle. */
static gboolean
wait_reserved(Worker *worker)
{
    gboolean has_work;

    pthread_mutex_lock(&worker_mutex);
    while (worker->is_reserved)
        pthread_cond_wait(&worker->wanted, &worker_mutex);
    wait_idle(worker);
    has_work = worker->func != NULL;
    pthread_mutex_unlock(&worker_mutex);
    return has_work;
}

static void
worker_free(Worker *worker)
{
    pthread_cond_destroy(&worker->wanted);
    g_free(worker);
}

static void *
worker_run(void *opaque)
{
    Worker *worker = opaque;

    do
        worker->func(worker->data);
    while (wait_for_work(worker));
    worker_free(worker);
    return NULL;
}

static void *
worker_run_reserved(void *opaque)
{
    if (wait_reserved(opaque))
        return worker_run(opaque);
    worker_free(opaque);
    return NULL;
}

/* Give the work to an idle worker; FALSE: there is none. */
static gboolean
hand_over(void (*func)(gpointer data), gpointer data)
{
    Worker *worker;

    pthread_mutex_lock(&worker_mutex);
    worker = idle_list;
    if (worker) {
        remove_idle(worker);
        worker->data = data;
        worker->func = func;
        pthread_cond_signal(&worker->wanted);
    }
    pthread_mutex_unlock(&worker_mutex);
    return worker != NULL;
}

int
vmr_worker_start_thread(pthread_t *thread, void *(*func)(void *data),
                        void *data)
{
    sigset_t all;
    sigset_t before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(thread, NULL, func, data);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* Start the thread of @worker, which is handed over to it. */
static gboolean
start_worker(Worker *worker, void *(*run)(void *opaque), GError **error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_t thread;
    int rc;

    pthread_once(&once, watch_forks);
    pthread_cond_init(&worker->wanted, NULL);
    rc = vmr_worker_start_thread(&thread, run, worker);
    if (rc == 0) {
        pthread_detach(thread);
        return TRUE;
    }
    worker_free(worker);
    vmr_error_set_errno(error, rc, "start", "thread");
    return FALSE;
}

gboolean
vmr_worker_run(void (*func)(gpointer data), gpointer data, GError **error)
{
    Worker *worker;

    if (hand_over(func, data))
        return TRUE;
    worker = g_new0(Worker, 1);
    worker->func = func;
    worker->data = data;
    return start_worker(worker, worker_run, error);
}

VmrWorker *
vmr_worker_new(GError **error)
{
    Worker *worker = g_new0(Worker, 1);

    worker->is_reserved = TRUE;
    return start_worker(worker, worker_run_reserved, error) ? worker : NULL;
}

void
vmr_worker_release(VmrWorker *worker)
{
    if (!worker)
        return;
    pthread_mutex_lock(&worker_mutex);
    worker->is_reserved = FALSE;
    add_idle(worker);
    pthread_cond_signal(&worker->wanted);
    pthread_mutex_unlock(&worker_mutex);
}
