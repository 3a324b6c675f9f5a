// The tile kernels of gemm_kernels.h for the instruction set that the including file is compiled for. Before it, define
// fused(a, b, c): the products of the units of a and b are added to c.
#include "base/simd.h"

// Twice TILE_ROWS accumulators, two columns and a row's unit fill the registers.
#if defined(__AVX512F__)
#define TILE_ROWS 14
#else
#define TILE_ROWS 6
#endif

// A unit in every lane, its bits as they are.
SIMD vf splat(float x) {
#if defined(__AVX512F__)
    return (vf)_mm512_set1_ps(x);
#elif defined(__AVX2__)
    return (vf)_mm256_set1_ps(x);
#else
    return (vf){x, x, x, x};
#endif
}

// clang-format off
#define EACH_ROW(R) R(0) R(1) R(2) R(3) R(4) R(5) R(6) R(7) R(8) R(9) R(10) R(11) R(12) R(13)
#define ZERO_ROW(i) vf x##i = {0}, y##i = {0};
#define STEP_ROW(i)                                                        \
    if (i < rows) {                                                        \
        const vf s = splat(left == PB_LEFT_ROWS ? a[i * PB_ROW_STRIDE] : a[i]); \
        x##i = fused(s, b0, x##i);                                         \
        if (vectors > 1) y##i = fused(s, b1, y##i);                        \
    }
#define STORE_ROW(i)                                                                   \
    if (i < rows) {                                                                    \
        float *to = c + (i) * ldc;                                                     \
        simd_store(to, add ? simd_load(to) + x##i : x##i);                             \
        if (vectors > 1) simd_store(to + LANES, add ? simd_load(to + LANES) + y##i : y##i); \
    }

#define STEP                                                                        \
    {                                                                               \
        const vf b0 = simd_load(b), b1 = vectors > 1 ? simd_load(b + LANES) : b0;   \
        EACH_ROW(STEP_ROW)                                                          \
        (void)b1;                                                                   \
        a += left == PB_LEFT_ROWS ? 1 : rows;                                       \
        b += vectors * LANES;                                                       \
    }

SIMD void tile(int64_t steps, const float *a, const float *b, float *c, int64_t ldc, bool add, const char *const *soon,
               int64_t soon_count, const int rows, const int vectors, const pb_left left) {
    EACH_ROW(ZERO_ROW)
    int64_t p = 0;
    for (; p < soon_count; p++) {
        __builtin_prefetch(soon[p], 0, 1);
        STEP
    }
    for (; p < steps; p++) STEP
    EACH_ROW(STORE_ROW)
}

#define TILE_FORM(rows, vectors, left)                                                                               \
    static void tile_##rows##_##vectors##_##left(int64_t steps, const float *a, const float *b, float *c, int64_t ldc, \
                                                 bool add, const char *const *soon, int64_t soon_count) {            \
        tile(steps, a, b, c, ldc, add, soon, soon_count, rows, vectors, left);                                       \
    }
#define TILE(rows)                     \
    TILE_FORM(rows, 1, PB_LEFT_PANEL)  \
    TILE_FORM(rows, 2, PB_LEFT_PANEL)  \
    TILE_FORM(rows, 1, PB_LEFT_ROWS)   \
    TILE_FORM(rows, 2, PB_LEFT_ROWS)
TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6)
#if defined(__AVX512F__)
TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12) TILE(13) TILE(14)
#define TILES_OF(v, left)                                                                                           \
    {tile_1_##v##_##left,  tile_2_##v##_##left,  tile_3_##v##_##left,  tile_4_##v##_##left,  tile_5_##v##_##left,   \
     tile_6_##v##_##left,  tile_7_##v##_##left,  tile_8_##v##_##left,  tile_9_##v##_##left,  tile_10_##v##_##left,  \
     tile_11_##v##_##left, tile_12_##v##_##left, tile_13_##v##_##left, tile_14_##v##_##left}
#else
#define TILES_OF(v, left)                                                                                           \
    {tile_1_##v##_##left, tile_2_##v##_##left, tile_3_##v##_##left,                                                 \
     tile_4_##v##_##left, tile_5_##v##_##left, tile_6_##v##_##left}
#endif
#define TILES                                                      \
    {{TILES_OF(1, PB_LEFT_PANEL), TILES_OF(2, PB_LEFT_PANEL)},     \
     {TILES_OF(1, PB_LEFT_ROWS), TILES_OF(2, PB_LEFT_ROWS)}}
    // clang-format on
