#include "base/parallel.h"

#include <sched.h>

typedef struct job {
    pb_parallel_body body;
    void *context;
    int64_t count, range;
} job;

static int thread_count;

int pb_threads(void) {
    if (!thread_count) {
        cpu_set_t set;
        thread_count = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    }
    return thread_count;
}

static void run_range(const job *j, int thread) {
    const int64_t begin = j->range * thread;
    const int64_t end = begin + j->range < j->count ? begin + j->range : j->count;
    if (begin < end) j->body(j->context, begin, end, thread);
}

#ifdef PB_PTHREAD_POOL

#include <pthread.h>

enum { MOST_WORKERS = 63 };
static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    const job *current;
    int wanted, running, started;
    uint64_t generation;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

void pb_threads_set(int threads) {
    thread_count = threads > MOST_WORKERS + 1 ? MOST_WORKERS + 1 : threads;
}

static void *worker(void *argument) {
    const int thread = (int)(intptr_t)argument;
    uint64_t seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.generation == seen || thread >= pool.wanted) {
            seen = pool.generation;
            pthread_cond_wait(&pool.wake, &pool.lock);
        }
        seen = pool.generation;
        const job *j = pool.current;
        pthread_mutex_unlock(&pool.lock);
        run_range(j, thread);
        pthread_mutex_lock(&pool.lock);
        if (--pool.running == 0) pthread_cond_signal(&pool.done);
    }
    return NULL;
}

static void run_job(const job *j, int threads) {
    pthread_mutex_lock(&pool.lock);
    while (pool.started < threads - 1) {
        pthread_t id;
        if (pthread_create(&id, NULL, worker, (void *)(intptr_t)(pool.started + 1))) break;
        pthread_detach(id);
        pool.started++;
    }
    const int helpers = pool.started < threads - 1 ? pool.started : threads - 1;
    pool.current = j;
    pool.wanted = helpers + 1;
    pool.running = helpers;
    pool.generation++;
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    run_range(j, 0);
    for (int t = helpers + 1; t < threads; t++) run_range(j, t);
    pthread_mutex_lock(&pool.lock);
    while (pool.running) pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

#else

// libgomp's stable entry points. Called directly, they work with any compiler, and without a second OpenMP runtime.
extern void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags);
extern int omp_get_thread_num(void);

void pb_threads_set(int threads) {
    thread_count = threads;
}

static void gomp_body(void *data) {
    run_range(data, omp_get_thread_num());
}

static void run_job(const job *j, int threads) {
    GOMP_parallel(gomp_body, (void *)j, (unsigned)threads, 0);
}

#endif

void pb_parallel_for(int64_t count, int64_t grain, pb_parallel_body body, void *context) {
    if (count <= 0) return;
    if (grain < 1) grain = 1;
    const int64_t pieces = (count + grain - 1) / grain;
    const int threads = (int)(pieces < pb_threads() ? pieces : pb_threads());
    if (threads <= 1) {
        body(context, 0, count, 0);
        return;
    }
    const job j = {body, context, count, (pieces + threads - 1) / threads * grain};
    run_job(&j, threads);
}
