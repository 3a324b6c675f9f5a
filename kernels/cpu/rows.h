// The inner loops of the CPU kernels over rows of floats, compiled once per instruction set. Kernels convert 16-bit
// tensors to floats tile by tile (tiles.h), so that each loop is written once and for floats only.
//
// All sizes are in elements. Outputs may be the same rows as inputs (equal addresses), but not overlap them otherwise.
// A block is `rows` rows of `width` floats, `stride` apart.
#ifndef PB_KERNELS_CPU_ROWS_H
#define PB_KERNELS_CPU_ROWS_H

#include "base/op.h"
#include "kernels/adamw.h"

// A block of the input of group_norm's gradient; per-channel rows besides. dz: the gradient behind SiLU.
typedef struct pb_norm_block {
    const float *dy, *x;
    int64_t dy_stride, x_stride, rows, width;
    const float *mean, *inverse, *gamma, *beta;  // beta: NULL without SiLU
} pb_norm_block;

typedef struct pb_row_kernels {
    // Between a storage dtype (F32, F16, BF16) and floats, `n` elements. round: to the storage dtype and back.
    void (*load)(pb_dtype dtype, const void *from, float *to, int64_t n);
    void (*store)(pb_dtype dtype, const float *from, void *to, int64_t n);
    void (*round)(pb_dtype dtype, float *x, int64_t n);

    void (*activate)(pb_unary_kind kind, const float *x, float *y, int64_t n);
    void (*activate_bwd)(pb_unary_kind kind, const float *dy, const float *x, float *dx, int64_t n);
    void (*geglu_bwd)(const float *dy, const float *h, const float *g, float *dh, float *dg, int64_t n);
    void (*add)(const float *a, const float *b, float *y, int64_t n);
    void (*multiply)(const float *a, const float *b, float *y, int64_t n);
    void (*scaled_difference)(const float *a, const float *b, float factor, float *y, int64_t n);  // factor (a - b)
    double (*sum_squares)(const float *x, int64_t n);
    double (*sum_squared_difference)(const float *a, const float *b, int64_t n);
    void (*adamw)(const pb_adamw_scalars *s, const float *g, const float *const in[3], float *const out[3], int64_t n);

    // sum[c] += rows' sums, in double; moments: and square[c] += the sums of their squares.
    void (*column_sums)(const float *x, int64_t stride, int64_t rows, int64_t width, double *sum);
    void (*column_moments)(const float *x, int64_t stride, int64_t rows, int64_t width, double *sum, double *square);
    // y = (x - mean[c]) scale[c] + shift[c], then SiLU.
    void (*normalise)(const float *x, int64_t x_stride, float *y, int64_t y_stride, int64_t rows, int64_t width,
                      const float *mean, const float *scale, const float *shift, bool silu);
    // sum[c] += dz, product[c] += dz (x - mean) inverse.
    void (*norm_bwd_sums)(const pb_norm_block *b, double *sum, double *product);
    // dx = inverse (dz gamma - sum[c] - product[c] (x - mean) inverse)
    void (*norm_bwd_data)(const pb_norm_block *b, const float *sum, const float *product, float *dx, int64_t stride);

    // One row: mean and 1 / sqrt(variance + eps); then y.
    void (*layer_norm)(const float *x, const float *gamma, const float *beta, float eps, float *y, float *mean,
                       float *inverse, int64_t n);
    // dx unless NULL; dbeta[c] += dy and dgamma[c] += dy (x - mean) inverse unless NULL.
    void (*layer_norm_bwd)(const float *dy, const float *x, const float *gamma, float mean, float inverse, float *dx,
                           float *dgamma, float *dbeta, int64_t n);
} pb_row_kernels;

extern const pb_row_kernels pb_rows_scalar, pb_rows_avx2, pb_rows_avx512;

// Those for pb_cpu_isa().
const pb_row_kernels *pb_rows(void);

#endif
