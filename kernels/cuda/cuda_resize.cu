// Nearest resizing around a convolution: the copy that cuDNN reads, and the sum that undoes it in the gradient.
#include "kernels/cuda/elements.cuh"

extern "C" {
#include "kernels/cuda/cuda_resize.h"
}

namespace {

// The source of index i of `out` when `in` are resized to them, in fp32 as PyTorch has it.
__device__ __forceinline__ int nearest_index(int i, int in, int out) {
    if (in == out) return i;
    const int source = (int)((float)i * ((float)in / (float)out));
    return source < in ? source : in - 1;
}

// The first of `out` indices whose source is at least `source`; `out` where there is none.
__device__ __forceinline__ int first_from(int source, int in, int out) {
    if (in == out) return source;
    int i = (int)((int64_t)source * out / in);  // rounding in fp32 may put the border elsewhere
    while (i > 0 && nearest_index(i - 1, in, out) >= source) i--;
    while (i < out && nearest_index(i, in, out) < source) i++;
    return i;
}

struct resize_sizes {
    uint32_t h, w, up_h, up_w, channels;
};

// Over [n, up_h, up_w, channels].
template <typename T> struct resize_body {
    static constexpr int WIDTH = VECTOR<T>;
    const T *from;
    T *to;
    resize_sizes s;
    template <int N> __device__ void run(int64_t i) const {
        const uint32_t pixel = (uint32_t)i / s.channels, c = (uint32_t)i - pixel * s.channels;
        const uint32_t line = pixel / s.up_w, x = pixel - line * s.up_w;
        const uint32_t image = line / s.up_h, y = line - image * s.up_h;
        const int64_t source = ((int64_t)image * s.h + nearest_index((int)y, (int)s.h, (int)s.up_h)) * s.w +
                               nearest_index((int)x, (int)s.w, (int)s.up_w);
        float value[N];
        load<N>(from + source * s.channels + c, value);
        store<N>(to + i, value);
    }
};

// Over [n, h, w, channels].
template <typename T> struct resize_bwd_body {
    static constexpr int WIDTH = VECTOR<T>;
    const T *from, *addend;
    T *to;
    resize_sizes s;
    template <int N> __device__ void run(int64_t i) const {
        const uint32_t pixel = (uint32_t)i / s.channels, c = (uint32_t)i - pixel * s.channels;
        const uint32_t line = pixel / s.w, x = pixel - line * s.w, image = line / s.h, y = line - image * s.h;
        const int y0 = first_from((int)y, (int)s.h, (int)s.up_h), y1 = first_from((int)y + 1, (int)s.h, (int)s.up_h);
        const int x0 = first_from((int)x, (int)s.w, (int)s.up_w), x1 = first_from((int)x + 1, (int)s.w, (int)s.up_w);
        float sum[N] = {};
        for (int up_y = y0; up_y < y1; up_y++) {
            const T *row = from + (((int64_t)image * s.up_h + up_y) * s.up_w) * s.channels + c;
            for (int up_x = x0; up_x < x1; up_x++) {
                float value[N];
                load<N>(row + (int64_t)up_x * s.channels, value);
#pragma unroll
                for (int k = 0; k < N; k++) sum[k] += value[k];
            }
        }
        add_rounded<N>(addend ? addend + i : addend, sum);
        store<N>(to + i, sum);
    }
};

resize_sizes sizes_of(const pb_cuda_resize_args *a) {
    return {(uint32_t)a->h, (uint32_t)a->w, (uint32_t)a->up_h, (uint32_t)a->up_w, (uint32_t)a->channels};
}

__global__ void probe() {
}

}  // namespace

extern "C" pb_status pb_cuda_probe(void *stream) {
    return launch("first", probe, dim3(1), 32, 0, stream);
}

extern "C" pb_status pb_cuda_resize(const pb_cuda_resize_args *a, void *stream) {
    const int64_t count = a->n * a->up_h * a->up_w * a->channels;
    PB_RETURN_IF(check_count("resize", count));
    return with_dtype("resize", a->dtype, [&](auto type) {
        using T = decltype(type);
        const resize_body<T> body = {(const T *)a->from, (T *)a->to, sizes_of(a)};
        return launch_over("resize", body, count, is_aligned(a->from) && is_aligned(a->to), a->channels, stream);
    });
}

extern "C" pb_status pb_cuda_resize_bwd(const pb_cuda_resize_args *a, void *stream) {
    const int64_t count = a->n * a->h * a->w * a->channels;
    PB_RETURN_IF(check_count("resize_bwd", a->n * a->up_h * a->up_w * a->channels));
    return with_dtype("resize_bwd", a->dtype, [&](auto type) {
        using T = decltype(type);
        const resize_bwd_body<T> body = {(const T *)a->from, (const T *)a->addend, (T *)a->to, sizes_of(a)};
        return launch_over("resize_bwd", body, count, is_aligned(a->from) && is_aligned(a->addend) && is_aligned(a->to),
                           a->channels, stream);
    });
}
