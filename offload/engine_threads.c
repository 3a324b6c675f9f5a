// pread and pwrite on a few threads, where io_uring is refused.
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "offload/engine.h"

enum { MOST_THREADS = 8 };

typedef struct list {
    pb_request *first, **last;
} list;

typedef struct thread_engine {
    pb_engine base;
    pthread_mutex_t lock;
    pthread_cond_t work, finished;
    list queued, done;
    bool stop, woken;
    int count;
    pthread_t threads[MOST_THREADS];
} thread_engine;

static void append(list *l, pb_request *request) {
    request->next = NULL;
    *l->last = request;
    l->last = &request->next;
}

static pb_request *take(list *l) {
    pb_request *request = l->first;
    if (!request) return NULL;
    l->first = request->next;
    if (!l->first) l->last = &l->first;
    return request;
}

static void *work(void *context) {
    thread_engine *e = context;
    pthread_mutex_lock(&e->lock);
    for (;;) {
        pb_request *request = take(&e->queued);
        if (!request && e->stop) break;
        if (!request) {
            pthread_cond_wait(&e->work, &e->lock);
            continue;
        }
        pthread_mutex_unlock(&e->lock);
        request->result = pb_store_call_make(e->base.hook, request->call);
        pthread_mutex_lock(&e->lock);
        append(&e->done, request);
        pthread_cond_signal(&e->finished);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static void queue(pb_engine *engine, pb_request *request) {
    thread_engine *e = (thread_engine *)engine;
    pthread_mutex_lock(&e->lock);
    append(&e->queued, request);
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
}

static void start(pb_engine *engine) {
    (void)engine;  // the threads began at once
}

static pb_request *next(pb_engine *engine, bool block) {
    thread_engine *e = (thread_engine *)engine;
    pthread_mutex_lock(&e->lock);
    while (block && !e->done.first) pthread_cond_wait(&e->finished, &e->lock);
    pb_request *request = take(&e->done);
    pthread_mutex_unlock(&e->lock);
    return request;
}

static bool await(pb_engine *engine, int timeout_ms) {
    thread_engine *e = (thread_engine *)engine;
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += timeout_ms / 1000;
    end.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (end.tv_nsec >= 1000000000) end.tv_sec++, end.tv_nsec -= 1000000000;
    pthread_mutex_lock(&e->lock);
    for (int over = 0; !e->done.first && !e->woken && over != ETIMEDOUT;)
        over = timeout_ms < 0 ? pthread_cond_wait(&e->finished, &e->lock)
                              : pthread_cond_timedwait(&e->finished, &e->lock, &end);
    const bool woken = e->woken;
    e->woken = false;
    pthread_mutex_unlock(&e->lock);
    return woken;
}

static void wake(pb_engine *engine) {
    thread_engine *e = (thread_engine *)engine;
    pthread_mutex_lock(&e->lock);
    e->woken = true;
    pthread_cond_signal(&e->finished);
    pthread_mutex_unlock(&e->lock);
}

static void destroy(pb_engine *engine) {
    thread_engine *e = (thread_engine *)engine;
    pthread_mutex_lock(&e->lock);
    e->stop = true;
    pthread_cond_broadcast(&e->work);
    pthread_mutex_unlock(&e->lock);
    for (int i = 0; i < e->count; i++) pthread_join(e->threads[i], NULL);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->finished);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

pb_status pb_engine_create_threads(unsigned depth, const pb_store_hook *hook, pb_engine **engine) {
    static const pb_engine_kind kind = {"threads", queue, start, next, await, wake, NULL, destroy};
    thread_engine *e = calloc(1, sizeof *e);
    if (!e) return pb_error(PB_ERR_MEMORY, "no memory for the threads of the swap file");
    e->base = (pb_engine){.kind = &kind, .hook = hook};
    e->queued.last = &e->queued.first;
    e->done.last = &e->done.first;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, NULL);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&e->finished, &clock);
    pthread_condattr_destroy(&clock);
    const int wanted = depth < MOST_THREADS ? (int)depth : MOST_THREADS;
    int error = 0;
    while (e->count < wanted && !(error = pthread_create(&e->threads[e->count], NULL, work, e))) e->count++;
    if (e->count == 0) {
        destroy(&e->base);
        return pb_error(PB_ERR_MEMORY, "cannot start a thread for the swap file: %s", strerror(error));
    }
    *engine = &e->base;  // fewer threads than wanted are slower, not wrong
    return PB_OK;
}
