// Rows between the storage dtypes and floats. Part of rows_table.h.
#ifndef PB_KERNELS_CPU_ROWS_CONVERT_H
#define PB_KERNELS_CPU_ROWS_CONVERT_H

#include "base/simd.h"

SIMD vf widen(pb_dtype dtype, vh h) {
    return dtype == PB_F16 ? simd_from_f16(h) : simd_from_bf16(h);
}

SIMD vh narrow(pb_dtype dtype, vf x) {
    return dtype == PB_F16 ? simd_to_f16(x) : simd_to_bf16(x);
}

SIMD void load_as(pb_dtype dtype, const uint16_t *from, float *to, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) simd_store(to + i, widen(dtype, *(const vh_memory *)(from + i)));
    if (i == n) return;
    vh tail = {0};
    memcpy(&tail, from + i, (size_t)(n - i) * sizeof *from);
    simd_store_some(to + i, widen(dtype, tail), n - i);
}

SIMD void store_as(pb_dtype dtype, const float *from, uint16_t *to, int64_t n) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) *(vh_memory *)(to + i) = narrow(dtype, simd_load(from + i));
    if (i == n) return;
    const vh tail = narrow(dtype, simd_load_some(from + i, n - i));
    memcpy(to + i, &tail, (size_t)(n - i) * sizeof *to);
}

SIMD void round_as(pb_dtype dtype, float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        simd_store_some(x + i, widen(dtype, narrow(dtype, simd_load_some(x + i, n - i))), n - i);
}

static void row_load(pb_dtype dtype, const void *from, float *to, int64_t n) {
    if (dtype == PB_F32)
        memcpy(to, from, (size_t)n * sizeof *to);
    else if (dtype == PB_F16)
        load_as(PB_F16, from, to, n);
    else
        load_as(PB_BF16, from, to, n);
}

static void row_store(pb_dtype dtype, const float *from, void *to, int64_t n) {
    if (dtype == PB_F32)
        memcpy(to, from, (size_t)n * sizeof *from);
    else if (dtype == PB_F16)
        store_as(PB_F16, from, to, n);
    else
        store_as(PB_BF16, from, to, n);
}

static void row_round(pb_dtype dtype, float *x, int64_t n) {
    if (dtype == PB_F16)
        round_as(PB_F16, x, n);
    else if (dtype == PB_BF16)
        round_as(PB_BF16, x, n);
}

#endif
