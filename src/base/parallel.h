// One pool of compute threads for the whole process: libgomp's, so that a library that uses OpenMP shares it.
// (ThreadSanitizer does not understand libgomp; its builds use a pool of pthreads with the same contract.)
#ifndef PB_BASE_PARALLEL_H
#define PB_BASE_PARALLEL_H

#include <stdint.h>

// Threads that pb_parallel_for uses; at first, the processors this process may run on. Part of the numerics of a run.
int pb_threads(void);
void pb_threads_set(int threads);  // 1 or more

// Runs body(context, begin, end, thread) over [0, count) in contiguous ranges, one per thread, each but the last a
// multiple of `grain` long; inline when one range is enough. `thread` counts from 0. Returns when all are done.
// Allocates nothing after the first call. Not to be nested.
typedef void (*pb_parallel_body)(void *context, int64_t begin, int64_t end, int thread);
void pb_parallel_for(int64_t count, int64_t grain, pb_parallel_body body, void *context);

#endif
