// What AVX2 does in its own way: blocks' codes and stochastic rounding. Included by codecs_simd.h, after encode_block.
#ifndef PB_QUANT_CODECS_AVX2_H
#define PB_QUANT_CODECS_AVX2_H

// --- 8-bit blocks ---

// A block is usual where its largest magnitude and the reciprocal of it are normal numbers; then there is no NaN, and
// no product with the reciprocal is beyond 1: x / largest is at most 1, the reciprocal at most 2^-24 of itself too
// large, and 1 + 2^-24 rounds to 1. encode_block does the others.
enum { LEAST_USUAL = 0x00800000, MOST_USUAL = 0x7e000000 };  // bits of 2^-126 and 2^125

// The table of 65,536 points in 16-bit lanes, so that an operation serves sixteen numbers. A point's place is counted
// from the nearer end, 0 to 32767 in the middle; levels, from that end, go down by
//     (offset - ((place - begin, or 0) rate >> 16)) fold >> 16,
// `fold` standing for a shift. No rate of 16 bits is exact for the whole of the last decade, so it is cut into three
// pieces, and the one before it, of numbers >= 0, into two. The last 15 places of each side go by a table of what is
// too much, and of the very first the level is one more. Found by trying all; test_codec_bits compares every point.
enum { MOST_PIECES = 7, MIDDLE = 32752 };
typedef struct usual_pieces {
    int pieces;
    int16_t before[MOST_PIECES];  // the place before its first
    int16_t top;                  // places below have the level that is one more
    // Bytes, as they are looked up: the lower ones of eight words, then the upper ones; the last table has lower ones
    // only, by the place beyond MIDDLE.
    _Alignas(16) uint8_t begin[16], rate[16], offset[16], fold[16], excess[16];
} usual_pieces;

#define WORDS(a, b, c, d, e, f, g)                                                                                  \
    {                                                                                                               \
        (a) & 255, (b)&255, (c)&255, (d)&255, (e)&255, (f)&255, (g)&255, 0, (a) >> 8, (b) >> 8, (c) >> 8, (d) >> 8, \
            (e) >> 8, (f) >> 8, (g) >> 8, 0                                                                         \
    }
static const usual_pieces usual_signed = {
    .pieces = 6,
    .before = {-1, 13362, 26725, 29398, 32421, 32731},
    .top = 116,
    .begin = WORDS(459, 13822, 27185, 29580, 32441, 32735, 0),
    .rate = WORDS(36409, 36409, 36409, 45511, 56894, 35747, 0),
    .offset = WORDS(32512, 25088, 17664, 4033, 510, 31, 0),
    .fold = WORDS(256, 256, 256, 1024, 4096, 32768, 0),
    .excess = {[12] = 1, 1, 2, 3},
};
static const usual_pieces usual_unsigned = {
    .pieces = 7,
    .before = {-1, 13362, 26725, 29444, 31978, 32430, 32732},
    .top = 58,
    .begin = WORDS(225, 13588, 26951, 29521, 31972, 32441, 32735),
    .rate = WORDS(36409, 36409, 36409, 45513, 45511, 56894, 36458),
    .offset = WORDS(32514, 25090, 17666, 4042, 2340, 502, 32),
    .fold = WORDS(512, 512, 512, 2048, 2048, 8192, 62686),
    .excess = {[2] = 1, [4] = 1, 1, 1, 1, 1, 1, 0, 1, 1, 3, 4, 7},
};
#undef WORDS

SIMD __m256i table_of(const uint8_t bytes[16]) {
    return _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)bytes));
}

// The points that eight numbers land on.
SIMD __m256i usual_points(const float *x, __m256 inverse) {
    const __m256 y = _mm256_mul_ps(_mm256_loadu_ps(x), inverse);
    // fma((y + 1) / 2, 65535, 1 / 2): halving is exact.
    return _mm256_cvttps_epi32(
        _mm256_fmadd_ps(_mm256_add_ps(y, _mm256_set1_ps(1)), _mm256_set1_ps(32767.5f), _mm256_set1_ps(0.5f)));
}

// Levels of sixteen points, without their signs.
SIMD __m256i usual_levels(__m256i points, const usual_pieces *p) {
    const __m256i place = _mm256_xor_si256(points, _mm256_srai_epi16(points, 15));
    __m256i piece = _mm256_set1_epi16(0x0800);
    UNROLLED
    for (int k = 1; k < p->pieces; k++)
        piece = _mm256_sub_epi8(piece, _mm256_cmpgt_epi16(place, _mm256_set1_epi16(p->before[k])));
    const __m256i along = _mm256_subs_epu16(place, _mm256_shuffle_epi8(table_of(p->begin), piece));
    const __m256i down = _mm256_mulhi_epu16(along, _mm256_shuffle_epi8(table_of(p->rate), piece));
    const __m256i level = _mm256_mulhi_epu16(_mm256_sub_epi16(_mm256_shuffle_epi8(table_of(p->offset), piece), down),
                                             _mm256_shuffle_epi8(table_of(p->fold), piece));
    const __m256i excess =
        _mm256_shuffle_epi8(table_of(p->excess), _mm256_subs_epu16(place, _mm256_set1_epi16(MIDDLE)));
    return _mm256_sub_epi16(_mm256_sub_epi16(level, excess), _mm256_cmpgt_epi16(_mm256_set1_epi16(p->top), place));
}

// The points of 32 numbers. Packing works in halves, which the last permutation of their codes mends.
SIMD void store_points(const float *x, __m256 inverse, __m256i points[2]) {
    points[0] = _mm256_packus_epi32(usual_points(x, inverse), usual_points(x + 8, inverse));
    points[1] = _mm256_packus_epi32(usual_points(x + 16, inverse), usual_points(x + 24, inverse));
}

// 32 codes.
SIMD void store_usual_codes(bool is_signed, const __m256i points[2], uint8_t *codes) {
    const usual_pieces *p = is_signed ? &usual_signed : &usual_unsigned;
    const __m256i level = _mm256_packus_epi16(usual_levels(points[0], p), usual_levels(points[1], p));
    const __m256i positive = _mm256_packs_epi16(points[0], points[1]);  // the sign: those of the upper half
    const __m256i zero = _mm256_set1_epi8(PB_BLOCK8_ZERO(true));
    const __m256i code = is_signed
                             ? _mm256_blendv_epi8(_mm256_subs_epu8(zero, level), _mm256_add_epi8(zero, level), positive)
                             : _mm256_blendv_epi8(_mm256_setzero_si256(), level, positive);
    _mm256_storeu_si256((__m256i *)codes, _mm256_permutevar8x32_epi32(code, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

// The bits of magnitudes, as integers: those of NaN are beyond infinity's.
typedef struct most_bits {
    __m256i lane[4];
} most_bits;

SIMD void take_most(most_bits *m, const float *x) {
    UNROLLED
    for (int k = 0; k < 4; k++)
        m->lane[k] = _mm256_max_epi32(m->lane[k], _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(x + 8 * k)),
                                                                   _mm256_set1_epi32(0x7fffffff)));
}

SIMD int32_t most_of(const most_bits *m) {
    const __m256i all =
        _mm256_max_epi32(_mm256_max_epi32(m->lane[0], m->lane[1]), _mm256_max_epi32(m->lane[2], m->lane[3]));
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

// A block's largest magnitude, and its reciprocal.
typedef struct block_scale {
    int32_t bits;
    float inverse;
} block_scale;

SIMD block_scale scale_of(const most_bits *most) {
    const int32_t bits = most_of(most);
    return (block_scale){bits, 1 / pb_f32_from_bits((uint32_t)bits)};
}

static block_scale find_scale(const float *x) {
    most_bits most = {{_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()}};
    for (int i = 0; i < PB_BLOCK8; i += 32) take_most(&most, x + i);
    return scale_of(&most);
}

// A usual block, and the scale of the one at `next`, if any: found on the way, it need not be waited for. In two
// passes: in one, a number meets 25 operations one after another, more than the processor finds other work for.
SIMD block_scale encode_usual_block(bool is_signed, const float *x, float inverse, uint8_t *codes, const float *next) {
    most_bits most = {{_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()}};
    __m256i points[PB_BLOCK8 / 16];
    for (int i = 0; i < PB_BLOCK8; i += 32) {
        if (next) {
            __builtin_prefetch(next + i + AHEAD);
            __builtin_prefetch(next + i + AHEAD + 16);
            take_most(&most, next + i);
        }
        store_points(x + i, _mm256_set1_ps(inverse), &points[i / 16]);
    }
    const block_scale scale = scale_of(&most);
    for (int i = 0; i < PB_BLOCK8; i += 32) store_usual_codes(is_signed, &points[i / 16], codes + i);
    return scale;
}

static void encode_unusual_block(bool is_signed, const float *x, uint8_t *codes, float *scale) {
    const decade_table t = load_decades(is_signed);
    encode_block(x, &t, codes, scale);
}

SIMD void encode_blocks_of(bool is_signed, const float *x, int64_t blocks, uint8_t *codes, float *scales) {
    block_scale scale = find_scale(x);
    for (; blocks; blocks--, x += PB_BLOCK8, codes += PB_BLOCK8, scales++) {
        const float *next = x + PB_BLOCK8;
        if (scale.bits < LEAST_USUAL || scale.bits >= MOST_USUAL) {
            encode_unusual_block(is_signed, x, codes, scales);
            if (blocks > 1) scale = find_scale(next);
            continue;
        }
        *scales = pb_f32_from_bits((uint32_t)scale.bits);
        if (blocks > 1)
            scale = encode_usual_block(is_signed, x, scale.inverse, codes, next);
        else
            encode_usual_block(is_signed, x, scale.inverse, codes, NULL);
    }
}

// The whole blocks of x; returns the index behind them.
static int64_t encode_blocks(bool is_signed, const float *x, int64_t n, uint8_t *codes, float *scales) {
    const int64_t blocks = n / PB_BLOCK8;
    if (blocks && is_signed) encode_blocks_of(true, x, blocks, codes, scales);
    if (blocks && !is_signed) encode_blocks_of(false, x, blocks, codes, scales);
    return blocks * PB_BLOCK8;
}

#endif
