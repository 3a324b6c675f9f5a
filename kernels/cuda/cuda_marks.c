#include "kernels/cuda/cuda_marks.h"

#include <stdbool.h>

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
    const uint64_t slot = marks->recorded % PB_CUDA_MARKS;  // written by this thread alone
    const bool take_over = marks->recorded >= PB_CUDA_MARKS;
    *error = cudaSuccess;
    if (marks->recorded && mark <= marks->mark[(marks->recorded - 1) % PB_CUDA_MARKS])
        return pb_error(PB_ERR_INTERNAL, "mark %llu does not follow the one before", (unsigned long long)mark);
    if (take_over) *error = cudaEventSynchronize(marks->event[slot]);
    if (*error != cudaSuccess) return PB_OK;
    pthread_mutex_lock(&marks->lock);
    if (take_over) marks->taken_over = marks->mark[slot];
    *error = cudaEventRecord(marks->event[slot], stream);
    if (*error == cudaSuccess) {
        marks->mark[slot] = mark;
        marks->recorded++;
    }
    pthread_mutex_unlock(&marks->lock);
    return PB_OK;
}

// Under the lock.
static pb_status find(const pb_cuda_marks *marks, uint64_t mark, cudaEvent_t *event) {
    const uint64_t end = marks->recorded;
    uint64_t low = end > PB_CUDA_MARKS ? end - PB_CUDA_MARKS : 0, high = end;
    *event = NULL;
    if (end && mark <= marks->taken_over) return PB_OK;
    while (low < high) {  // the first that is `mark` or younger: marks that nobody recorded are reached with it
        const uint64_t middle = low + (high - low) / 2;
        if (marks->mark[middle % PB_CUDA_MARKS] < mark)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == end)
        return pb_error(PB_ERR_INTERNAL, "mark %llu is waited for and was not recorded", (unsigned long long)mark);
    *event = marks->event[low % PB_CUDA_MARKS];
    return PB_OK;
}

pb_status pb_cuda_marks_find(pb_cuda_marks *marks, uint64_t mark, cudaEvent_t *event) {
    pthread_mutex_lock(&marks->lock);
    const pb_status status = find(marks, mark, event);
    pthread_mutex_unlock(&marks->lock);
    return status;
}

// The lock is kept throughout, so that the event is not taken over in between.
pb_status pb_cuda_marks_query(pb_cuda_marks *marks, uint64_t mark, cudaError_t *error) {
    cudaEvent_t event;
    pthread_mutex_lock(&marks->lock);
    const pb_status status = find(marks, mark, &event);
    *error = status == PB_OK && event ? cudaEventQuery(event) : cudaSuccess;
    pthread_mutex_unlock(&marks->lock);
    // "Not yet" counts as this thread's last error, which the next launch from it would take for its own.
    if (*error == cudaErrorNotReady) cudaGetLastError();
    return status;
}
