// Column sums and normalisation over blocks and rows of floats. Part of rows_table.h.
#ifndef PB_KERNELS_CPU_ROWS_NORM_H
#define PB_KERNELS_CPU_ROWS_NORM_H

#include "kernels/cpu/rows_elementwise.h"

// sum[0..count) += x, for the first `count` lanes of x.
SIMD void add_to(double *sum, vd_pair x, int64_t count) {
    if (count >= LANES) {
        *(vd_memory *)sum += x.low;
        *(vd_memory *)(sum + LANES / 2) += x.high;
        return;
    }
    double lane[LANES];
    *(vd_memory *)lane = x.low;
    *(vd_memory *)(lane + LANES / 2) = x.high;
    for (int64_t i = 0; i < count; i++) sum[i] += lane[i];
}

SIMD void column_sums_as(const float *x, int64_t stride, int64_t rows, int64_t width, double *sum, double *square) {
    for (int64_t c = 0; c < width; c += LANES) {
        vd_pair total = {{0}, {0}}, squared = {{0}, {0}};
        for (int64_t r = 0; r < rows; r++) {
            const vd_pair wide = simd_widen(simd_load_some(x + r * stride + c, width - c));
            total.low += wide.low;
            total.high += wide.high;
            if (!square) continue;
            squared.low += wide.low * wide.low;
            squared.high += wide.high * wide.high;
        }
        add_to(sum + c, total, width - c);
        if (square) add_to(square + c, squared, width - c);
    }
}

static void row_column_sums(const float *x, int64_t stride, int64_t rows, int64_t width, double *sum) {
    column_sums_as(x, stride, rows, width, sum, NULL);
}

static void row_column_moments(const float *x, int64_t stride, int64_t rows, int64_t width, double *sum,
                               double *square) {
    column_sums_as(x, stride, rows, width, sum, square);
}

SIMD void normalise_as(bool silu, const float *x, int64_t x_stride, float *y, int64_t y_stride, int64_t rows,
                       int64_t width, const float *mean, const float *scale, const float *shift) {
    for (int64_t c = 0; c < width; c += LANES) {
        const int64_t left = width - c;
        const vf m = simd_load_some(mean + c, left), s = simd_load_some(scale + c, left);
        const vf b = simd_load_some(shift + c, left);
        for (int64_t r = 0; r < rows; r++) {
            const vf z = simd_fma(simd_load_some(x + r * x_stride + c, left) - m, s, b);
            simd_store_some(y + r * y_stride + c, silu ? activation(PB_UNARY_SILU, z) : z, left);
        }
    }
}

static void row_normalise(const float *x, int64_t x_stride, float *y, int64_t y_stride, int64_t rows, int64_t width,
                          const float *mean, const float *scale, const float *shift, bool silu) {
    if (silu)
        normalise_as(true, x, x_stride, y, y_stride, rows, width, mean, scale, shift);
    else
        normalise_as(false, x, x_stride, y, y_stride, rows, width, mean, scale, shift);
}

// What the two passes of group_norm's gradient share: (x - mean) inverse, and dy carried back through SiLU.
typedef struct channel {
    vf mean, inverse, gamma, beta;
} channel;

SIMD channel load_channel(const pb_norm_block *b, int64_t c) {
    const int64_t left = b->width - c;
    channel k = {simd_load_some(b->mean + c, left),
                 simd_load_some(b->inverse + c, left),
                 simd_load_some(b->gamma + c, left),
                 {0}};
    if (b->beta) k.beta = simd_load_some(b->beta + c, left);
    return k;
}

SIMD vf load_unit(const pb_norm_block *b, const channel *k, int64_t r, int64_t c) {
    return (simd_load_some(b->x + r * b->x_stride + c, b->width - c) - k->mean) * k->inverse;
}

SIMD vf load_dz(bool silu, const pb_norm_block *b, const channel *k, vf unit, int64_t r, int64_t c) {
    const vf dy = simd_load_some(b->dy + r * b->dy_stride + c, b->width - c);
    return silu ? dy * activation_slope(PB_UNARY_SILU, simd_fma(unit, k->gamma, k->beta)) : dy;
}

// Blocks come as copies here: the compiler then knows that no store changes them.
SIMD void norm_bwd_sums_as(bool silu, pb_norm_block b, double *sum, double *product) {
    for (int64_t c = 0; c < b.width; c += LANES) {
        const channel k = load_channel(&b, c);
        vf total = {0}, weighted = {0};
        for (int64_t r = 0; r < b.rows; r++) {
            const vf unit = load_unit(&b, &k, r, c), dz = load_dz(silu, &b, &k, unit, r, c);
            total += dz;
            weighted = simd_fma(dz, unit, weighted);
        }
        add_to(sum + c, simd_widen(total), b.width - c);
        add_to(product + c, simd_widen(weighted), b.width - c);
    }
}

static void row_norm_bwd_sums(const pb_norm_block *b, double *sum, double *product) {
    if (b->beta)
        norm_bwd_sums_as(true, *b, sum, product);
    else
        norm_bwd_sums_as(false, *b, sum, product);
}

SIMD void norm_bwd_data_as(bool silu, pb_norm_block b, const float *sum, const float *product, float *dx,
                           int64_t stride) {
    for (int64_t c = 0; c < b.width; c += LANES) {
        const int64_t left = b.width - c;
        const channel k = load_channel(&b, c);
        const vf s = simd_load_some(sum + c, left), p = simd_load_some(product + c, left);
        for (int64_t r = 0; r < b.rows; r++) {
            const vf unit = load_unit(&b, &k, r, c), dz = load_dz(silu, &b, &k, unit, r, c);
            simd_store_some(dx + r * stride + c, k.inverse * (simd_fma(dz, k.gamma, -s) - p * unit), left);
        }
    }
}

static void row_norm_bwd_data(const pb_norm_block *b, const float *sum, const float *product, float *dx,
                              int64_t stride) {
    if (b->beta)
        norm_bwd_data_as(true, *b, sum, product, dx, stride);
    else
        norm_bwd_data_as(false, *b, sum, product, dx, stride);
}

static void row_layer_norm(const float *x, const float *gamma, const float *beta, float eps, float *y, float *mean,
                           float *inverse, int64_t n) {
    vf sum = {0};
    for (int64_t i = 0; i < n; i += LANES) sum += simd_load_some(x + i, n - i);
    const float m = simd_sum(sum) / (float)n;
    vf square = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        const vf d = simd_keep_some(simd_load_some(x + i, n - i) - m, n - i);
        square = simd_fma(d, d, square);
    }
    const float s = (float)(1 / sqrt((double)simd_sum(square) / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i += LANES) {
        const vf unit = (simd_load_some(x + i, n - i) - m) * s;
        simd_store_some(y + i, simd_fma(unit, simd_load_some(gamma + i, n - i), simd_load_some(beta + i, n - i)),
                        n - i);
    }
    *mean = m;
    *inverse = s;
}

static void row_layer_norm_bwd(const float *dy, const float *x, const float *gamma, float mean, float inverse,
                               float *dx, float *dgamma, float *dbeta, int64_t n) {
    vf sum = {0}, product = {0};
    for (int64_t i = 0; i < n; i += LANES) {
        const vf upstream = simd_load_some(dy + i, n - i), unit = (simd_load_some(x + i, n - i) - mean) * inverse;
        const vf dz = upstream * simd_load_some(gamma + i, n - i);
        sum += dz;
        product = simd_fma(dz, unit, product);
        if (dgamma) simd_store_some(dgamma + i, simd_fma(upstream, unit, simd_load_some(dgamma + i, n - i)), n - i);
        if (dbeta) simd_store_some(dbeta + i, upstream + simd_load_some(dbeta + i, n - i), n - i);
    }
    if (!dx) return;
    const float s = simd_sum(sum) / (float)n, p = simd_sum(product) / (float)n;
    for (int64_t i = 0; i < n; i += LANES) {
        const vf upstream = simd_load_some(dy + i, n - i), unit = (simd_load_some(x + i, n - i) - mean) * inverse;
        const vf dz = upstream * simd_load_some(gamma + i, n - i);
        simd_store_some(dx + i, inverse * (dz - s - p * unit), n - i);
    }
}

#endif
