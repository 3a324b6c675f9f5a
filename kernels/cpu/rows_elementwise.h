// Activations, sums of squares, AdamW over rows of floats. Part of rows_table.h.
#ifndef PB_KERNELS_CPU_ROWS_ELEMENTWISE_H
#define PB_KERNELS_CPU_ROWS_ELEMENTWISE_H

#include "kernels/cpu/rows.h"
#include "base/simd.h"

SIMD vf activation(pb_unary_kind kind, vf x) {
    if (kind == PB_UNARY_GELU) return x * simd_gauss(x).distribution;
    return x * simd_logistic(kind == PB_UNARY_QUICK_GELU ? 1.702f * x : x);
}

SIMD vf activation_slope(pb_unary_kind kind, vf x) {
    if (kind == PB_UNARY_GELU) {
        const simd_gaussian gauss = simd_gauss(x);
        return simd_fma(x, gauss.density, gauss.distribution);
    }
    const vf z = kind == PB_UNARY_QUICK_GELU ? 1.702f * x : x, s = simd_logistic(z);
    return s * simd_fma(z, 1.0f - s, simd_set(1.0f));
}

SIMD void activate_as(pb_unary_kind kind, const float *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        simd_store_some(y + i, activation(kind, simd_load_some(x + i, n - i)), n - i);
}

static void row_activate(pb_unary_kind kind, const float *x, float *y, int64_t n) {
    switch (kind) {
    case PB_UNARY_SILU: activate_as(PB_UNARY_SILU, x, y, n); return;
    case PB_UNARY_GELU: activate_as(PB_UNARY_GELU, x, y, n); return;
    case PB_UNARY_QUICK_GELU: activate_as(PB_UNARY_QUICK_GELU, x, y, n); return;
    }
}

SIMD void activate_bwd_as(pb_unary_kind kind, const float *dy, const float *x, float *dx, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        const vf upstream = simd_load_some(dy + i, n - i);
        simd_store_some(dx + i, upstream * activation_slope(kind, simd_load_some(x + i, n - i)), n - i);
    }
}

static void row_activate_bwd(pb_unary_kind kind, const float *dy, const float *x, float *dx, int64_t n) {
    switch (kind) {
    case PB_UNARY_SILU: activate_bwd_as(PB_UNARY_SILU, dy, x, dx, n); return;
    case PB_UNARY_GELU: activate_bwd_as(PB_UNARY_GELU, dy, x, dx, n); return;
    case PB_UNARY_QUICK_GELU: activate_bwd_as(PB_UNARY_QUICK_GELU, dy, x, dx, n); return;
    }
}

static void row_geglu_bwd(const float *dy, const float *h, const float *g, float *dh, float *dg, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        const vf upstream = simd_load_some(dy + i, n - i), x = simd_load_some(g + i, n - i);
        const vf left = simd_load_some(h + i, n - i);
        const simd_gaussian gauss = simd_gauss(x);
        simd_store_some(dh + i, upstream * (x * gauss.distribution), n - i);
        simd_store_some(dg + i, upstream * left * simd_fma(x, gauss.density, gauss.distribution), n - i);
    }
}

static void row_add(const float *a, const float *b, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        simd_store_some(y + i, simd_load_some(a + i, n - i) + simd_load_some(b + i, n - i), n - i);
}

static void row_multiply(const float *a, const float *b, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        simd_store_some(y + i, simd_load_some(a + i, n - i) * simd_load_some(b + i, n - i), n - i);
}

static void row_scaled_difference(const float *a, const float *b, float factor, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES)
        simd_store_some(y + i, factor * (simd_load_some(a + i, n - i) - simd_load_some(b + i, n - i)), n - i);
}

// Squares of floats are exact in double. `b` may be NULL: zeros.
SIMD double squares(const float *a, const float *b, int64_t n) {
    vd low = {0}, high = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        vf x = simd_load_some(a + i, n - i);
        if (b) x -= simd_load_some(b + i, n - i);
        const vd_pair wide = simd_widen(x);
        low += wide.low * wide.low;
        high += wide.high * wide.high;
    }
    return simd_sum_double(low + high);
}

static double row_sum_squares(const float *x, int64_t n) {
    return squares(x, NULL, n);
}

static double row_sum_squared_difference(const float *a, const float *b, int64_t n) {
    return squares(a, b, n);
}

// As pb_adamw_element; `some`: fewer than a vector's lanes, the last of a row.
SIMD void adamw_vector(const pb_adamw_scalars *s, const float *g, const float *const in[3], float *const out[3],
                       int64_t i, int64_t some) {
    const vf gradient = simd_load_some(g + i, some) * s->scale;
    vf p = simd_load_some(in[0] + i, some), m = simd_load_some(in[1] + i, some), v = simd_load_some(in[2] + i, some);
    m = simd_fma_exact(gradient - m, simd_set(s->one_minus_beta1), m);
    v = simd_fma_exact(gradient * gradient, simd_set(s->one_minus_beta2), v * s->beta2);
    const vf denominator = simd_sqrt(v) / s->sqrt_bias2 + s->eps;
    p = simd_fma_exact(simd_set(-s->step_size), m / denominator, p * s->decay);
    simd_store_some(out[0] + i, p, some);
    simd_store_some(out[1] + i, m, some);
    simd_store_some(out[2] + i, v, some);
}

// A vector's arithmetic fills the window in which the processor looks for loads to start early, so the lines to come
// are asked for, each once.
enum { ADAMW_LINE = 16, PREFETCH = 256 };
static void row_adamw(const pb_adamw_scalars *scalars, const float *g, const float *const in[3], float *const out[3],
                      int64_t n) {
    // Copies: the stores could not change them, but the compiler does not know that.
    const pb_adamw_scalars s = *scalars;
    const float *const from[3] = {in[0], in[1], in[2]};
    float *const to[3] = {out[0], out[1], out[2]};
    int64_t i = 0;
    for (; i <= n - ADAMW_LINE; i += ADAMW_LINE) {
        for (int k = 0; k < 3; k++) __builtin_prefetch(from[k] + i + PREFETCH, 1);
        __builtin_prefetch(g + i + PREFETCH);
        for (int lane = 0; lane < ADAMW_LINE; lane += LANES) adamw_vector(&s, g, from, to, i + lane, LANES);
    }
    for (; i < n; i += LANES) adamw_vector(&s, g, from, to, i, n - i);
}

#endif
