// test: links=base
// The pool: every element exactly once, whatever the sizes, with more threads than processors, job after job.
#include "base/parallel.h"

#include <stdatomic.h>
#include <unistd.h>

#include "check.h"

enum { ELEMENTS = 10000 };

typedef struct visits {
    _Atomic(int) seen[ELEMENTS];
    _Atomic(int) ranges, misaligned;
    int64_t grain, count;
    _Atomic(int) in_piece[64], shared;
} visits;

static void visit(void *context, int64_t begin, int64_t end, int piece) {
    visits *v = context;
    if (atomic_fetch_add(&v->in_piece[piece], 1)) atomic_fetch_add(&v->shared, 1);
    if (begin % v->grain || (end != v->count && end % v->grain)) atomic_fetch_add(&v->misaligned, 1);
    for (int64_t i = begin; i < end; i++) atomic_fetch_add(&v->seen[i], 1);
    atomic_fetch_add(&v->ranges, 1);
    atomic_fetch_sub(&v->in_piece[piece], 1);
}

static void sum(void *context, int64_t begin, int64_t end, int piece) {
    int64_t *sums = context;
    sums[piece] = 0;
    for (int64_t i = begin; i < end; i++) sums[piece] += i;
}

int main(void) {
    static visits v;
    for (int threads = 1; threads <= 9; threads += 4) {
        pb_threads_set(threads);
        for (int64_t count = 0; count <= ELEMENTS; count = count * 3 + 1) {
            for (int64_t grain = 1; grain < 200; grain = grain * 5 + 2) {
                memset(&v, 0, sizeof v);
                v.grain = grain;
                v.count = count;
                pb_parallel_for(count, grain, visit, &v);
                int wrong = 0;
                for (int64_t i = 0; i < ELEMENTS; i++) wrong += v.seen[i] != (i < count);
                CHECK_THAT(!wrong && !v.misaligned && !v.shared && v.ranges <= threads, "%lld by %lld with %d threads",
                           (long long)count, (long long)grain, threads);
            }
        }
        // Short jobs back to back, with now and then a rest in which the workers fall asleep. Results are plain memory:
        // the pool must order them.
        int64_t bad = 0;
        for (int job = 0; job < 3000; job++) {
            int64_t sums[16] = {0};
            const int64_t count = 1 + job % 97;
            pb_parallel_for(count, 1, sum, sums);
            int64_t total = 0;
            for (int i = 0; i < 16; i++) total += sums[i];
            bad += total != count * (count - 1) / 2;
            if (job % 500 == 0) usleep(2000);
        }
        CHECK(bad == 0);
    }
    return CHECK_DONE();
}
