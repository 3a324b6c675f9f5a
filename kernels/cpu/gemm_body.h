// The bodies behind gemm_kernels.h, for one instruction set: included by the file that names it, after it has defined
//
//   LANES                     floats in a vector
//   TILE_ROWS                 rows of the largest tile: 2 TILE_ROWS accumulators, two columns and a spare fit the registers
//   vf                        the vector
//   splat(x)                  x in every lane, its bits as they are
//   fused(a, b, c)            a * b + c, in one rounding where the machine can
//   interleave_low(a, b), interleave_high(a, b)   a[0] b[0] a[1] b[1] ... and the other half
//   load_f16(p), store_f16(p, v)   a vector from and to LANES halves
//
// Vectors are those of the GNU C extension, so that the code is the same for every width.
#include "kernels/cpu/gemm_tile.h"

typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint16_t vh __attribute__((vector_size(2 * LANES)));

INLINE vf load_bf16(const uint16_t *p) {
    vh h;
    memcpy(&h, p, sizeof h);
    return (vf)(__builtin_convertvector(h, vu) << 16);
}

INLINE void store_bf16(uint16_t *p, vf v) {
    const vu u = (vu)v;
    const vu nan = (vu)((u & 0x7fffffffu) > 0x7f800000u);
    const vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const vh h = __builtin_convertvector((nan & ((u >> 16) | 0x40u)) | (~nan & rounded), vh);
    memcpy(p, &h, sizeof h);
}

INLINE vf load_as(const void *p, int64_t i, pb_dtype dtype) {
    if (dtype == PB_F32) return load((const float *)p + i);
    return dtype == PB_BF16 ? load_bf16((const uint16_t *)p + i) : load_f16((const uint16_t *)p + i);
}

INLINE void store_as(void *p, int64_t i, vf v, pb_dtype dtype) {
    if (dtype == PB_F32) store((float *)p + i, v);
    else if (dtype == PB_BF16) store_bf16((uint16_t *)p + i, v);
    else store_f16((uint16_t *)p + i, v);
}

INLINE vf round_to(vf v, pb_dtype dtype) {
    if (dtype == PB_F32) return v;
    uint16_t h[LANES];
    store_as(h, 0, v, dtype);
    return load_as(h, 0, dtype);
}

// ---- packing --------------------------------------------------------------------------------------------------------

// One unit of a row whose elements from i on are at hand, `left` of them.
INLINE float unit_at(const char *row, int64_t i, int64_t left, pb_unit unit) {
    if (unit == PB_UNIT_F32) return ((const float *)row)[i];
    const uint16_t *h = (const uint16_t *)row + i;
    if (unit == PB_UNIT_BF16) return pb_bf16_to_f32(*h);
    if (unit == PB_UNIT_F16) return pb_f16_to_f32(*h);
    return pb_f32_from_bits(h[0] | (left > 1 ? (uint32_t)h[1] << 16 : 0));
}

// LANES units of a row.
INLINE vf units_at(const char *row, int64_t i, pb_unit unit) {
    if (unit == PB_UNIT_F32) return load((const float *)row + i);
    const uint16_t *h = (const uint16_t *)row + i;
    if (unit == PB_UNIT_BF16) return load_bf16(h);
    if (unit == PB_UNIT_F16) return load_f16(h);
    vf v;
    memcpy(&v, h, sizeof v);
    return v;
}

// Transposes LANES vectors in place: log2(LANES) rounds of interleaving row i with row i + LANES/2.
INLINE void transpose(vf v[LANES]) {
    vf w[LANES];
    for (int round = 1; round < LANES; round *= 2) {
        for (int i = 0; i < LANES / 2; i++) {
            w[2 * i] = interleave_low(v[i], v[i + LANES / 2]);
            w[2 * i + 1] = interleave_high(v[i], v[i + LANES / 2]);
        }
        for (int i = 0; i < LANES; i++) v[i] = w[i];
    }
}

INLINE void pack_along_unit(float *panel, int64_t width, const char *const *rows, int64_t count, int64_t offset,
                            int64_t length, const pb_unit unit) {
    const int step = unit == PB_UNIT_PAIR ? 2 : 1;
    const int64_t steps = (length + step - 1) / step;
    for (int64_t r0 = 0; r0 < count; r0 += LANES) {
        const int64_t here = count - r0 < LANES ? count - r0 : LANES;
        int64_t p = 0;
        for (; p + LANES <= length / step; p += LANES) {
            vf v[LANES];
            for (int r = 0; r < LANES; r++)
                v[r] = r < here && rows[r0 + r] ? units_at(rows[r0 + r], offset + p * step, unit) : (vf){0};
            transpose(v);
            for (int i = 0; i < LANES; i++) {
                float *to = panel + (p + i) * width + r0;
                if (here == LANES) store(to, v[i]);
                else memcpy(to, &v[i], (size_t)here * sizeof(float));
            }
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

INLINE vu halves_at(const char *row, int64_t i) {
    vh h;
    memcpy(&h, (const uint16_t *)row + i, sizeof h);
    return __builtin_convertvector(h, vu);
}

INLINE void pack_across_unit(float *panel, int64_t width, const char *const *rows, int64_t columns, int64_t offset,
                             int64_t length, const pb_unit unit) {
    const int step = unit == PB_UNIT_PAIR ? 2 : 1;
    for (int64_t p = 0; p < length; p += step, panel += width) {
        const char *row = rows[p], *next = step > 1 && p + 1 < length ? rows[p + 1] : NULL;
        int64_t i = 0;
        for (; i + LANES <= columns; i += LANES) {
            vf v = {0};
            if (unit == PB_UNIT_PAIR) {
                vu u = row ? halves_at(row, offset + i) : (vu){0};
                if (next) u |= halves_at(next, offset + i) << 16;
                v = (vf)u;
            } else if (row) {
                v = units_at(row, offset + i, unit);
            }
            store(panel + i, v);
        }
        for (; i < columns; i++) {
            const int64_t at = offset + i;
            if (unit == PB_UNIT_PAIR) {
                panel[i] = pb_f32_from_bits((row ? ((const uint16_t *)row)[at] : 0u) |
                                            (next ? (uint32_t)((const uint16_t *)next)[at] << 16 : 0u));
            } else {
                panel[i] = row ? unit_at(row, at, 1, unit) : 0;
            }
        }
    }
}

static void pack_across(float *panel, int64_t width, const char *const *rows, int64_t columns, int64_t offset,
                        int64_t length, pb_unit unit) {
    switch (unit) {
        case PB_UNIT_F32: pack_across_unit(panel, width, rows, columns, offset, length, PB_UNIT_F32); break;
        case PB_UNIT_F16: pack_across_unit(panel, width, rows, columns, offset, length, PB_UNIT_F16); break;
        case PB_UNIT_BF16: pack_across_unit(panel, width, rows, columns, offset, length, PB_UNIT_BF16); break;
        case PB_UNIT_PAIR: pack_across_unit(panel, width, rows, columns, offset, length, PB_UNIT_PAIR); break;
    }
}

// ---- rows -----------------------------------------------------------------------------------------------------------

INLINE vf finish_vector(vf v, int64_t i, const pb_dtype dtype, const float *bias, const void *rowbias,
                        const void *addend) {
    if (bias) v += round_to(load(bias + i), dtype);
    v = round_to(v, dtype);
    if (rowbias) v = round_to(v + load_as(rowbias, i, dtype), dtype);
    if (addend) v = round_to(v + load_as(addend, i, dtype), dtype);
    return v;
}

INLINE void finish_as(void *out, const float *sums, int64_t count, const pb_dtype dtype, const float *bias,
                      const void *rowbias, const void *addend) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES)
        store_as(out, i, finish_vector(load(sums + i), i, dtype, bias, rowbias, addend), dtype);
    const size_t left = (size_t)(count - i), size = dtype == PB_F32 ? 4 : 2;
    if (!left) return;
    // The tail, in copies as long as a vector.
    float s[LANES] = {0}, b[LANES] = {0}, r[LANES] = {0}, d[LANES] = {0};
    memcpy(s, sums + i, left * sizeof(float));
    if (bias) memcpy(b, bias + i, left * sizeof(float));
    if (rowbias) memcpy(r, (const char *)rowbias + (size_t)i * size, left * size);
    if (addend) memcpy(d, (const char *)addend + (size_t)i * size, left * size);
    const vf v = finish_vector(load(s), 0, dtype, bias ? b : NULL, rowbias ? r : NULL, addend ? d : NULL);
    store_as(s, 0, v, dtype);
    memcpy((char *)out + (size_t)i * size, s, left * size);
}

static void finish(void *out, const float *sums, int64_t count, pb_dtype dtype, const float *bias, const void *rowbias,
                   const void *addend) {
    if (dtype == PB_F32) finish_as(out, sums, count, PB_F32, bias, rowbias, addend);
    else if (dtype == PB_BF16) finish_as(out, sums, count, PB_BF16, bias, rowbias, addend);
    else finish_as(out, sums, count, PB_F16, bias, rowbias, addend);
}

INLINE void add_rows_as(float *sums, const char *from, int64_t count, int64_t rows, int64_t stride,
                        const pb_dtype dtype) {
    const int64_t size = dtype == PB_F32 ? 4 : 2;
    for (int64_t r = 0; r < rows; r++) {
        const char *row = from + r * stride * size;
        int64_t i = 0;
        for (; i + LANES <= count; i += LANES) store(sums + i, load(sums + i) + load_as(row, i, dtype));
        const pb_unit unit = dtype == PB_F32 ? PB_UNIT_F32 : dtype == PB_BF16 ? PB_UNIT_BF16 : PB_UNIT_F16;
        for (; i < count; i++) sums[i] += unit_at(row, i, 1, unit);
    }
}

static void add_rows(float *sums, const void *from, int64_t count, int64_t rows, int64_t stride, pb_dtype dtype) {
    if (dtype == PB_F32) add_rows_as(sums, from, count, rows, stride, PB_F32);
    else if (dtype == PB_BF16) add_rows_as(sums, from, count, rows, stride, PB_BF16);
    else add_rows_as(sums, from, count, rows, stride, PB_F16);
}

static const pb_gemm_kernels kernels = {
    .lanes = LANES,
    .rows = TILE_ROWS,
    .tile = {TILES(1), TILES(2)},
    .pack_along = pack_along,
    .pack_across = pack_across,
    .finish = finish,
    .add_rows = add_rows,
};
