// The reference: one element after another, by the functions that define the codecs.
#include "quant/codecs.h"

static void encode8(bool is_signed, const float *x, int64_t n, uint8_t *codes, float *scales) {
    for (int64_t begin = 0; begin < n; begin += PB_BLOCK8) {
        const int64_t end = begin + PB_BLOCK8 < n ? begin + PB_BLOCK8 : n;
        float largest = 0;
        for (int64_t i = begin; i < end; i++) largest = pb_block8_largest(largest, x[i]);
        scales[begin / PB_BLOCK8] = largest;
        const float inverse = 1 / largest;
        for (int64_t i = begin; i < end; i++)
            codes[i] = largest == 0 ? 0
                                    : pb_block8_code(pb_block8_point(x[i], inverse), pb_block8_decades[!is_signed],
                                                     PB_BLOCK8_ZERO(is_signed));
    }
}

static void decode8(bool is_signed, const uint8_t *codes, const float *scales, int64_t n, float *x) {
    for (int64_t i = 0; i < n; i++) x[i] = pb_block8_map[!is_signed][codes[i]] * scales[i / PB_BLOCK8];
}

static void split(pb_dtype type, pb_dtype residual_type, const float *x, int64_t n, uint16_t *work, void *residual) {
    const bool wide = residual_type == PB_I16;
    for (int64_t i = 0; i < n; i++) {
        const pb_split s = type == PB_BF16 ? pb_split_bf16(x[i], wide) : pb_split_f16(x[i], wide);
        work[i] = s.work;
        if (wide)
            ((int16_t *)residual)[i] = s.residual;
        else
            ((int8_t *)residual)[i] = (int8_t)s.residual;
    }
}

static void join(pb_dtype type, pb_dtype residual_type, const uint16_t *work, const void *residual, int64_t n,
                 float *x) {
    const bool wide = residual_type == PB_I16;
    for (int64_t i = 0; i < n; i++) {
        const int16_t r = wide ? ((const int16_t *)residual)[i] : ((const int8_t *)residual)[i];
        x[i] = type == PB_BF16 ? pb_join_bf16(work[i], r, wide) : pb_join_f16(work[i], r, wide);
    }
}

static void round_stochastic(const pb_random_key *key, int64_t first, const float *x, int64_t n, uint16_t *to) {
    uint32_t words[4] = {0};
    for (int64_t i = 0; i < n; i++) {
        const int at = (int)(i % PB_PHILOX_ELEMENTS);
        if (!at) pb_philox_block(key, (uint64_t)(first + i) / PB_PHILOX_ELEMENTS, words);
        to[i] = pb_round_stochastic(x[i], at % 2 ? words[at / 2] >> 16 : words[at / 2] & 0xffffu);
    }
}

const pb_codecs pb_codecs_scalar = {
    .encode8 = encode8,
    .decode8 = decode8,
    .split = split,
    .join = join,
    .round_stochastic = round_stochastic,
};
