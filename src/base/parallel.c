// The pool. A job is cut into pieces that threads claim one by one, the caller among them: a worker that the machine
// has put aside holds nobody up. Workers look for the next job for a moment before they sleep, since a training step is
// a chain of thousands of short jobs, but only for a moment, since other programs want the processor as well.
#include "base/parallel.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_THREADS = 256, SPINS = 4000 };

// The ticket is what threads claim pieces with: the job's number in the upper half, the next piece in the lower. A
// claim is a compare-and-swap of the whole, so that a late worker, which has read the fields of a job that is over,
// fails.
#define NO_PIECE UINT32_C(0xffffffff)

static struct {
    _Atomic(uint64_t) ticket;
    _Atomic(pb_parallel_body) body;
    _Atomic(void *) context;
    _Atomic(int64_t) count, range;
    _Atomic(uint32_t) pieces;
    _Atomic(uint32_t) left;   // pieces not yet finished; the caller sleeps on it
    _Atomic(uint32_t) calls;  // changes with every job; workers sleep on it
    _Atomic(uint32_t) sleepers;
    _Atomic(bool) caller_sleeps;
    int started;  // workers; the caller's alone
    int threads;
} pool = {.ticket = NO_PIECE};

static void sleep_while(_Atomic(uint32_t) *word, uint32_t value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void wake(_Atomic(uint32_t) *word, int threads) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, threads, NULL, NULL, 0);
}

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

int pb_threads(void) {
    if (!pool.threads) {
        cpu_set_t set;
        pb_threads_set(sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set));
    }
    return pool.threads;
}

void pb_threads_set(int threads) {
    pool.threads = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads;
}

// Runs one piece of the present job; false where none is left to claim.
static bool run_piece(void) {
    for (;;) {
        uint64_t ticket = atomic_load(&pool.ticket);
        const pb_parallel_body body = atomic_load(&pool.body);
        void *context = atomic_load(&pool.context);
        const int64_t count = atomic_load(&pool.count), range = atomic_load(&pool.range);
        const uint32_t piece = (uint32_t)ticket;
        if (piece == NO_PIECE || piece >= atomic_load(&pool.pieces)) return false;
        if (!atomic_compare_exchange_weak(&pool.ticket, &ticket, ticket + 1)) continue;
        const int64_t begin = piece * range, end = begin + range < count ? begin + range : count;
        body(context, begin, end, (int)piece);
        if (atomic_fetch_sub(&pool.left, 1) == 1 && atomic_load(&pool.caller_sleeps)) wake(&pool.left, 1);
        return true;
    }
}

static void *work(void *unused) {
    (void)unused;
    for (;;) {
        const uint32_t call = atomic_load(&pool.calls);
        while (run_piece()) {
        }
        for (int i = 0; i < SPINS && atomic_load(&pool.calls) == call; i++) pause_briefly();
        if (atomic_load(&pool.calls) != call) continue;
        atomic_fetch_add(&pool.sleepers, 1);
        sleep_while(&pool.calls, call);
        atomic_fetch_sub(&pool.sleepers, 1);
    }
    return NULL;
}

static void start_workers(int workers) {
    while (pool.started < workers) {
        pthread_t thread;
        // Without a thread the others do its pieces.
        if (pthread_create(&thread, NULL, work, NULL)) return;
        pthread_detach(thread);
        pool.started++;
    }
}

static void wait_for_others(void) {
    for (int i = 0; i < SPINS; i++) {
        if (!atomic_load(&pool.left)) return;
        pause_briefly();
    }
    atomic_store(&pool.caller_sleeps, true);
    for (uint32_t left; (left = atomic_load(&pool.left)) != 0;) sleep_while(&pool.left, left);
    atomic_store(&pool.caller_sleeps, false);
}

void pb_parallel_for(int64_t count, int64_t grain, pb_parallel_body body, void *context) {
    if (count <= 0) return;
    if (grain < 1) grain = 1;
    const int64_t grains = (count + grain - 1) / grain;
    const int64_t wanted = grains < pb_threads() ? grains : pb_threads();
    const int64_t range = (grains + wanted - 1) / wanted * grain;
    if (range >= count) {
        body(context, 0, count, 0);
        return;
    }
    start_workers(pb_threads() - 1);
    const uint32_t pieces = (uint32_t)((count + range - 1) / range);
    const uint64_t job = ((atomic_load(&pool.ticket) >> 32) + 1) << 32;
    // No claims while the fields change; a claim that was under way fails.
    atomic_store(&pool.ticket, job | NO_PIECE);
    atomic_store(&pool.body, body);
    atomic_store(&pool.context, context);
    atomic_store(&pool.count, count);
    atomic_store(&pool.range, range);
    atomic_store(&pool.pieces, pieces);
    atomic_store(&pool.left, pieces);
    atomic_store(&pool.ticket, job);
    atomic_fetch_add(&pool.calls, 1);
    if (atomic_load(&pool.sleepers)) wake(&pool.calls, MOST_THREADS);
    while (run_piece()) {
    }
    wait_for_others();
}
