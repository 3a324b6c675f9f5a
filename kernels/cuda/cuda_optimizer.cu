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
    static constexpr int WIDTH = VECTOR<float>;
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
    static constexpr int WIDTH = VECTOR<float>;
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
template <int N> __device__ __forceinline__ double squares(const float (&x)[N]) {
    float sum = 0;
#pragma unroll
    for (int k = 0; k < N; k++) sum += x[k] * x[k];
    if (sum <= FLT_MAX) return (double)sum;
    double wide = 0;
#pragma unroll
    for (int k = 0; k < N; k++) wide += (double)x[k] * (double)x[k];
    return wide;
}

// Elements that one block of grad_norm adds up, in few rounds: a gradient of a million then has blocks for most of a
// card, and no thread waits for memory more than once or twice.
constexpr int64_t NORM_SPAN = 16 * 1024;
constexpr int AT_ONCE = 4;  // runs of a thread that are under way together

// This thread's share of the squares of g[count].
template <typename T> __device__ __forceinline__ double share_of_squares(const T *g, int count, bool aligned) {
    constexpr int N = VECTOR<T>;
    const int runs = aligned ? count / N : 0, step = (int)blockDim.x;
    double sum = 0;
    for (int i = (int)threadIdx.x; i < runs; i += AT_ONCE * step) {
        float x[AT_ONCE][N];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            if (i + k * step < runs) {
                load<N>(g + (i + k * step) * N, x[k]);
            } else {
#pragma unroll
                for (int j = 0; j < N; j++) x[k][j] = 0;
            }
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) sum += squares<N>(x[k]);
    }
    for (int i = runs * N + (int)threadIdx.x; i < count; i += step) {
        const float x[1] = {load_one(g + i)};
        sum += squares<1>(x);
    }
    return sum;
}

// out[block] = the sum of the squares of its span.
template <typename T>
__global__ void __launch_bounds__(2 * BLOCK_LIMIT, 1)
    sum_of_squares(const T *g, int64_t count, bool aligned, double *out) {
    const int64_t begin = blockIdx.x * NORM_SPAN, left = count - begin;
    const double sum = block_sum(share_of_squares(g + begin, (int)(left < NORM_SPAN ? left : NORM_SPAN), aligned));
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Gradients of one span or less, in the order of their sums.
constexpr uint32_t MOST_SMALL = 8;
struct small_gradients {
    struct {
        const void *data;
        pb_dtype dtype;
        int count;
    } item[MOST_SMALL];
    int count;
};

// *out = *before, the `count` sums together, and then the squares of one small gradient after another; one block.
__global__ void __launch_bounds__(2 * BLOCK_LIMIT, 1)
    add_squares(const double *sums, int64_t count, small_gradients small, const double *before, double *out) {
    double norm = *before;
    if (count > 0) {
        double sum = 0;
        for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += sums[i];
        norm += block_sum(sum);
    }
    for (int k = 0; k < small.count; k++) {
        const void *data = small.item[k].data;
        const int n = small.item[k].count;
        const bool aligned = ((uintptr_t)data & 15) == 0;
        double sum;
        if (small.item[k].dtype == PB_F16)
            sum = share_of_squares(static_cast<const pb_f16 *>(data), n, aligned);
        else if (small.item[k].dtype == PB_BF16)
            sum = share_of_squares(static_cast<const pb_bf16 *>(data), n, aligned);
        else
            sum = share_of_squares(static_cast<const float *>(data), n, aligned);
        norm += block_sum(sum);
    }
    if (threadIdx.x == 0) *out = norm;
}

// torch.nn.utils.clip_grad_norm_ after unscaling; one thread. The norm is rounded by name, lest its product be
// contracted with the sum below: the CPU's bits.
__global__ void __launch_bounds__(BLOCK_LIMIT, 1)
    control_step(const double *squares_sum, const float *hyper, float *control) {
    if (threadIdx.x) return;
    const double unscale = (double)hyper[PB_HYPER_INV_LOSS_SCALE], norm = __dmul_rn(sqrt(*squares_sum), unscale);
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

extern "C" uint32_t pb_cuda_grad_norms_at_once(const pb_kernel_args *const *args, uint32_t count) {
    uint32_t n = count > 0;
    while (n < count && n < MOST_SMALL && args[n]->in[1].data == args[n]->out[0].data &&
           args[n]->in[1].data == args[n - 1]->out[0].data && pb_shape_count(args[n]->in[0].shape) <= NORM_SPAN)
        n++;
    return n;
}

extern "C" pb_status pb_cuda_grad_norms(const pb_kernel_args *const *args, uint32_t number, void *stream) {
    const int64_t count = pb_shape_count(args[0]->in[0].shape), blocks = divide_up(count, NORM_SPAN);
    const double *before = static_cast<const double *>(args[0]->in[1].data);
    double *out = static_cast<double *>(args[0]->out[0].data), *sums = static_cast<double *>(args[0]->workspace);
    const unsigned threads = 2 * pb_cuda_threads;
    small_gradients small = {};
    if (blocks > 1) {
        const pb_tensor *g = &args[0]->in[0];
        PB_RETURN_IF(with_dtype("grad_norm", g->dtype, [&](auto element) {
            using T = decltype(element);
            return launch("grad_norm", sum_of_squares<T>, dim3((unsigned)blocks), threads, 0, stream,
                          static_cast<const T *>(g->data), count, is_aligned(g->data), sums);
        }));
    }
    for (uint32_t i = blocks > 1 ? 1 : 0; i < number; i++) {
        const pb_tensor *g = &args[i]->in[0];
        small.item[small.count++] = {g->data, g->dtype, (int)pb_shape_count(g->shape)};
    }
    return launch("grad_norm", add_squares, dim3(1), threads, 0, stream, static_cast<const double *>(sums),
                  blocks > 1 ? blocks : 0, small, before, out);
}

extern "C" pb_status pb_cuda_grad_norm(const pb_kernel_args *args, void *stream) {
    return pb_cuda_grad_norms(&args, 1, stream);
}

extern "C" pb_status pb_cuda_step_control(const pb_kernel_args *args, void *stream) {
    return launch("step_control", control_step, dim3(1), 32, 0, stream, static_cast<const double *>(args->in[0].data),
                  static_cast<const float *>(args->in[1].data), static_cast<float *>(args->out[0].data));
}
