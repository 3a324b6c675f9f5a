// Elements of any storage dtype as floats: one at a time, or in runs of 16-byte accesses.
#ifndef PB_KERNELS_CUDA_ELEMENTS_CUH
#define PB_KERNELS_CUDA_ELEMENTS_CUH

#include "kernels/cuda/compat.h"

// Threads of a block: a multiple of 32, at most BLOCK_LIMIT (some kernels of few registers take twice as many). Tests
// try others. Kernels are compiled for the limit: one that could not start for want of registers would spill, and that
// does not compile.
constexpr int BLOCK_LIMIT = 256;
extern "C" unsigned pb_cuda_threads;

// Elements of a 16-byte access.
template <typename T> constexpr int VECTOR = 16 / (int)sizeof(T);

// Elements at a time where two types meet: a vector of the wider one, so that a warp's every access is of one piece.
template <typename A, typename B> constexpr int VECTOR_OF_BOTH = VECTOR<A> < VECTOR<B> ? VECTOR<A> : VECTOR<B>;

template <typename T> __device__ __forceinline__ float load_one(const T *p) {
    return to_float(*p);
}
__device__ __forceinline__ float load_one(const double *p) {
    return (float)*p;
}
template <typename T> __device__ __forceinline__ void store_one(T *p, float x) {
    T value;
    from_float(x, &value);
    *p = value;
}
__device__ __forceinline__ void store_one(double *p, float x) {
    *p = (double)x;
}

// x as it is after having been stored as a T.
template <typename T> __device__ __forceinline__ float round_to(float x) {
    T value;
    from_float(x, &value);
    return to_float(value);
}

// N elements from p, which is 16-byte aligned where N elements are 16 bytes or more, 8-byte aligned where they are 8.
template <int N, typename T> __device__ __forceinline__ void load(const T *p, float (&x)[N]) {
    if constexpr (N > 1 && N * sizeof(T) == 8) {
        union {
            uint2 raw;
            T element[N];
        } access;
        access.raw = *reinterpret_cast<const uint2 *>(p);
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = load_one(&access.element[i]);
    } else if constexpr (N * sizeof(T) >= 16) {
        static_assert(N * sizeof(T) % 16 == 0, "whole accesses");
        union {
            uint4 raw;
            T element[VECTOR<T>];
        } access;
#pragma unroll
        for (int k = 0; k < N; k += VECTOR<T>) {
            access.raw = *reinterpret_cast<const uint4 *>(p + k);
#pragma unroll
            for (int i = 0; i < VECTOR<T>; i++) x[k + i] = load_one(&access.element[i]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = load_one(p + i);
    }
}

template <int N, typename T> __device__ __forceinline__ void store(T *p, const float (&x)[N]) {
    if constexpr (N > 1 && N * sizeof(T) == 8) {
        union {
            uint2 raw;
            T element[N];
        } access;
#pragma unroll
        for (int i = 0; i < N; i++) store_one(&access.element[i], x[i]);
        *reinterpret_cast<uint2 *>(p) = access.raw;
    } else if constexpr (N * sizeof(T) >= 16) {
        union {
            uint4 raw;
            T element[VECTOR<T>];
        } access;
#pragma unroll
        for (int k = 0; k < N; k += VECTOR<T>) {
#pragma unroll
            for (int i = 0; i < VECTOR<T>; i++) store_one(&access.element[i], x[k + i]);
            *reinterpret_cast<uint4 *>(p + k) = access.raw;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) store_one(p + i, x[i]);
    }
}

// x = round_to<T>(x) + addend[0..N), as a separate addition in T does; nothing where addend is NULL.
template <int N, typename T> __device__ __forceinline__ void add_rounded(const T *addend, float (&x)[N]) {
    if (!addend) return;
    float a[N];
    load<N>(addend, a);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] = round_to<T>(x[i]) + a[i];
}

static inline bool is_aligned(const void *p) {
    return ((uintptr_t)p & 15) == 0;  // NULL is
}

static inline bool are_aligned(const pb_tensor *a, const pb_tensor *b, const pb_tensor *c) {
    return is_aligned(a->data) && is_aligned(b->data) && is_aligned(c->data);
}

static inline int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// For kernels that count elements in 32 bits.
static inline pb_status check_count(const char *op, int64_t count) {
    if (count <= UINT32_MAX) return PB_OK;
    return pb_error(PB_ERR_UNSUPPORTED, "%s over %lld elements is more than the CUDA kernel counts", op,
                    (long long)count);
}

// Runs f(T()) with the storage type of a dtype, for the three that activations have; T is its argument's type.
template <class F> pb_status with_dtype(const char *op, pb_dtype dtype, F f) {
    switch (dtype) {
    case PB_F32: return f(float());
    case PB_F16: return f(pb_f16());
    case PB_BF16: return f(pb_bf16());
    default: return pb_error(PB_ERR_UNSUPPORTED, "the CUDA kernel of %s has no path for dtype %d", op, (int)dtype);
    }
}

// A loop over `count` elements in runs of Body::WIDTH: body.run<N>(i) does elements i to i + N. The first `runs` are
// whole and aligned; what is left goes one by one.
template <class Body>
__global__ void __launch_bounds__(BLOCK_LIMIT, 1) over_elements(Body body, int64_t count, int64_t runs) {
    const int64_t step = (int64_t)gridDim.x * blockDim.x, first = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    for (int64_t i = first; i < runs; i += step) body.template run<Body::WIDTH>(i * Body::WIDTH);
    for (int64_t i = runs * Body::WIDTH + first; i < count; i += step) body.template run<1>(i);
}

constexpr int64_t MOST_BLOCKS = 4096;  // some waves of the largest card; threads go on from there in strides

// `whole`: the length that no run may straddle a multiple of (a row, an image), or 0.
template <class Body>
pb_status launch_over(const char *op, const Body &body, int64_t count, bool aligned, int64_t whole, void *stream) {
    const bool in_runs = aligned && whole % Body::WIDTH == 0;
    const int64_t runs = in_runs ? count / Body::WIDTH : 0, items = in_runs ? divide_up(count, Body::WIDTH) : count;
    const int64_t blocks = divide_up(items, pb_cuda_threads);
    return launch(op, over_elements<Body>, dim3((unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS)),
                  pb_cuda_threads, 0, stream, body, count, runs);
}

#endif
