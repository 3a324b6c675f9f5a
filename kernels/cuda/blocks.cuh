// Sums over the threads of a warp and of a block, in an order that does not depend on chance. Every thread gets the
// sum.
#ifndef PB_KERNELS_CUDA_BLOCKS_CUH
#define PB_KERNELS_CUDA_BLOCKS_CUH

#include "kernels/cuda/compat.h"

constexpr unsigned WHOLE_WARP = 0xffffffffu;

template <typename S> __device__ __forceinline__ S warp_sum(S x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(WHOLE_WARP, x, step);
    return x;
}

__device__ __forceinline__ float warp_most(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(WHOLE_WARP, x, step));
    return x;
}

// All threads of the block take part; blockDim.x is a multiple of 32, at most 1024.
template <typename S> __device__ __forceinline__ S block_sum(S x) {
    SHARED(S, of_warps, 32);
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    x = threadIdx.x % 32 < blockDim.x / 32 ? of_warps[threadIdx.x % 32] : S(0);
    x = warp_sum(x);
    __syncthreads();  // the next sum may overwrite what a slower warp has not read
    return x;
}

#endif
