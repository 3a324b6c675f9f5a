// One pool of compute threads for the whole process.
#ifndef PB_BASE_PARALLEL_H
#define PB_BASE_PARALLEL_H

#include <stdint.h>

// Threads that pb_parallel_for uses, the caller among them; at first, the processors this process may run on. Part of
// the numerics of a run.
int pb_threads(void);
void pb_threads_set(int threads);  // 1 or more

// Runs body(context, begin, end, piece) over [0, count) in contiguous ranges, at most one per thread, each but the last
// a multiple of `grain` long; inline when one range is enough. `piece` counts the ranges from 0: no two run at once
// with the same number, so it can choose a thread's scratch space. Which thread runs a range is open. Returns when all
// are done. Allocates nothing after the first call. From one thread at a time, and not to be nested.
typedef void (*pb_parallel_body)(void *context, int64_t begin, int64_t end, int piece);
void pb_parallel_for(int64_t count, int64_t grain, pb_parallel_body body, void *context);

#endif
