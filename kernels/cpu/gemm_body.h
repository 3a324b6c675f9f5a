// The bodies behind gemm_kernels.h, for the instruction set that the including file is compiled for.
#define fused simd_fma
#include "kernels/cpu/gemm_tile.h"

// a[0] b[0] a[1] b[1] ..., and the other half.
#if defined(__AVX512F__)
#define interleave_low(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define interleave_high(a, b) \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#elif defined(__AVX2__)
#define interleave_low(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define interleave_high(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define interleave_low(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define interleave_high(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#endif

SIMD vh load_halves(const void *p, int64_t i) {
    return *(const vh_memory *)((const uint16_t *)p + i);
}

SIMD void store_halves(void *p, int64_t i, vh h) {
    *(vh_memory *)((uint16_t *)p + i) = h;
}

SIMD vf load_as(const void *p, int64_t i, pb_dtype dtype) {
    if (dtype == PB_F32) return simd_load((const float *)p + i);
    return dtype == PB_BF16 ? simd_from_bf16(load_halves(p, i)) : simd_from_f16(load_halves(p, i));
}

SIMD void store_as(void *p, int64_t i, vf v, pb_dtype dtype) {
    if (dtype == PB_F32)
        simd_store((float *)p + i, v);
    else
        store_halves(p, i, dtype == PB_BF16 ? simd_to_bf16(v) : simd_to_f16(v));
}

SIMD vf round_to(vf v, pb_dtype dtype) {
    if (dtype == PB_F32) return v;
    return dtype == PB_BF16 ? simd_from_bf16(simd_to_bf16(v)) : simd_from_f16(simd_to_f16(v));
}

// ---- packing --------------------------------------------------------------------------------------------------------

// One unit of a row whose elements from i on are at hand, `left` of them.
SIMD float unit_at(const char *row, int64_t i, int64_t left, pb_unit unit) {
    if (unit == PB_UNIT_F32) return ((const float *)row)[i];
    const uint16_t *h = (const uint16_t *)row + i;
    if (unit == PB_UNIT_BF16) return pb_bf16_to_f32(*h);
    if (unit == PB_UNIT_F16) return pb_f16_to_f32(*h);
    return pb_f32_from_bits(h[0] | (left > 1 ? (uint32_t)h[1] << 16 : 0));
}

// LANES units of a row.
SIMD vf units_at(const char *row, int64_t i, pb_unit unit) {
    if (unit == PB_UNIT_F32) return simd_load((const float *)row + i);
    if (unit == PB_UNIT_BF16) return load_as(row, i, PB_BF16);
    if (unit == PB_UNIT_F16) return load_as(row, i, PB_F16);
    vf v;
    memcpy(&v, (const uint16_t *)row + i, sizeof v);
    return v;
}

// The first `count` lanes of vectors, 1 or more; zeros, or nothing written, beyond them.
SIMD void store_first(float *to, vf v, int64_t count) {
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)v);
#else
    simd_store_some(to, v, count);
#endif
}

SIMD vf load_first(const char *from, int64_t count) {
#if defined(__AVX512F__)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#else
    vf v = {0};
    memcpy(&v, from, (size_t)count * sizeof(float));
    return v;
#endif
}

SIMD vh load_first_halves(const char *from, int64_t count) {
#if defined(__AVX512F__)
    return (vh)_mm256_maskz_loadu_epi16((__mmask16)((1u << count) - 1), from);
#else
    vh h = {0};
    memcpy(&h, from, (size_t)count * sizeof(uint16_t));
    return h;
#endif
}

SIMD vf first_units_at(const char *row, int64_t i, int64_t count, pb_unit unit) {
    if (unit == PB_UNIT_F32) return load_first(row + 4 * i, count);
    if (unit == PB_UNIT_PAIR) return load_first(row + 2 * i, count);
    const vh h = load_first_halves(row + 2 * i, count);
    return unit == PB_UNIT_BF16 ? simd_from_bf16(h) : simd_from_f16(h);
}

// Transposes LANES vectors in place: log2(LANES) rounds of interleaving row i with row i + LANES/2.
SIMD void transpose(vf v[LANES]) {
    vf w[LANES];
    UNROLLED
    for (int round = 1; round < LANES; round *= 2) {
        UNROLLED
        for (int i = 0; i < LANES / 2; i++) {
            w[2 * i] = interleave_low(v[i], v[i + LANES / 2]);
            w[2 * i + 1] = interleave_high(v[i], v[i + LANES / 2]);
        }
        UNROLLED
        for (int i = 0; i < LANES; i++) v[i] = w[i];
    }
}

SIMD void pack_along_unit(float *panel, int64_t width, const char *const *rows, int64_t count, int64_t offset,
                          int64_t length, const pb_unit unit) {
    const int step = unit == PB_UNIT_PAIR ? 2 : 1;
    const int64_t steps = (length + step - 1) / step;
    for (int64_t r0 = 0; r0 < count; r0 += LANES) {
        const int64_t here = count - r0 < LANES ? count - r0 : LANES;
        int64_t p = 0;
        vf v[LANES];
        for (; p + LANES <= length / step; p += LANES) {
            UNROLLED
            for (int r = 0; r < LANES; r++)
                v[r] = r < here && rows[r0 + r] ? units_at(rows[r0 + r], offset + p * step, unit) : (vf){0};
            transpose(v);
            UNROLLED
            for (int i = 0; i < LANES; i++) store_first(panel + (p + i) * width + r0, v[i], here);
        }
        const int64_t left = length / step - p;
        if (left >= LANES / 4) {
            UNROLLED
            for (int r = 0; r < LANES; r++)
                v[r] = r < here && rows[r0 + r] ? first_units_at(rows[r0 + r], offset + p * step, left, unit) : (vf){0};
            transpose(v);
            UNROLLED
            for (int i = 0; i < LANES; i++)
                if (i < left) store_first(panel + (p + i) * width + r0, v[i], here);
            p += left;
        }
        for (int64_t r = r0; r < r0 + here; r++)
            for (int64_t q = p; q < steps; q++)
                panel[q * width + r] = rows[r] ? unit_at(rows[r], offset + q * step, length - q * step, unit) : 0;
    }
}

static void pack_along(float *panel, int64_t width, const char *const *rows, int64_t count, int64_t offset,
                       int64_t length, pb_unit unit) {
    switch (unit) {
    case PB_UNIT_F32: pack_along_unit(panel, width, rows, count, offset, length, PB_UNIT_F32); break;
    case PB_UNIT_F16: pack_along_unit(panel, width, rows, count, offset, length, PB_UNIT_F16); break;
    case PB_UNIT_BF16: pack_along_unit(panel, width, rows, count, offset, length, PB_UNIT_BF16); break;
    case PB_UNIT_PAIR: pack_along_unit(panel, width, rows, count, offset, length, PB_UNIT_PAIR); break;
    }
}

SIMD void copy_rows_unit(float *to, const char *const *rows, int64_t count, int64_t offset, int64_t length,
                         const pb_unit unit) {
    const int step = unit == PB_UNIT_PAIR ? 2 : 1;
    const int64_t steps = (length + step - 1) / step;
    for (int64_t r = 0; r < count; r++, to += PB_ROW_STRIDE) {
        const char *row = rows[r];
        if (!row) {
            memset(to, 0, (size_t)steps * sizeof(float));
            continue;
        }
        int64_t p = 0;
        for (; p + LANES <= length / step; p += LANES) simd_store(to + p, units_at(row, offset + p * step, unit));
        for (; p < steps; p++) to[p] = unit_at(row, offset + p * step, length - p * step, unit);
    }
}

static void copy_rows(float *to, const char *const *rows, int64_t count, int64_t offset, int64_t length, pb_unit unit) {
    switch (unit) {
    case PB_UNIT_F32: copy_rows_unit(to, rows, count, offset, length, PB_UNIT_F32); break;
    case PB_UNIT_F16: copy_rows_unit(to, rows, count, offset, length, PB_UNIT_F16); break;
    case PB_UNIT_BF16: copy_rows_unit(to, rows, count, offset, length, PB_UNIT_BF16); break;
    case PB_UNIT_PAIR: copy_rows_unit(to, rows, count, offset, length, PB_UNIT_PAIR); break;
    }
}

// `count` units of one step; element i of both rows is the first.
SIMD vf units_across(const char *row, const char *next, int64_t i, int64_t count, const pb_unit unit) {
    if (unit != PB_UNIT_PAIR) {
        if (!row) return (vf){0};
        return count >= LANES ? units_at(row, i, unit) : first_units_at(row, i, count, unit);
    }
    vu u = {0};
    if (row)
        u = __builtin_convertvector(count >= LANES ? load_halves(row, i) : load_first_halves(row + 2 * i, count), vu);
    if (next)
        u |= __builtin_convertvector(count >= LANES ? load_halves(next, i) : load_first_halves(next + 2 * i, count), vu)
             << 16;
    return simd_from_bits(u);
}

SIMD void pack_across_unit(float *panel, int64_t width, int64_t panel_floats, const char *const *rows, int64_t columns,
                           int64_t offset, int64_t length, const pb_unit unit) {
    enum { AHEAD = 4 };  // rows that are asked for before they are needed: each is on a page of its own
    const int step = unit == PB_UNIT_PAIR ? 2 : 1, size = unit == PB_UNIT_F32 ? 4 : 2;
    for (int64_t p = 0; p < length; p += step, panel += width) {
        const char *row = rows[p], *next = step > 1 && p + 1 < length ? rows[p + 1] : NULL;
        const char *soon = p + AHEAD < length ? rows[p + AHEAD] : NULL;
        const char *then = step > 1 && p + AHEAD + 1 < length ? rows[p + AHEAD + 1] : NULL;
        float *to = panel;
        for (int64_t c = 0; c < columns; c += width, to += panel_floats) {
            const int64_t wide = columns - c < width ? columns - c : width;
            for (int64_t i = 0; i < wide; i += 64 / size) {
                if (soon) __builtin_prefetch(soon + (offset + c + i) * size, 0, 1);
                if (then) __builtin_prefetch(then + (offset + c + i) * size, 0, 1);
            }
            int64_t i = 0;
            for (; i + LANES <= wide; i += LANES)
                simd_store(to + i, units_across(row, next, offset + c + i, LANES, unit));
            if (i < wide) store_first(to + i, units_across(row, next, offset + c + i, wide - i, unit), wide - i);
        }
    }
}

static void pack_across(float *panel, int64_t width, int64_t panel_floats, const char *const *rows, int64_t columns,
                        int64_t offset, int64_t length, pb_unit unit) {
    switch (unit) {
    case PB_UNIT_F32: pack_across_unit(panel, width, panel_floats, rows, columns, offset, length, PB_UNIT_F32); break;
    case PB_UNIT_F16: pack_across_unit(panel, width, panel_floats, rows, columns, offset, length, PB_UNIT_F16); break;
    case PB_UNIT_BF16: pack_across_unit(panel, width, panel_floats, rows, columns, offset, length, PB_UNIT_BF16); break;
    case PB_UNIT_PAIR: pack_across_unit(panel, width, panel_floats, rows, columns, offset, length, PB_UNIT_PAIR); break;
    }
}

// ---- rows -----------------------------------------------------------------------------------------------------------

// Still to be rounded by the store.
SIMD vf finish_vector(vf v, int64_t i, const pb_dtype dtype, const float *bias, const void *rowbias,
                      const void *addend) {
    if (bias) v += round_to(simd_load(bias + i), dtype);
    if (rowbias) v = round_to(v, dtype) + load_as(rowbias, i, dtype);
    if (addend) v = round_to(v, dtype) + load_as(addend, i, dtype);
    return v;
}

SIMD void finish_as(void *out, const float *sums, int64_t count, const pb_dtype dtype, const float *bias,
                    const void *rowbias, const void *addend) {
    int64_t i = 0;
    if (!bias && !rowbias && !addend)
        for (; i + LANES <= count; i += LANES) store_as(out, i, simd_load(sums + i), dtype);
    for (; i + LANES <= count; i += LANES)
        store_as(out, i, finish_vector(simd_load(sums + i), i, dtype, bias, rowbias, addend), dtype);
    const size_t left = (size_t)(count - i), size = dtype == PB_F32 ? 4 : 2;
    if (!left) return;
    // The tail, in copies as long as a vector.
    float s[LANES] = {0}, b[LANES] = {0}, r[LANES] = {0}, d[LANES] = {0};
    memcpy(s, sums + i, left * sizeof(float));
    if (bias) memcpy(b, bias + i, left * sizeof(float));
    if (rowbias) memcpy(r, (const char *)rowbias + (size_t)i * size, left * size);
    if (addend) memcpy(d, (const char *)addend + (size_t)i * size, left * size);
    const vf v = finish_vector(simd_load(s), 0, dtype, bias ? b : NULL, rowbias ? r : NULL, addend ? d : NULL);
    store_as(s, 0, v, dtype);
    memcpy((char *)out + (size_t)i * size, s, left * size);
}

static void finish(void *out, const float *sums, int64_t count, pb_dtype dtype, const float *bias, const void *rowbias,
                   const void *addend) {
    if (dtype == PB_F32)
        finish_as(out, sums, count, PB_F32, bias, rowbias, addend);
    else if (dtype == PB_BF16)
        finish_as(out, sums, count, PB_BF16, bias, rowbias, addend);
    else
        finish_as(out, sums, count, PB_F16, bias, rowbias, addend);
}

static void stream(void *out, const void *from, int64_t bytes) {
    char *to = out;
    const char *source = from;
#if defined(__AVX2__)
    enum { BYTES = 4 * LANES };
    const int64_t head = -(intptr_t)to & (BYTES - 1);
    if (bytes >= head + BYTES) {
        memcpy(to, source, (size_t)head);
        for (to += head, source += head, bytes -= head; bytes >= BYTES; to += BYTES, source += BYTES, bytes -= BYTES) {
#if defined(__AVX512F__)
            _mm512_stream_ps((float *)(void *)to, (__m512)simd_load((const float *)(const void *)source));
#else
            _mm256_stream_ps((float *)(void *)to, (__m256)simd_load((const float *)(const void *)source));
#endif
        }
    }
#endif
    memcpy(to, source, (size_t)bytes);
}

static void stream_end(void) {
#if defined(__AVX2__)
    _mm_sfence();
#endif
}

SIMD void add_rows_as(float *sums, const char *from, int64_t count, int64_t rows, int64_t stride,
                      const pb_dtype dtype) {
    const int64_t size = dtype == PB_F32 ? 4 : 2;
    for (int64_t r = 0; r < rows; r++) {
        const char *row = from + r * stride * size;
        int64_t i = 0;
        for (; i + LANES <= count; i += LANES) simd_store(sums + i, simd_load(sums + i) + load_as(row, i, dtype));
        const pb_unit unit = dtype == PB_F32 ? PB_UNIT_F32 : dtype == PB_BF16 ? PB_UNIT_BF16 : PB_UNIT_F16;
        for (; i < count; i++) sums[i] += unit_at(row, i, 1, unit);
    }
}

static void add_rows(float *sums, const void *from, int64_t count, int64_t rows, int64_t stride, pb_dtype dtype) {
    if (dtype == PB_F32)
        add_rows_as(sums, from, count, rows, stride, PB_F32);
    else if (dtype == PB_BF16)
        add_rows_as(sums, from, count, rows, stride, PB_BF16);
    else
        add_rows_as(sums, from, count, rows, stride, PB_F16);
}

#include "kernels/cpu/attention_body.h"

static const pb_gemm_kernels kernels = {
    .lanes = LANES,
    .rows = TILE_ROWS,
    .tile = TILES,
    .copy_rows = copy_rows,
    .pack_along = pack_along,
    .pack_across = pack_across,
    .finish = finish,
    .stream = stream,
    .stream_end = stream_end,
    .add_rows = add_rows,
    .softmax = softmax,
    .softmax_bwd = softmax_bwd,
    .scale_columns = scale_columns,
    .dot_rows = dot_rows,
};
