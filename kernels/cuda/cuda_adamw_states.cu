// AdamW with state in fewer bits (quant/), where any of a launch's parameters has such. Its roundings beyond AdamW's
// own are by the functions that define the codecs, and this file is compiled without contraction: the bits are those of
// every other backend.
#include "kernels/cuda/adamw.cuh"
#include "kernels/cuda/exact.cuh"

namespace {

// State in fewer bits. A warp takes a block of 256 elements, which share a scale where they are codes; a lane takes 8
// of them, which share a block of random bits where they are rounded stochastically.
constexpr int EACH = PB_PHILOX_ELEMENTS;
static_assert(EACH * 32 == (int)PB_BLOCK8 && (int)PB_BLOCK8 == (int)PB_STATE_BLOCK, "a block per warp");

struct operand {
    const void *in;
    void *out;
    int dtype;
};

enum { MASTER, MOMENT, VARIANCE, WORK, MOMENT_SCALES, VARIANCE_SCALES, OPERANDS };

struct states_item {
    const void *gradient;
    struct {
        const void *in;  // absent: NULL
        void *out;
    } place[OPERANDS];
    int64_t count, first;
    uint32_t stream, first_block;
    uint8_t gradient_dtype, dtype[OPERANDS];
    bool aligned;
    __device__ __forceinline__ operand at(int which) const {
        return {place[which].in, place[which].out, dtype[which]};
    }
};

struct states_table {
    states_item item[PB_CUDA_ADAMWS];
    const float *control, *hyper;
    int count;
};
static_assert(sizeof(states_table) <= MOST_ARGUMENT_BYTES, "what any driver takes as arguments");

// A parameter's step: what is in the table, and what of the random bits' key all parameters share.
struct adamw_states {
    operand master, m, v, work, m_scales, v_scales;
    int64_t first;
    uint32_t stream, seed, step;
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

__device__ __forceinline__ void read_floats(const void *p, int dtype, const run_of_eight &r, float (&x)[EACH]) {
    if (dtype == PB_F32) {
        read_raw(p, r, x);
        return;
    }
    uint16_t bits[EACH];
    read_raw(p, r, bits);
#pragma unroll
    for (int k = 0; k < EACH; k++) x[k] = dtype == PB_F16 ? to_float(pb_f16{bits[k]}) : to_float(pb_bf16{bits[k]});
}

__device__ __forceinline__ void write_nearest(void *p, int dtype, const run_of_eight &r, const float (&x)[EACH]) {
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
    key.seed = s.seed;
    key.step = s.step;
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

// A warp takes one block of elements and no more: in a loop the places of all operands would be kept in registers, 254
// of them instead of 80, and a multiprocessor would have a third of the warps.
__global__ void __launch_bounds__(BLOCK_LIMIT, 1) step_states(const GRID_CONSTANT states_table table) {
    SHARED(float, levels, 2 * 256);
    const states_item &item = table.item[item_of_block(table.item, table.count)];
    const float *hyper = table.hyper;
    const bool skip = table.control[PB_CONTROL_SKIP] != 0;
    if (item.dtype[MOMENT] == PB_U8 || item.dtype[VARIANCE] == PB_U8) {
        for (int i = (int)threadIdx.x; i < 2 * 256; i += (int)blockDim.x) levels[i] = block8_levels[i];
        __syncthreads();
    }
    const adamw_scalars scalars = scalars_of(hyper, table.control);
    adamw_states s;
    s.master = item.at(MASTER);
    s.m = item.at(MOMENT);
    s.v = item.at(VARIANCE);
    s.work = item.at(WORK);
    s.m_scales = item.at(MOMENT_SCALES);
    s.v_scales = item.at(VARIANCE_SCALES);
    s.first = item.first;
    s.stream = item.stream;
    s.seed = (uint32_t)hyper[PB_HYPER_SEED_LOW] | (uint32_t)hyper[PB_HYPER_SEED_HIGH] << 16;
    s.step = (uint32_t)hyper[PB_HYPER_STEP_LOW] | (uint32_t)hyper[PB_HYPER_STEP_HIGH] << 16;
    run_of_eight r;
    r.i = ((int64_t)(blockIdx.x - item.first_block) * (blockDim.x / 32) + threadIdx.x / 32) * PB_BLOCK8;
    if (r.i >= item.count) return;
    r.i += threadIdx.x % 32 * EACH;
    r.n = (int)max((int64_t)0, min((int64_t)EACH, item.count - r.i));
    r.whole = item.aligned && r.n == EACH;
    if (skip) {
        keep_all(s, r);
        return;
    }
    float p[EACH], m[EACH], v[EACH], g[EACH];
    read_floats(item.gradient, item.gradient_dtype, r, g);
    read_weight(s, r, p);
    read_moment(s.m, s.m_scales, levels, r, m);
    read_moment(s.v, s.v_scales, levels + 256, r, v);
#pragma unroll
    for (int k = 0; k < EACH; k++) update(scalars, g[k], p[k], m[k], v[k]);
    write_weight(s, r, p);
    write_moment<true>(s, s.m, s.m_scales, 1, r, m);
    write_moment<false>(s, s.v, s.v_scales, 2, r, v);
}

}  // namespace

pb_status pb_cuda_adamw_states(const pb_kernel_args *const *args, uint32_t count, void *stream) {
    static const struct {
        int input, output;
    } slots[OPERANDS] = {{PB_ADAMW_MASTER, PB_ADAMW_NEW_MASTER},
                         {PB_ADAMW_M, PB_ADAMW_NEW_M},
                         {PB_ADAMW_V, PB_ADAMW_NEW_V},
                         {PB_ADAMW_WORK, PB_ADAMW_NEW_WORK},
                         {PB_ADAMW_M_SCALES, PB_ADAMW_NEW_M_SCALES},
                         {PB_ADAMW_V_SCALES, PB_ADAMW_NEW_V_SCALES}};
    states_table table;
    uint64_t blocks = 0;
    for (uint32_t i = 0; i < count; i++) {
        states_item *item = &table.item[i];
        item->gradient = args[i]->in[PB_ADAMW_GRADIENT].data;
        item->gradient_dtype = (uint8_t)args[i]->in[PB_ADAMW_GRADIENT].dtype;
        item->aligned = is_aligned(item->gradient);
        for (int o = 0; o < OPERANDS; o++) {
            const pb_tensor *in = &args[i]->in[slots[o].input], *out = &args[i]->out[slots[o].output];
            item->place[o].in = in->data;
            item->place[o].out = out->data;
            item->dtype[o] = (uint8_t)(out->data ? out->dtype : in->dtype);
            if (o < MOMENT_SCALES) item->aligned = item->aligned && is_aligned(in->data) && is_aligned(out->data);
        }
        item->count = pb_shape_count(args[i]->in[PB_ADAMW_GRADIENT].shape);
        item->first = args[i]->attr->adamw.first;
        item->stream = args[i]->attr->adamw.stream;
        item->first_block = (uint32_t)blocks;
        blocks += (uint64_t)divide_up(item->count, pb_cuda_threads / 32 * (int64_t)PB_BLOCK8);
    }
    table.control = static_cast<const float *>(args[0]->in[PB_ADAMW_CONTROL].data);
    table.hyper = static_cast<const float *>(args[0]->in[PB_ADAMW_HYPER].data);
    table.count = (int)count;
    PB_RETURN_IF(check_count("adamw", (int64_t)blocks));
    return launch("adamw", step_states, dim3((unsigned)blocks), pb_cuda_threads, 0, stream, table);
}
