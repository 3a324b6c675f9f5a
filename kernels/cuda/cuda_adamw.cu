// AdamW with fp32 state (with state in fewer bits: cuda_adamw_states.cu). Every rounding is by name, and this file is
// compiled without contraction: the bits are those of every other backend.
//
// One launch does a run of parameters: what it has to know of each travels in a table among the kernel's arguments, so
// that there is nothing to allocate or to copy, and a graph keeps it by value. A parameter has as many blocks as spans.
#include "kernels/cuda/adamw.cuh"

namespace {

constexpr int64_t SPAN = 8192;  // elements of a block: some rounds of its threads

struct adamw_item {
    const void *gradient;
    const float *master, *m, *v;
    float *master_out, *m_out, *v_out;
    void *work;  // may be NULL
    int64_t count;
    uint32_t first_block;
    uint8_t gradient_dtype, work_dtype;
    bool aligned;
};

struct adamw_table {
    adamw_item item[PB_CUDA_ADAMWS_OF_FLOATS];
    const float *control, *hyper;
    int count;
};
static_assert(sizeof(adamw_table) <= MOST_ARGUMENT_BYTES, "what any driver takes as arguments");

template <int N> __device__ __forceinline__ void load_dtype(const void *p, int dtype, int64_t i, float (&x)[N]) {
    if (dtype == PB_F32)
        load<N>(static_cast<const float *>(p) + i, x);
    else if (dtype == PB_F16)
        load<N>(static_cast<const pb_f16 *>(p) + i, x);
    else
        load<N>(static_cast<const pb_bf16 *>(p) + i, x);
}

template <int N> __device__ __forceinline__ void store_dtype(void *p, int dtype, int64_t i, const float (&x)[N]) {
    if (dtype == PB_F32)
        store<N>(static_cast<float *>(p) + i, x);
    else if (dtype == PB_F16)
        store<N>(static_cast<pb_f16 *>(p) + i, x);
    else
        store<N>(static_cast<pb_bf16 *>(p) + i, x);
}

template <int N>
__device__ __forceinline__ void step_run(const adamw_item &p, const adamw_scalars &s, bool skip, int64_t i) {
    float weight[N];
    load<N>(p.master + i, weight);
    if (!skip) {
        float g[N], first[N], second[N];
        load_dtype<N>(p.gradient, p.gradient_dtype, i, g);
        load<N>(p.m + i, first);
        load<N>(p.v + i, second);
#pragma unroll
        for (int k = 0; k < N; k++) update(s, g[k], weight[k], first[k], second[k]);
        store<N>(p.master_out + i, weight);
        store<N>(p.m_out + i, first);
        store<N>(p.v_out + i, second);
    } else if (p.master_out != p.master) {
        float kept[N];
        store<N>(p.master_out + i, weight);
        load<N>(p.m + i, kept);
        store<N>(p.m_out + i, kept);
        load<N>(p.v + i, kept);
        store<N>(p.v_out + i, kept);
    }
    if (p.work) store_dtype<N>(p.work, p.work_dtype, i, weight);
}

__global__ void __launch_bounds__(BLOCK_LIMIT, 1) step_floats(const GRID_CONSTANT adamw_table table) {
    constexpr int WIDTH = VECTOR<float>;
    const adamw_item &p = table.item[item_of_block(table.item, table.count)];
    const int64_t begin = (int64_t)(blockIdx.x - p.first_block) * SPAN;
    const int count = (int)min(SPAN, p.count - begin), runs = p.aligned ? count / WIDTH : 0;
    const bool skip = table.control[PB_CONTROL_SKIP] != 0;
    const adamw_scalars s = scalars_of(table.hyper, table.control);
    for (int i = (int)threadIdx.x; i < runs; i += (int)blockDim.x) step_run<WIDTH>(p, s, skip, begin + i * WIDTH);
    for (int i = runs * WIDTH + (int)threadIdx.x; i < count; i += (int)blockDim.x) step_run<1>(p, s, skip, begin + i);
}

pb_status launch_floats(const pb_kernel_args *const *args, uint32_t count, void *stream) {
    adamw_table table;
    uint64_t blocks = 0;
    for (uint32_t i = 0; i < count; i++) {
        const pb_tensor *in = args[i]->in, *out = args[i]->out, *work = &out[PB_ADAMW_NEW_WORK];
        adamw_item *p = &table.item[i];
        p->gradient = in[PB_ADAMW_GRADIENT].data;
        p->master = static_cast<const float *>(in[PB_ADAMW_MASTER].data);
        p->m = static_cast<const float *>(in[PB_ADAMW_M].data);
        p->v = static_cast<const float *>(in[PB_ADAMW_V].data);
        p->master_out = static_cast<float *>(out[PB_ADAMW_NEW_MASTER].data);
        p->m_out = static_cast<float *>(out[PB_ADAMW_NEW_M].data);
        p->v_out = static_cast<float *>(out[PB_ADAMW_NEW_V].data);
        p->work = work->data;
        p->gradient_dtype = (uint8_t)in[PB_ADAMW_GRADIENT].dtype;
        p->work_dtype = (uint8_t)work->dtype;
        p->count = pb_shape_count(in[PB_ADAMW_GRADIENT].shape);
        p->aligned = is_aligned(p->gradient) && is_aligned(p->work) && are_aligned(&in[3], &in[4], &in[5]) &&
                     are_aligned(&out[0], &out[1], &out[2]);
        p->first_block = (uint32_t)blocks;
        blocks += (uint64_t)divide_up(p->count, SPAN);
    }
    table.control = static_cast<const float *>(args[0]->in[PB_ADAMW_CONTROL].data);
    table.hyper = static_cast<const float *>(args[0]->in[PB_ADAMW_HYPER].data);
    table.count = (int)count;
    PB_RETURN_IF(check_count("adamw", (int64_t)blocks));
    return launch("adamw", step_floats, dim3((unsigned)blocks), pb_cuda_threads, 0, stream, table);
}

}  // namespace

extern "C" pb_status pb_cuda_adamws(const pb_kernel_args *const *args, uint32_t count, void *stream) {
    for (uint32_t i = 0; i < count; i++)
        if (!pb_cuda_adamw_is_float(args[i])) return pb_cuda_adamw_states(args, count, stream);
    return launch_floats(args, count, stream);
}

extern "C" pb_status pb_cuda_adamw(const pb_kernel_args *args, void *stream) {
    return pb_cuda_adamws(&args, 1, stream);
}
