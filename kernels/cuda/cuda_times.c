#include "kernels/cuda/cuda_times.h"

#include <stdlib.h>

#include "base/clock.h"

void pb_cuda_times_deinit(pb_cuda_times *times) {
    for (int i = 0; i < times->capacity; i++) {
        if (times->intervals[i].begin) cudaEventDestroy(times->intervals[i].begin);
        if (times->intervals[i].end) cudaEventDestroy(times->intervals[i].end);
    }
    if (times->base) cudaEventDestroy(times->base);
    free(times->intervals);
    *times = (pb_cuda_times){0};
}

static pb_status grow(pb_cuda_times *times) {
    const int capacity = times->capacity ? 2 * times->capacity : 1024;
    pb_cuda_interval *intervals = realloc(times->intervals, (size_t)capacity * sizeof *intervals);
    if (!intervals) return pb_error(PB_ERR_MEMORY, "no memory for a trace");
    for (int i = times->capacity; i < capacity; i++) intervals[i] = (pb_cuda_interval){0};
    times->intervals = intervals;
    times->capacity = capacity;
    return PB_OK;
}

// Where the GPU's clock stands on the host's: an event on an idle stream, and the moment in which it is seen.
static cudaError_t take_base(pb_cuda_times *times, cudaStream_t stream) {
    cudaError_t error = cudaSuccess;
    if (!times->base) error = cudaEventCreate(&times->base);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    if (error == cudaSuccess) error = cudaEventRecord(times->base, stream);
    if (error == cudaSuccess) error = cudaEventSynchronize(times->base);
    times->base_at = pb_seconds_now();
    return error;
}

pb_status pb_cuda_times_want(pb_cuda_times *times, pb_lane lane, cudaStream_t stream, double *begin, double *end,
                             cudaError_t *error) {
    *error = cudaSuccess;
    if (times->count == times->capacity) PB_RETURN_IF(grow(times));
    if (times->count == 0) *error = take_base(times, stream);
    pb_cuda_interval *interval = &times->intervals[times->count];
    if (*error == cudaSuccess && !interval->begin) *error = cudaEventCreate(&interval->begin);
    if (*error == cudaSuccess && !interval->end) *error = cudaEventCreate(&interval->end);
    if (*error != cudaSuccess) return PB_OK;
    interval->begin_at = begin;
    interval->end_at = end;
    times->wanted[lane] = ++times->count;
    return PB_OK;
}

cudaError_t pb_cuda_times_begin(pb_cuda_times *times, pb_lane lane, cudaStream_t stream) {
    const int wanted = times->wanted[lane];
    return wanted ? cudaEventRecord(times->intervals[wanted - 1].begin, stream) : cudaSuccess;
}

cudaError_t pb_cuda_times_end(pb_cuda_times *times, pb_lane lane, cudaStream_t stream) {
    const int wanted = times->wanted[lane];
    times->wanted[lane] = 0;
    return wanted ? cudaEventRecord(times->intervals[wanted - 1].end, stream) : cudaSuccess;
}

cudaError_t pb_cuda_times_settle(pb_cuda_times *times) {
    for (int i = 0; i < times->count; i++) {
        const pb_cuda_interval *interval = &times->intervals[i];
        float begin = 0, end = 0;  // milliseconds
        cudaError_t error = cudaEventElapsedTime(&begin, times->base, interval->begin);
        if (error == cudaSuccess) error = cudaEventElapsedTime(&end, times->base, interval->end);
        if (error != cudaSuccess) return error;
        *interval->begin_at = times->base_at + (double)begin * 1e-3;
        *interval->end_at = times->base_at + (double)end * 1e-3;
    }
    times->count = 0;
    return cudaSuccess;
}
