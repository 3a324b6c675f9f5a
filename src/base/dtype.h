// Element types and their exact scalar conversions (round to nearest, ties to even; NaN stays NaN).
#ifndef PB_BASE_DTYPE_H
#define PB_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum pb_dtype {
    PB_F32,
    PB_F16,
    PB_BF16,
    PB_F64,
    PB_I32,
    PB_I64,
    PB_U8,
    PB_I8,
    PB_I16,
    PB_DTYPE_COUNT
} pb_dtype;

size_t pb_dtype_size(pb_dtype dtype);
const char *pb_dtype_name(pb_dtype dtype);  // as safetensors has it: "F32", "BF16", ...

static inline uint32_t pb_f32_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float pb_f32_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float pb_bf16_to_f32(uint16_t h) {
    return pb_f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t pb_bf16_from_f32(float x) {
    const uint32_t u = pb_f32_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);  // quiet the NaN
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float pb_f16_to_f32(uint16_t h);
uint16_t pb_f16_from_f32(float x);

// A float rounded to what PB_F16 or PB_BF16 can hold; of every other dtype as it is.
static inline float pb_rounded(pb_dtype dtype, float x) {
    switch (dtype) {
    case PB_F16: return pb_f16_to_f32(pb_f16_from_f32(x));
    case PB_BF16: return pb_bf16_to_f32(pb_bf16_from_f32(x));
    default: return x;
    }
}

// Element `i` of an array of any floating or integer dtype, as a double; and back, rounded once per step (a double
// goes through float on its way to the 16-bit types).
double pb_dtype_load(pb_dtype dtype, const void *array, size_t i);
void pb_dtype_store(pb_dtype dtype, void *array, size_t i, double value);

// Converts `count` elements between any two floating dtypes; single-threaded, for loading and saving.
void pb_convert(pb_dtype to_dtype, void *to, pb_dtype from_dtype, const void *from, size_t count);

#endif
