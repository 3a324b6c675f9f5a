// Stochastic rounding with AVX2. Included by codecs_simd.h.
#ifndef PB_QUANT_CODECS_AVX2_RANDOM_H
#define PB_QUANT_CODECS_AVX2_RANDOM_H

enum { BLOCKS = 4, DRAWN = BLOCKS * PB_PHILOX_ELEMENTS };  // blocks at a time, one to a 64-bit lane; their elements
enum { ABREAST = 3 };

// Of a block's counter only the lowest word differs from the next one's, as long as there is no carry: so half of the
// first two rounds, and a part of the third, is the same for all and done once.
typedef struct round_keys {
    __m256i k0[PB_PHILOX_ROUNDS], k1[PB_PHILOX_ROUNDS];
    __m256i second_c2, second_c0, third_c2;  // what the varying parts are combined with
} round_keys;

static void make_round_keys(const pb_random_key *key, uint32_t high, round_keys *k) {
    uint32_t k0 = (uint32_t)key->seed, k1 = (uint32_t)(key->seed >> 32);
    for (int round = 0; round < PB_PHILOX_ROUNDS; round++) {
        k->k0[round] = _mm256_set1_epi64x(k0);
        k->k1[round] = _mm256_set1_epi64x(k1);
        k0 += PB_PHILOX_W0;
        k1 += PB_PHILOX_W1;
    }
    const uint32_t first_k0 = (uint32_t)key->seed, first_k1 = (uint32_t)(key->seed >> 32);
    const uint32_t second_k0 = first_k0 + PB_PHILOX_W0, second_k1 = first_k1 + PB_PHILOX_W1;
    const uint64_t b = (uint64_t)PB_PHILOX_M1 * key->step;
    const uint32_t c0 = (uint32_t)(b >> 32) ^ high ^ first_k0;
    const uint64_t a = (uint64_t)PB_PHILOX_M0 * c0;
    k->second_c2 = _mm256_set1_epi64x(first_k1 ^ key->stream);
    k->second_c0 = _mm256_set1_epi64x(second_k0 ^ (uint32_t)b);
    k->third_c2 = _mm256_set1_epi64x((uint32_t)(a >> 32) ^ second_k1);
    k->k1[2] = _mm256_xor_si256(k->k1[2], _mm256_set1_epi64x((uint32_t)a));
}

typedef struct counter_lanes {
    __m256i c0, c1, c2, c3;
} counter_lanes;

// A word is the lower half of its lane: a product's upper half is in the way of nothing, for the next product takes
// lower halves only, and the upper ones are cut off at the end.
SIMD __m256i times_m0(__m256i c0) {
    return _mm256_mul_epu32(c0, _mm256_set1_epi64x(PB_PHILOX_M0));
}

SIMD __m256i times_m1(__m256i c2) {
    return _mm256_mul_epu32(c2, _mm256_set1_epi64x(PB_PHILOX_M1));
}

// The first three rounds.
SIMD counter_lanes begin_mixing(const round_keys *k, uint32_t block) {
    const __m256i counter = _mm256_add_epi64(_mm256_set1_epi64x(block), _mm256_setr_epi64x(0, 1, 2, 3));
    const __m256i a0 = times_m0(counter);
    const __m256i b1 = times_m1(_mm256_xor_si256(_mm256_srli_epi64(a0, 32), k->second_c2));
    const __m256i a = times_m0(_mm256_xor_si256(_mm256_srli_epi64(b1, 32), k->second_c0));
    const __m256i b = times_m1(_mm256_xor_si256(a0, k->third_c2));
    return (counter_lanes){
        .c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(b, 32), k->k0[2]), b1),
        .c1 = b,
        .c2 = _mm256_xor_si256(_mm256_srli_epi64(a, 32), k->k1[2]),
        .c3 = a,
    };
}

SIMD void mix(const round_keys *k, int round, counter_lanes *c) {
    const __m256i a = times_m0(c->c0), b = times_m1(c->c2);
    c->c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(b, 32), k->k0[round]), c->c1);
    c->c1 = b;
    c->c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(a, 32), k->k1[round]), c->c3);
    c->c3 = a;
}

// Two words to a lane: the upper half of a product with `c` and `key` combined, then the lower half.
SIMD __m256i last_words(__m256i product, __m256i key, __m256i c) {
    const __m256i low = _mm256_blend_epi32(_mm256_setzero_si256(), _mm256_xor_si256(c, key), 0x55);
    return _mm256_xor_si256(_mm256_shuffle_epi32(product, 0xb1), low);
}

// The words of two blocks each, in the order in which round_sixteen meets their elements: words 0 and 1 of the one and
// of the other, then 2 and 3.
typedef struct drawn_words {
    __m256i of[2];
} drawn_words;

SIMD drawn_words end_mixing(const round_keys *k, const counter_lanes *c) {
    const int last = PB_PHILOX_ROUNDS - 1;
    const __m256i first = last_words(times_m1(c->c2), k->k0[last], c->c1);
    const __m256i second = last_words(times_m0(c->c0), k->k1[last], c->c3);
    return (drawn_words){
        {_mm256_permute2x128_si256(first, second, 0x20), _mm256_permute2x128_si256(first, second, 0x31)}};
}

// Sixteen numbers, none of which is a NaN. A word has the bits of two neighbours: those at even places take its lower
// half.
SIMD void round_sixteen(__m256 low, __m256 high, __m256i words, uint16_t *to) {
    const __m256i even = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0x88));
    const __m256i odd = _mm256_castps_si256(_mm256_shuffle_ps(low, high, 0xdd));
    const __m256i a = _mm256_add_epi32(even, _mm256_and_si256(words, _mm256_set1_epi32(0xffff)));
    const __m256i b = _mm256_add_epi32(odd, _mm256_srli_epi32(words, 16));
    const __m256i both = _mm256_blend_epi16(_mm256_srli_epi32(a, 16), b, 0xaa);
    _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(both, 0xd8));
}

// With a NaN among them, and fewer than DRAWN at the end.
static void round_slowly(const pb_random_key *key, uint64_t block, const float *x, int64_t n, uint16_t *to) {
    uint32_t words[4] = {0};
    for (int64_t i = 0; i < n; i++) {
        const int at = (int)(i % PB_PHILOX_ELEMENTS);
        if (!at) pb_philox_block(key, block++, words);
        to[i] = pb_round_stochastic(x[i], at % 2 ? words[at / 2] >> 16 : words[at / 2] & 0xffffu);
    }
}

SIMD void round_drawn(const pb_random_key *key, uint64_t block, const float *x, const drawn_words *words,
                      uint16_t *to) {
    const __m256 a = _mm256_loadu_ps(x), b = _mm256_loadu_ps(x + 8);
    const __m256 c = _mm256_loadu_ps(x + 16), d = _mm256_loadu_ps(x + 24);
    const __m256 nan = _mm256_or_ps(_mm256_cmp_ps(a, b, _CMP_UNORD_Q), _mm256_cmp_ps(c, d, _CMP_UNORD_Q));
    if (__builtin_expect(_mm256_movemask_ps(nan) != 0, 0)) {
        round_slowly(key, block, x, DRAWN, to);
        return;
    }
    round_sixteen(a, b, words->of[0], to);
    round_sixteen(c, d, words->of[1], to + DRAWN / 2);
}

// `groups` times DRAWN numbers. A product takes a while, so several groups go abreast.
SIMD void round_groups(const pb_random_key *key, const round_keys *keys, int groups, uint64_t block, const float *x,
                       uint16_t *to) {
    counter_lanes c[ABREAST];
    for (int k = 0; k < groups * DRAWN; k += 16) __builtin_prefetch(x + k + AHEAD);
    for (int k = 0; k < groups * DRAWN; k += 32) __builtin_prefetch(to + k + AHEAD, 1);
    UNROLLED
    for (int g = 0; g < groups; g++) c[g] = begin_mixing(keys, (uint32_t)block + (uint32_t)g * BLOCKS);
    UNROLLED
    for (int round = 3; round < PB_PHILOX_ROUNDS - 1; round++) {
        UNROLLED
        for (int g = 0; g < groups; g++) mix(keys, round, &c[g]);
    }
    UNROLLED
    for (int g = 0; g < groups; g++) {
        const drawn_words words = end_mixing(keys, &c[g]);
        round_drawn(key, block + (uint64_t)g * BLOCKS, x + g * DRAWN, &words, to + g * DRAWN);
    }
}

// Blocks that have the upper word of their counters in common.
static void round_without_carry(const pb_random_key *key, uint64_t block, const float *x, int64_t n, uint16_t *to) {
    round_keys keys;
    make_round_keys(key, (uint32_t)(block >> 32), &keys);
    int64_t i = 0;
    for (; i + ABREAST * DRAWN <= n; i += ABREAST * DRAWN, block += ABREAST * BLOCKS)
        round_groups(key, &keys, ABREAST, block, x + i, to + i);
    for (; i + DRAWN <= n; i += DRAWN, block += BLOCKS) round_groups(key, &keys, 1, block, x + i, to + i);
    round_slowly(key, block, x + i, n - i, to + i);
}

static void round_stochastic(const pb_random_key *key, int64_t first, const float *x, int64_t n, uint16_t *to) {
    while (n > 0) {
        const uint64_t block = (uint64_t)first / PB_PHILOX_ELEMENTS;
        const int64_t until_carry = (int64_t)((UINT64_C(1) << 32) - (uint32_t)block) * PB_PHILOX_ELEMENTS;
        const int64_t count = least(until_carry, n);
        round_without_carry(key, block, x, count, to);
        first += count, x += count, to += count, n -= count;
    }
}

#endif
