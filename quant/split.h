// A master weight as a 16-bit working weight, rounded to nearest with ties to even as every other conversion here, and
// what that rounding lost: the residual, in 16 or 8 bits. Instead of 4 bytes beside the working weight's 2, a master
// takes 2 or 1.
//
// bf16 has float's exponent, so its residual is an integer distance between bit patterns: 16 low bits at most. Written
// out, a residual of 16 bits lies in [-32768, 32768], and only the upper end does not fit: of 131072 numbers one (a tie
// that is rounded down) comes back one unit in the last place of float below itself, all others as they were,
// denormals and those beyond bf16's range among them. 8 bits hold the distance in 127ths of half a unit in the last
// place (ulp) of bf16: the error is at most 129 of float's units, ulp / 508 of bf16's.
//
// fp16 has fewer exponents. In units of the working weight's ulp (2^-24 among the denormals) 16 bits count in 2^-15:
// exact for every |x| from 2^-14 to 65520, and within 2^-40 below. 8 bits count in 1/254: within ulp / 508 and a unit
// in the last place of float. From 65520 on the working weight is infinity, and so is what comes back.
//
// An infinite or NaN working weight has the residual 0.
#ifndef PB_QUANT_SPLIT_H
#define PB_QUANT_SPLIT_H

#include "quant/device.h"

#define PB_SPLIT8_BF16 (127.0f / 32768)          // exact
#define PB_SPLIT8_BF16_INVERSE (32768 / 127.0f)  // rounded; its multiples are rounded to integers
#define PB_SPLIT8_F16_INVERSE (1 / 254.0f)       // rounded
enum { PB_SPLIT_F16_EXPONENT = 113 };            // float's biased exponent of fp16's smallest normal number, 2^-14

typedef struct pb_split {
    uint16_t work;
    int16_t residual;  // int8_t's range where 8 bits are asked for
} pb_split;

PB_DEVICE pb_split pb_split_bf16(float x, bool wide) {
    const uint32_t u = PB_DEVICE_BITS(x);
    pb_split s;
    s.work = pb_device_bf16(u);
    s.residual = 0;
    if ((u & 0x7fffffffu) > 0x7f800000u) return s;
    const int32_t distance = (int32_t)(u - ((uint32_t)s.work << 16));
    if (wide)
        s.residual = (int16_t)(distance < 32767 ? distance : 32767);
    else
        s.residual = (int16_t)rintf((float)distance * PB_SPLIT8_BF16);
    return s;
}

PB_DEVICE float pb_join_bf16(uint16_t work, int16_t residual, bool wide) {
    const int32_t distance = wide ? residual : (int32_t)rintf((float)residual * PB_SPLIT8_BF16_INVERSE);
    return PB_DEVICE_FROM_BITS(((uint32_t)work << 16) + (uint32_t)distance);
}

// The biased exponent that the ulp of a working weight (as a float) goes by.
PB_DEVICE uint32_t pb_split_exponent(uint32_t work_bits) {
    const uint32_t exponent = (work_bits >> 23) & 255u;
    return exponent > PB_SPLIT_F16_EXPONENT ? exponent : PB_SPLIT_F16_EXPONENT;
}

PB_DEVICE pb_split pb_split_f16(float x, bool wide) {
    pb_split s;
    s.work = PB_DEVICE_F16_FROM_F32(x);
    s.residual = 0;
    if ((s.work & 0x7c00u) == 0x7c00u) return s;
    const float work = PB_DEVICE_F16_TO_F32(s.work);
    const uint32_t exponent = pb_split_exponent(PB_DEVICE_BITS(work));
    // One ulp is 2^(exponent - 137): dividing by it makes the exponent field 127 + 137 - exponent.
    const float ulps = (x - work) * PB_DEVICE_FROM_BITS((264u - exponent) << 23);
    s.residual = (int16_t)rintf(ulps * (wide ? 32768.0f : 254.0f));
    return s;
}

PB_DEVICE float pb_join_f16(uint16_t work_bits, int16_t residual, bool wide) {
    const float work = PB_DEVICE_F16_TO_F32(work_bits);
    if ((work_bits & 0x7c00u) == 0x7c00u) return work;
    const float ulp = PB_DEVICE_FROM_BITS((pb_split_exponent(PB_DEVICE_BITS(work)) - 10u) << 23);
    return fmaf((float)residual, ulp * (wide ? 0x1p-15f : PB_SPLIT8_F16_INVERSE), work);
}

#endif
