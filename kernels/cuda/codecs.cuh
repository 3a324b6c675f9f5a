// The arithmetic of quant/ and of AdamW for device code. To be included before anything else that includes quant/.
#ifndef PB_KERNELS_CUDA_CODECS_CUH
#define PB_KERNELS_CUDA_CODECS_CUH

#include "kernels/cuda/compat.h"

#ifndef PB_SHIM
#define PB_DEVICE static __device__ __forceinline__
#define PB_DEVICE_BITS(x) __float_as_uint(x)
#define PB_DEVICE_FROM_BITS(u) __uint_as_float(u)
#define PB_DEVICE_F16_FROM_F32(x) __half_as_ushort(__float2half_rn(x))
#define PB_DEVICE_F16_TO_F32(h) __half2float(__ushort_as_half(h))
#endif
extern "C" {
#include "base/dtype.h"
}
#include "kernels/adamw.h"
#include "quant/block8.h"
#include "quant/philox.h"
#include "quant/split.h"

static __device__ const float block8_map[2][256] = {
    {
#define PB_BLOCK8_SIGNED
#include "quant/block8_map.def"
#undef PB_BLOCK8_SIGNED
    },
    {
#define PB_BLOCK8_UNSIGNED
#include "quant/block8_map.def"
#undef PB_BLOCK8_UNSIGNED
    },
};
static __device__ const pb_block8_decade block8_decades[2][PB_BLOCK8_DECADES] = {{PB_BLOCK8_SIGNED_DECADES},
                                                                                 {PB_BLOCK8_UNSIGNED_DECADES}};

// As pb_adamw_element, with every rounding by name, so that nothing contracts.
__device__ __forceinline__ void adamw_step(const float *hyper, float scale, float gradient, float *p, float *m,
                                           float *v) {
    const float g = __fmul_rn(gradient, scale);
    *m = __fmaf_rn(__fsub_rn(g, *m), hyper[PB_HYPER_ONE_MINUS_BETA1], *m);
    *v = __fmaf_rn(__fmul_rn(g, g), hyper[PB_HYPER_ONE_MINUS_BETA2], __fmul_rn(*v, hyper[PB_HYPER_BETA2]));
    const float root = __fdiv_rn(__fsqrt_rn(*v), hyper[PB_HYPER_SQRT_BIAS2]);
    const float denominator = __fadd_rn(root, hyper[PB_HYPER_EPS]);
    *p = __fmaf_rn(-hyper[PB_HYPER_STEP_SIZE], __fdiv_rn(*m, denominator), __fmul_rn(*p, hyper[PB_HYPER_DECAY]));
}

#endif
