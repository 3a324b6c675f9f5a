// Block-wise 8-bit states: blocks of 256 numbers, each block scaled by its largest magnitude, each number replaced by
// the nearest of 256 levels that lie dense near zero (block8_map.def: one set for both signs, one for numbers >= 0).
// Codes, scales and decoded numbers are those of bitsandbytes 0.50 on the CPU, bit for bit.
//
// bitsandbytes scales to [-1, 1] by multiplication with the rounded reciprocal, rounds to one of 65536 equidistant
// points -1 + 2 i / 65535, and has a table of the level nearest to each. From a point on there is no choice left, so
// here the table is a formula: point i is g = i - 32767.5 steps from the middle, and in each decade of |g| the levels
// are equidistant, so that their number is a multiply-add, cut off to an integer. The constants below were fitted to
// the table and give all of its 65536 entries (test_block8).
//
// What follows from that: the point nearest to zero is 1.5e-5 of the block's largest magnitude away from it, and the
// levels below it are never used, nor is zero, but that a block of zeros decodes to zeros.
//
// NaN is passed over in looking for the largest magnitude and gets code 0, as every number of a block without any other
// than zeros and NaNs. An infinity makes the block's scale infinite, and with it what the block decodes to.
// Denormals are numbers like others; where the scale is below 2^-128 its reciprocal is infinite, and codes are those of
// the ends (0 of zeros, as of NaN).
#ifndef PB_QUANT_BLOCK8_H
#define PB_QUANT_BLOCK8_H

#include "quant/device.h"

enum { PB_BLOCK8 = 256, PB_BLOCK8_DECADES = 6 };  // the last "decade" is the level 1.0 alone

// Of the numbers at `from` steps from the middle and beyond: the level's number is min(|g| slope + offset, last), cut
// off; counted from `zero`, the code of zero. Below zero levels count downwards, and code 0 is the end.
typedef struct pb_block8_decade {
    float from, slope, offset, last;
} pb_block8_decade;

// The decades of the levels of both signs, and of those from 0 on.
#define PB_BLOCK8_SIGNED_DECADES                                                                         \
    {0.0f, 0x1.5b3a3ep+0f, 0x1.c71c72p+1f, 7.0f}, {4.0f, 0x1.15c832p-2f, 0x1.c71c72p+2f, 15.0f},         \
        {36.0f, 0x1.bc7384p-5f, 0x1.c71c72p+3f, 31.0f}, {346.0f, 0x1.638f9cp-7f, 0x1.c71c72p+4f, 63.0f}, \
        {3369.0f, 0x1.1c72e4p-9f, 0x1.c71c72p+5f, 127.0f}, {                                             \
        32652.0f, 0.0f, 128.0f, 128.0f                                                                   \
    }
#define PB_BLOCK8_UNSIGNED_DECADES                                                                        \
    {0.0f, 0x1.5b3a3ep+1f, 0x1.871c72p+2f, 14.0f}, {4.0f, 0x1.15c832p-1f, 0x1.a71c72p+3f, 30.0f},         \
        {35.0f, 0x1.bc7384p-4f, 0x1.b71c72p+4f, 62.0f}, {337.0f, 0x1.638f96p-6f, 0x1.bf1c66p+5f, 126.0f}, \
        {3323.0f, 0x1.1c72e4p-8f, 0x1.c31c72p+6f, 254.0f}, {                                              \
        32710.0f, 0.0f, 255.0f, 255.0f                                                                    \
    }
#define PB_BLOCK8_ZERO(is_signed) ((is_signed) ? 127 : 0)

// The largest magnitude so far.
PB_DEVICE float pb_block8_largest(float largest, float x) {
    const float magnitude = fabsf(x);
    return magnitude > largest ? magnitude : largest;
}

// The point that x lands on, 0 .. 65535, from the reciprocal of the block's scale.
PB_DEVICE float pb_block8_point(float x, float inverse) {
    float y = x * inverse;
    if (y != y) return 0;
    y = y < -1 ? -1 : y > 1 ? 1 : y;
    return floorf(fmaf((y + 1) * 0.5f, 65535, 0.5f));
}

// The code of a point; `decades` is one of the two sets above, `zero` the PB_BLOCK8_ZERO that goes with it.
PB_DEVICE uint8_t pb_block8_code(float point, const pb_block8_decade decades[PB_BLOCK8_DECADES], int zero) {
    const float g = point - 32767.5f, distance = fabsf(g);
    int d = 0;
    for (int k = 1; k < PB_BLOCK8_DECADES; k++) d += distance > decades[k].from;
    float level = fmaf(distance, decades[d].slope, decades[d].offset);
    level = floorf(level < decades[d].last ? level : decades[d].last);
    const int code = zero + (int)(g < 0 ? -level : level);
    return (uint8_t)(code > 0 ? code : 0);
}

#endif
