// Layer normalisation over the last dimension and its gradient. A warp takes a row; the row's second and third reading
// come from the first-level cache. The gradients of gamma and beta are sums of columns.
#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/columns.cuh"

namespace {

constexpr int WARP = 32;

__device__ __forceinline__ int64_t row_of_warp() {
    return (int64_t)blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
}

template <typename T, int V>
__global__ void __launch_bounds__(BLOCK_LIMIT, 1) layer_norm(const T *x, const float *gamma, const float *beta, T *y,
                                                             float *stats, int64_t rows, int channels, float eps) {
    const int64_t row = row_of_warp();
    const int first = (int)(threadIdx.x % WARP) * V;
    if (row >= rows) return;
    x += row * channels;
    float value[V], sum = 0, square = 0;
    for (int c = first; c < channels; c += WARP * V) {
        load<V>(x + c, value);
#pragma unroll
        for (int k = 0; k < V; k++) sum += value[k];
    }
    const float mean = warp_sum(sum) / (float)channels;
    for (int c = first; c < channels; c += WARP * V) {
        load<V>(x + c, value);
#pragma unroll
        for (int k = 0; k < V; k++) square += (value[k] - mean) * (value[k] - mean);
    }
    const float inverse = 1.0f / sqrtf(warp_sum(square) / (float)channels + eps);
    for (int c = first; c < channels; c += WARP * V) {
        float scale[V], shift[V];
        load<V>(x + c, value);
        load<V>(gamma + c, scale);
        load<V>(beta + c, shift);
#pragma unroll
        for (int k = 0; k < V; k++) value[k] = (value[k] - mean) * inverse * scale[k] + shift[k];
        store<V>(y + row * channels + c, value);
    }
    if (stats && threadIdx.x % WARP == 0) {
        stats[2 * row] = mean;
        stats[2 * row + 1] = inverse;
    }
}

template <typename T> struct gradient_parts {
    const T *dy, *x;
    const float *gamma, *stats;
    const T *addend;  // may be NULL
};

template <typename T, int V>
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    layer_norm_bwd(gradient_parts<T> in, T *dx, int64_t rows, int channels) {
    const int64_t row = row_of_warp(), at = row * channels;
    const int first = (int)(threadIdx.x % WARP) * V;
    if (row >= rows) return;
    const float mean = in.stats[2 * row], inverse = in.stats[2 * row + 1];
    float dz[V], unit[V], gamma[V], sum = 0, product = 0;
    const auto read = [&](int c) {  // dy gamma, and the normalised x
        load<V>(in.dy + at + c, dz);
        load<V>(in.x + at + c, unit);
        load<V>(in.gamma + c, gamma);
#pragma unroll
        for (int k = 0; k < V; k++) {
            dz[k] *= gamma[k];
            unit[k] = (unit[k] - mean) * inverse;
        }
    };
    for (int c = first; c < channels; c += WARP * V) {
        read(c);
#pragma unroll
        for (int k = 0; k < V; k++) {
            sum += dz[k];
            product += dz[k] * unit[k];
        }
    }
    sum = warp_sum(sum) / (float)channels;
    product = warp_sum(product) / (float)channels;
    for (int c = first; c < channels; c += WARP * V) {
        read(c);
#pragma unroll
        for (int k = 0; k < V; k++) dz[k] = inverse * (dz[k] - sum - product * unit[k]);
        if (in.addend) add_rounded<V>(in.addend + at + c, dz);
        store<V>(dx + at + c, dz);
    }
}

// Sums of dy and of dy times the normalised x: dbeta and dgamma.
template <typename T> struct parameters {
    template <int V> struct body {
        static constexpr int SUMS = 2;
        gradient_parts<T> parts;
        __device__ void begin(int, int) {
        }
        __device__ void add(int64_t at, int64_t row, float (&sums)[2][V]) const {
            float dy[V], x[V];
            load<V>(parts.dy + at, dy);
            load<V>(parts.x + at, x);
            const float mean = parts.stats[2 * row], inverse = parts.stats[2 * row + 1];
#pragma unroll
            for (int k = 0; k < V; k++) {
                sums[0][k] += dy[k];
                sums[1][k] += dy[k] * ((x[k] - mean) * inverse);
            }
        }
    };
};

dim3 grid_of_rows(int64_t rows) {
    return dim3((unsigned)divide_up(rows, pb_cuda_threads / WARP));
}

}  // namespace

extern "C" pb_status pb_cuda_layer_norm(const pb_kernel_args *args, void *stream) {
    const pb_tensor *x = &args->in[0], *gamma = &args->in[1], *beta = &args->in[2], *y = &args->out[0];
    const int64_t rows = pb_shape_rows(x->shape), channels = pb_shape_last(x->shape);
    return with_dtype("layer_norm", x->dtype, [&](auto element) {
        using T = decltype(element);
        const bool in_runs = channels % VECTOR<T> == 0 && are_aligned(x, gamma, beta) && is_aligned(y->data);
        return launch("layer_norm", in_runs ? layer_norm<T, VECTOR<T>> : layer_norm<T, 1>, grid_of_rows(rows),
                      pb_cuda_threads, 0, stream, static_cast<const T *>(x->data),
                      static_cast<const float *>(gamma->data), static_cast<const float *>(beta->data),
                      static_cast<T *>(y->data), static_cast<float *>(args->out[1].data), rows, (int)channels,
                      args->attr->norm.eps);
    });
}

extern "C" uint64_t pb_cuda_layer_norm_bwd_workspace(const pb_kernel_args *args) {
    const pb_shape x = args->in[1].shape;
    return 2 * pb_cuda_column_sums_workspace(1, pb_shape_rows(x), pb_shape_last(x));
}

// in: dy x gamma stats addend?   out: dx? dgamma? dbeta?
extern "C" pb_status pb_cuda_layer_norm_bwd(const pb_kernel_args *args, void *stream) {
    const pb_tensor *in = args->in, *out = args->out;
    const int64_t rows = pb_shape_rows(in[1].shape), channels = pb_shape_last(in[1].shape);
    return with_dtype("layer_norm_bwd", in[1].dtype, [&](auto element) {
        using T = decltype(element);
        const gradient_parts<T> parts = {static_cast<const T *>(in[0].data), static_cast<const T *>(in[1].data),
                                         static_cast<const float *>(in[2].data), static_cast<const float *>(in[3].data),
                                         static_cast<const T *>(in[4].data)};
        const bool in_runs =
            channels % VECTOR<T> == 0 && are_aligned(&in[0], &in[1], &in[2]) && are_aligned(&in[4], &out[0], &out[0]);
        // First the sums: dx may be dy.
        if (out[1].data || out[2].data)
            PB_RETURN_IF((launch_column_sums<parameters<T>::template body, VECTOR<T>>(
                "layer_norm_bwd", parts, column_plan_of(1, rows, channels, in_runs ? VECTOR<T> : 1), in_runs,
                static_cast<float *>(args->workspace), static_cast<float *>(out[2].data),
                static_cast<float *>(out[1].data), stream)));
        if (!out[0].data) return PB_OK;
        return launch("layer_norm_bwd", in_runs ? layer_norm_bwd<T, VECTOR<T>> : layer_norm_bwd<T, 1>,
                      grid_of_rows(rows), pb_cuda_threads, 0, stream, parts, static_cast<T *>(out[0].data), rows,
                      (int)channels);
    });
}
