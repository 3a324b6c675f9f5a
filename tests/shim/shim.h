// CUDA as plain C++, so that the real .cu files run in tests on a machine without a GPU. Included by
// kernels/cuda/compat.h in place of CUDA's headers. A block runs on one thread of the process: each CUDA thread is a
// fiber that gives way at barriers and shuffles only. So everything between two barriers runs in an order that the test
// chooses: what depends on an order that CUDA does not promise shows. Shared memory is 0xCB at the start of each block.
#ifndef PB_TESTS_SHIM_SHIM_H
#define PB_TESTS_SHIM_SHIM_H

#include <cmath>

extern "C" {
#include "base/dtype.h"
#include "shim_control.h"
}

#define __global__
#define __device__
#define __launch_bounds__(...)
#define GRID_CONSTANT
#define __forceinline__ inline

struct dim3 {
    unsigned x, y, z;
    constexpr explicit dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {
    }
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

template <typename T> static inline T min(T a, T b) {
    return b < a ? b : a;
}
template <typename T> static inline T max(T a, T b) {
    return a < b ? b : a;
}

// Barriers are known by their place in the source, so that a test can leave one out.
void shim_block_barrier(const char *file, int line);
bool shim_block_or(bool x, const char *file, int line);
void shim_warp_barrier(const char *file, int line);
#define __syncthreads() shim_block_barrier(__FILE__, __LINE__)
#define __syncthreads_or(x) shim_block_or(x, __FILE__, __LINE__)
#define __syncwarp() shim_warp_barrier(__FILE__, __LINE__)

// What the lane `from` of this thread's warp gave to the same shuffle, which is known by its place in the source, too.
void shim_shuffle(const void *mine, void *theirs, size_t bytes, unsigned from, unsigned mask = 0xffffffffu,
                  const char *file = __builtin_FILE(), int line = __builtin_LINE());
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T x, int step, const char *file = __builtin_FILE(),
                                int line = __builtin_LINE()) {
    static_assert(sizeof(T) <= 8, "as CUDA has it");
    T theirs;
    shim_shuffle(&x, &theirs, sizeof x, (threadIdx.x % 32) ^ (unsigned)step, mask, file, line);
    return theirs;
}

static inline unsigned __ballot_sync(unsigned mask, bool x, const char *file = __builtin_FILE(),
                                     int line = __builtin_LINE()) {
    unsigned all = 0;
    for (unsigned lane = 0; lane < 32; lane++) {
        bool theirs;
        shim_shuffle(&x, &theirs, sizeof x, lane, mask, file, line);
        all |= (unsigned)theirs << lane;
    }
    return all;
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}

// Shared arrays are static, which is per block because blocks run one after the other; they are filled anew for each.
void shim_shared(void *memory, size_t bytes);
void *shim_dynamic_shared(void);
#define SHARED(type, name, count)        \
    alignas(16) static type name[count]; \
    shim_shared(name, sizeof name)
#define DYNAMIC_SHARED(type, name) type *const name = static_cast<type *>(shim_dynamic_shared())

pb_status shim_run(const char *op, dim3 grid, unsigned threads, size_t shared, void (*run)(void *), void *context);

template <typename... P, typename... A>
pb_status launch(const char *op, void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared, void *stream,
                 A... args) {
    static_assert((sizeof(P) + ... + 0) <= 4096, "what any driver takes as arguments");
    (void)stream;
    auto call = [&] { kernel(args...); };
    return shim_run(
        op, grid, threads, shared, [](void *context) { (*static_cast<decltype(call) *>(context))(); }, &call);
}

static inline float exp2_flushed(float x) {
    const float y = exp2f(x);
    return y < 0x1p-126f ? 0 : y;
}

// Matrix units, by what PTX says of the instructions; the warp exchanges addresses and registers.
bool has_matrix_units(void);
void load_matrices(const uint16_t *row, uint32_t (&x)[4]);
void load_matrices_transposed(const uint16_t *row, uint32_t (&x)[4]);
void shim_multiply(bool f16, const uint32_t *left, const uint32_t *right, float *sums);
template <typename T>
static inline void multiply_matrices(const uint32_t (&left)[4], uint32_t right0, uint32_t right1, float (&sums)[4]) {
    const uint32_t right[2] = {right0, right1};
    shim_multiply(std::is_same<T, pb_f16>::value, left, right, sums);
}

template <typename T>
static inline void multiply_half_matrices(uint32_t left0, uint32_t left1, uint32_t right, float (&sums)[4]) {
    const uint32_t left[4] = {left0, left1, 0, 0};
    multiply_matrices<T>(left, right, 0, sums);
}

// Asynchronous copies; waits are known by their places, as barriers are.
void shim_copy_async(void *to, const void *from, int bytes);  // NULL: zeros
void commit_copies();
void shim_wait_copies(int groups, const char *file, int line);
template <int BYTES> static inline void copy_async(void *to, const void *from, bool is_there) {
    shim_copy_async(to, is_there ? from : nullptr, BYTES);
}
template <int GROUPS> static inline void wait_copies(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    shim_wait_copies(GROUPS, file, line);
}

static inline pb_status set_zero(const char *, void *memory, size_t bytes, void *) {
    memset(memory, 0, bytes);
    return PB_OK;
}

static inline float to_float(float x) {
    return x;
}
static inline float to_float(pb_f16 x) {
    return pb_f16_to_f32(x.bits);
}
static inline float to_float(pb_bf16 x) {
    return pb_bf16_to_f32(x.bits);
}
static inline void from_float(float x, float *to) {
    *to = x;
}
static inline void from_float(float x, pb_f16 *to) {
    to->bits = pb_f16_from_f32(x);
}
static inline void from_float(float x, pb_bf16 *to) {
    to->bits = pb_bf16_from_f32(x);
}

static inline uint32_t __float_as_uint(float x) {
    return pb_f32_bits(x);
}
static inline float __uint_as_float(uint32_t bits) {
    return pb_f32_from_bits(bits);
}

// Roundings by name; the shim is compiled without contraction.
static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float __fsub_rn(float a, float b) {
    return a - b;
}
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
static inline double __dmul_rn(double a, double b) {
    return a * b;
}
static inline float __fdiv_rn(float a, float b) {
    return a / b;
}
static inline float __fsqrt_rn(float a) {
    return sqrtf(a);
}
static inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}

#endif
