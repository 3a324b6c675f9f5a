// The state codecs: fewer bytes for what the optimizer keeps. A scalar reference and vector code that gives the same
// bits; the arithmetic is in block8.h, split.h and philox.h. No codec flushes denormals. All sizes are in elements.
#ifndef PB_QUANT_CODECS_H
#define PB_QUANT_CODECS_H

#include "base/dtype.h"
#include "base/isa.h"
#include "quant/block8.h"
#include "quant/philox.h"
#include "quant/split.h"

// One instruction set. Arrays may have any alignment that their type allows.
typedef struct pb_codecs {
    // x[n] as codes[n] and one scale for every PB_BLOCK8 of them; the last block may be short. Element 0 begins one.
    void (*encode8)(bool is_signed, const float *x, int64_t n, uint8_t *codes, float *scales);
    void (*decode8)(bool is_signed, const uint8_t *codes, const float *scales, int64_t n, float *x);
    // x[n] as 16-bit floats of dtype `type` (F16, BF16) and residuals of 16 (I16) or 8 bits (I8); and back.
    void (*split)(pb_dtype type, pb_dtype residual_type, const float *x, int64_t n, uint16_t *work, void *residual);
    void (*join)(pb_dtype type, pb_dtype residual_type, const uint16_t *work, const void *residual, int64_t n,
                 float *x);
    // x[n], which are elements first .. first + n - 1 of a stream, as bf16 by pb_round_stochastic. PB_PHILOX_ELEMENTS
    // divides `first`.
    void (*round_stochastic)(const pb_random_key *key, int64_t first, const float *x, int64_t n, uint16_t *to);
} pb_codecs;

extern const pb_codecs pb_codecs_scalar, pb_codecs_avx2, pb_codecs_avx512;

// Those for pb_cpu_isa().
const pb_codecs *pb_codecs_here(void);

// The levels that codes stand for: [0] for both signs, [1] for numbers >= 0. Ascending.
extern const float pb_block8_map[2][256];
extern const pb_block8_decade pb_block8_decades[2][PB_BLOCK8_DECADES];

static inline int64_t pb_block8_scales(int64_t elements) {
    return (elements + PB_BLOCK8 - 1) / PB_BLOCK8;
}

// Whole tensors, by all threads of pb_parallel_for. From one thread at a time.
void pb_encode8(bool is_signed, const float *x, int64_t n, uint8_t *codes, float *scales);
void pb_decode8(bool is_signed, const uint8_t *codes, const float *scales, int64_t n, float *x);
void pb_split_weights(pb_dtype type, pb_dtype residual_type, const float *x, int64_t n, uint16_t *work, void *residual);
void pb_join_weights(pb_dtype type, pb_dtype residual_type, const uint16_t *work, const void *residual, int64_t n,
                     float *x);

#endif
