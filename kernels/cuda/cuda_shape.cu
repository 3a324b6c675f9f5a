// Ops that move elements: concatenation, slices, embeddings.
#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/elements.cuh"

namespace {

// Rows are moved in units of 16, 4 or 2 bytes, by what divides all lengths; counts below are of units.
template <typename Unit> struct concat_body {
    static constexpr int WIDTH = 1;
    const Unit *a, *b;
    Unit *y;
    uint32_t a_width, b_width;
    template <int N> __device__ void run(int64_t i) const {
        const uint32_t row = (uint32_t)i / (a_width + b_width), c = (uint32_t)i - row * (a_width + b_width);
        y[i] = c < a_width ? a[(int64_t)row * a_width + c] : b[(int64_t)row * b_width + (c - a_width)];
    }
};

template <typename Unit> struct slice_body {
    static constexpr int WIDTH = 1;
    const Unit *x;  // from the first column of the slice
    Unit *y;
    uint32_t from, to;  // widths
    template <int N> __device__ void run(int64_t i) const {
        const uint32_t row = (uint32_t)i / to, c = (uint32_t)i - row * to;
        y[i] = x[(int64_t)row * from + c];
    }
};

// Runs f(unit) with the largest unit that divides all lengths and addresses, whose bits are in `all`.
template <class F> pb_status with_unit(uint64_t all, F f) {
    if (all % 16 == 0) return f(uint4());
    if (all % 4 == 0) return f(uint32_t());
    return f(uint16_t());
}

uint64_t address_bits(const pb_tensor *t) {
    return (uintptr_t)t->data;
}

template <typename T> struct embedding_body {
    static constexpr int WIDTH = VECTOR<T>;
    const int32_t *ids;
    const T *table, *positions;
    T *y;
    uint32_t channels, tokens;
    template <int N> __device__ void run(int64_t i) const {
        const uint32_t row = (uint32_t)i / channels, c = (uint32_t)i - row * channels;
        float word[N], position[N];
        load<N>(table + (int64_t)ids[row] * channels + c, word);
        load<N>(positions + (int64_t)(row % tokens) * channels + c, position);
#pragma unroll
        for (int k = 0; k < N; k++) word[k] += position[k];
        store<N>(y + i, word);
    }
};

// dy[rows,channels] -> dtable[ids], dpositions[tokens]. Blocks 0..rows-1 belong to tokens: the first one with an id
// adds up all that have it, in their order. The blocks after them belong to positions. Either table may be NULL.
// blockIdx.y: a block's width of channels. Ids are looked at by the whole block, one each thread, and rows that do not
// have them cost nothing more: no sorting would be faster at the thousand tokens of a batch.
template <typename T, typename To>
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    gather_rows(const T *dy, const int32_t *ids, To *dtable, To *dpositions, int rows, int tokens, int channels) {
    SHARED(uint32_t, who, BLOCK_LIMIT / 32);  // a bit per row of the block's width of rows
    const bool of_token = blockIdx.x < (unsigned)rows;
    const int first = of_token ? (int)blockIdx.x : (int)blockIdx.x - rows, id = of_token ? ids[first] : 0;
    const int c = (int)(blockIdx.y * blockDim.x + threadIdx.x), width = (int)blockDim.x;
    To *to = of_token ? dtable : dpositions;
    float sum = 0;
    if (!to) return;
    if (!of_token) {
        for (int r = first; c < channels && r < rows; r += tokens) sum += load_one(dy + (int64_t)r * channels + c);
    } else {
        bool seen = false;
        for (int r = (int)threadIdx.x; r < first; r += width) seen = seen || ids[r] == id;
        if (__syncthreads_or(seen)) return;
        for (int begin = first; begin < rows; begin += width) {
            const int r = begin + (int)threadIdx.x;
            const uint32_t mine = __ballot_sync(WHOLE_WARP, r < rows && ids[r] == id);
            if (threadIdx.x % 32 == 0) who[threadIdx.x / 32] = mine;
            if (!__syncthreads_or(mine != 0)) continue;
            for (int word = 0; word < width / 32; word++)
                for (uint32_t left = who[word]; left && c < channels; left &= left - 1)
                    sum += load_one(dy + (int64_t)(begin + word * 32 + __ffs((int)left) - 1) * channels + c);
            __syncthreads();
        }
    }
    if (c < channels) store_one(to + (int64_t)(of_token ? id : first) * channels + c, sum);
}

// Exponents, frequencies and angles are rounded to float as in diffusers' get_timestep_embedding (see the reference).
template <typename T>
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    sinusoids(const float *t, T *y, int images, int channels, bool cosines_first, float rate, float shift) {
    const int half = channels / 2;
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < images * half; i += (int)(gridDim.x * blockDim.x)) {
        const int n = i / half, k = i % half;
        const float exponent = __fdiv_rn(__fmul_rn(rate, (float)k), (float)half - shift);
        const double angle = (double)__fmul_rn(t[n], (float)exp((double)exponent));
        T *row = y + (int64_t)n * channels;
        store_one(row + (cosines_first ? half : 0) + k, (float)sin(angle));
        store_one(row + (cosines_first ? 0 : half) + k, (float)cos(angle));
        if (k == 0 && channels % 2) store_one(row + channels - 1, 0.0f);
    }
}

}  // namespace

// in: a[R,Ca] b[R,Cb]   out: y[R,Ca+Cb]
extern "C" pb_status pb_cuda_concat(const pb_kernel_args *args, void *stream) {
    const pb_tensor *a = &args->in[0], *b = &args->in[1], *y = &args->out[0];
    const int64_t size = (int64_t)pb_dtype_size(y->dtype);
    const int64_t a_bytes = pb_shape_last(a->shape) * size, b_bytes = pb_shape_last(b->shape) * size;
    const int64_t rows = pb_shape_rows(y->shape);
    const uint64_t all = address_bits(a) | address_bits(b) | address_bits(y) | (uint64_t)(a_bytes | b_bytes);
    return with_unit(all, [&](auto unit) {
        using Unit = decltype(unit);
        const int64_t width = sizeof(Unit), count = rows * (a_bytes + b_bytes) / width;
        const concat_body<Unit> body = {static_cast<const Unit *>(a->data), static_cast<const Unit *>(b->data),
                                        static_cast<Unit *>(y->data), (uint32_t)(a_bytes / width),
                                        (uint32_t)(b_bytes / width)};
        PB_RETURN_IF(check_count("concat", count));
        return launch_over("concat", body, count, true, 0, stream);
    });
}

// in: x[R,C]   out: y[R,length]
extern "C" pb_status pb_cuda_slice(const pb_kernel_args *args, void *stream) {
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    const int64_t size = (int64_t)pb_dtype_size(y->dtype), begin = args->attr->slice.begin * size;
    const int64_t from = pb_shape_last(x->shape) * size, to = pb_shape_last(y->shape) * size;
    const char *first = static_cast<const char *>(x->data) + begin;
    return with_unit((uintptr_t)first | address_bits(y) | (uint64_t)(from | to), [&](auto unit) {
        using Unit = decltype(unit);
        const int64_t width = sizeof(Unit), count = pb_shape_rows(y->shape) * to / width;
        const slice_body<Unit> body = {reinterpret_cast<const Unit *>(first), static_cast<Unit *>(y->data),
                                       (uint32_t)(from / width), (uint32_t)(to / width)};
        PB_RETURN_IF(check_count("slice", count));
        return launch_over("slice", body, count, true, 0, stream);
    });
}

// in: ids[N,T] table[V,C] positions[P,C]   out: y[N,T,C]
extern "C" pb_status pb_cuda_embedding(const pb_kernel_args *args, void *stream) {
    const pb_tensor *ids = &args->in[0], *table = &args->in[1], *positions = &args->in[2], *y = &args->out[0];
    const int64_t channels = pb_shape_last(y->shape), count = pb_shape_count(y->shape);
    PB_RETURN_IF(check_count("embedding", count));
    return with_dtype("embedding", y->dtype, [&](auto element) {
        using T = decltype(element);
        const embedding_body<T> body = {static_cast<const int32_t *>(ids->data),
                                        static_cast<const T *>(table->data),
                                        static_cast<const T *>(positions->data),
                                        static_cast<T *>(y->data),
                                        (uint32_t)channels,
                                        (uint32_t)ids->shape.dim[1]};
        return launch_over("embedding", body, count, are_aligned(table, positions, y), channels, stream);
    });
}

// in: dy[N,T,C] ids[N,T]   out: dtable[V,C]? dpositions[P,C]?
extern "C" pb_status pb_cuda_embedding_bwd(const pb_kernel_args *args, void *stream) {
    const pb_tensor *dy = &args->in[0], *ids = &args->in[1], *dtable = &args->out[0], *dpositions = &args->out[1];
    const int64_t rows = pb_shape_count(ids->shape), tokens = ids->shape.dim[1], channels = pb_shape_last(dy->shape);
    for (int i = 0; i < 2; i++) {
        const pb_tensor *out = &args->out[i];
        const size_t bytes = (size_t)pb_shape_count(out->shape) * pb_dtype_size(out->dtype);
        if (out->data) PB_RETURN_IF(set_zero("embedding_bwd", out->data, bytes, stream));
    }
    return with_dtype("embedding_bwd", dy->dtype, [&](auto from) {
        using T = decltype(from);
        return with_dtype("embedding_bwd", (dtable->data ? dtable : dpositions)->dtype, [&](auto to) {
            using To = decltype(to);
            return launch("embedding_bwd", gather_rows<T, To>,
                          dim3((unsigned)(rows + tokens), (unsigned)divide_up(channels, pb_cuda_threads)),
                          pb_cuda_threads, 0, stream, static_cast<const T *>(dy->data),
                          static_cast<const int32_t *>(ids->data), static_cast<To *>(dtable->data),
                          static_cast<To *>(dpositions->data), (int)rows, (int)tokens, (int)channels);
        });
    });
}

// in: t[N]   out: y[N,C]
extern "C" pb_status pb_cuda_timestep_embedding(const pb_kernel_args *args, void *stream) {
    const pb_tensor *t = &args->in[0], *y = &args->out[0];
    const pb_attr *attr = args->attr;
    const int64_t images = pb_shape_count(t->shape), channels = pb_shape_last(y->shape);
    const float rate = (float)-log((double)attr->timestep.max_period);
    return with_dtype("timestep_embedding", y->dtype, [&](auto element) {
        using T = decltype(element);
        return launch("timestep_embedding", sinusoids<T>, dim3((unsigned)divide_up(images * channels, 64)), 32, 0,
                      stream, static_cast<const float *>(t->data), static_cast<T *>(y->data), (int)images,
                      (int)channels, attr->timestep.flip_sin_to_cos, rate, attr->timestep.freq_shift);
    });
}
