// Copies between the device and host memory that could not be page-locked: through small rings of memory that is, piece
// by piece. The processor's half of a piece is a host function in a stream of its own, so that nobody waits for it
// but the pieces themselves, and a copy takes its place in its lane like any other.
#ifndef PB_KERNELS_CUDA_STAGING_H
#define PB_KERNELS_CUDA_STAGING_H

#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { PB_CUDA_PIECES = 4, PB_CUDA_PIECES_UNDER_WAY = 256 };

typedef struct pb_cuda_piece {
    void *to;
    const void *from;
    size_t bytes;
    _Atomic(bool) busy;
} pb_cuda_piece;

// One direction.
typedef struct pb_cuda_staging {
    char *ring;  // page-locked, PB_CUDA_PIECES pieces; NULL: there is none
    size_t piece_bytes;
    cudaStream_t processor;  // the host functions'
    cudaEvent_t begun;       // behind what the lane was given before a copy
    cudaEvent_t filled[PB_CUDA_PIECES], emptied[PB_CUDA_PIECES];
    uint64_t next;  // piece, counted over all copies; its place is this modulo PB_CUDA_PIECES
    pb_cuda_piece pieces[PB_CUDA_PIECES_UNDER_WAY];
} pb_cuda_staging;

// Rings of 4 MiB pieces, or smaller where those are refused, down to 64 KiB; then the error.
cudaError_t pb_cuda_staging_init(pb_cuda_staging *staging);
void pb_cuda_staging_deinit(pb_cuda_staging *staging);  // zeroed is allowed; nothing may be under way

// What a copy puts into its lane or into the host functions' stream, at most.
uint64_t pb_cuda_staging_entries(const pb_cuda_staging *staging, uint64_t bytes);

cudaError_t pb_cuda_staging_upload(pb_cuda_staging *staging, cudaStream_t lane, void *to, const void *from,
                                   uint64_t bytes);
cudaError_t pb_cuda_staging_download(pb_cuda_staging *staging, cudaStream_t lane, void *to, const void *from,
                                     uint64_t bytes);

#endif
