// What lets the same arithmetic be compiled for a processor and for a GPU: a .cu file (or a stand-in for one) defines
// these before it includes a header of quant/, with its own spelling. Everything under PB_DEVICE is in the common part
// of C17 and C++, each operation rounds once, to nearest, and nothing depends on the order of elements.
#ifndef PB_QUANT_DEVICE_H
#define PB_QUANT_DEVICE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/dtype.h"

#ifndef PB_DEVICE
#define PB_DEVICE static inline
#define PB_DEVICE_BITS(x) pb_f32_bits(x)
#define PB_DEVICE_FROM_BITS(u) pb_f32_from_bits(u)
#define PB_DEVICE_F16_FROM_F32(x) pb_f16_from_f32(x)
#define PB_DEVICE_F16_TO_F32(h) pb_f16_to_f32(h)
#endif

// As pb_bf16_from_f32: to nearest, ties to even; a NaN stays one.
PB_DEVICE uint16_t pb_device_bf16(uint32_t bits) {
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#endif
