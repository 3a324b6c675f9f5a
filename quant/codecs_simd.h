// The codecs over vectors: what block8.h, split.h and philox.h say, lane by lane. Included by codecs_<isa>.c, which
// names the table by PB_CODECS_TABLE.
#include "base/simd.h"
#include "quant/codecs.h"

typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef int16_t vs __attribute__((vector_size(2 * LANES)));
typedef int8_t vc __attribute__((vector_size(LANES)));
typedef uint64_t vq __attribute__((vector_size(4 * LANES)));
typedef int16_t vs_memory __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef int8_t vc_memory __attribute__((vector_size(LANES), aligned(1), may_alias));
typedef uint32_t vu_memory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

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

SIMD vf select_signed(vi mask, vf a, vf b) {
    return simd_select((vu)mask, a, b);
}

// --- 8-bit blocks ---

// The constants of the decades, one to a lane.
typedef struct decade_table {
    vf from[PB_BLOCK8_DECADES], slope, offset, last;
    int zero;
} decade_table;

SIMD decade_table load_decades(bool is_signed) {
    const pb_block8_decade *d = pb_block8_decades[!is_signed];
    decade_table t = {.zero = PB_BLOCK8_ZERO(is_signed)};
    float slope[LANES] = {0}, offset[LANES] = {0}, last[LANES] = {0};
    for (int k = 0; k < PB_BLOCK8_DECADES; k++) {
        t.from[k] = simd_set(d[k].from);
        slope[k] = d[k].slope;
        offset[k] = d[k].offset;
        last[k] = d[k].last;
    }
    t.slope = simd_load(slope);
    t.offset = simd_load(offset);
    t.last = simd_load(last);
    return t;
}

// Codes as integers; those below 0 stand for 0.
SIMD vi encode_lanes(vf x, vf inverse, const decade_table *t) {
    const vf y = simd_clamp(x * inverse, -1, 1);
    // A NaN converts to the number that has the top bit alone.
    const vi point = __builtin_convertvector(simd_fma((y + 1) * 0.5f, simd_set(65535), simd_set(0.5f)), vi) & 0xffff;
    const vf g = __builtin_convertvector(point, vf) - 32767.5f, distance = simd_abs(g);
#if defined(PB_SIMD_512)
    __m512i d = _mm512_setzero_si512();
    for (int k = 1; k < PB_BLOCK8_DECADES; k++)
        d = _mm512_mask_add_epi32(d, _mm512_cmp_ps_mask((__m512)distance, (__m512)t->from[k], _CMP_GT_OQ), d,
                                  _mm512_set1_epi32(1));
    const vf slope = (vf)_mm512_permutexvar_ps(d, (__m512)t->slope);
    const vf offset = (vf)_mm512_permutexvar_ps(d, (__m512)t->offset);
    const vf last = (vf)_mm512_permutexvar_ps(d, (__m512)t->last);
    const vf level = (vf)_mm512_min_ps((__m512)simd_fma(distance, slope, offset), (__m512)last);
#else
    vi d = {0};
    for (int k = 1; k < PB_BLOCK8_DECADES; k++) d -= (vi)(distance > t->from[k]);
    const vf slope = (vf)_mm256_permutevar8x32_ps((__m256)t->slope, (__m256i)d);
    const vf offset = (vf)_mm256_permutevar8x32_ps((__m256)t->offset, (__m256i)d);
    const vf last = (vf)_mm256_permutevar8x32_ps((__m256)t->last, (__m256i)d);
    const vf level = (vf)_mm256_min_ps((__m256)simd_fma(distance, slope, offset), (__m256)last);
#endif
    const vi sign = (vi)g >> 31;
    return t->zero + ((__builtin_convertvector(level, vi) ^ sign) - sign);
}

// 4 LANES codes.
SIMD void store_codes(uint8_t *codes, const vi c[4]) {
#if defined(PB_SIMD_512)
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

SIMD vf larger(vf largest, vf x) {
    const vf magnitude = simd_abs(x);
    // The instruction gives its second operand where one is a NaN.
#if defined(PB_SIMD_512)
    return (vf)_mm512_max_ps((__m512)magnitude, (__m512)largest);
#else
    return (vf)_mm256_max_ps((__m256)magnitude, (__m256)largest);
#endif
}

// A whole block.
SIMD void encode_block(const float *x, const decade_table *t, uint8_t *codes, float *scale) {
    vf most[4] = {simd_set(0), simd_set(0), simd_set(0), simd_set(0)};
    for (int i = 0; i < PB_BLOCK8; i += 4 * LANES)
        for (int k = 0; k < 4; k++) most[k] = larger(most[k], simd_load(x + i + k * LANES));
    float lanes[LANES], largest = 0;
    simd_store(lanes, larger(larger(most[0], most[1]), larger(most[2], most[3])));
    for (int i = 0; i < LANES; i++) largest = lanes[i] > largest ? lanes[i] : largest;
    *scale = largest;
    if (largest == 0) {
        memset(codes, 0, PB_BLOCK8);
        return;
    }
    const vf inverse = simd_set(1 / largest);
    for (int i = 0; i < PB_BLOCK8; i += 4 * LANES) {
        vi c[4];
        for (int k = 0; k < 4; k++) c[k] = encode_lanes(simd_load(x + i + k * LANES), inverse, t);
        store_codes(codes + i, c);
    }
}

static void encode8(bool is_signed, const float *x, int64_t n, uint8_t *codes, float *scales) {
    const decade_table t = load_decades(is_signed);
    int64_t i = 0;
    for (; i + PB_BLOCK8 <= n; i += PB_BLOCK8) encode_block(x + i, &t, codes + i, scales + i / PB_BLOCK8);
    if (i == n) return;
    // Zeros change nothing in the others.
    float padded[PB_BLOCK8] = {0};
    uint8_t padded_codes[PB_BLOCK8];
    memcpy(padded, x + i, (size_t)(n - i) * sizeof *x);
    encode_block(padded, &t, padded_codes, scales + i / PB_BLOCK8);
    memcpy(codes + i, padded_codes, (size_t)(n - i));
}

SIMD vf look_up(const float map[256], const uint8_t *c) {
#if defined(PB_SIMD_512)
    return (vf)_mm512_i32gather_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)c)), map, 4);
#else
    return (vf){map[c[0]], map[c[1]], map[c[2]], map[c[3]], map[c[4]], map[c[5]], map[c[6]], map[c[7]]};
#endif
}

static void decode8(bool is_signed, const uint8_t *codes, const float *scales, int64_t n, float *x) {
    const float *map = pb_block8_map[!is_signed];
    for (int64_t block = 0; block < n; block += PB_BLOCK8) {
        const int64_t end = least(block + PB_BLOCK8, n);
        const float scale = scales[block / PB_BLOCK8];
        int64_t i = block;
        for (; i + LANES <= end; i += LANES) simd_store(x + i, look_up(map, codes + i) * scale);
        for (; i < end; i++) x[i] = map[codes[i]] * scale;
    }
}

// --- Split weights ---

typedef struct split_lanes {
    vu work;  // 16 bits
    vi residual;
} split_lanes;

SIMD split_lanes split_bf16(vf x, bool wide) {
    const vu u = simd_bits(x), nan = (vu)(x != x);
    const vu rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    split_lanes s = {.work = (((u >> 16) | 0x40u) & nan) | (rounded & ~nan)};
    const vi distance = (vi)((u - (s.work << 16)) & ~nan);
    s.residual =
        wide ? distance + (vi)(distance > 32767) : round_to_int(__builtin_convertvector(distance, vf) * PB_SPLIT8_BF16);
    return s;
}

SIMD vf join_bf16(vu work, vi residual, bool wide) {
    const vi distance = wide ? residual : round_to_int(__builtin_convertvector(residual, vf) * PB_SPLIT8_BF16_INVERSE);
    return simd_from_bits((work << 16) + (vu)distance);
}

SIMD vi exponent_of(vu work_bits) {
    const vi exponent = (vi)((work_bits >> 23) & 255u), most = (vi)(exponent > PB_SPLIT_F16_EXPONENT);
    return (exponent & most) | (PB_SPLIT_F16_EXPONENT & ~most);
}

SIMD split_lanes split_f16(vf x, bool wide) {
    const vh half = simd_to_f16(x);
    const vf work = simd_from_f16(half);
    const vf ulps = (x - work) * simd_from_bits((vu)(264 - exponent_of(simd_bits(work))) << 23);
    const vi finite = (vi)((simd_bits(work) & 0x7f800000u) != 0x7f800000u);
    return (split_lanes){.work = __builtin_convertvector(half, vu),
                         .residual = round_to_int(ulps * (wide ? 32768.0f : 254.0f)) & finite};
}

SIMD vf join_f16(vh half, vi residual, bool wide) {
    const vf work = simd_from_f16(half);
    const vf ulp = simd_from_bits((vu)(exponent_of(simd_bits(work)) - 10) << 23);
    const vi finite = (vi)((simd_bits(work) & 0x7f800000u) != 0x7f800000u);
    const vf sum =
        simd_fma(__builtin_convertvector(residual, vf), ulp * (wide ? 0x1p-15f : PB_SPLIT8_F16_INVERSE), work);
    return select_signed(finite, sum, work);
}

SIMD void split_vector(pb_dtype type, bool wide, const float *x, uint16_t *work, void *residual) {
    const split_lanes s = type == PB_BF16 ? split_bf16(simd_load(x), wide) : split_f16(simd_load(x), wide);
    *(vh_memory *)work = __builtin_convertvector(s.work, vh);
    if (wide)
        *(vs_memory *)residual = __builtin_convertvector(s.residual, vs);
    else
        *(vc_memory *)residual = __builtin_convertvector(s.residual, vc);
}

SIMD void join_vector(pb_dtype type, bool wide, const uint16_t *work, const void *residual, float *x) {
    const vi r = wide ? __builtin_convertvector(*(const vs_memory *)residual, vi)
                      : __builtin_convertvector(*(const vc_memory *)residual, vi);
    const vh half = *(const vh_memory *)work;
    simd_store(x, type == PB_BF16 ? join_bf16(__builtin_convertvector(half, vu), r, wide) : join_f16(half, r, wide));
}

SIMD void split_as(pb_dtype type, bool wide, const float *x, int64_t n, uint16_t *work, char *residual) {
    const int64_t bytes = wide ? 2 : 1;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) split_vector(type, wide, x + i, work + i, residual + i * bytes);
    if (i == n) return;
    float last[LANES] = {0};
    uint16_t last_work[LANES];
    char last_residual[2 * LANES];
    memcpy(last, x + i, (size_t)(n - i) * sizeof *x);
    split_vector(type, wide, last, last_work, last_residual);
    memcpy(work + i, last_work, (size_t)(n - i) * sizeof *work);
    memcpy(residual + i * bytes, last_residual, (size_t)((n - i) * bytes));
}

SIMD void join_as(pb_dtype type, bool wide, const uint16_t *work, const char *residual, int64_t n, float *x) {
    const int64_t bytes = wide ? 2 : 1;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) join_vector(type, wide, work + i, residual + i * bytes, x + i);
    if (i == n) return;
    float last[LANES];
    uint16_t last_work[LANES] = {0};
    char last_residual[2 * LANES] = {0};
    memcpy(last_work, work + i, (size_t)(n - i) * sizeof *work);
    memcpy(last_residual, residual + i * bytes, (size_t)((n - i) * bytes));
    join_vector(type, wide, last_work, last_residual, last);
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

// Products of the lower halves of 64-bit lanes.
SIMD vq multiply_wide(vq a, uint32_t b) {
#if defined(PB_SIMD_512)
    return (vq)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi32((int)b));
#else
    return (vq)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi32((int)b));
#endif
}

typedef struct product {
    vu low, high;
} product;

SIMD product multiply(vu a, uint32_t b) {
    const vq upper = (vq){0} + 0xffffffff00000000u;
    const vq even = multiply_wide((vq)a, b), odd = multiply_wide((vq)a >> 32, b);
    return (product){(vu)((even & ~upper) | (odd << 32)), (vu)((even >> 32) | (odd & upper))};
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
    for (int i = 0; i < LANES; i++)
        for (int w = 0; w < 4; w++) memcpy(random + i * PB_PHILOX_ELEMENTS + 2 * w, &words[w][i], sizeof words[w][i]);
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

const pb_codecs PB_CODECS_TABLE = {
    .encode8 = encode8,
    .decode8 = decode8,
    .split = split,
    .join = join,
    .round_stochastic = round_stochastic,
};
