// What AVX2 does in its own way: blocks' codes and stochastic rounding. Included by codecs_simd.h, after encode_block.
#ifndef PB_QUANT_CODECS_AVX2_H
#define PB_QUANT_CODECS_AVX2_H

// --- 8-bit blocks ---

// A block is usual where its largest magnitude and the reciprocal of it are normal numbers; then there is no NaN, and
// no product with the reciprocal is beyond 1: x / largest is at most 1, the reciprocal at most 2^-24 of itself too
// large, and 1 + 2^-24 rounds to 1. encode_block does the others.
enum { LEAST_USUAL = 0x00800000, MOST_USUAL = 0x7e000000 };  // bits of 2^-126 and 2^125

// The decades' constants, as encode_usual wants them. Decades 1 to 4 are chosen by comparisons: `-(how many of the
// later beginnings a distance is beyond)` picks one of four lanes. Decade 0 has four distances only, and a line of its
// own that is below the others there and above them elsewhere. The last one is a level more.
typedef struct usual_decades {
    __m256i from2, from3, from4, from5;  // bits of floats
    __m256 slope, offset, last;
    __m256 first_slope, first_offset;
    __m256i zero;
} usual_decades;

SIMD usual_decades load_usual_decades(bool is_signed) {
    const pb_block8_decade *d = pb_block8_decades[!is_signed];
    // Lane 0: decade 1; lanes 3, 2, 1: one, two, three more.
    return (usual_decades){
        .from2 = _mm256_castps_si256(_mm256_set1_ps(d[2].from)),
        .from3 = _mm256_castps_si256(_mm256_set1_ps(d[3].from)),
        .from4 = _mm256_castps_si256(_mm256_set1_ps(d[4].from)),
        .from5 = _mm256_castps_si256(_mm256_set1_ps(d[5].from)),
        .slope = _mm256_setr_ps(d[1].slope, d[4].slope, d[3].slope, d[2].slope, d[1].slope, d[4].slope, d[3].slope,
                                d[2].slope),
        .offset = _mm256_setr_ps(d[1].offset, d[4].offset, d[3].offset, d[2].offset, d[1].offset, d[4].offset,
                                 d[3].offset, d[2].offset),
        .last = _mm256_setr_ps(d[1].last, d[4].last, d[3].last, d[2].last, d[1].last, d[4].last, d[3].last, d[2].last),
        .first_slope = _mm256_set1_ps(is_signed ? 1 : 2.3f),  // 4 5 6 7, or 7 10 12 14, at 0.5 1.5 2.5 3.5
        .first_offset = _mm256_set1_ps(is_signed ? 3.75f : 6.6f),
        .zero = _mm256_set1_epi16(PB_BLOCK8_ZERO(is_signed)),
    };
}

typedef struct usual_lanes {
    __m256i level, side;  // the level's number, without its sign; negative numbers on the negative side
} usual_lanes;

// How many steps from the middle the points lie that eight numbers land on.
SIMD __m256 usual_points(const float *x, __m256 inverse) {
    const __m256 y = _mm256_mul_ps(_mm256_loadu_ps(x), inverse);
    // fma((y + 1) / 2, 65535, 1 / 2): halving is exact.
    const __m256 at =
        _mm256_fmadd_ps(_mm256_add_ps(y, _mm256_set1_ps(1)), _mm256_set1_ps(32767.5f), _mm256_set1_ps(0.5f));
    return _mm256_sub_ps(_mm256_floor_ps(at), _mm256_set1_ps(32767.5f));
}

SIMD usual_lanes encode_usual(const float *points, const usual_decades *t) {
    const __m256 g = _mm256_load_ps(points);
    const __m256 distance = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), g);
    // What is not negative is compared as integers: there are more units for that.
    const __m256i bits = _mm256_castps_si256(distance);
    const __m256i beyond =
        _mm256_add_epi32(_mm256_add_epi32(_mm256_cmpgt_epi32(bits, t->from2), _mm256_cmpgt_epi32(bits, t->from3)),
                         _mm256_cmpgt_epi32(bits, t->from4));
    const __m256i line = _mm256_castps_si256(
        _mm256_fmadd_ps(distance, _mm256_permutevar_ps(t->slope, beyond), _mm256_permutevar_ps(t->offset, beyond)));
    const __m256i cut = _mm256_min_epi32(line, _mm256_castps_si256(_mm256_permutevar_ps(t->last, beyond)));
    const __m256i first = _mm256_castps_si256(_mm256_fmadd_ps(distance, t->first_slope, t->first_offset));
    const __m256i level = _mm256_cvttps_epi32(_mm256_castsi256_ps(_mm256_min_epi32(cut, first)));
    return (usual_lanes){_mm256_sub_epi32(level, _mm256_cmpgt_epi32(bits, t->from5)), _mm256_castps_si256(g)};
}

// 32 codes.
SIMD void encode_usual_group(const float *points, const usual_decades *t, uint8_t *codes) {
    __m256i half[2];
    UNROLLED
    for (int k = 0; k < 2; k++) {
        const usual_lanes a = encode_usual(points + 16 * k, t), b = encode_usual(points + 16 * k + 8, t);
        // Packing keeps signs; the instructions work in halves, which the last permutation mends.
        const __m256i level = _mm256_packs_epi32(a.level, b.level), side = _mm256_packs_epi32(a.side, b.side);
        half[k] = _mm256_add_epi16(_mm256_sign_epi16(level, side), t->zero);
    }
    _mm256_storeu_si256((__m256i *)codes, _mm256_permutevar8x32_epi32(_mm256_packus_epi16(half[0], half[1]),
                                                                      _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
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

// A usual block, and the largest magnitude of the one at `next`: found meanwhile, its reciprocal need not be waited
// for. In two passes: in one, a number meets 15 operations one after another, and the processor does not look far
// enough ahead to have others for its units meanwhile.
SIMD int32_t encode_usual_block(const float *x, float inverse, const usual_decades *t, uint8_t *codes,
                                const float *next) {
    most_bits most = {{_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()}};
    const __m256 factor = _mm256_set1_ps(inverse);
    _Alignas(32) float points[PB_BLOCK8];
    for (int i = 0; i < PB_BLOCK8; i += 32) {
        take_most(&most, next + i);
        UNROLLED
        for (int k = 0; k < 32; k += 8) _mm256_store_ps(points + i + k, usual_points(x + i + k, factor));
    }
    const int32_t bits = most_of(&most);
    for (int i = 0; i < PB_BLOCK8; i += 32) encode_usual_group(points + i, t, codes + i);
    return bits;
}

static int32_t most_of_block(const float *x) {
    most_bits most = {{_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()}};
    for (int i = 0; i < PB_BLOCK8; i += 32) take_most(&most, x + i);
    return most_of(&most);
}

// The whole blocks of x; returns the index behind them.
static int64_t encode_blocks(bool is_signed, const float *x, int64_t n, uint8_t *codes, float *scales,
                             const decade_table *general) {
    const usual_decades t = load_usual_decades(is_signed);
    const int64_t end = n / PB_BLOCK8 * PB_BLOCK8;
    int32_t bits = end ? most_of_block(x) : 0;
    for (int64_t i = 0; i < end; i += PB_BLOCK8) {
        const float *next = i + PB_BLOCK8 < end ? x + i + PB_BLOCK8 : x + i;
        if (bits < LEAST_USUAL || bits >= MOST_USUAL) {
            encode_block(x + i, general, codes + i, scales + i / PB_BLOCK8);
            bits = most_of_block(next);
            continue;
        }
        const float largest = pb_f32_from_bits((uint32_t)bits);
        scales[i / PB_BLOCK8] = largest;
        bits = encode_usual_block(x + i, 1 / largest, &t, codes + i, next);
    }
    return end;
}

#endif
