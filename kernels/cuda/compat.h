// What our kernels take from CUDA, in one place: the only header here that includes CUDA's own. A kernel written with
// nothing else also compiles as plain C++ with tests/shim/shim.h in CUDA's place, and there the tests run it. So: no
// inline PTX in kernels (the instructions for matrix units and asynchronous copies are here, and the shim has its own
// of them), no cooperative groups; kernels start through launch().
//
//   launch(op, kernel, grid, threads, shared bytes, stream, arguments...)   pb_status
//   SHARED(type, name, count)         an array in shared memory
//   DYNAMIC_SHARED(type, name)        the bytes that the launch asked for, 16-byte aligned
//   GRID_CONSTANT                     of a kernel's const argument: read where it lies, never copied, at any index
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
#include <shim.h>  // from tests/shim, whose include path only the tests have
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define GRID_CONSTANT __grid_constant__
#define SHARED(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(type, name)               \
    extern __shared__ uint4 pb_dynamic_shared[]; \
    type *const name = reinterpret_cast<type *>(pb_dynamic_shared)

template <typename... P, typename... A>
pb_status launch(const char *op, void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared, void *stream,
                 A... args) {
    if (!grid.x || !grid.y || !grid.z) return PB_OK;  // nothing to do
    static_assert((sizeof(P) + ... + 0) <= 4096, "what any driver takes as arguments");
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared;
    config.stream = static_cast<cudaStream_t>(stream);
    // The launch's own result: cudaGetLastError would give what any call before it may have left.
    const cudaError_t error = cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
    if (error == cudaSuccess) return PB_OK;
    cudaGetLastError();
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

// 2^x to 2 units in the last place, as exp2f; results below 2^-126 are zero, which spares exp2f's three instructions of
// scaling for them.
__device__ __forceinline__ float exp2_flushed(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Matrix units. Nothing below exists before sm_80; code for such cards is compiled but never started.
static inline bool has_matrix_units(void) {
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 8;
}

// Four 8x8 matrices of 16-bit elements: lane l gives the address of row l % 8 of matrix l / 8, and gets of each matrix
// elements 2 (l % 4) and the one after it of row l / 4; transposed: of column l / 4.
__device__ __forceinline__ void load_matrices(const uint16_t *row, uint32_t (&x)[4]) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(const uint16_t *row, uint32_t (&x)[4]) {
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(at)
                 : "memory");
}

// sums[16,8] += left[16,16] right[16,8] in fp32; see mma_tiles.cuh for who holds what.
template <typename T>
__device__ __forceinline__ void multiply_matrices(const uint32_t (&left)[4], uint32_t right0, uint32_t right1,
                                                  float (&sums)[4]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    if constexpr (std::is_same<T, pb_f16>::value)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                     : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                     : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
#endif
}

// sums[16,8] += left[16,8] right[8,8], which is the first half of the above.
template <typename T>
__device__ __forceinline__ void multiply_half_matrices(uint32_t left0, uint32_t left1, uint32_t right,
                                                       float (&sums)[4]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    if constexpr (std::is_same<T, pb_f16>::value)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                     : "r"(left0), "r"(left1), "r"(right));
    else
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                     : "r"(left0), "r"(left1), "r"(right));
#endif
}

// Asynchronous copies of 16 or 4 bytes from device to shared memory, both aligned so; zeros where nothing is there. A
// thread commits those that it has begun as a group, and waits until at most so many of its youngest groups are under
// way. What others have copied is there behind a barrier that they reach after their wait.
template <int BYTES> __device__ __forceinline__ void copy_async(void *to, const void *from, bool is_there) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    const unsigned at = (unsigned)__cvta_generic_to_shared(to), bytes = is_there ? BYTES : 0;
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
#endif
}
__device__ __forceinline__ void commit_copies() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int GROUPS> __device__ __forceinline__ void wait_copies() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}
#endif

// Two elements in one register, the first in the low half.
template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high) {
    T first, second;
    from_float(low, &first);
    from_float(high, &second);
    return (uint32_t)first.bits | (uint32_t)second.bits << 16;
}

#endif
