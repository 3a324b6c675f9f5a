// Stochastic rounding with AVX2. Included by codecs_simd.h.
#ifndef PB_QUANT_CODECS_AVX2_RANDOM_H
#define PB_QUANT_CODECS_AVX2_RANDOM_H

enum { BLOCKS = 4, DRAWN = BLOCKS * PB_PHILOX_ELEMENTS };  // blocks at a time, one to a 64-bit lane; their elements

typedef struct round_keys {
    __m256i k0[PB_PHILOX_ROUNDS], k1[PB_PHILOX_ROUNDS], step, stream;
} round_keys;

static void make_round_keys(const pb_random_key *key, round_keys *k) {
    uint32_t k0 = (uint32_t)key->seed, k1 = (uint32_t)(key->seed >> 32);
    for (int round = 0; round < PB_PHILOX_ROUNDS; round++) {
        k->k0[round] = _mm256_set1_epi64x(k0);
        k->k1[round] = _mm256_set1_epi64x(k1);
        k0 += PB_PHILOX_W0;
        k1 += PB_PHILOX_W1;
    }
    k->step = _mm256_set1_epi64x(key->step);
    k->stream = _mm256_set1_epi64x(key->stream);
}

typedef struct counter_lanes {
    __m256i c0, c1, c2, c3;
} counter_lanes;

SIMD counter_lanes counters_at(const round_keys *k, uint64_t block) {
    const __m256i c0 = _mm256_add_epi64(_mm256_set1_epi64x((int64_t)block), _mm256_setr_epi64x(0, 1, 2, 3));
    return (counter_lanes){c0, _mm256_srli_epi64(c0, 32), k->step, k->stream};
}

// A word is the lower half of its lane: a product's upper half is in the way of nothing, for the next product takes
// lower halves only, and the upper ones are cut off at the end.
SIMD void mix(const round_keys *k, int round, counter_lanes *c) {
    const __m256i a = _mm256_mul_epu32(c->c0, _mm256_set1_epi64x(PB_PHILOX_M0));
    const __m256i b = _mm256_mul_epu32(c->c2, _mm256_set1_epi64x(PB_PHILOX_M1));
    c->c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(b, 32), k->k0[round]), c->c1);
    c->c1 = b;
    c->c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(a, 32), k->k1[round]), c->c3);
    c->c3 = a;
}

// The 16 bits of each of DRAWN elements, eight to a vector of 128 bits, in order.
typedef struct drawn_bits {
    __m128i of[BLOCKS];
} drawn_bits;

SIMD drawn_bits drawn_from(const counter_lanes *c) {
    const __m256i first = _mm256_blend_epi32(c->c0, _mm256_slli_epi64(c->c1, 32), 0xaa);
    const __m256i second = _mm256_blend_epi32(c->c2, _mm256_slli_epi64(c->c3, 32), 0xaa);
    const __m256i even = _mm256_unpacklo_epi64(first, second), odd = _mm256_unpackhi_epi64(first, second);
    return (drawn_bits){{_mm256_castsi256_si128(even), _mm256_castsi256_si128(odd), _mm256_extracti128_si256(even, 1),
                         _mm256_extracti128_si256(odd, 1)}};
}

// The rounded number, in the upper half of its lane.
SIMD __m256i round_up_or_down(__m256 x, __m128i random) {
    const __m256i sum = _mm256_add_epi32(_mm256_castps_si256(x), _mm256_cvtepu16_epi32(random));
    const __m256 quiet = _mm256_or_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(0x400000)));
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(sum), quiet, _mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}

SIMD void round_sixteen(const float *x, __m128i low, __m128i high, uint16_t *to) {
    const __m256i a = _mm256_srli_epi32(round_up_or_down(_mm256_loadu_ps(x), low), 16);
    const __m256i b = _mm256_srli_epi32(round_up_or_down(_mm256_loadu_ps(x + 8), high), 16);
    _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8));
}

SIMD void round_drawn(const float *x, const drawn_bits *random, uint16_t *to) {
    round_sixteen(x, random->of[0], random->of[1], to);
    round_sixteen(x + DRAWN / 2, random->of[2], random->of[3], to + DRAWN / 2);
}

static void round_stochastic(const pb_random_key *key, int64_t first, const float *x, int64_t n, uint16_t *to) {
    round_keys keys;
    make_round_keys(key, &keys);
    uint64_t block = (uint64_t)first / PB_PHILOX_ELEMENTS;
    int64_t i = 0;
    for (; i + 2 * DRAWN <= n; i += 2 * DRAWN, block += 2 * BLOCKS) {  // two at a time: products take a while
        counter_lanes a = counters_at(&keys, block), b = counters_at(&keys, block + BLOCKS);
        UNROLLED
        for (int round = 0; round < PB_PHILOX_ROUNDS; round++) {
            mix(&keys, round, &a);
            mix(&keys, round, &b);
        }
        const drawn_bits of_a = drawn_from(&a), of_b = drawn_from(&b);
        round_drawn(x + i, &of_a, to + i);
        round_drawn(x + i + DRAWN, &of_b, to + i + DRAWN);
    }
    for (; i < n; i += DRAWN, block += BLOCKS) {
        const int64_t count = least(DRAWN, n - i);
        float last[DRAWN] = {0};
        uint16_t rounded[DRAWN];
        memcpy(last, x + i, (size_t)count * sizeof *x);
        counter_lanes c = counters_at(&keys, block);
        for (int round = 0; round < PB_PHILOX_ROUNDS; round++) mix(&keys, round, &c);
        const drawn_bits random = drawn_from(&c);
        round_drawn(last, &random, rounded);
        memcpy(to + i, rounded, (size_t)count * sizeof *to);
    }
}

#endif
