// Attention's part of gemm_kernels.h; included by gemm_body.h.

// e^x, and exactly 0 where x is far below: a masked score must leave nothing behind.
SIMD vf exp_or_zero(vf x) {
    return simd_from_bits(simd_bits(simd_exp(x)) & ~(vu)(x < simd_set(-87.0f)));
}

SIMD vf larger(vf a, vf b) {
#if defined(__AVX512F__)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    const vu first = (vu)(a > b);
    return simd_from_bits((simd_bits(a) & first) | (simd_bits(b) & ~first));
#endif
}

SIMD void softmax_as(float *scores, int64_t keys, float scale, float *max, float *sum, float *factor,
                     const pb_dtype dtype, const pb_unit unit) {
    const int64_t columns = 2 * LANES;
    for (int64_t c = 0; c < columns; c += LANES) {
        float *s = scores + c;
        const vf before = simd_load(max + c);
        vf most = before;
        for (int64_t k = 0; k < keys; k++) most = larger(simd_load(s + k * columns) * scale, most);
        const vf f = exp_or_zero(before - most);
        vf total = {0};
        for (int64_t k = 0; k < keys; k++) {
            const vf p = exp_or_zero(simd_load(s + k * columns) * scale - most);
            total += p;
            if (unit != PB_UNIT_PAIR) {
                simd_store(s + k * columns, round_to(p, dtype));
                continue;
            }
            vu u = __builtin_convertvector(simd_to_bf16(p), vu);
            if (++k < keys) {
                const vf next = exp_or_zero(simd_load(s + k * columns) * scale - most);
                total += next;
                u |= __builtin_convertvector(simd_to_bf16(next), vu) << 16;
            }
            simd_store(s + k / 2 * columns, simd_from_bits(u));
        }
        simd_store(max + c, most);
        simd_store(factor + c, f);
        simd_store(sum + c, simd_fma(simd_load(sum + c), f, total));
    }
}

static void softmax(float *scores, int64_t keys, float scale, float *max, float *sum, float *factor, pb_dtype dtype,
                    pb_unit unit) {
    if (dtype == PB_F32)
        softmax_as(scores, keys, scale, max, sum, factor, PB_F32, PB_UNIT_F32);
    else if (dtype == PB_F16)
        softmax_as(scores, keys, scale, max, sum, factor, PB_F16, PB_UNIT_F16);
    else if (unit == PB_UNIT_BF16)
        softmax_as(scores, keys, scale, max, sum, factor, PB_BF16, PB_UNIT_BF16);
    else
        softmax_as(scores, keys, scale, max, sum, factor, PB_BF16, PB_UNIT_PAIR);
}

SIMD void softmax_bwd_as(const float *scores, const float *dp, int64_t keys, float scale, const float *lse,
                         const float *delta, void *p, void *ds, int64_t stride, const pb_dtype dtype) {
    const int64_t columns = 2 * LANES;
    for (int64_t k = 0; k < keys; k++)
        for (int64_t c = 0; c < columns; c += LANES) {
            const vf e = exp_or_zero(simd_load(scores + k * columns + c) * scale - simd_load(lse + c));
            const vf d = e * (simd_load(dp + k * columns + c) - simd_load(delta + c)) * scale;
            store_as(p, k * stride + c, e, dtype);
            store_as(ds, k * stride + c, d, dtype);
        }
}

static void softmax_bwd(const float *scores, const float *dp, int64_t keys, float scale, const float *lse,
                        const float *delta, void *p, void *ds, int64_t stride, pb_dtype dtype) {
    if (dtype == PB_F32)
        softmax_bwd_as(scores, dp, keys, scale, lse, delta, p, ds, stride, PB_F32);
    else if (dtype == PB_F16)
        softmax_bwd_as(scores, dp, keys, scale, lse, delta, p, ds, stride, PB_F16);
    else
        softmax_bwd_as(scores, dp, keys, scale, lse, delta, p, ds, stride, PB_BF16);
}

static void scale_columns(float *x, int64_t rows, const float *factor) {
    const vf f0 = simd_load(factor), f1 = simd_load(factor + LANES);
    for (int64_t r = 0; r < rows; r++, x += 2 * LANES) {
        simd_store(x, simd_load(x) * f0);
        simd_store(x + LANES, simd_load(x + LANES) * f1);
    }
}

SIMD void dot_rows_as(float *out, const char *a, const char *b, int64_t count, int64_t rows, int64_t stride,
                      const pb_dtype dtype) {
    const int64_t size = dtype == PB_F32 ? 4 : 2;
    const pb_unit unit = dtype == PB_F32 ? PB_UNIT_F32 : dtype == PB_BF16 ? PB_UNIT_BF16 : PB_UNIT_F16;
    for (int64_t r = 0; r < rows; r++, a += stride * size, b += stride * size) {
        vf sum = {0};
        int64_t i = 0;
        for (; i + LANES <= count; i += LANES) sum = simd_fma(load_as(a, i, dtype), load_as(b, i, dtype), sum);
        float total = simd_sum(sum);
        for (; i < count; i++) total += unit_at(a, i, 1, unit) * unit_at(b, i, 1, unit);
        out[r] = total;
    }
}

static void dot_rows(float *out, const void *a, const void *b, int64_t count, int64_t rows, int64_t stride,
                     pb_dtype dtype) {
    if (dtype == PB_F32)
        dot_rows_as(out, a, b, count, rows, stride, PB_F32);
    else if (dtype == PB_F16)
        dot_rows_as(out, a, b, count, rows, stride, PB_F16);
    else
        dot_rows_as(out, a, b, count, rows, stride, PB_BF16);
}
