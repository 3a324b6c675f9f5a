#include "kernels/cuda/cuda_signals.h"

#include <stdatomic.h>
#include <stdbool.h>

enum { LINE = 128, FIRST_VERSION = 11070 };

static int which_of(pb_lane lane) {
    return lane == PB_LANE_WRITE;
}

static _Atomic(uint32_t) *word_of(const pb_cuda_signals *s, int which) {
    return (_Atomic(uint32_t) *)(void *)(s->words + which * LINE);
}

void pb_cuda_signals_init(pb_cuda_signals *s) {
    void *function = NULL, *words = NULL, *device = NULL;
    enum cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    // The driver is asked for by name, since it is never linked.
    cudaError_t error =
        cudaGetDriverEntryPointByVersion("cuStreamWaitValue32", &function, FIRST_VERSION, cudaEnableDefault, &found);
    if (error == cudaSuccess && function && found == cudaDriverEntryPointSuccess) {
        error = cudaHostAlloc(&words, 2 * LINE, cudaHostAllocPortable | cudaHostAllocMapped);
        if (error == cudaSuccess) error = cudaHostGetDevicePointer(&device, words, 0);
        if (error != cudaSuccess && words) cudaFreeHost(words);
    }
    if (!device || error != cudaSuccess) {
        cudaGetLastError();
        return;
    }
    s->words = words;
    for (int which = 0; which < 2; which++) {
        atomic_store(word_of(s, which), 0);
        s->at[which] = (CUdeviceptr)(uintptr_t)device + (CUdeviceptr)(which * LINE);
    }
    s->wait = (PFN_cuStreamWaitValue32_v11070)function;
}

void pb_cuda_signals_deinit(pb_cuda_signals *s) {
    if (s->words) cudaFreeHost(s->words);
    s->words = NULL;
    s->wait = NULL;
}

void pb_cuda_signals_set(pb_cuda_signals *s, pb_lane lane, uint64_t mark) {
    const int which = which_of(lane);
    if (mark <= pb_gate_value(&s->reached[which])) return;
    // The low half of a mark: streams compare by the sign of the difference, and are never 2^31 marks behind.
    if (s->words) atomic_store_explicit(word_of(s, which), (uint32_t)mark, memory_order_release);
    pb_gate_set(&s->reached[which], mark);
}

static bool is_satisfied(const pb_cuda_signals *s) {
    return pb_gate_value(&s->reached[s->ahead[s->first].which]) >= s->ahead[s->first].mark;
}

static void forget_first(pb_cuda_signals *s) {
    s->first = (s->first + 1) % PB_CUDA_AHEAD;
    s->count--;
}

void pb_cuda_signals_pace(pb_cuda_signals *s, uint64_t entries) {
    s->entries += entries;
    while (s->count && is_satisfied(s)) forget_first(s);
    while (s->count && s->entries - s->ahead[s->first].entry >= PB_CUDA_AHEAD) {
        pb_gate_wait(&s->reached[s->ahead[s->first].which], s->ahead[s->first].mark);
        forget_first(s);
    }
}

cudaError_t pb_cuda_signals_wait(pb_cuda_signals *s, cudaStream_t stream, pb_lane on, uint64_t mark) {
    const int which = which_of(on);
    if (pb_gate_value(&s->reached[which]) >= mark) return cudaSuccess;
    if (s->wait) {
        const CUresult result = s->wait(stream, s->at[which], (cuuint32_t)mark, CU_STREAM_WAIT_VALUE_GEQ);
        if (result == CUDA_SUCCESS) {
            // pace() has made room: each wait is an entry itself.
            const uint32_t slot = (s->first + s->count++) % PB_CUDA_AHEAD;
            s->ahead[slot].which = which;
            s->ahead[slot].mark = mark;
            s->ahead[slot].entry = s->entries;
            return cudaSuccess;
        }
        if (result != CUDA_ERROR_NOT_SUPPORTED) return (cudaError_t)result;
        s->wait = NULL;
    }
    pb_gate_wait(&s->reached[which], mark);
    return cudaSuccess;
}
