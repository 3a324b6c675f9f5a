// The loss, gradient accumulation, and the norm of the gradients.
#include <float.h>

#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/elements.cuh"

namespace {

// pred[N,size] target[N,size] -> loss[N]; a block per image. Squares and sums in double, as everywhere: losses are
// small.
template <typename T>
__global__ void __launch_bounds__(2 * BLOCK_LIMIT, 1)
    mse(const T *pred, const float *target, float *loss, int64_t size) {
    const T *p = pred + blockIdx.x * size;
    const float *t = target + blockIdx.x * size;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
        const double off = (double)(load_one(p + i) - t[i]);
        sum += off * off;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) loss[blockIdx.x] = (float)(sum / (double)size);
}

template <typename T> struct mse_bwd_body {
    static constexpr int WIDTH = VECTOR<T>;
    const T *pred;
    const float *target, *weight, *scale;
    T *dpred;
    uint32_t size;  // elements of an image
    template <int N> __device__ void run(int64_t i) const {
        const uint32_t image = (uint32_t)i / size;
        const float factor = (float)((double)scale[0] * (double)weight[image] * 2 / (double)size);
        float p[N], t[N];
        load<N>(pred + i, p);
        load<N>(target + i, t);
#pragma unroll
        for (int k = 0; k < N; k++) p[k] = factor * (p[k] - t[k]);
        store<N>(dpred + i, p);
    }
};

template <typename T> struct accumulate_body {
    static constexpr int WIDTH = VECTOR<T>;
    const T *g;
    const float *sum;
    float *out;
    template <int N> __device__ void run(int64_t i) const {
        float x[N], total[N];
        load<N>(g + i, x);
        load<N>(sum + i, total);
#pragma unroll
        for (int k = 0; k < N; k++) total[k] += x[k];
        store<N>(out + i, total);
    }
};

// The squares of a run: added in float, which consumer cards do 64 times as fast, and again in double where those
// overflow though the gradients are finite.
template <int N, typename T> __device__ __forceinline__ double squares(const T *g) {
    float x[N], sum = 0;
    load<N>(g, x);
#pragma unroll
    for (int k = 0; k < N; k++) sum += x[k] * x[k];
    if (sum <= FLT_MAX) return (double)sum;
    double wide = 0;
#pragma unroll
    for (int k = 0; k < N; k++) wide += (double)x[k] * (double)x[k];
    return wide;
}

constexpr int64_t NORM_SPAN = 128 * 1024;  // elements that one block of grad_norm adds up

// out[block] = the sum of the squares of its span; where before is not NULL (one block) with what it holds.
template <typename T>
__global__ void __launch_bounds__(2 * BLOCK_LIMIT, 1)
    sum_of_squares(const T *g, int64_t count, bool aligned, const double *before, double *out) {
    const int64_t begin = blockIdx.x * NORM_SPAN, end = begin + NORM_SPAN < count ? begin + NORM_SPAN : count;
    const int64_t runs = aligned ? (end - begin) / VECTOR<T> : 0;
    double sum = 0;
    for (int64_t i = threadIdx.x; i < runs; i += blockDim.x) sum += squares<VECTOR<T>>(g + begin + i * VECTOR<T>);
    for (int64_t i = begin + runs * VECTOR<T> + threadIdx.x; i < end; i += blockDim.x) sum += squares<1>(g + i);
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = before ? *before + sum : sum;
}

__global__ void __launch_bounds__(2 * BLOCK_LIMIT, 1)
    add_sums(const double *sums, int64_t count, const double *before, double *out) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *out = *before + sum;
}

// torch.nn.utils.clip_grad_norm_ after unscaling; one thread.
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    control_step(const double *squares_sum, const float *hyper, float *control) {
    if (threadIdx.x) return;
    const double unscale = (double)hyper[PB_HYPER_INV_LOSS_SCALE], norm = sqrt(*squares_sum) * unscale;
    const bool skip = !(norm <= (double)FLT_MAX);
    control[PB_CONTROL_NORM] = (float)norm;
    control[PB_CONTROL_SCALE] =
        skip ? 0.0f : (float)(unscale * fmin(1.0, (double)hyper[PB_HYPER_MAX_NORM] / (norm + 1e-6)));
    control[PB_CONTROL_SKIP] = skip ? 1.0f : 0.0f;
    control[PB_CONTROL_COUNT - 1] = 0.0f;
}
static_assert(PB_CONTROL_SKIP == PB_CONTROL_COUNT - 2, "control_step writes every element");

}  // namespace

// in: pred[N,..] target[N,..]   out: loss[N]
extern "C" pb_status pb_cuda_mse_loss(const pb_kernel_args *args, void *stream) {
    const pb_tensor *pred = &args->in[0];
    const int64_t images = pred->shape.dim[0], size = pb_shape_count(pred->shape) / images;
    return with_dtype("mse_loss", pred->dtype, [&](auto element) {
        using T = decltype(element);
        return launch("mse_loss", mse<T>, dim3((unsigned)images), 2 * pb_cuda_threads, 0, stream,
                      static_cast<const T *>(pred->data), static_cast<const float *>(args->in[1].data),
                      static_cast<float *>(args->out[0].data), size);
    });
}

extern "C" pb_status pb_cuda_mse_loss_bwd(const pb_kernel_args *args, void *stream) {
    const pb_tensor *pred = &args->in[0], *target = &args->in[1], *dpred = &args->out[0];
    const int64_t count = pb_shape_count(pred->shape), size = count / pred->shape.dim[0];
    PB_RETURN_IF(check_count("mse_loss_bwd", count));
    return with_dtype("mse_loss_bwd", pred->dtype, [&](auto element) {
        using T = decltype(element);
        const mse_bwd_body<T> body = {static_cast<const T *>(pred->data),
                                      static_cast<const float *>(target->data),
                                      static_cast<const float *>(args->in[2].data),
                                      static_cast<const float *>(args->in[3].data),
                                      static_cast<T *>(dpred->data),
                                      (uint32_t)size};
        return launch_over("mse_loss_bwd", body, count, are_aligned(pred, target, dpred), size, stream);
    });
}

extern "C" pb_status pb_cuda_accumulate(const pb_kernel_args *args, void *stream) {
    const pb_tensor *g = &args->in[0], *sum = &args->in[1], *out = &args->out[0];
    return with_dtype("accumulate", g->dtype, [&](auto element) {
        using T = decltype(element);
        const accumulate_body<T> body = {static_cast<const T *>(g->data), static_cast<const float *>(sum->data),
                                         static_cast<float *>(out->data)};
        return launch_over("accumulate", body, pb_shape_count(g->shape), are_aligned(g, sum, out), 0, stream);
    });
}

extern "C" uint64_t pb_cuda_grad_norm_workspace(const pb_kernel_args *args) {
    const int64_t blocks = divide_up(pb_shape_count(args->in[0].shape), NORM_SPAN);
    return blocks > 1 ? (uint64_t)blocks * sizeof(double) : 0;
}

extern "C" pb_status pb_cuda_grad_norm(const pb_kernel_args *args, void *stream) {
    const pb_tensor *g = &args->in[0];
    const int64_t count = pb_shape_count(g->shape), blocks = divide_up(count, NORM_SPAN);
    const double *before = static_cast<const double *>(args->in[1].data);
    double *out = static_cast<double *>(args->out[0].data), *sums = static_cast<double *>(args->workspace);
    const unsigned threads = 2 * pb_cuda_threads;
    PB_RETURN_IF(with_dtype("grad_norm", g->dtype, [&](auto element) {
        using T = decltype(element);
        return launch("grad_norm", sum_of_squares<T>, dim3((unsigned)blocks), threads, 0, stream,
                      static_cast<const T *>(g->data), count, is_aligned(g->data), blocks > 1 ? NULL : before,
                      blocks > 1 ? sums : out);
    }));
    if (blocks <= 1) return PB_OK;
    return launch("grad_norm", add_sums, dim3(1), threads, 0, stream, static_cast<const double *>(sums), blocks, before,
                  out);
}

extern "C" pb_status pb_cuda_step_control(const pb_kernel_args *args, void *stream) {
    return launch("step_control", control_step, dim3(1), 32, 0, stream, static_cast<const double *>(args->in[0].data),
                  static_cast<const float *>(args->in[1].data), static_cast<float *>(args->out[0].data));
}
