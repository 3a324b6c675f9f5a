// A master weight as a 16-bit working weight, rounded to nearest with ties to even as every other conversion here, and
// what that rounding lost: the residual, in 16 or 8 bits. Instead of 4 bytes beside the working weight's 2, a master
// takes 2 or 1.
//
// The residual is the distance between the number's bits and the working weight's, as floats, which is the distance in
// units in the last place, the same on both sides of a power of two. Half an ulp of bf16 is 2^15 such units, of fp16
// 2^12. 16 bits hold the distance itself: for fp16 everything comes back as it was, and for bf16 all but one number of
// 131072 (a tie that is rounded down comes back one unit below). 8 bits hold it in 127ths of half an ulp (but one
// unit): what comes back is at most 129 units away with bf16 and 17 with fp16, so within ulp / 500 and ulp / 480.
//
// fp16 has fewer exponents than float. Up to 2^-14, the smallest normal number, its ulp is 2^-24, and the residual is
// the difference itself, in units of 2^-38 in 16 bits, of 2^-24 / 255 in 8: within 2^-38 or 2^-24 / 508. From 65520 on
// the working weight is infinity, and so is what comes back. bf16 has no such edges; where it overflows to infinity the
// residual leads back.
//
// Splitting what came back gives the same working weight and the same residual (a distance of half an ulp or more is
// never written for a working weight that would not be the rounding of it), so a checkpoint may hold the joined
// weights. An infinite (fp16) or NaN working weight has the residual 0.
#ifndef PB_QUANT_SPLIT_H
#define PB_QUANT_SPLIT_H

#include "quant/device.h"

// Units of half an ulp but one, over the largest 8-bit residual; and the reverse. Rounded.
#define PB_SPLIT8_BF16 (127 / 32767.0f)
#define PB_SPLIT8_BF16_INVERSE (32767 / 127.0f)
#define PB_SPLIT8_F16 (127 / 4095.0f)
#define PB_SPLIT8_F16_INVERSE (4095 / 127.0f)
// The differences up to fp16's smallest normal number, in the residual's units; and the units, rounded in the case of 8
// bits.
#define PB_SPLIT16_SMALL 0x1p38f
#define PB_SPLIT16_SMALL_INVERSE 0x1p-38f
#define PB_SPLIT8_SMALL (255 * 0x1p24f)
#define PB_SPLIT8_SMALL_INVERSE (0x1p-24f / 255)
enum {
    PB_SPLIT_SMALL_BITS = 0x38800000,  // 2^-14
    PB_SPLIT16_SMALL_MOST = 8191,      // a half would be 8192
    PB_SPLIT8_MOST = 127,
};

typedef struct pb_split {
    uint16_t work;
    int16_t residual;  // int8_t's range where 8 bits are asked for
} pb_split;

PB_DEVICE int32_t pb_split_cut(int32_t x, int32_t most) {
    return x > most ? most : x < -most ? -most : x;
}

PB_DEVICE pb_split pb_split_bf16(float x, bool wide) {
    const uint32_t u = PB_DEVICE_BITS(x);
    pb_split s;
    s.work = pb_device_bf16(u);
    s.residual = 0;
    if ((u & 0x7fffffffu) > 0x7f800000u) return s;
    const int32_t distance = (int32_t)(u - ((uint32_t)s.work << 16));
    s.residual =
        (int16_t)(wide ? (distance < 32767 ? distance : 32767) : (int32_t)rintf((float)distance * PB_SPLIT8_BF16));
    return s;
}

PB_DEVICE float pb_join_bf16(uint16_t work, int16_t residual, bool wide) {
    const int32_t distance = wide ? residual : (int32_t)rintf((float)residual * PB_SPLIT8_BF16_INVERSE);
    return PB_DEVICE_FROM_BITS(((uint32_t)work << 16) + (uint32_t)distance);
}

PB_DEVICE bool pb_split_is_small(uint32_t work_bits) {
    return (work_bits & 0x7fffffffu) <= PB_SPLIT_SMALL_BITS;
}

PB_DEVICE pb_split pb_split_f16(float x, bool wide) {
    pb_split s;
    s.work = PB_DEVICE_F16_FROM_F32(x);
    s.residual = 0;
    if ((s.work & 0x7c00u) == 0x7c00u) return s;
    const float work = PB_DEVICE_F16_TO_F32(s.work);
    int32_t residual;
    if (pb_split_is_small(PB_DEVICE_BITS(work))) {
        residual = pb_split_cut((int32_t)rintf((x - work) * (wide ? PB_SPLIT16_SMALL : PB_SPLIT8_SMALL)),
                                wide ? PB_SPLIT16_SMALL_MOST : PB_SPLIT8_MOST);
    } else {
        residual = (int32_t)(PB_DEVICE_BITS(x) - PB_DEVICE_BITS(work));
        if (!wide) residual = (int32_t)rintf((float)residual * PB_SPLIT8_F16);
    }
    s.residual = (int16_t)residual;
    return s;
}

PB_DEVICE float pb_join_f16(uint16_t work_bits, int16_t residual, bool wide) {
    const float work = PB_DEVICE_F16_TO_F32(work_bits);
    if ((work_bits & 0x7c00u) == 0x7c00u) return work;
    if (residual && pb_split_is_small(PB_DEVICE_BITS(work)))  // adding nothing would make a negative zero positive
        return fmaf((float)residual, wide ? PB_SPLIT16_SMALL_INVERSE : PB_SPLIT8_SMALL_INVERSE, work);
    const int32_t distance = wide ? residual : (int32_t)rintf((float)residual * PB_SPLIT8_F16_INVERSE);
    return PB_DEVICE_FROM_BITS(PB_DEVICE_BITS(work) + (uint32_t)distance);
}

#endif
