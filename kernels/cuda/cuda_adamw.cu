// AdamW, with fp32 state and with state in fewer bits. Every rounding is by name or by the functions that define the
// codecs (quant/), and this file is compiled without contraction: the bits are those of every other backend.
#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/exact.cuh"

namespace {

struct adamw_scalars {
    float scale, decay, one_minus_beta1, beta2, one_minus_beta2, sqrt_bias2, eps, take;
};

__device__ __forceinline__ adamw_scalars scalars_of(const float *hyper, const float *control) {
    return {control[PB_CONTROL_SCALE], hyper[PB_HYPER_DECAY],           hyper[PB_HYPER_ONE_MINUS_BETA1],
            hyper[PB_HYPER_BETA2],     hyper[PB_HYPER_ONE_MINUS_BETA2], hyper[PB_HYPER_SQRT_BIAS2],
            hyper[PB_HYPER_EPS],       -hyper[PB_HYPER_STEP_SIZE]};
}

// pb_adamw_element of kernels/adamw.h.
__device__ __forceinline__ void update(const adamw_scalars &s, float gradient, float &p, float &m, float &v) {
    const float g = __fmul_rn(gradient, s.scale);
    m = __fmaf_rn(__fsub_rn(g, m), s.one_minus_beta1, m);
    v = __fmaf_rn(__fmul_rn(g, g), s.one_minus_beta2, __fmul_rn(v, s.beta2));
    const float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), s.sqrt_bias2), s.eps);
    p = __fmaf_rn(s.take, __fdiv_rn(m, denominator), __fmul_rn(p, s.decay));
}

template <typename T, typename Work> struct adamw_body {
    static constexpr int WIDTH = VECTOR<float>;
    const T *gradient;
    const float *control, *hyper, *master, *m, *v;
    float *master_out, *m_out, *v_out;
    Work *work;  // may be NULL
    template <int N> __device__ void run(int64_t i) const {
        float weight[N];
        load<N>(master + i, weight);
        if (control[PB_CONTROL_SKIP] == 0) {
            const adamw_scalars s = scalars_of(hyper, control);
            float g[N], first[N], second[N];
            load<N>(gradient + i, g);
            load<N>(m + i, first);
            load<N>(v + i, second);
#pragma unroll
            for (int k = 0; k < N; k++) update(s, g[k], weight[k], first[k], second[k]);
            store<N>(master_out + i, weight);
            store<N>(m_out + i, first);
            store<N>(v_out + i, second);
        } else if (master_out != master) {
            float kept[N];
            store<N>(master_out + i, weight);
            load<N>(m + i, kept);
            store<N>(m_out + i, kept);
            load<N>(v + i, kept);
            store<N>(v_out + i, kept);
        }
        if (work) store<N>(work + i, weight);
    }
};

template <typename T, typename Work> pb_status adamw(const pb_kernel_args *args, void *stream) {
    const pb_tensor *in = args->in, *out = args->out;
    const adamw_body<T, Work> body = {static_cast<const T *>(in[0].data),     static_cast<const float *>(in[1].data),
                                      static_cast<const float *>(in[2].data), static_cast<const float *>(in[3].data),
                                      static_cast<const float *>(in[4].data), static_cast<const float *>(in[5].data),
                                      static_cast<float *>(out[0].data),      static_cast<float *>(out[1].data),
                                      static_cast<float *>(out[2].data),      static_cast<Work *>(out[3].data)};
    const bool aligned = are_aligned(&in[0], &in[3], &in[4]) && are_aligned(&in[5], &out[0], &out[1]) &&
                         are_aligned(&out[2], &out[3], &out[3]);
    return launch_over("adamw", body, pb_shape_count(in[0].shape), aligned, 0, stream);
}

// State in fewer bits. A warp takes a block of 256 elements, which share a scale where they are codes; a lane takes 8
// of them, which share a block of random bits where they are rounded stochastically.
constexpr int EACH = PB_PHILOX_ELEMENTS;
static_assert(EACH * 32 == (int)PB_BLOCK8 && (int)PB_BLOCK8 == (int)PB_STATE_BLOCK, "a block per warp");

struct operand {
    const void *in;
    void *out;
    pb_dtype dtype;
};

struct adamw_states {
    const void *gradient;
    pb_dtype gradient_dtype;
    const float *control, *hyper;
    operand master, m, v, work, m_scales, v_scales;  // absent: NULL
    int64_t count, first;
    uint32_t stream;
    bool aligned;
};

// A lane's elements: `n` of them from index i, in one access where that is all 8.
struct run_of_eight {
    int64_t i;
    int n;
    bool whole;
};

// Raw elements of 1, 2 or 4 bytes: one access of 8 or 16 bytes, or two.
template <typename U> using access_of = std::conditional_t<sizeof(U) == 1, uint2, uint4>;
template <typename U> union raw_run {
    U element[EACH];
    access_of<U> access[sizeof(U) == 4 ? 2 : 1];
};

template <typename U> __device__ __forceinline__ void read_raw(const void *p, const run_of_eight &r, U (&to)[EACH]) {
    const U *from = static_cast<const U *>(p) + r.i;
    raw_run<U> raw;
    if (r.whole) {
#pragma unroll
        for (size_t k = 0; k < sizeof raw / sizeof raw.access[0]; k++)
            raw.access[k] = reinterpret_cast<const access_of<U> *>(from)[k];
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) to[k] = r.whole ? raw.element[k] : k < r.n ? from[k] : U(0);
}

template <typename U> __device__ __forceinline__ void write_raw(void *p, const run_of_eight &r, const U (&from)[EACH]) {
    U *to = static_cast<U *>(p) + r.i;
    if (r.whole) {
        raw_run<U> raw;
#pragma unroll
        for (int k = 0; k < EACH; k++) raw.element[k] = from[k];
#pragma unroll
        for (size_t k = 0; k < sizeof raw / sizeof raw.access[0]; k++)
            reinterpret_cast<access_of<U> *>(to)[k] = raw.access[k];
        return;
    }
#pragma unroll
    for (int k = 0; k < EACH; k++)
        if (k < r.n) to[k] = from[k];
}

__device__ __forceinline__ void read_floats(const void *p, pb_dtype dtype, const run_of_eight &r, float (&x)[EACH]) {
    if (dtype == PB_F32) {
        read_raw(p, r, x);
        return;
    }
    uint16_t bits[EACH];
    read_raw(p, r, bits);
#pragma unroll
    for (int k = 0; k < EACH; k++) x[k] = dtype == PB_F16 ? to_float(pb_f16{bits[k]}) : to_float(pb_bf16{bits[k]});
}

__device__ __forceinline__ void write_nearest(void *p, pb_dtype dtype, const run_of_eight &r, const float (&x)[EACH]) {
    if (dtype == PB_F32) {
        write_raw(p, r, x);
        return;
    }
    uint16_t bits[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) bits[k] = dtype == PB_F16 ? bits_of<pb_f16>(x[k]) : bits_of<pb_bf16>(x[k]);
    write_raw(p, r, bits);
}

// `draw`: a pb_adamw_draw of kernels/adamw.h, in the same order there.
__device__ __forceinline__ void write_stochastic(const adamw_states &s, void *p, uint32_t draw, const run_of_eight &r,
                                                 const float (&x)[EACH]) {
    pb_random_key key;
    key.seed = (uint32_t)s.hyper[PB_HYPER_SEED_LOW] | (uint32_t)s.hyper[PB_HYPER_SEED_HIGH] << 16;
    key.step = (uint32_t)s.hyper[PB_HYPER_STEP_LOW] | (uint32_t)s.hyper[PB_HYPER_STEP_HIGH] << 16;
    key.stream = s.stream * 4 + draw;
    uint32_t words[4];
    pb_philox_block(&key, (uint64_t)(s.first + r.i) / EACH, words);
    uint16_t bits[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++)
        bits[k] = pb_round_stochastic(x[k], k % 2 ? words[k / 2] >> 16 : words[k / 2] & 0xffffu);
    write_raw(p, r, bits);
}

// `map`: the levels, in shared memory.
__device__ __forceinline__ void read_moment(const operand &o, const operand &scales, const float *map,
                                            const run_of_eight &r, float (&x)[EACH]) {
    if (o.dtype != PB_U8) {
        read_floats(o.in, o.dtype, r, x);
        return;
    }
    uint8_t codes[EACH];
    read_raw(o.in, r, codes);
    const float scale = static_cast<const float *>(scales.in)[r.i / PB_BLOCK8];
#pragma unroll
    for (int k = 0; k < EACH; k++) x[k] = __fmul_rn(map[codes[k]], scale);
}

// By the whole warp.
template <bool SIGNED>
__device__ __forceinline__ void write_moment(const adamw_states &s, const operand &o, const operand &scales,
                                             uint32_t draw, const run_of_eight &r, const float (&x)[EACH]) {
    if (o.dtype != PB_U8) {
        if (o.dtype == PB_BF16)
            write_stochastic(s, o.out, draw, r, x);
        else
            write_raw(o.out, r, x);
        return;
    }
    float largest = 0;
#pragma unroll
    for (int k = 0; k < EACH; k++)
        if (k < r.n) largest = pb_block8_largest(largest, x[k]);
    largest = warp_most(largest);
    if (threadIdx.x % 32 == 0) static_cast<float *>(scales.out)[r.i / PB_BLOCK8] = largest;
    const float inverse = __fdiv_rn(1.0f, largest);
    uint8_t codes[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) codes[k] = largest == 0 ? 0 : block8_code<SIGNED>(pb_block8_point(x[k], inverse));
    write_raw(o.out, r, codes);
}

__device__ __forceinline__ void read_residuals(const operand &master, const run_of_eight &r, int16_t (&to)[EACH]) {
    if (master.dtype == PB_I16) {
        read_raw(master.in, r, to);
        return;
    }
    int8_t narrow[EACH];
    read_raw(master.in, r, narrow);
#pragma unroll
    for (int k = 0; k < EACH; k++) to[k] = narrow[k];
}

__device__ __forceinline__ void write_residuals(const operand &master, const run_of_eight &r,
                                                const int16_t (&from)[EACH]) {
    if (master.dtype == PB_I16) {
        write_raw(master.out, r, from);
        return;
    }
    int8_t narrow[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) narrow[k] = (int8_t)from[k];
    write_raw(master.out, r, narrow);
}

__device__ __forceinline__ bool is_split(const adamw_states &s) {
    return s.master.dtype == PB_I16 || s.master.dtype == PB_I8;
}

__device__ __forceinline__ void read_weight(const adamw_states &s, const run_of_eight &r, float (&x)[EACH]) {
    if (!is_split(s)) {
        read_floats(s.master.in, s.master.dtype, r, x);
        return;
    }
    const bool wide = s.master.dtype == PB_I16;
    uint16_t work[EACH];
    int16_t residual[EACH];
    read_raw(s.work.in, r, work);
    read_residuals(s.master, r, residual);
#pragma unroll
    for (int k = 0; k < EACH; k++)
        x[k] = s.work.dtype == PB_BF16 ? pb_join_bf16(work[k], residual[k], wide)
                                       : pb_join_f16(work[k], residual[k], wide);
}

__device__ __forceinline__ void write_weight(const adamw_states &s, const run_of_eight &r, const float (&x)[EACH]) {
    if (!is_split(s)) {
        if (s.master.dtype == PB_BF16)
            write_stochastic(s, s.master.out, 0, r, x);
        else
            write_raw(s.master.out, r, x);
        if (s.work.out) write_nearest(s.work.out, s.work.dtype, r, x);
        return;
    }
    const bool wide = s.master.dtype == PB_I16;
    uint16_t work[EACH];
    int16_t residual[EACH];
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const pb_split split = s.work.dtype == PB_BF16 ? pb_split_bf16(x[k], wide) : pb_split_f16(x[k], wide);
        work[k] = split.work;
        residual[k] = split.residual;
    }
    write_raw(s.work.out, r, work);
    write_residuals(s.master, r, residual);
}

__device__ __forceinline__ void keep(const operand &o, const run_of_eight &r) {
    if (!o.in || !o.out || o.in == o.out) return;
    if (o.dtype == PB_F32) {
        float x[EACH];
        read_raw(o.in, r, x);
        write_raw(o.out, r, x);
    } else if (o.dtype == PB_U8 || o.dtype == PB_I8) {
        uint8_t x[EACH];
        read_raw(o.in, r, x);
        write_raw(o.out, r, x);
    } else {
        uint16_t x[EACH];
        read_raw(o.in, r, x);
        write_raw(o.out, r, x);
    }
}

// A skipped step leaves everything as it is, and makes a working copy that is not read.
__device__ __forceinline__ void keep_all(const adamw_states &s, const run_of_eight &r) {
    keep(s.master, r);
    keep(s.m, r);
    keep(s.v, r);
    keep(s.work, r);
    if (threadIdx.x % 32 == 0) {
        const int64_t block = r.i / PB_BLOCK8;
        const operand *scales[] = {&s.m_scales, &s.v_scales};
#pragma unroll
        for (int k = 0; k < 2; k++)
            if (scales[k]->in && scales[k]->in != scales[k]->out)
                static_cast<float *>(scales[k]->out)[block] = static_cast<const float *>(scales[k]->in)[block];
    }
    if (!s.work.out || s.work.in) return;
    float x[EACH];
    read_floats(s.master.in, s.master.dtype, r, x);
    write_nearest(s.work.out, s.work.dtype, r, x);
}

__global__ void __launch_bounds__(BLOCK_LIMIT, 1) step_states(adamw_states s) {
    SHARED(float, levels, 2 * 256);
    const bool skip = s.control[PB_CONTROL_SKIP] != 0;
    for (int i = (int)threadIdx.x; i < 2 * 256; i += (int)blockDim.x) levels[i] = block8_levels[i];
    __syncthreads();
    const adamw_scalars scalars = scalars_of(s.hyper, s.control);
    const int64_t blocks = (s.count + PB_BLOCK8 - 1) / PB_BLOCK8, warps = blockDim.x / 32;
    for (int64_t b = blockIdx.x * warps + threadIdx.x / 32; b < blocks; b += gridDim.x * warps) {
        run_of_eight r;
        r.i = b * PB_BLOCK8 + threadIdx.x % 32 * EACH;
        r.n = (int)max((int64_t)0, min((int64_t)EACH, s.count - r.i));
        r.whole = s.aligned && r.n == EACH;
        if (skip) {
            keep_all(s, r);
            continue;
        }
        float p[EACH], m[EACH], v[EACH], g[EACH];
        read_floats(s.gradient, s.gradient_dtype, r, g);
        read_weight(s, r, p);
        read_moment(s.m, s.m_scales, levels, r, m);
        read_moment(s.v, s.v_scales, levels + 256, r, v);
#pragma unroll
        for (int k = 0; k < EACH; k++) update(scalars, g[k], p[k], m[k], v[k]);
        write_weight(s, r, p);
        write_moment<true>(s, s.m, s.m_scales, 1, r, m);
        write_moment<false>(s, s.v, s.v_scales, 2, r, v);
    }
}

pb_status launch_states(const pb_kernel_args *args, void *stream) {
    const pb_tensor *in = args->in, *out = args->out;
    const auto both = [&](int input, int output) {
        const pb_dtype dtype = out[output].data ? out[output].dtype : in[input].dtype;
        return operand{in[input].data, out[output].data, dtype};
    };
    adamw_states s;
    s.gradient = in[PB_ADAMW_GRADIENT].data;
    s.gradient_dtype = in[PB_ADAMW_GRADIENT].dtype;
    s.control = static_cast<const float *>(in[PB_ADAMW_CONTROL].data);
    s.hyper = static_cast<const float *>(in[PB_ADAMW_HYPER].data);
    s.master = both(PB_ADAMW_MASTER, PB_ADAMW_NEW_MASTER);
    s.m = both(PB_ADAMW_M, PB_ADAMW_NEW_M);
    s.v = both(PB_ADAMW_V, PB_ADAMW_NEW_V);
    s.work = both(PB_ADAMW_WORK, PB_ADAMW_NEW_WORK);
    s.m_scales = both(PB_ADAMW_M_SCALES, PB_ADAMW_NEW_M_SCALES);
    s.v_scales = both(PB_ADAMW_V_SCALES, PB_ADAMW_NEW_V_SCALES);
    s.count = pb_shape_count(in[0].shape);
    s.first = args->attr->adamw.first;
    s.stream = args->attr->adamw.stream;
    s.aligned = is_aligned(s.gradient);
    const operand *all[] = {&s.master, &s.m, &s.v, &s.work};
    for (const operand *o : all) s.aligned = s.aligned && is_aligned(o->in) && is_aligned(o->out);
    const int64_t blocks = divide_up(s.count, (int64_t)PB_BLOCK8 * (pb_cuda_threads / 32));
    return launch("adamw", step_states, dim3((unsigned)(blocks < MOST_BLOCKS ? blocks : MOST_BLOCKS)), pb_cuda_threads,
                  0, stream, s);
}

}  // namespace

extern "C" pb_status pb_cuda_adamw(const pb_kernel_args *args, void *stream) {
    for (int i = PB_ADAMW_MASTER; i <= PB_ADAMW_V; i++)
        if (args->in[i].dtype != PB_F32) return launch_states(args, stream);
    return with_dtype("adamw", args->in[0].dtype, [&](auto gradient) {
        using T = decltype(gradient);
        if (!args->out[3].data) return adamw<T, T>(args, stream);
        return with_dtype("adamw", args->out[3].dtype,
                          [&](auto work) { return adamw<T, decltype(work)>(args, stream); });
    });
}
