// Group normalisation (with SiLU) over NHWC and its gradient. Channels lie across the threads (columns.cuh), so every
// access is of whole lines however narrow a group is.
//
// Forward: blocks leave sums of d and d^2 per group, d = x - pivot, the mean of some of the group's own elements, so
// that the variance does not cancel; a second kernel normalises. Backward: sums of dz and dz * unit per channel, which
// are also the gradients of beta and gamma; one block per group weighs them with gamma; a third kernel writes dx.
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/columns.cuh"

namespace {

constexpr int MOST_SLAB = 2048;  // channels, by shared memory

struct grouping {
    int groups, span;  // span: channels of a group
    float eps;
    bool silu;
};

// The mean of up to 32 elements of a group that lie apart, by one warp.
template <typename T>
__device__ __forceinline__ float pivot_of(const T *x, const column_plan &plan, int span, int64_t image, int channel) {
    const int across = span < 32 ? span : 32, apart = 32 / across;
    const int64_t pixels = plan.rows < apart ? plan.rows : apart, step = plan.rows / pixels;
    const int lane = (int)(threadIdx.x % 32), samples = (int)pixels * across;
    float sample = 0;
    if (lane < samples) {
        const int64_t row = image * plan.rows + lane / across * step;
        sample = load_one(x + row * plan.channels + channel + lane % across);
    }
    return warp_sum(sample) / (float)samples;
}

template <typename T, int V> struct moments_body {
    static constexpr int SUMS = 2;
    const T *x;
    const float *pivots;  // of the slab's groups, in shared memory
    int channel, span;    // channel: the slab's first
    float pivot[V];
    __device__ void begin(int, int c) {
#pragma unroll
        for (int k = 0; k < V; k++) pivot[k] = pivots[(c + k - channel) / span];
    }
    __device__ void add(int64_t at, int64_t, float (&sums)[2][V]) const {
        float value[V];
        load<V>(x + at, value);
#pragma unroll
        for (int k = 0; k < V; k++) {
            const float d = value[k] - pivot[k];
            sums[0][k] += d;
            sums[1][k] += d * d;
        }
    }
};

// partials[image][chunk][group][2], pivots[image][group]
template <typename T, int V>
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    group_moments(const T *x, column_plan plan, grouping g, float *partials, float *pivots) {
    DYNAMIC_SHARED(float, shared);
    const column_block b = column_block_of(plan);
    const int warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32, lane = (int)threadIdx.x % 32;
    const int groups = b.width / g.span, first = b.channel / g.span;
    for (int i = warp; i < groups; i += warps) {
        const float pivot = pivot_of(x, plan, g.span, b.image, b.channel + i * g.span);
        if (lane == 0) shared[i] = pivot;
        if (lane == 0 && blockIdx.x == 0) pivots[(int64_t)b.image * g.groups + first + i] = pivot;
    }
    __syncthreads();
    moments_body<T, V> body;
    body.x = x;
    body.pivots = shared;
    body.channel = b.channel;
    body.span = g.span;
    const float *totals = sum_columns<V>(body, plan, b, shared + groups);
    float *to = partials + (((int64_t)b.image * plan.chunks + blockIdx.x) * g.groups + first) * 2;
    for (int i = warp; i < groups; i += warps) {
        float sum = 0, square = 0;
        for (int c = lane; c < g.span; c += 32) {
            sum += totals[i * g.span + c];
            square += totals[b.width + i * g.span + c];
        }
        sum = warp_sum(sum);
        square = warp_sum(square);
        if (lane == 0) {
            to[2 * i] = sum;
            to[2 * i + 1] = square;
        }
    }
}

// The slab's groups' mean and 1/std to shared memory, from what group_moments left.
__device__ __forceinline__ void finish_moments(const column_plan &plan, const column_block &b, const grouping &g,
                                               const float *partials, const float *pivots, float *shared) {
    const int warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32, lane = (int)threadIdx.x % 32;
    const int groups = b.width / g.span, first = b.channel / g.span;
    const float size = (float)plan.rows * (float)g.span;
    for (int i = warp; i < groups; i += warps) {
        const float *from = partials + ((int64_t)b.image * plan.chunks * g.groups + first + i) * 2;
        float sum = 0, square = 0;
        for (int chunk = lane; chunk < plan.chunks; chunk += 32) {
            sum += from[(int64_t)chunk * g.groups * 2];
            square += from[(int64_t)chunk * g.groups * 2 + 1];
        }
        const float off = warp_sum(sum) / size, variance = warp_sum(square) / size - off * off;
        if (lane == 0) {
            shared[2 * i] = pivots[(int64_t)b.image * g.groups + first + i] + off;
            shared[2 * i + 1] = 1.0f / sqrtf(fmaxf(variance, 0.0f) + g.eps);
        }
    }
    __syncthreads();
}

template <typename T, int V>
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    normalise(const T *x, const float *gamma, const float *beta, T *y, float *stats, column_plan plan, grouping g,
              const float *partials, const float *pivots) {
    DYNAMIC_SHARED(float, shared);
    const column_block b = column_block_of(plan);
    const int groups = b.width / g.span;
    finish_moments(plan, b, g, partials, pivots, shared);
    if (stats && blockIdx.x == 0)
        for (int i = (int)threadIdx.x; i < 2 * groups; i += (int)blockDim.x)
            stats[((int64_t)b.image * g.groups + b.channel / g.span) * 2 + i] = shared[i];
    for (int done = 0; done < b.width; done += (int)blockDim.x * V) {
        const column_tile t = column_tile_of<V>(b.width - done);
        if (t.lane >= t.lanes) continue;
        const int c = done + t.column * V;
        float mean[V], scale[V], shift[V], value[V];
        load<V>(gamma + b.channel + c, scale);
        load<V>(beta + b.channel + c, shift);
#pragma unroll
        for (int k = 0; k < V; k++) {
            const int i = (c + k) / g.span;
            mean[k] = shared[2 * i];
            scale[k] *= shared[2 * i + 1];
        }
        const int64_t at = ((int64_t)b.image * plan.rows + b.row + t.lane) * plan.channels + b.channel + c;
        const int rows = (int)(b.end - b.row), step = t.lanes * plan.channels;
        const T *from = x + at;
        T *to = y + at;
        const auto finish = [&](float(&v)[V], T *place) {
#pragma unroll
            for (int k = 0; k < V; k++) {
                v[k] = (v[k] - mean[k]) * scale[k] + shift[k];
                // Rounded before SiLU, as separate ops would.
                if (g.silu) v[k] = activation<PB_UNARY_SILU>(round_to<T>(v[k]));
            }
            store<V>(place, v);
        };
        // Two rows at a time: y may be x, so the compiler would not load the second before the first is stored.
        int row = t.lane;
        for (; row + t.lanes < rows; row += 2 * t.lanes, from += 2 * step, to += 2 * step) {
            float next[V];
            load<V>(from, value);
            load<V>(from + step, next);
            finish(value, to);
            finish(next, to + step);
        }
        if (row < rows) {
            load<V>(from, value);
            finish(value, to);
        }
    }
}

template <typename T> struct group_parts {
    const T *dy, *x;
    const float *gamma, *beta, *stats;
    const T *addend;  // may be NULL
    int groups, span;
    bool silu;
};

// What a column of V channels needs of its groups.
template <int V> struct group_column { float mean[V], inverse[V], gamma[V], beta[V]; };

template <int V, typename T>
__device__ __forceinline__ void load_column(const group_parts<T> &in, int image, int c, group_column<V> &column) {
    load<V>(in.gamma + c, column.gamma);
    load<V>(in.beta + c, column.beta);
#pragma unroll
    for (int k = 0; k < V; k++) {
        const int64_t group = (int64_t)image * in.groups + (c + k) / in.span;
        column.mean[k] = in.stats[2 * group];
        column.inverse[k] = in.stats[2 * group + 1];
    }
}

// dz: dy carried back through SiLU; unit: the normalised x.
template <int V, typename T>
__device__ __forceinline__ void load_pair(const group_parts<T> &in, const group_column<V> &column, int64_t at,
                                          float (&dz)[V], float (&unit)[V]) {
    load<V>(in.dy + at, dz);
    load<V>(in.x + at, unit);
#pragma unroll
    for (int k = 0; k < V; k++) {
        unit[k] = (unit[k] - column.mean[k]) * column.inverse[k];
        if (in.silu) dz[k] *= activation_slope<PB_UNARY_SILU>(unit[k] * column.gamma[k] + column.beta[k]);
    }
}

template <typename T, int V> struct gradient_body {
    static constexpr int SUMS = 2;
    group_parts<T> in;
    group_column<V> column;
    __device__ void begin(int image, int c) {
        load_column<V>(in, image, c, column);
    }
    __device__ void add(int64_t at, int64_t, float (&sums)[2][V]) const {
        float dz[V], unit[V];
        load_pair<V>(in, column, at, dz, unit);
#pragma unroll
        for (int k = 0; k < V; k++) {
            sums[0][k] += dz[k];
            sums[1][k] += dz[k] * unit[k];
        }
    }
};

// totals[image][2][channel] of all chunks, and factors[image][group][2]: their means over the group, weighed with
// gamma. A block per group and image: the group's channels across its threads, chunks across what threads are left.
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    weigh_groups(const float *partials, const float *gamma, column_plan plan, int span, float *totals, float *factors) {
    DYNAMIC_SHARED(float, shared);  // [sum][lane][column]
    const int64_t image = blockIdx.y, sums = 2 * (int64_t)plan.channels;
    const int columns = min(span, (int)blockDim.x), lanes = (int)blockDim.x / columns;
    const int lane = (int)threadIdx.x / columns, column = (int)threadIdx.x - lane * columns;
    float sum = 0, product = 0;
    for (int done = 0; done < span; done += columns) {
        const int i = done + column, c = (int)blockIdx.x * span + i;
        float first = 0, second = 0;
        if (lane < lanes && i < span) {
            const float *from = partials + image * plan.chunks * sums + c;
            for (int chunk = lane; chunk < plan.chunks; chunk += lanes) {
                first += from[chunk * sums];
                second += from[chunk * sums + plan.channels];
            }
            shared[lane * columns + column] = first;
            shared[blockDim.x + lane * columns + column] = second;
        }
        __syncthreads();
        if (lane == 0 && i < span) {
            for (int l = 1; l < lanes; l++) {
                first += shared[l * columns + column];
                second += shared[blockDim.x + l * columns + column];
            }
            totals[image * sums + c] = first;
            totals[image * sums + plan.channels + c] = second;
            sum += first * gamma[c];
            product += second * gamma[c];
        }
    }  // a second round has one lane, which reads nothing of what is shared
    sum = block_sum(sum);
    product = block_sum(product);
    if (threadIdx.x) return;
    const float size = (float)plan.rows * (float)span;
    factors[(image * gridDim.x + blockIdx.x) * 2] = sum / size;
    factors[(image * gridDim.x + blockIdx.x) * 2 + 1] = product / size;
}

// dx, and by the first chunk of the first image, which has least to wait for, dgamma and dbeta. Each may be NULL.
template <typename T, int V>
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    group_norm_bwd(group_parts<T> in, column_plan plan, const float *totals, const float *factors, T *dx, float *dgamma,
                   float *dbeta) {
    const column_block b = column_block_of(plan);
    if (b.image == 0 && blockIdx.x == 0) {
        for (int c = b.channel + (int)threadIdx.x; c < b.channel + b.width; c += (int)blockDim.x) {
            float sum = 0, product = 0;
            for (int64_t n = 0; n < plan.images; n++) {
                sum += totals[n * 2 * plan.channels + c];
                product += totals[(n * 2 + 1) * plan.channels + c];
            }
            if (dgamma) dgamma[c] = product;
            if (dbeta) dbeta[c] = sum;
        }
    }
    for (int done = 0; dx && done < b.width; done += (int)blockDim.x * V) {
        const column_tile t = column_tile_of<V>(b.width - done);
        if (t.lane >= t.lanes) continue;
        const int c = b.channel + done + t.column * V;
        group_column<V> column;
        float sum[V], product[V], dz[V], unit[V];
        load_column<V>(in, b.image, c, column);
#pragma unroll
        for (int k = 0; k < V; k++) {
            const int64_t group = (int64_t)b.image * in.groups + (c + k) / in.span;
            sum[k] = factors[2 * group];
            product[k] = factors[2 * group + 1];
        }
        const auto finish = [&](float(&slope)[V], float(&x)[V], int64_t at) {
#pragma unroll
            for (int k = 0; k < V; k++)
                slope[k] = column.inverse[k] * (slope[k] * column.gamma[k] - sum[k] - product[k] * x[k]);
            if (in.addend) add_rounded<V>(in.addend + at, slope);
            store<V>(dx + at, slope);
        };
        // Two rows at a time, as in normalise.
        const int64_t step = (int64_t)t.lanes * plan.channels;
        int64_t row = b.row + t.lane, at = ((int64_t)b.image * plan.rows + row) * plan.channels + c;
        for (; row + t.lanes < b.end; row += 2 * t.lanes, at += 2 * step) {
            float next[V], next_unit[V];
            load_pair<V>(in, column, at, dz, unit);
            load_pair<V>(in, column, at + step, next, next_unit);
            finish(dz, unit, at);
            finish(next, next_unit, at + step);
        }
        if (row < b.end) {
            load_pair<V>(in, column, at, dz, unit);
            finish(dz, unit, at);
        }
    }
}

int64_t greatest_common(int64_t a, int64_t b) {
    return b ? greatest_common(b, a % b) : a;
}

// Slabs are of whole groups and whole runs; `in_runs` is taken back where that makes them too wide.
column_plan plan_of(const pb_tensor *x, int groups, int v, bool *in_runs) {
    const int64_t images = x->shape.dim[0], channels = pb_shape_last(x->shape), span = channels / groups;
    const int64_t both = span / greatest_common(span, v) * v;
    *in_runs = *in_runs && channels % v == 0 && both <= SLAB_CHANNELS;
    return column_plan_of(images, pb_shape_rows(x->shape) / images, channels, *in_runs ? both : span);
}

pb_status check_slab(const char *op, const column_plan &plan) {
    if (plan.slab <= MOST_SLAB) return PB_OK;
    return pb_error(PB_ERR_UNSUPPORTED, "the CUDA kernel of %s has no path for groups of %d channels, at most %d", op,
                    plan.slab, MOST_SLAB);
}

}  // namespace

extern "C" uint64_t pb_cuda_group_norm_workspace(const pb_kernel_args *args) {
    const int groups = args->attr->norm.groups;
    bool in_runs = false;
    const column_plan plan = plan_of(&args->in[0], groups, 1, &in_runs);
    return (uint64_t)plan.images * (2 * (uint64_t)plan.chunks + 1) * (uint64_t)groups * sizeof(float);
}

// in: x gamma beta   out: y stats[N,G,2]?
extern "C" pb_status pb_cuda_group_norm(const pb_kernel_args *args, void *stream) {
    const pb_tensor *x = &args->in[0], *gamma = &args->in[1], *beta = &args->in[2], *y = &args->out[0];
    const char *op = "group_norm";
    return with_dtype(op, x->dtype, [&](auto element) {
        using T = decltype(element);
        constexpr int V = VECTOR<T>;
        bool in_runs = are_aligned(x, gamma, beta) && is_aligned(y->data);
        const int groups = args->attr->norm.groups;
        const column_plan plan = plan_of(x, groups, V, &in_runs);
        const grouping g = {groups, plan.channels / groups, args->attr->norm.eps, args->attr->norm.silu};
        float *partials = static_cast<float *>(args->workspace);
        float *pivots = partials + (int64_t)plan.images * plan.chunks * groups * 2;
        const unsigned threads = pb_cuda_threads;
        const size_t in_slab = (size_t)(plan.slab / g.span) * sizeof(float);
        PB_RETURN_IF(check_slab(op, plan));
        PB_RETURN_IF(launch(op, in_runs ? group_moments<T, V> : group_moments<T, 1>, column_grid(plan), threads,
                            in_slab + column_sums_shared(plan, threads, in_runs ? V : 1, 2), stream,
                            static_cast<const T *>(x->data), plan, g, partials, pivots));
        return launch(op, in_runs ? normalise<T, V> : normalise<T, 1>, column_grid(plan), threads, 2 * in_slab, stream,
                      static_cast<const T *>(x->data), static_cast<const float *>(gamma->data),
                      static_cast<const float *>(beta->data), static_cast<T *>(y->data),
                      static_cast<float *>(args->out[1].data), plan, g, static_cast<const float *>(partials),
                      static_cast<const float *>(pivots));
    });
}

extern "C" uint64_t pb_cuda_group_norm_bwd_workspace(const pb_kernel_args *args) {
    bool in_runs = false;
    const int groups = args->attr->norm.groups;
    const column_plan plan = plan_of(&args->in[1], groups, 1, &in_runs);
    const uint64_t sums = ((uint64_t)plan.chunks + 1) * (uint64_t)plan.channels * 2;
    return (uint64_t)plan.images * (sums + 2 * (uint64_t)groups) * sizeof(float);
}

// in: dy x gamma beta stats addend?   out: dx? dgamma? dbeta?
extern "C" pb_status pb_cuda_group_norm_bwd(const pb_kernel_args *args, void *stream) {
    const pb_tensor *in = args->in, *out = args->out;
    const char *op = "group_norm_bwd";
    return with_dtype(op, in[1].dtype, [&](auto element) {
        using T = decltype(element);
        constexpr int V = VECTOR<T>;
        bool in_runs = are_aligned(&in[0], &in[1], &in[2]) && are_aligned(&in[3], &in[5], &out[0]);
        const int groups = args->attr->norm.groups;
        const column_plan plan = plan_of(&in[1], groups, V, &in_runs);
        const group_parts<T> parts = {static_cast<const T *>(in[0].data),
                                      static_cast<const T *>(in[1].data),
                                      static_cast<const float *>(in[2].data),
                                      static_cast<const float *>(in[3].data),
                                      static_cast<const float *>(in[4].data),
                                      static_cast<const T *>(in[5].data),
                                      groups,
                                      plan.channels / groups,
                                      args->attr->norm.silu};
        float *partials = static_cast<float *>(args->workspace);
        float *totals = partials + (int64_t)plan.images * plan.chunks * plan.channels * 2;
        float *factors = totals + (int64_t)plan.images * plan.channels * 2;
        const unsigned threads = pb_cuda_threads;
        PB_RETURN_IF(check_slab(op, plan));
        const size_t shared = column_sums_shared(plan, threads, in_runs ? V : 1, 2);
        float *const none = NULL;
        if (in_runs)
            PB_RETURN_IF(launch(op, column_partials<V, gradient_body<T, V>, float>, column_grid(plan), threads, shared,
                                stream, gradient_body<T, V>{parts, {}}, plan, partials, none, none));
        else
            PB_RETURN_IF(launch(op, column_partials<1, gradient_body<T, 1>, float>, column_grid(plan), threads, shared,
                                stream, gradient_body<T, 1>{parts, {}}, plan, partials, none, none));
        PB_RETURN_IF(launch(op, weigh_groups, dim3((unsigned)groups, (unsigned)plan.images), threads,
                            2 * threads * sizeof(float), stream, static_cast<const float *>(partials), parts.gamma,
                            plan, parts.span, totals, factors));
        column_plan grid = plan;
        if (!out[0].data) grid.chunks = grid.images = 1;
        return launch(op, in_runs ? group_norm_bwd<T, V> : group_norm_bwd<T, 1>, column_grid(grid), threads, 0, stream,
                      parts, plan, static_cast<const float *>(totals), static_cast<const float *>(factors),
                      static_cast<T *>(out[0].data), static_cast<float *>(out[1].data),
                      static_cast<float *>(out[2].data));
    });
}
