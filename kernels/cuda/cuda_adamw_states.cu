// AdamW on state that is kept in fewer bytes (ops.def): a thread block takes the 256 elements that share a scale.
#include "kernels/cuda/codecs.cuh"

#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/elements.cuh"

namespace {

// Where one of the parameter's values is; data is NULL where it is absent.
struct place {
    const void *from;
    void *to;
    pb_dtype dtype;
};

struct states {
    const void *gradient;
    const float *control, *hyper;
    place master, m, v, work, m_scales, v_scales;
    int64_t count, first;
    uint32_t stream;
};

template <typename T> __device__ __forceinline__ T get(const void *array, int64_t i) {
    return static_cast<const T *>(array)[i];
}

template <typename T> __device__ __forceinline__ void put(void *array, int64_t i, T x) {
    static_cast<T *>(array)[i] = x;
}

__device__ __forceinline__ float bf16_at(const void *array, int64_t i) {
    return to_float(pb_bf16{get<uint16_t>(array, i)});
}

__device__ __forceinline__ float load_moment(const place &p, const place &scales, bool first, int64_t i) {
    if (p.dtype == PB_U8)
        return __fmul_rn(block8_map[!first][get<uint8_t>(p.from, i)], get<float>(scales.from, i / PB_BLOCK8));
    return p.dtype == PB_BF16 ? bf16_at(p.from, i) : get<float>(p.from, i);
}

__device__ __forceinline__ int16_t residual_at(const place &p, int64_t i) {
    return p.dtype == PB_I16 ? get<int16_t>(p.from, i) : (int16_t)get<int8_t>(p.from, i);
}

__device__ __forceinline__ bool is_split(const states &s) {
    return s.master.dtype == PB_I16 || s.master.dtype == PB_I8;
}

__device__ __forceinline__ float load_weight(const states &s, int64_t i) {
    const bool wide = s.master.dtype == PB_I16;
    if (!is_split(s)) return s.master.dtype == PB_BF16 ? bf16_at(s.master.from, i) : get<float>(s.master.from, i);
    const uint16_t work = get<uint16_t>(s.work.from, i);
    const int16_t residual = residual_at(s.master, i);
    return s.work.dtype == PB_BF16 ? pb_join_bf16(work, residual, wide) : pb_join_f16(work, residual, wide);
}

// x as bf16 with the random bits of element i of the slice.
__device__ __forceinline__ uint16_t rounded(const states &s, pb_adamw_draw draw, int64_t i, float x) {
    const pb_random_key key = pb_adamw_key(s.hyper, s.stream, draw);
    const uint64_t element = (uint64_t)(s.first + i);
    uint32_t words[4];
    pb_philox_block(&key, element / PB_PHILOX_ELEMENTS, words);
    const uint32_t word = words[element % PB_PHILOX_ELEMENTS / 2];
    return pb_round_stochastic(x, element % 2 ? word >> 16 : word & 0xffffu);
}

__device__ __forceinline__ uint16_t narrowed(pb_dtype dtype, float x) {
    if (dtype == PB_BF16) {
        pb_bf16 h;
        from_float(x, &h);
        return h.bits;
    }
    pb_f16 h;
    from_float(x, &h);
    return h.bits;
}

__device__ __forceinline__ void store_weight(const states &s, int64_t i, float x) {
    const bool wide = s.master.dtype == PB_I16;
    if (is_split(s)) {
        const pb_split split = s.work.dtype == PB_BF16 ? pb_split_bf16(x, wide) : pb_split_f16(x, wide);
        put<uint16_t>(s.work.to, i, split.work);
        if (wide) put<int16_t>(s.master.to, i, split.residual);
        else put<int8_t>(s.master.to, i, (int8_t)split.residual);
        return;
    }
    if (s.master.dtype == PB_BF16) put<uint16_t>(s.master.to, i, rounded(s, PB_ADAMW_DRAW_WEIGHT, i, x));
    else put<float>(s.master.to, i, x);
    if (!s.work.to) return;
    if (s.work.dtype == PB_F32) put<float>(s.work.to, i, x);
    else put<uint16_t>(s.work.to, i, narrowed(s.work.dtype, x));
}

// largest: of the block's elements, for codes.
__device__ __forceinline__ void store_moment(const states &s, const place &p, bool first, int64_t i, float x,
                                             float largest) {
    if (p.dtype == PB_F32) {
        put<float>(p.to, i, x);
    } else if (p.dtype == PB_BF16) {
        put<uint16_t>(p.to, i, rounded(s, first ? PB_ADAMW_DRAW_M : PB_ADAMW_DRAW_V, i, x));
    } else {
        const float point = pb_block8_point(x, __fdiv_rn(1.0f, largest));
        put<uint8_t>(p.to, i,
                     largest == 0 ? (uint8_t)0 : pb_block8_code(point, block8_decades[!first], PB_BLOCK8_ZERO(first)));
    }
}

// The largest number that a thread of the block has, for every thread. Not negative, and no NaN.
__device__ __forceinline__ float block_most(float x, float *of_warps) {
    x = warp_most(x);
    if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = x;
    __syncthreads();
    return warp_most(threadIdx.x % 32 < blockDim.x / 32 ? of_warps[threadIdx.x % 32] : 0.0f);
}

__device__ __forceinline__ void keep(const place &p, int64_t i, int64_t count) {
    if (!p.from || !p.to || p.from == p.to || i >= count) return;
    switch (p.dtype) {
    case PB_F32: put<float>(p.to, i, get<float>(p.from, i)); break;
    case PB_U8:
    case PB_I8: put<uint8_t>(p.to, i, get<uint8_t>(p.from, i)); break;
    default: put<uint16_t>(p.to, i, get<uint16_t>(p.from, i)); break;
    }
}

// A skipped step leaves everything as it is, and makes a working copy that is not read.
__device__ __forceinline__ void keep_all(const states &s, int64_t i) {
    const int64_t blocks = (s.count + PB_BLOCK8 - 1) / PB_BLOCK8;
    keep(s.master, i, s.count);
    keep(s.m, i, s.count);
    keep(s.v, i, s.count);
    keep(s.work, i, s.count);
    keep(s.m_scales, i, blocks);
    keep(s.v_scales, i, blocks);
    if (!s.work.to || s.work.from || i >= s.count) return;
    const float x = load_weight(s, i);
    if (s.work.dtype == PB_F32) put<float>(s.work.to, i, x);
    else put<uint16_t>(s.work.to, i, narrowed(s.work.dtype, x));
}

template <typename T> __global__ void update(states s) {
    SHARED(float, first, PB_BLOCK8);
    SHARED(float, second, PB_BLOCK8);
    SHARED(float, first_of_warps, 32);
    SHARED(float, second_of_warps, 32);
    const int64_t begin = (int64_t)blockIdx.x * PB_BLOCK8;
    const int n = (int)min(s.count - begin, (int64_t)PB_BLOCK8);
    const float scale = s.control[PB_CONTROL_SCALE];
    if (s.control[PB_CONTROL_SKIP] != 0) {
        for (int k = (int)threadIdx.x; k < n; k += (int)blockDim.x) keep_all(s, begin + k);
        return;
    }
    float most_first = 0, most_second = 0;
    for (int k = (int)threadIdx.x; k < n; k += (int)blockDim.x) {
        const int64_t i = begin + k;
        float weight = load_weight(s, i), m = load_moment(s.m, s.m_scales, true, i);
        float v = load_moment(s.v, s.v_scales, false, i);
        adamw_step(s.hyper, scale, load_one(static_cast<const T *>(s.gradient) + i), &weight, &m, &v);
        store_weight(s, i, weight);
        first[k] = m;
        second[k] = v;
        most_first = pb_block8_largest(most_first, m);
        most_second = pb_block8_largest(most_second, v);
    }
    // The barrier in between also keeps old codes and scales from being overwritten before all threads have read them.
    most_first = block_most(most_first, first_of_warps);
    most_second = block_most(most_second, second_of_warps);
    for (int k = (int)threadIdx.x; k < n; k += (int)blockDim.x) {
        store_moment(s, s.m, true, begin + k, first[k], most_first);
        store_moment(s, s.v, false, begin + k, second[k], most_second);
    }
    if (threadIdx.x) return;
    if (s.m_scales.to) put<float>(s.m_scales.to, blockIdx.x, most_first);
    if (s.v_scales.to) put<float>(s.v_scales.to, blockIdx.x, most_second);
}

place place_of(const pb_kernel_args *args, int in, int out) {
    const pb_tensor *to = &args->out[out];
    return {args->in[in].data, to->data, to->dtype};
}

}  // namespace

// Of formats that are not all fp32; pb_cuda_adamw calls it.
extern "C" pb_status pb_cuda_adamw_states(const pb_kernel_args *args, void *stream) {
    const states s = {args->in[PB_ADAMW_GRADIENT].data,
                      static_cast<const float *>(args->in[PB_ADAMW_CONTROL].data),
                      static_cast<const float *>(args->in[PB_ADAMW_HYPER].data),
                      place_of(args, PB_ADAMW_MASTER, PB_ADAMW_NEW_MASTER),
                      place_of(args, PB_ADAMW_M, PB_ADAMW_NEW_M),
                      place_of(args, PB_ADAMW_V, PB_ADAMW_NEW_V),
                      place_of(args, PB_ADAMW_WORK, PB_ADAMW_NEW_WORK),
                      place_of(args, PB_ADAMW_M_SCALES, PB_ADAMW_NEW_M_SCALES),
                      place_of(args, PB_ADAMW_V_SCALES, PB_ADAMW_NEW_V_SCALES),
                      pb_shape_count(args->in[PB_ADAMW_GRADIENT].shape),
                      args->attr->adamw.first,
                      args->attr->adamw.stream};
    const unsigned threads = pb_cuda_threads < 256u ? pb_cuda_threads : 256u;  // PB_BLOCK8
    const dim3 grid((unsigned)divide_up(s.count, PB_BLOCK8));
    return with_dtype("adamw", args->in[PB_ADAMW_GRADIENT].dtype, [&](auto gradient) {
        return launch("adamw", update<decltype(gradient)>, grid, threads, 0, stream, s);
    });
}
