// When things on the lanes begin and end: pairs of events around them, turned into CLOCK_MONOTONIC when all is done.
// For traces alone; this grows as it is used.
#ifndef PB_KERNELS_CUDA_TIMES_H
#define PB_KERNELS_CUDA_TIMES_H

#include <cuda_runtime_api.h>

#include "base/error.h"
#include "base/tier.h"

typedef struct pb_cuda_interval {
    cudaEvent_t begin, end;
    double *begin_at, *end_at;  // to be written
} pb_cuda_interval;

typedef struct pb_cuda_times {
    pb_cuda_interval *intervals;
    int count, capacity;
    int wanted[PB_LANE_COUNT];  // 1 + the interval of what is issued next on the lane, or 0
    cudaEvent_t base;
    double base_at;  // seconds of CLOCK_MONOTONIC when `base` was reached
} pb_cuda_times;

void pb_cuda_times_deinit(pb_cuda_times *times);

// Announces an interval. `stream`: any of the device's, idle or not, that `base` is taken on when it is the first.
pb_status pb_cuda_times_want(pb_cuda_times *times, pb_lane lane, cudaStream_t stream, double *begin, double *end,
                             cudaError_t *error);
// Before and after what is issued on a lane. Nothing where no interval is wanted.
cudaError_t pb_cuda_times_begin(pb_cuda_times *times, pb_lane lane, cudaStream_t stream);
cudaError_t pb_cuda_times_end(pb_cuda_times *times, pb_lane lane, cudaStream_t stream);
// When all streams are idle: writes every time, and forgets the intervals.
cudaError_t pb_cuda_times_settle(pb_cuda_times *times);

#endif
