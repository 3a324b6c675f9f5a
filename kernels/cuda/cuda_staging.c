#include "kernels/cuda/cuda_staging.h"

#include <string.h>

enum { LARGEST_PIECE = 4 << 20, SMALLEST_PIECE = 64 << 10 };

#define RETURN_IF(call)                           \
    do {                                          \
        const cudaError_t error_ = (call);        \
        if (error_ != cudaSuccess) return error_; \
    } while (0)

static cudaError_t make_event(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDisableTiming);
}

cudaError_t pb_cuda_staging_init(pb_cuda_staging *s) {
    cudaError_t error = cudaErrorMemoryAllocation;
    for (size_t piece = LARGEST_PIECE; piece >= SMALLEST_PIECE && !s->ring; piece /= 4) {
        void *ring = NULL;
        error = cudaHostAlloc(&ring, PB_CUDA_PIECES * piece, cudaHostAllocPortable);
        if (error != cudaSuccess) {
            cudaGetLastError();
            continue;
        }
        s->ring = ring;
        s->piece_bytes = piece;
    }
    if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&s->processor, cudaStreamNonBlocking);
    if (error == cudaSuccess) error = make_event(&s->begun);
    for (int i = 0; i < PB_CUDA_PIECES && error == cudaSuccess; i++) {
        error = make_event(&s->filled[i]);
        if (error == cudaSuccess) error = make_event(&s->emptied[i]);
    }
    if (error != cudaSuccess) pb_cuda_staging_deinit(s);
    return error;
}

void pb_cuda_staging_deinit(pb_cuda_staging *s) {
    if (s->processor) cudaStreamDestroy(s->processor);
    if (s->begun) cudaEventDestroy(s->begun);
    for (int i = 0; i < PB_CUDA_PIECES; i++) {
        if (s->filled[i]) cudaEventDestroy(s->filled[i]);
        if (s->emptied[i]) cudaEventDestroy(s->emptied[i]);
        s->filled[i] = s->emptied[i] = NULL;
    }
    if (s->ring) cudaFreeHost(s->ring);
    s->processor = NULL;
    s->begun = NULL;
    s->ring = NULL;
}

static void CUDART_CB copy_piece(void *context) {
    pb_cuda_piece *piece = context;
    memcpy(piece->to, piece->from, piece->bytes);
    atomic_store(&piece->busy, false);
}

// The processor's half of piece `n`, in the order of its stream.
static cudaError_t launch_copy(pb_cuda_staging *s, uint64_t n, void *to, const void *from, size_t bytes) {
    pb_cuda_piece *piece = &s->pieces[n % PB_CUDA_PIECES_UNDER_WAY];
    if (atomic_load(&piece->busy)) RETURN_IF(cudaStreamSynchronize(s->processor));  // that many are under way
    piece->to = to;
    piece->from = from;
    piece->bytes = bytes;
    atomic_store(&piece->busy, true);
    const cudaError_t error = cudaLaunchHostFunc(s->processor, copy_piece, piece);
    if (error != cudaSuccess) atomic_store(&piece->busy, false);
    return error;
}

static size_t piece_of(const pb_cuda_staging *s, uint64_t left) {
    return left < s->piece_bytes ? (size_t)left : s->piece_bytes;
}

uint64_t pb_cuda_staging_entries(const pb_cuda_staging *s, uint64_t bytes) {
    return 2 + 4 * ((bytes + s->piece_bytes - 1) / s->piece_bytes);
}

cudaError_t pb_cuda_staging_upload(pb_cuda_staging *s, cudaStream_t lane, void *to, const void *from, uint64_t bytes) {
    // What the lane waits for is what the processor has to wait for, too: the source may be still to come.
    RETURN_IF(cudaEventRecord(s->begun, lane));
    RETURN_IF(cudaStreamWaitEvent(s->processor, s->begun, 0));
    for (uint64_t done = 0; done < bytes; s->next++) {
        const size_t size = piece_of(s, bytes - done), slot = s->next % PB_CUDA_PIECES;
        char *place = s->ring + slot * s->piece_bytes;
        if (s->next >= PB_CUDA_PIECES) RETURN_IF(cudaStreamWaitEvent(s->processor, s->emptied[slot], 0));
        RETURN_IF(launch_copy(s, s->next, place, (const char *)from + done, size));
        RETURN_IF(cudaEventRecord(s->filled[slot], s->processor));
        RETURN_IF(cudaStreamWaitEvent(lane, s->filled[slot], 0));
        RETURN_IF(cudaMemcpyAsync((char *)to + done, place, size, cudaMemcpyHostToDevice, lane));
        RETURN_IF(cudaEventRecord(s->emptied[slot], lane));
        done += size;
    }
    return cudaSuccess;
}

cudaError_t pb_cuda_staging_download(pb_cuda_staging *s, cudaStream_t lane, void *to, const void *from,
                                     uint64_t bytes) {
    for (uint64_t done = 0; done < bytes; s->next++) {
        const size_t size = piece_of(s, bytes - done), slot = s->next % PB_CUDA_PIECES;
        char *place = s->ring + slot * s->piece_bytes;
        if (s->next >= PB_CUDA_PIECES) RETURN_IF(cudaStreamWaitEvent(lane, s->emptied[slot], 0));
        RETURN_IF(cudaMemcpyAsync(place, (const char *)from + done, size, cudaMemcpyDeviceToHost, lane));
        RETURN_IF(cudaEventRecord(s->filled[slot], lane));
        RETURN_IF(cudaStreamWaitEvent(s->processor, s->filled[slot], 0));
        RETURN_IF(launch_copy(s, s->next, (char *)to + done, place, size));
        RETURN_IF(cudaEventRecord(s->emptied[slot], s->processor));
        done += size;
        // The lane has come that far when the bytes have arrived.
        if (done == bytes) RETURN_IF(cudaStreamWaitEvent(lane, s->emptied[slot], 0));
    }
    return cudaSuccess;
}
