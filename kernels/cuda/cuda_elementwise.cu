// unary, geglu, their gradients, add, cast, and what follows a contraction. One thread takes a run of 4 or 8 elements.
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/elements.cuh"

unsigned pb_cuda_threads = 256;

namespace {

template <typename T, int KIND> struct unary_body {
    static constexpr int WIDTH = VECTOR<T>;
    const T *x;
    T *y;
    template <int N> __device__ void run(int64_t i) const {
        float value[N];
        load<N>(x + i, value);
#pragma unroll
        for (int k = 0; k < N; k++) value[k] = activation<KIND>(value[k]);
        store<N>(y + i, value);
    }
};

template <typename T, int KIND> struct unary_bwd_body {
    static constexpr int WIDTH = VECTOR<T>;
    const T *dy, *x;
    T *dx;
    template <int N> __device__ void run(int64_t i) const {
        float upstream[N], value[N];
        load<N>(dy + i, upstream);
        load<N>(x + i, value);
#pragma unroll
        for (int k = 0; k < N; k++) value[k] = upstream[k] * activation_slope<KIND>(value[k]);
        store<N>(dx + i, value);
    }
};

// Element i of y[R,width] and its row's halves in x[R,2 width]. Runs are counted in 32 bits: launchers see to that.
template <typename T, int N> __device__ __forceinline__ int64_t first_half(int64_t i, uint32_t runs_per_row) {
    const uint32_t run = (uint32_t)(i / N), row = run / runs_per_row;
    return ((int64_t)row * runs_per_row + run) * N;
}

template <typename T> struct geglu_body {
    static constexpr int WIDTH = VECTOR<T>;
    const T *x;
    T *y;
    uint32_t width;
    template <int N> __device__ void run(int64_t i) const {
        const int64_t at = first_half<T, N>(i, width / N);
        float h[N], g[N];
        load<N>(x + at, h);
        load<N>(x + at + width, g);
        // The gate is rounded before the product, as separate ops would.
#pragma unroll
        for (int k = 0; k < N; k++) h[k] *= round_to<T>(activation<PB_UNARY_GELU>(g[k]));
        store<N>(y + i, h);
    }
};

template <typename T> struct geglu_bwd_body {
    static constexpr int WIDTH = VECTOR<T>;
    const T *dy, *x;
    T *dx;
    uint32_t width;
    template <int N> __device__ void run(int64_t i) const {
        const int64_t at = first_half<T, N>(i, width / N);
        float upstream[N], h[N], g[N];
        load<N>(dy + i, upstream);
        load<N>(x + at, h);
        load<N>(x + at + width, g);
#pragma unroll
        for (int k = 0; k < N; k++) {
            const float distribution = gauss_distribution(g[k]), slope = distribution + g[k] * gauss_density(g[k]);
            const float left = h[k];
            h[k] = upstream[k] * (g[k] * distribution);
            g[k] = upstream[k] * left * slope;
        }
        store<N>(dx + at, h);
        store<N>(dx + at + width, g);
    }
};

template <typename T> struct add_body {
    static constexpr int WIDTH = VECTOR<T>;
    const T *a, *b;
    T *y;
    template <int N> __device__ void run(int64_t i) const {
        float left[N], right[N];
        load<N>(a + i, left);
        load<N>(b + i, right);
#pragma unroll
        for (int k = 0; k < N; k++) left[k] += right[k];
        store<N>(y + i, left);
    }
};

template <typename From, typename To> struct cast_body {
    static constexpr int WIDTH = VECTOR_OF_BOTH<From, To>;
    const From *x;
    To *y;
    template <int N> __device__ void run(int64_t i) const {
        float value[N];
        load<N>(x + i, value);
        store<N>(y + i, value);
    }
};

struct copy_body {
    static constexpr int WIDTH = 1;
    const uint4 *x;
    uint4 *y;
    template <int N> __device__ void run(int64_t i) const {
        y[i] = x[i];
    }
};

struct copy_halves_body {  // what the copy by 16 bytes leaves, or all where it is not aligned
    static constexpr int WIDTH = 1;
    const uint16_t *x;
    uint16_t *y;
    template <int N> __device__ void run(int64_t i) const {
        y[i] = x[i];
    }
};

template <typename T, typename Sum> struct epilogue_body {
    static constexpr int WIDTH = VECTOR_OF_BOTH<T, Sum>;
    const Sum *sum;
    const float *bias;
    const T *rowbias, *residual;
    T *y;
    uint32_t channels, rows_per_image;
    template <int N> __device__ void run(int64_t i) const {
        const uint32_t run = (uint32_t)(i / N), per_row = channels / N, row = run / per_row;
        const uint32_t c = (run - row * per_row) * N;
        float value[N];
        load<N>(sum + i, value);
        if (bias) {
            float b[N];
            load<N>(bias + c, b);
#pragma unroll
            for (int k = 0; k < N; k++) value[k] += round_to<T>(b[k]);
        }
        if (rowbias) add_rounded<N>(rowbias + (int64_t)(row / rows_per_image) * channels + c, value);
        if (residual) add_rounded<N>(residual + i, value);
        store<N>(y + i, value);
    }
};

template <template <typename, int> class Body, typename T, typename... P>
pb_status launch_kind(const char *op, pb_unary_kind kind, int64_t count, bool aligned, void *stream, P... pointers) {
    switch (kind) {
    case PB_UNARY_SILU: return launch_over(op, Body<T, PB_UNARY_SILU>{pointers...}, count, aligned, 0, stream);
    case PB_UNARY_GELU: return launch_over(op, Body<T, PB_UNARY_GELU>{pointers...}, count, aligned, 0, stream);
    case PB_UNARY_QUICK_GELU: break;
    }
    return launch_over(op, Body<T, PB_UNARY_QUICK_GELU>{pointers...}, count, aligned, 0, stream);
}

template <typename From> pb_status cast_from(const pb_tensor *x, const pb_tensor *y, int64_t count, void *stream) {
    const bool aligned = is_aligned(x->data) && is_aligned(y->data);
    const From *from = static_cast<const From *>(x->data);
    switch (y->dtype) {
    case PB_F32:
        return launch_over("cast", cast_body<From, float>{from, static_cast<float *>(y->data)}, count, aligned, 0,
                           stream);
    case PB_F16:
        return launch_over("cast", cast_body<From, pb_f16>{from, static_cast<pb_f16 *>(y->data)}, count, aligned, 0,
                           stream);
    case PB_BF16:
        return launch_over("cast", cast_body<From, pb_bf16>{from, static_cast<pb_bf16 *>(y->data)}, count, aligned, 0,
                           stream);
    case PB_F64:
        return launch_over("cast", cast_body<From, double>{from, static_cast<double *>(y->data)}, count, aligned, 0,
                           stream);
    default: break;
    }
    return pb_error(PB_ERR_UNSUPPORTED, "the CUDA kernel of cast has no path to dtype %d", (int)y->dtype);
}

pb_status copy(const pb_tensor *x, const pb_tensor *y, int64_t bytes, void *stream) {
    const int64_t whole = is_aligned(x->data) && is_aligned(y->data) ? bytes / 16 : 0;
    const copy_body body = {static_cast<const uint4 *>(x->data), static_cast<uint4 *>(y->data)};
    const copy_halves_body rest = {reinterpret_cast<const uint16_t *>(body.x + whole),
                                   reinterpret_cast<uint16_t *>(body.y + whole)};
    PB_RETURN_IF(launch_over("cast", body, whole, true, 0, stream));
    return launch_over("cast", rest, (bytes - whole * 16) / 2, true, 0, stream);
}

}  // namespace

extern "C" pb_status pb_cuda_unary(const pb_kernel_args *args, void *stream) {
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    return with_dtype("unary", x->dtype, [&](auto element) {
        using T = decltype(element);
        return launch_kind<unary_body, T>("unary", args->attr->unary.kind, pb_shape_count(x->shape),
                                          are_aligned(x, y, y), stream, static_cast<const T *>(x->data),
                                          static_cast<T *>(y->data));
    });
}

extern "C" pb_status pb_cuda_unary_bwd(const pb_kernel_args *args, void *stream) {
    const pb_tensor *dy = &args->in[0], *x = &args->in[1], *dx = &args->out[0];
    return with_dtype("unary_bwd", x->dtype, [&](auto element) {
        using T = decltype(element);
        return launch_kind<unary_bwd_body, T>("unary_bwd", args->attr->unary.kind, pb_shape_count(x->shape),
                                              are_aligned(dy, x, dx), stream, static_cast<const T *>(dy->data),
                                              static_cast<const T *>(x->data), static_cast<T *>(dx->data));
    });
}

// in: x[R,2D]   out: y[R,D]
extern "C" pb_status pb_cuda_geglu(const pb_kernel_args *args, void *stream) {
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    const int64_t count = pb_shape_count(y->shape), width = pb_shape_last(y->shape);
    PB_RETURN_IF(check_count("geglu", count));
    return with_dtype("geglu", x->dtype, [&](auto element) {
        using T = decltype(element);
        const geglu_body<T> body = {static_cast<const T *>(x->data), static_cast<T *>(y->data), (uint32_t)width};
        return launch_over("geglu", body, count, are_aligned(x, y, y), width, stream);
    });
}

// in: dy[R,D] x[R,2D]   out: dx[R,2D]
extern "C" pb_status pb_cuda_geglu_bwd(const pb_kernel_args *args, void *stream) {
    const pb_tensor *dy = &args->in[0], *x = &args->in[1], *dx = &args->out[0];
    const int64_t count = pb_shape_count(dy->shape), width = pb_shape_last(dy->shape);
    PB_RETURN_IF(check_count("geglu_bwd", count));
    return with_dtype("geglu_bwd", x->dtype, [&](auto element) {
        using T = decltype(element);
        const geglu_bwd_body<T> body = {static_cast<const T *>(dy->data), static_cast<const T *>(x->data),
                                        static_cast<T *>(dx->data), (uint32_t)width};
        return launch_over("geglu_bwd", body, count, are_aligned(dy, x, dx), width, stream);
    });
}

extern "C" pb_status pb_cuda_add(const pb_kernel_args *args, void *stream) {
    const pb_tensor *a = &args->in[0], *b = &args->in[1], *y = &args->out[0];
    return with_dtype("add", y->dtype, [&](auto element) {
        using T = decltype(element);
        const add_body<T> body = {static_cast<const T *>(a->data), static_cast<const T *>(b->data),
                                  static_cast<T *>(y->data)};
        return launch_over("add", body, pb_shape_count(y->shape), are_aligned(a, b, y), 0, stream);
    });
}

extern "C" pb_status pb_cuda_cast(const pb_kernel_args *args, void *stream) {
    const pb_tensor *x = &args->in[0], *y = &args->out[0];
    const int64_t count = pb_shape_count(x->shape);
    if (x->dtype == y->dtype) return copy(x, y, count * (int64_t)pb_dtype_size(x->dtype), stream);
    if (x->dtype == PB_F64) return cast_from<double>(x, y, count, stream);
    return with_dtype("cast", x->dtype,
                      [&](auto element) { return cast_from<decltype(element)>(x, y, count, stream); });
}

extern "C" pb_status pb_cuda_epilogue(const pb_cuda_epilogue_args *args, void *stream) {
    const int64_t count = args->rows * args->channels;
    PB_RETURN_IF(check_count("epilogue", count));
    const bool aligned = is_aligned(args->sum) && is_aligned(args->y) && is_aligned(args->bias) &&
                         is_aligned(args->rowbias) && is_aligned(args->residual);
    return with_dtype("epilogue", args->dtype, [&](auto element) {
        using T = decltype(element);
        const auto run = [&](auto sum) {
            using Sum = decltype(sum);
            const epilogue_body<T, Sum> body = {static_cast<const Sum *>(args->sum),
                                                args->bias,
                                                static_cast<const T *>(args->rowbias),
                                                static_cast<const T *>(args->residual),
                                                static_cast<T *>(args->y),
                                                (uint32_t)args->channels,
                                                (uint32_t)(args->rows / (args->images ? args->images : 1))};
            return launch_over("epilogue", body, count, aligned, args->channels, stream);
        };
        return args->sum_dtype == args->dtype ? run(T()) : run(float());
    });
}
