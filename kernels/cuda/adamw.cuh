// What both kernels of AdamW share: the scalar sequence, and the table of parameters that one launch does.
#ifndef PB_KERNELS_CUDA_ADAMW_CUH
#define PB_KERNELS_CUDA_ADAMW_CUH

#include "kernels/cuda/blocks.cuh"
#include "kernels/cuda/elements.cuh"

constexpr int MOST_ARGUMENT_BYTES = 4096;

// The step of parameters of which some have no fp32 state.
pb_status pb_cuda_adamw_states(const pb_kernel_args *const *args, uint32_t count, void *stream);

struct adamw_scalars {
    float scale, decay, one_minus_beta1, beta2, one_minus_beta2, sqrt_bias2, eps, take;
};

__device__ __forceinline__ adamw_scalars scalars_of(const float *hyper, const float *control) {
    return {control[PB_CONTROL_SCALE], hyper[PB_HYPER_DECAY],           hyper[PB_HYPER_ONE_MINUS_BETA1],
            hyper[PB_HYPER_BETA2],     hyper[PB_HYPER_ONE_MINUS_BETA2], hyper[PB_HYPER_SQRT_BIAS2],
            hyper[PB_HYPER_EPS],       -hyper[PB_HYPER_STEP_SIZE]};
}

// pb_adamw_element of kernels/adamw.h.
__device__ __forceinline__ void update(const adamw_scalars &s, float gradient, float &p, float &m, float &v) {
    const float g = __fmul_rn(gradient, s.scale);
    m = __fmaf_rn(__fsub_rn(g, m), s.one_minus_beta1, m);
    v = __fmaf_rn(__fmul_rn(g, g), s.one_minus_beta2, __fmul_rn(v, s.beta2));
    const float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(v), s.sqrt_bias2), s.eps);
    p = __fmaf_rn(s.take, __fdiv_rn(m, denominator), __fmul_rn(p, s.decay));
}

// Whose block this is: the last of the items whose first block is not beyond it. Nobody has no blocks.
template <class Item> __device__ __forceinline__ int item_of_block(const Item *item, int count) {
    int low = 0, high = count;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (item[middle].first_block <= blockIdx.x)
            low = middle;
        else
            high = middle;
    }
    return low;
}

#endif
