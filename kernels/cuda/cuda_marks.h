// Marks of a lane as CUDA events: a fixed ring of them, since nothing may be created during a step. A mark whose event
// has been taken over is waited for through the next younger one, which is reached later and so says at least as much.
// One thread records; any may look marks up.
#ifndef PB_KERNELS_CUDA_MARKS_H
#define PB_KERNELS_CUDA_MARKS_H

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdint.h>

#include "base/error.h"

enum { PB_CUDA_MARKS = 2048 };

typedef struct pb_cuda_marks {
    pthread_mutex_t lock;
    cudaEvent_t event[PB_CUDA_MARKS];
    uint64_t mark[PB_CUDA_MARKS];  // of slot i; ascending in the order of recording
    uint64_t recorded;             // so far; the next one's slot is this modulo the ring's length
} pb_cuda_marks;

cudaError_t pb_cuda_marks_init(pb_cuda_marks *marks);
void pb_cuda_marks_deinit(pb_cuda_marks *marks);  // zeroed is allowed

// Behind what `stream` has been given so far. PB_ERR_INTERNAL where marks do not ascend.
pb_status pb_cuda_marks_record(pb_cuda_marks *marks, cudaStream_t stream, uint64_t mark, cudaError_t *error);
// The event whose completion says that `mark` is reached. PB_ERR_INTERNAL where it was not recorded yet.
pb_status pb_cuda_marks_find(pb_cuda_marks *marks, uint64_t mark, cudaEvent_t *event);

#endif
