// The codecs over vectors: what block8.h, split.h and philox.h say, lane by lane. Included by codecs_<isa>.c, which
// names the table by PB_CODECS_TABLE.
#include "base/simd.h"
#include "quant/codecs.h"

typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef int16_t vs __attribute__((vector_size(2 * LANES)));
typedef uint64_t vq __attribute__((vector_size(4 * LANES)));
typedef int16_t vs_memory __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t vu_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// The processor does not look far enough ahead for lines that it will need: so many elements.
enum { AHEAD = 512 };

SIMD int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// To the nearest integer, ties to even.
SIMD vi round_to_int(vf x) {
#if defined(PB_SIMD_512)
    return (vi)_mm512_cvtps_epi32((__m512)x);
#else
    return (vi)_mm256_cvtps_epi32((__m256)x);
#endif
}

// --- 8-bit blocks ---

// The constants of the decades, one to a lane. Which decade a distance from the middle lies in goes by its exponent: by
// all of the exponent's bits but the last, of which the low three choose the lane of `base` and `from`, for of two
// neighbouring powers of two at most one can have the beginning of a decade between.
typedef struct decade_table {
    vf from, slope, offset, last;
    vi base, zero;
} decade_table;

SIMD decade_table load_decades(bool is_signed) {
    const pb_block8_decade *d = pb_block8_decades[!is_signed];
    float from[LANES] = {0}, slope[LANES] = {0}, offset[LANES] = {0}, last[LANES] = {0};
    int32_t base[LANES] = {0};
    for (int k = 0; k < PB_BLOCK8_DECADES; k++) {
        slope[k] = d[k].slope;
        offset[k] = d[k].offset;
        last[k] = d[k].last;
    }
    for (uint32_t pair = 63; pair <= 70; pair++) {  // distances are 0.5 and up, and below 32768
        const float low = pb_f32_from_bits(pair << 24);
        int k = 0;
        while (k + 1 < PB_BLOCK8_DECADES && d[k + 1].from <= low) k++;
        base[pair & 7] = k;
        from[pair & 7] = k + 1 < PB_BLOCK8_DECADES ? d[k + 1].from : 65536;
    }
    decade_table t = {.from = simd_load(from),
                      .slope = simd_load(slope),
                      .offset = simd_load(offset),
                      .last = simd_load(last),
                      .zero = (vi){0} + PB_BLOCK8_ZERO(is_signed)};
    memcpy(&t.base, base, sizeof base);
    return t;
}

#if defined(PB_SIMD_512)
SIMD vf pick(vf table, vi index) {
    return (vf)_mm512_permutexvar_ps((__m512i)index, (__m512)table);
}

// Where one is a NaN: `b`.
SIMD vf greater_of(vf a, vf b) {
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
}

SIMD vf lesser_of(vf a, vf b) {
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
}

SIMD vf round_down(vf x) {
    return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

SIMD vi next_if_beyond(vi index, vf x, vf from) {
    return (vi)_mm512_mask_add_epi32((__m512i)index, _mm512_cmp_ps_mask((__m512)x, (__m512)from, _CMP_GT_OQ),
                                     (__m512i)index, _mm512_set1_epi32(1));
}
#else
SIMD vf pick(vf table, vi index) {
    return (vf)_mm256_permutevar8x32_ps((__m256)table, (__m256i)index);
}

SIMD vf greater_of(vf a, vf b) {
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
}

SIMD vf lesser_of(vf a, vf b) {
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
}

SIMD vf round_down(vf x) {
    return (vf)_mm256_floor_ps((__m256)x);
}

SIMD vi next_if_beyond(vi index, vf x, vf from) {
    return index - (vi)(x > from);
}
#endif

// Codes as integers; those below 0 stand for 0.
SIMD vi encode_lanes(vf x, vf inverse, const decade_table *t) {
    // A NaN goes where -1 goes, which has code 0 in both sets.
    const vf y = lesser_of(greater_of(x * inverse, simd_set(-1)), simd_set(1));
    const vf g = round_down(simd_fma((y + 1) * 0.5f, simd_set(65535), simd_set(0.5f))) - 32767.5f;
    const vf distance = simd_abs(g);
#if defined(PB_SIMD_512)
    const vi pair = (vi)((simd_bits(distance) >> 24) & 7u);
#else
    const vi pair = (vi)(simd_bits(distance) >> 24);  // the instruction looks at three bits
#endif
    const vi decade = next_if_beyond((vi)pick((vf)t->base, pair), distance, pick(t->from, pair));
    const vf level = simd_fma(distance, pick(t->slope, decade), pick(t->offset, decade));
    const vf cut = lesser_of(level, pick(t->last, decade));
    // Towards zero, so the sign may go before.
    return t->zero + __builtin_convertvector(simd_from_bits(simd_bits(cut) | (simd_bits(g) & 0x80000000u)), vi);
}

// 4 LANES codes.
SIMD void store_codes(uint8_t *codes, const vi c[4]) {
#if defined(PB_SIMD_512)
    UNROLLED
    for (int k = 0; k < 4; k++)
        _mm_storeu_si128((__m128i *)(codes + k * LANES),
                         _mm512_cvtepi32_epi8(_mm512_max_epi32((__m512i)c[k], _mm512_setzero_si512())));
#else
    const __m256i low = _mm256_packs_epi32((__m256i)c[0], (__m256i)c[1]);
    const __m256i high = _mm256_packs_epi32((__m256i)c[2], (__m256i)c[3]);
    const __m256i bytes = _mm256_packus_epi16(low, high);  // in groups of four, the lower halves' first
    _mm256_storeu_si256((__m256i *)codes,
                        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
#endif
}

// A whole block.
SIMD void encode_block(const float *x, const decade_table *t, uint8_t *codes, float *scale) {
    vf most[4] = {simd_set(0), simd_set(0), simd_set(0), simd_set(0)};
    for (int i = 0; i < PB_BLOCK8; i += 4 * LANES) {
        UNROLLED
        for (int k = 0; k < 4; k++) most[k] = greater_of(simd_abs(simd_load(x + i + k * LANES)), most[k]);
    }
    float lanes[LANES], largest = 0;
    simd_store(lanes, greater_of(greater_of(most[0], most[1]), greater_of(most[2], most[3])));
    for (int i = 0; i < LANES; i++) largest = lanes[i] > largest ? lanes[i] : largest;
    *scale = largest;
    if (largest == 0) {
        memset(codes, 0, PB_BLOCK8);
        return;
    }
    const vf inverse = simd_set(1 / largest);
    for (int i = 0; i < PB_BLOCK8; i += 4 * LANES) {
        for (int k = 0; k < 4 * LANES; k += 16) __builtin_prefetch(x + AHEAD + i + k);
        vi c[4];
        UNROLLED
        for (int k = 0; k < 4; k++) c[k] = encode_lanes(simd_load(x + i + k * LANES), inverse, t);
        store_codes(codes + i, c);
    }
}

#if defined(PB_SIMD_512)
// The whole blocks of x; returns the index behind them.
static int64_t encode_blocks(bool is_signed, const float *x, int64_t n, uint8_t *codes, float *scales) {
    const decade_table t = load_decades(is_signed);
    int64_t i = 0;
    for (; i + PB_BLOCK8 <= n; i += PB_BLOCK8) encode_block(x + i, &t, codes + i, scales + i / PB_BLOCK8);
    return i;
}
#else
#include "quant/codecs_avx2.h"
#endif

static void encode8(bool is_signed, const float *x, int64_t n, uint8_t *codes, float *scales) {
    const int64_t i = encode_blocks(is_signed, x, n, codes, scales);
    if (i == n) return;
    // Zeros change nothing in the others.
    const decade_table t = load_decades(is_signed);
    float padded[PB_BLOCK8] = {0};
    uint8_t padded_codes[PB_BLOCK8];
    memcpy(padded, x + i, (size_t)(n - i) * sizeof *x);
    encode_block(padded, &t, padded_codes, scales + i / PB_BLOCK8);
    memcpy(codes + i, padded_codes, (size_t)(n - i));
}

#if defined(PB_SIMD_512)
SIMD vf look_up(const float map[256], const uint8_t *c) {
    return (vf)_mm512_i32gather_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)c)), map, 4);
}
#else
// Two codes to a load, the second one a shift away. What bounds this is how many operations the processor takes in, not
// what they are.
SIMD uint32_t two_codes(const uint8_t *c) {
    uint16_t both;
    memcpy(&both, c, sizeof both);
    uint32_t wide = both;
    __asm__("" : "+r"(wide));  // or the compiler cuts off once more what a shift has cut off
    return wide;
}

SIMD __m128 look_up_four(const float map[256], const uint8_t *c) {
    const uint32_t low = two_codes(c), high = two_codes(c + 2);
    return (__m128){map[low & 255], map[low >> 8], map[high & 255], map[high >> 8]};
}

SIMD vf look_up(const float map[256], const uint8_t *c) {
    return (vf)_mm256_insertf128_ps(_mm256_castps128_ps256(look_up_four(map, c)), look_up_four(map, c + 4), 1);
}
#endif

static void decode8(bool is_signed, const uint8_t *codes, const float *scales, int64_t n, float *x) {
    const float *map = pb_block8_map[!is_signed];
    const int64_t whole = n / PB_BLOCK8 * PB_BLOCK8;
    for (int64_t i = 0; i < whole; i += 4 * LANES) {
        const vf scale = simd_set(scales[i / PB_BLOCK8]);
        UNROLLED
        for (int k = 0; k < 4 * LANES; k += LANES) simd_store(x + i + k, look_up(map, codes + i + k) * scale);
    }
    for (int64_t i = whole; i < n; i++) x[i] = map[codes[i]] * scales[i / PB_BLOCK8];
}

// --- Split weights ---

SIMD vi choose(vi mask, vi a, vi b) {
#if defined(PB_SIMD_512)
    return (a & mask) | (b & ~mask);
#else
    return (vi)_mm256_blendv_epi8((__m256i)b, (__m256i)a, (__m256i)mask);
#endif
}

typedef struct split_lanes {
    vu work;  // 16 bits
    vi residual;
} split_lanes;

SIMD split_lanes split_bf16(vf x, bool wide) {
    const vu u = simd_bits(x), nan = (vu)(x != x);
    const vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    split_lanes s = {.work = (vu)choose((vi)nan, (vi)((u >> 16) | 0x40u), (vi)rounded)};
    const vi distance = (vi)((u - (s.work << 16)) & ~nan);
    s.residual =
        wide ? distance + (vi)(distance > 32767) : round_to_int(__builtin_convertvector(distance, vf) * PB_SPLIT8_BF16);
    return s;
}

SIMD vf join_bf16(vu work, vi residual, bool wide) {
    const vi distance = wide ? residual : round_to_int(__builtin_convertvector(residual, vf) * PB_SPLIT8_BF16_INVERSE);
    return simd_from_bits((work << 16) + (vu)distance);
}

// Comparisons with a sign, of what has none: one instruction.
SIMD vi is_small(vf work) {
    return (vi)((vi)simd_bits(simd_abs(work)) < PB_SPLIT_SMALL_BITS + 1);
}

SIMD vi is_finite(vf work) {
    return (vi)((vi)simd_bits(simd_abs(work)) < 0x7f800000);
}

// The residual of x beside `half`, which it is rounded to.
SIMD vi residual_f16(vf x, vh half, bool wide) {
    const vf work = simd_from_f16(half);
    const float most = wide ? PB_SPLIT16_SMALL_MOST : PB_SPLIT8_MOST;
    // Cut before it is rounded: the same, for an integer bound.
    const vi small = round_to_int(simd_clamp((x - work) * (wide ? PB_SPLIT16_SMALL : PB_SPLIT8_SMALL), -most, most));
    const vi units = (vi)(simd_bits(x) - simd_bits(work));
    const vi distance = wide ? units : round_to_int(__builtin_convertvector(units, vf) * PB_SPLIT8_F16);
    return choose(is_small(work), small, distance) & is_finite(work);
}

SIMD vf join_f16(vh half, vi residual, bool wide) {
    const vf work = simd_from_f16(half), r = __builtin_convertvector(residual, vf);
    const vf small = simd_fma(r, simd_set(wide ? PB_SPLIT16_SMALL_INVERSE : PB_SPLIT8_SMALL_INVERSE), work);
    const vi distance = wide ? residual : round_to_int(r * PB_SPLIT8_F16_INVERSE);
    const vf far = simd_from_bits(simd_bits(work) + (vu)(distance & is_finite(work)));
    return (vf)choose(is_small(work) & (vi)(residual != 0), (vi)small, (vi)far);
}

// 2 LANES integers as 16 bits, and 4 LANES as 8 bits. They fit.
SIMD void store_16(int16_t *to, vi low, vi high) {
#if defined(PB_SIMD_512)
    *(vs_memory *)to = __builtin_convertvector(low, vs);
    *(vs_memory *)(to + LANES) = __builtin_convertvector(high, vs);
#else
    // The instruction works in halves: 0 1 2 3 of the first, 0 1 2 3 of the second, then the rest.
    _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)low, (__m256i)high), 0xd8));
#endif
}

SIMD void store_unsigned_16(uint16_t *to, vu low, vu high) {
#if defined(PB_SIMD_512)
    *(vh_memory *)to = __builtin_convertvector(low, vh);
    *(vh_memory *)(to + LANES) = __builtin_convertvector(high, vh);
#else
    _mm256_storeu_si256((__m256i *)to,
                        _mm256_permute4x64_epi64(_mm256_packus_epi32((__m256i)low, (__m256i)high), 0xd8));
#endif
}

SIMD void store_8(int8_t *to, const vi x[4]) {
#if defined(PB_SIMD_512)
    UNROLLED
    for (int k = 0; k < 4; k++) _mm_storeu_si128((__m128i *)(to + k * LANES), _mm512_cvtepi32_epi8((__m512i)x[k]));
#else
    const __m256i low = _mm256_packs_epi32((__m256i)x[0], (__m256i)x[1]);
    const __m256i high = _mm256_packs_epi32((__m256i)x[2], (__m256i)x[3]);
    _mm256_storeu_si256((__m256i *)to, _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high),
                                                                   _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
#endif
}

SIMD vi load_8(const int8_t *from) {
#if defined(PB_SIMD_512)
    return (vi)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from));
#else
    return (vi)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from));
#endif
}

enum { GROUP = 4 * LANES };  // elements at a time

SIMD void split_group(pb_dtype type, bool wide, const float *x, uint16_t *work, void *residual) {
    vu w[4];
    vi r[4];
    UNROLLED
    for (int k = 0; k < 4; k++) {
        const vf v = simd_load(x + k * LANES);
        if (type == PB_BF16) {
            const split_lanes s = split_bf16(v, wide);
            w[k] = s.work;
            r[k] = s.residual;
        } else {
            const vh half = simd_to_f16(v);
            *(vh_memory *)(work + k * LANES) = half;
            r[k] = residual_f16(v, half, wide);
        }
    }
    UNROLLED
    for (int k = 0; k < 4; k += 2) {
        if (type == PB_BF16) store_unsigned_16(work + k * LANES, w[k], w[k + 1]);
        if (wide) store_16((int16_t *)residual + k * LANES, r[k], r[k + 1]);
    }
    if (!wide) store_8(residual, r);
}

SIMD void join_group(pb_dtype type, bool wide, const uint16_t *work, const void *residual, float *x) {
    UNROLLED
    for (int i = 0; i < GROUP; i += LANES) {
        const vi r = wide ? __builtin_convertvector(*(const vs_memory *)((const int16_t *)residual + i), vi)
                          : load_8((const int8_t *)residual + i);
        const vh half = *(const vh_memory *)(work + i);
        simd_store(x + i,
                   type == PB_BF16 ? join_bf16(__builtin_convertvector(half, vu), r, wide) : join_f16(half, r, wide));
    }
}

SIMD void split_as(pb_dtype type, bool wide, const float *x, int64_t n, uint16_t *work, char *residual) {
    const int64_t bytes = wide ? 2 : 1;
    int64_t i = 0;
    for (; i + GROUP <= n; i += GROUP) {
        for (int k = 0; k < GROUP; k += 16) __builtin_prefetch(x + i + k + AHEAD);
        for (int k = 0; k < GROUP; k += 32) __builtin_prefetch(work + i + k + AHEAD, 1);
        __builtin_prefetch(residual + (i + AHEAD) * bytes, 1);
        split_group(type, wide, x + i, work + i, residual + i * bytes);
    }
    if (i == n) return;
    float last[GROUP] = {0};
    uint16_t last_work[GROUP];
    int16_t last_residual[GROUP];
    memcpy(last, x + i, (size_t)(n - i) * sizeof *x);
    split_group(type, wide, last, last_work, last_residual);
    memcpy(work + i, last_work, (size_t)(n - i) * sizeof *work);
    memcpy(residual + i * bytes, last_residual, (size_t)((n - i) * bytes));
}

SIMD void join_as(pb_dtype type, bool wide, const uint16_t *work, const char *residual, int64_t n, float *x) {
    const int64_t bytes = wide ? 2 : 1;
    int64_t i = 0;
    for (; i + GROUP <= n; i += GROUP) {
        for (int k = 0; k < GROUP; k += 32) __builtin_prefetch(work + i + k + AHEAD);
        __builtin_prefetch(residual + (i + AHEAD) * bytes);
        for (int k = 0; k < GROUP; k += 16) __builtin_prefetch(x + i + k + AHEAD, 1);
        join_group(type, wide, work + i, residual + i * bytes, x + i);
    }
    if (i == n) return;
    float last[GROUP];
    uint16_t last_work[GROUP] = {0};
    int16_t last_residual[GROUP] = {0};
    memcpy(last_work, work + i, (size_t)(n - i) * sizeof *work);
    memcpy(last_residual, residual + i * bytes, (size_t)((n - i) * bytes));
    join_group(type, wide, last_work, last_residual, last);
    memcpy(x + i, last, (size_t)(n - i) * sizeof *x);
}

static void split(pb_dtype type, pb_dtype residual_type, const float *x, int64_t n, uint16_t *work, void *residual) {
    if (type == PB_BF16 && residual_type == PB_I16)
        split_as(PB_BF16, true, x, n, work, residual);
    else if (type == PB_BF16)
        split_as(PB_BF16, false, x, n, work, residual);
    else if (residual_type == PB_I16)
        split_as(PB_F16, true, x, n, work, residual);
    else
        split_as(PB_F16, false, x, n, work, residual);
}

static void join(pb_dtype type, pb_dtype residual_type, const uint16_t *work, const void *residual, int64_t n,
                 float *x) {
    if (type == PB_BF16 && residual_type == PB_I16)
        join_as(PB_BF16, true, work, residual, n, x);
    else if (type == PB_BF16)
        join_as(PB_BF16, false, work, residual, n, x);
    else if (residual_type == PB_I16)
        join_as(PB_F16, true, work, residual, n, x);
    else
        join_as(PB_F16, false, work, residual, n, x);
}

// --- Stochastic rounding ---

#if defined(PB_SIMD_512)
// Products of the lower halves of 64-bit lanes.
SIMD vq multiply_wide(vq a, uint32_t b) {
    return (vq)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi32((int)b));
}

typedef struct product {
    vu low, high;
} product;

// The odd 32-bit lanes of `odd`, the even ones of `even`.
SIMD vu weave(vq even, vq odd) {
    return (vu)_mm512_mask_blend_epi32(0xaaaa, (__m512i)even, (__m512i)odd);
}

SIMD product multiply(vu a, uint32_t b) {
    const vq even = multiply_wide((vq)a, b), odd = multiply_wide((vq)a >> 32, b);
    return (product){weave(even, odd << 32), weave(even >> 32, odd)};
}

enum { DRAWN = LANES * PB_PHILOX_ELEMENTS };  // elements that LANES blocks serve

// The bits of DRAWN elements from block `block` on.
SIMD void draw(const pb_random_key *key, uint64_t block, uint16_t random[DRAWN]) {
    vu c[4], low;
    for (int i = 0; i < LANES; i++) low[i] = (uint32_t)(block + (uint64_t)i);
    c[0] = low;
    c[1] = (vu){0} + (uint32_t)(block >> 32) - (vu)(low < (uint32_t)block);
    c[2] = (vu){0} + key->step;
    c[3] = (vu){0} + key->stream;
    uint32_t key0 = (uint32_t)key->seed, key1 = (uint32_t)(key->seed >> 32);
    for (int round = 0; round < PB_PHILOX_ROUNDS; round++) {
        const product a = multiply(c[0], PB_PHILOX_M0), b = multiply(c[2], PB_PHILOX_M1);
        c[0] = b.high ^ c[1] ^ key0;
        c[1] = b.low;
        c[2] = a.high ^ c[3] ^ key1;
        c[3] = a.low;
        key0 += PB_PHILOX_W0;
        key1 += PB_PHILOX_W1;
    }
    uint32_t words[4][LANES];
    for (int w = 0; w < 4; w++) *(vu_memory *)words[w] = c[w];
    UNROLLED
    for (int i = 0; i < LANES; i++) {
        UNROLLED
        for (int w = 0; w < 4; w++) memcpy(random + i * PB_PHILOX_ELEMENTS + 2 * w, &words[w][i], sizeof words[w][i]);
    }
}

SIMD vh round_lanes(vf x, vh random) {
    const vu u = simd_bits(x), nan = (vu)(x != x), rounded = (u + __builtin_convertvector(random, vu)) >> 16;
    return __builtin_convertvector((((u >> 16) | 0x40u) & nan) | (rounded & ~nan), vh);
}

static void round_stochastic(const pb_random_key *key, int64_t first, const float *x, int64_t n, uint16_t *to) {
    uint16_t random[DRAWN];
    for (int64_t begin = 0; begin < n; begin += DRAWN) {
        draw(key, (uint64_t)(first + begin) / PB_PHILOX_ELEMENTS, random);
        const int64_t count = least(DRAWN, n - begin);
        int64_t i = 0;
        for (; i + LANES <= count; i += LANES)
            *(vh_memory *)(to + begin + i) = round_lanes(simd_load(x + begin + i), *(const vh_memory *)(random + i));
        for (; i < count; i++) to[begin + i] = pb_round_stochastic(x[begin + i], random[i]);
    }
}
#else
#include "quant/codecs_avx2_random.h"
#endif

const pb_codecs PB_CODECS_TABLE = {
    .encode8 = encode8,
    .decode8 = decode8,
    .split = split,
    .join = join,
    .round_stochastic = round_stochastic,
};
