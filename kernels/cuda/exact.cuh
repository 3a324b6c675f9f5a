// The codecs of quant/ on the device: the same functions, with the device's spelling of what they ask of a compiler.
#ifndef PB_KERNELS_CUDA_EXACT_CUH
#define PB_KERNELS_CUDA_EXACT_CUH

#include "kernels/cuda/compat.h"

template <typename T> __device__ __forceinline__ uint16_t bits_of(float x) {
    T value;
    from_float(x, &value);
    return value.bits;
}

__device__ __forceinline__ float f16_to_float(uint16_t bits) {
    return to_float(pb_f16{bits});
}

#define PB_DEVICE static __device__ __forceinline__
#define PB_DEVICE_BITS(x) __float_as_uint(x)
#define PB_DEVICE_FROM_BITS(u) __uint_as_float(u)
#define PB_DEVICE_F16_FROM_F32(x) bits_of<pb_f16>(x)
#define PB_DEVICE_F16_TO_F32(h) f16_to_float(h)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wextra"  // enumerators beside integers, which C has nothing against
#include "quant/block8.h"
#include "quant/philox.h"
#include "quant/split.h"
#pragma GCC diagnostic pop

// Codes as numbers: of both signs, then of those from 0 on.
static __device__ const float block8_levels[2 * 256] = {
#define PB_BLOCK8_SIGNED
#include "quant/block8_map.def"
#undef PB_BLOCK8_SIGNED
#define PB_BLOCK8_UNSIGNED
#include "quant/block8_map.def"
#undef PB_BLOCK8_UNSIGNED
};

// pb_block8_code; its decade is chosen by selects, so that the constants are immediate operands.
template <bool SIGNED> __device__ __forceinline__ uint8_t block8_code(float point) {
    constexpr pb_block8_decade of_both[] = {PB_BLOCK8_SIGNED_DECADES}, from_zero[] = {PB_BLOCK8_UNSIGNED_DECADES};
    const float g = point - 32767.5f, distance = fabsf(g);
    float slope = 0, offset = 0, last = 0;
#pragma unroll
    for (int k = 0; k < PB_BLOCK8_DECADES; k++) {
        const pb_block8_decade decade = SIGNED ? of_both[k] : from_zero[k];
        const bool beyond = k == 0 || distance > decade.from;
        slope = beyond ? decade.slope : slope;
        offset = beyond ? decade.offset : offset;
        last = beyond ? decade.last : last;
    }
    float level = fmaf(distance, slope, offset);
    level = floorf(level < last ? level : last);
    const int code = PB_BLOCK8_ZERO(SIGNED) + (int)(g < 0 ? -level : level);
    return (uint8_t)(code > 0 ? code : 0);
}

#endif
