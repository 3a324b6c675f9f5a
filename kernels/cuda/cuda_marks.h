// Marks of a lane as CUDA events: a fixed ring of them, since nothing may be created during a step. An event is taken
// over only when its mark is reached (the thread that records waits for that, should it ever be so far ahead), so a
// mark without an event is one that is reached. It must not be waited for through a younger one instead: that one may
// depend on a transfer which waits for the older. One thread records and looks marks up; any may ask whether one is
// reached.
#ifndef PB_KERNELS_CUDA_MARKS_H
#define PB_KERNELS_CUDA_MARKS_H

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdint.h>

#include "base/error.h"

#ifndef PB_CUDA_MARKS
#define PB_CUDA_MARKS 2048
#endif

typedef struct pb_cuda_marks {
    pthread_mutex_t lock;
    cudaEvent_t event[PB_CUDA_MARKS];
    uint64_t mark[PB_CUDA_MARKS];  // of slot i; ascending in the order of recording
    uint64_t recorded;             // so far; the next one's slot is this modulo the ring's length
    uint64_t taken_over;           // the highest mark whose event has been taken over: it is reached
} pb_cuda_marks;

cudaError_t pb_cuda_marks_init(pb_cuda_marks *marks);
void pb_cuda_marks_deinit(pb_cuda_marks *marks);  // zeroed is allowed

// Behind what `stream` has been given so far. PB_ERR_INTERNAL where marks do not ascend.
pb_status pb_cuda_marks_record(pb_cuda_marks *marks, cudaStream_t stream, uint64_t mark, cudaError_t *error);
// For the recording thread: the event whose completion says that `mark` is reached; NULL where it is. PB_ERR_INTERNAL
// where it was not recorded yet.
pb_status pb_cuda_marks_find(pb_cuda_marks *marks, uint64_t mark, cudaEvent_t *event);
// For any thread: *error is cudaSuccess where it is reached, cudaErrorNotReady where it is not yet, or another error.
pb_status pb_cuda_marks_query(pb_cuda_marks *marks, uint64_t mark, cudaError_t *error);

#endif
