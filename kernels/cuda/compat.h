// What our kernels take from CUDA, in one place: the only header here that includes CUDA's own. A kernel written with
// nothing else also compiles as plain C++ with tests/shim/shim.h in CUDA's place, and there the tests run it. So: no
// inline PTX, no matrix instructions, no asynchronous copies, no cooperative groups; kernels start through launch().
//
//   launch(op, kernel, grid, threads, shared bytes, stream, arguments...)   pb_status
//   SHARED(type, name, count)         an array in shared memory
//   DYNAMIC_SHARED(type, name)        the bytes that the launch asked for, 16-byte aligned
#ifndef PB_KERNELS_CUDA_COMPAT_H
#define PB_KERNELS_CUDA_COMPAT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <type_traits>

extern "C" {
#include "kernels/cuda/cuda_kernels.h"
}

// 16-bit floats as their bits.
struct pb_f16 {
    uint16_t bits;
};
struct pb_bf16 {
    uint16_t bits;
};

#ifdef PB_SHIM
#include "shim.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define SHARED(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name) \
    extern __shared__ uint4 pb_dynamic_shared[]; \
    type *const name = reinterpret_cast<type *>(pb_dynamic_shared)

template <typename... P, typename... A>
pb_status launch(const char *op, void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared, void *stream,
                 A... args) {
    if (!grid.x || !grid.y || !grid.z) return PB_OK;  // nothing to do
    kernel<<<grid, threads, shared, static_cast<cudaStream_t>(stream)>>>(args...);
    const cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess) return PB_OK;
    return pb_error(PB_ERR_INTERNAL, "the %s kernel did not start (%u x %u x %u blocks of %u threads): %s", op, grid.x,
                    grid.y, grid.z, threads, cudaGetErrorString(error));
}

// Device memory, in the stream's order.
static inline pb_status set_zero(const char *op, void *memory, size_t bytes, void *stream) {
    const cudaError_t error = cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream));
    if (error == cudaSuccess) return PB_OK;
    return pb_error(PB_ERR_INTERNAL, "%s cannot clear %zu bytes: %s", op, bytes, cudaGetErrorString(error));
}

__device__ __forceinline__ float to_float(float x) {
    return x;
}
__device__ __forceinline__ float to_float(pb_f16 x) {
    return __half2float(__ushort_as_half(x.bits));
}
__device__ __forceinline__ float to_float(pb_bf16 x) {
    return __bfloat162float(__ushort_as_bfloat16(x.bits));
}
__device__ __forceinline__ void from_float(float x, float *to) {
    *to = x;
}
__device__ __forceinline__ void from_float(float x, pb_f16 *to) {
    to->bits = __half_as_ushort(__float2half_rn(x));
}
__device__ __forceinline__ void from_float(float x, pb_bf16 *to) {
    to->bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
#endif

#endif
