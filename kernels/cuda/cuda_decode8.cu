// 8-bit codes as numbers: weights that are frozen, just before an op reads them.
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/exact.cuh"

namespace {

template <typename T> struct decode8_body {
    static constexpr int WIDTH = VECTOR<T>;  // divides PB_BLOCK8: a run has one scale
    const uint8_t *codes;
    const float *scales;
    T *y;
    template <int N> __device__ void run(int64_t i) const {
        const float scale = scales[i / PB_BLOCK8];
        float x[N];
#pragma unroll
        for (int k = 0; k < N; k++) x[k] = __fmul_rn(block8_levels[codes[i + k]], scale);
        store<N>(y + i, x);
    }
};

}  // namespace

// in: x(u8) scales[blocks]   out: y
extern "C" pb_status pb_cuda_decode8(const pb_kernel_args *args, void *stream) {
    const pb_tensor *x = &args->in[0], *scales = &args->in[1], *y = &args->out[0];
    return with_dtype("decode8", y->dtype, [&](auto element) {
        using T = decltype(element);
        const decode8_body<T> body = {static_cast<const uint8_t *>(x->data), static_cast<const float *>(scales->data),
                                      static_cast<T *>(y->data)};
        return launch_over("decode8", body, pb_shape_count(y->shape), is_aligned(y->data), 0, stream);
    });
}
