// Sums of columns: sum_pixels and the gradients of biases.
#include "kernels/cuda/columns.cuh"

namespace {

template <typename T> struct plain_parts { const T *x; };

template <typename T> struct plain {
    template <int V> struct body {
        static constexpr int SUMS = 1;
        plain_parts<T> parts;
        __device__ void begin(int, int) {
        }
        __device__ void add(int64_t at, int64_t, float (&sums)[1][V]) const {
            float x[V];
            load<V>(parts.x + at, x);
#pragma unroll
            for (int k = 0; k < V; k++) sums[0][k] += x[k];
        }
    };
};

}  // namespace

extern "C" uint64_t pb_cuda_column_sums_workspace(int64_t images, int64_t rows, int64_t channels) {
    const column_plan plan = column_plan_of(images, rows, channels, 1);
    return (uint64_t)(images * plan.chunks * channels) * sizeof(float);
}

extern "C" pb_status pb_cuda_column_sums(const pb_cuda_column_sums_args *args, void *stream) {
    const char *op = "column sums";
    return with_dtype(op, args->dtype, [&](auto element) {
        using T = decltype(element);
        const bool in_runs = args->channels % VECTOR<T> == 0 && is_aligned(args->x);
        const column_plan plan = column_plan_of(args->images, args->rows, args->channels, in_runs ? VECTOR<T> : 1);
        const plain_parts<T> parts = {static_cast<const T *>(args->x)};
        return with_dtype(op, args->sums_dtype, [&](auto sum) {
            using To = decltype(sum);
            return launch_column_sums<plain<T>::template body, VECTOR<T>>(
                op, parts, plan, in_runs, static_cast<float *>(args->workspace), static_cast<To *>(args->sums),
                static_cast<To *>(NULL), stream);
        });
    });
}

// in: x[N,..,C]   out: y[N,C]
extern "C" uint64_t pb_cuda_sum_pixels_workspace(const pb_kernel_args *args) {
    const pb_shape x = args->in[0].shape;
    return pb_cuda_column_sums_workspace(x.dim[0], pb_shape_rows(x) / x.dim[0], pb_shape_last(x));
}

extern "C" pb_status pb_cuda_sum_pixels(const pb_kernel_args *args, void *stream) {
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    const int64_t images = x->shape.dim[0];
    const pb_cuda_column_sums_args sums = {
        x->data,        x->dtype, y->dtype, y->data, images, pb_shape_rows(x->shape) / images, pb_shape_last(x->shape),
        args->workspace};
    return pb_cuda_column_sums(&sums, stream);
}
