#include "kernels/cuda/cuda_marks.h"

cudaError_t pb_cuda_marks_init(pb_cuda_marks *marks) {
    pthread_mutex_init(&marks->lock, NULL);
    for (int i = 0; i < PB_CUDA_MARKS; i++) {
        // A thread that waits sleeps: AdamW on the host has better use for the processor.
        const cudaError_t error =
            cudaEventCreateWithFlags(&marks->event[i], cudaEventDisableTiming | cudaEventBlockingSync);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

void pb_cuda_marks_deinit(pb_cuda_marks *marks) {
    if (!marks->event[0]) return;
    for (int i = 0; i < PB_CUDA_MARKS && marks->event[i]; i++) cudaEventDestroy(marks->event[i]);
    pthread_mutex_destroy(&marks->lock);
}

pb_status pb_cuda_marks_record(pb_cuda_marks *marks, cudaStream_t stream, uint64_t mark, cudaError_t *error) {
    pb_status status = PB_OK;
    *error = cudaSuccess;
    pthread_mutex_lock(&marks->lock);
    const uint64_t slot = marks->recorded % PB_CUDA_MARKS;
    if (marks->recorded && mark <= marks->mark[(marks->recorded - 1) % PB_CUDA_MARKS]) {
        status = pb_error(PB_ERR_INTERNAL, "mark %llu does not follow the one before", (unsigned long long)mark);
    } else {
        *error = cudaEventRecord(marks->event[slot], stream);
        if (*error == cudaSuccess) {
            marks->mark[slot] = mark;
            marks->recorded++;
        }
    }
    pthread_mutex_unlock(&marks->lock);
    return status;
}

pb_status pb_cuda_marks_find(pb_cuda_marks *marks, uint64_t mark, cudaEvent_t *event) {
    pb_status status = PB_OK;
    pthread_mutex_lock(&marks->lock);
    const uint64_t end = marks->recorded;
    uint64_t low = end > PB_CUDA_MARKS ? end - PB_CUDA_MARKS : 0, high = end;
    while (low < high) {  // the first that is `mark` or younger
        const uint64_t middle = low + (high - low) / 2;
        if (marks->mark[middle % PB_CUDA_MARKS] < mark)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < end)
        *event = marks->event[low % PB_CUDA_MARKS];
    else
        status = pb_error(PB_ERR_INTERNAL, "mark %llu is waited for and was not recorded", (unsigned long long)mark);
    pthread_mutex_unlock(&marks->lock);
    return status;
}
