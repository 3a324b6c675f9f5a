#include "base/dtype.h"

#include <assert.h>

static const struct {
    const char *name;
    size_t size;
} table[PB_DTYPE_COUNT] = {
    [PB_F32] = {"F32", 4}, [PB_F16] = {"F16", 2}, [PB_BF16] = {"BF16", 2}, [PB_F64] = {"F64", 8}, [PB_I32] = {"I32", 4},
    [PB_I64] = {"I64", 8}, [PB_U8] = {"U8", 1},   [PB_I8] = {"I8", 1},     [PB_I16] = {"I16", 2},
};

size_t pb_dtype_size(pb_dtype dtype) {
    return table[dtype].size;
}

const char *pb_dtype_name(pb_dtype dtype) {
    return table[dtype].name;
}

float pb_f16_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t exponent = (h >> 10) & 31u, fraction = h & 0x3ffu;
    if (exponent == 31) return pb_f32_from_bits(sign | 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0));
    if (exponent) return pb_f32_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    // Zero or denormal: fraction * 2^-24 is exact in float.
    const float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

uint16_t pb_f16_from_f32(float x) {
    const uint32_t u = pb_f32_bits(x), magnitude = u & 0x7fffffffu;
    const uint16_t sign = (uint16_t)((u >> 16) & 0x8000u);
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);  // 65520 and above round to infinity
    if (magnitude < 0x38800000u) {
        // Below 2^-14 the result is denormal: adding 0.5 lines the bits up and rounds to nearest even.
        const float aligned = pb_f32_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (pb_f32_bits(aligned) - 0x3f000000u));
    }
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

double pb_dtype_load(pb_dtype dtype, const void *array, size_t i) {
    switch (dtype) {
    case PB_F32: return ((const float *)array)[i];
    case PB_F16: return pb_f16_to_f32(((const uint16_t *)array)[i]);
    case PB_BF16: return pb_bf16_to_f32(((const uint16_t *)array)[i]);
    case PB_F64: return ((const double *)array)[i];
    case PB_I32: return ((const int32_t *)array)[i];
    case PB_I64: return (double)((const int64_t *)array)[i];
    case PB_U8: return ((const uint8_t *)array)[i];
    case PB_I8: return ((const int8_t *)array)[i];
    case PB_I16: return ((const int16_t *)array)[i];
    case PB_DTYPE_COUNT: break;
    }
    assert(0);
    return 0;
}

void pb_dtype_store(pb_dtype dtype, void *array, size_t i, double value) {
    switch (dtype) {
    case PB_F32: ((float *)array)[i] = (float)value; return;
    case PB_F16: ((uint16_t *)array)[i] = pb_f16_from_f32((float)value); return;
    case PB_BF16: ((uint16_t *)array)[i] = pb_bf16_from_f32((float)value); return;
    case PB_F64: ((double *)array)[i] = value; return;
    case PB_I32: ((int32_t *)array)[i] = (int32_t)value; return;
    case PB_I64: ((int64_t *)array)[i] = (int64_t)value; return;
    case PB_U8: ((uint8_t *)array)[i] = (uint8_t)value; return;
    case PB_I8: ((int8_t *)array)[i] = (int8_t)value; return;
    case PB_I16: ((int16_t *)array)[i] = (int16_t)value; return;
    case PB_DTYPE_COUNT: break;
    }
    assert(0);
}

void pb_convert(pb_dtype to_dtype, void *to, pb_dtype from_dtype, const void *from, size_t count) {
    if (to_dtype == from_dtype) {
        memcpy(to, from, count * pb_dtype_size(to_dtype));
        return;
    }
    // The pairs that whole models go through have loops of their own, without a dispatch for every element.
    const uint16_t *narrow = from;
    const float *wide = from;
    if (to_dtype == PB_F32 && from_dtype == PB_F16)
        for (size_t i = 0; i < count; i++) ((float *)to)[i] = pb_f16_to_f32(narrow[i]);
    else if (to_dtype == PB_F32 && from_dtype == PB_BF16)
        for (size_t i = 0; i < count; i++) ((float *)to)[i] = pb_bf16_to_f32(narrow[i]);
    else if (to_dtype == PB_F16 && from_dtype == PB_F32)
        for (size_t i = 0; i < count; i++) ((uint16_t *)to)[i] = pb_f16_from_f32(wide[i]);
    else if (to_dtype == PB_BF16 && from_dtype == PB_F32)
        for (size_t i = 0; i < count; i++) ((uint16_t *)to)[i] = pb_bf16_from_f32(wide[i]);
    else
        for (size_t i = 0; i < count; i++) pb_dtype_store(to_dtype, to, i, pb_dtype_load(from_dtype, from, i));
}
