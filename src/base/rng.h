// PyTorch's CPU generator, draw for draw: a run with a seed sees the numbers that torch would have drawn.
//
// Source: mt19937 as in ATen/core/MT19937RNGEngine.h; the distributions as in aten/src/ATen/native/cpu/
// DistributionTemplates.h and ATen/core/DistributionsHelper.h. One 32-bit output of the engine is "a word" below.
//   rand      1 word per value, its low 24 bits / 2^24
//   randn     n >= 16: n words as rand, then Box-Muller in blocks of 16 (8 cosines, 8 sines). Where 16 does not divide
//             n, the last 16 values are drawn again (16 more words; the 16-bit types do not draw the odd ones before).
//             n < 16, or a tensor whose memory is not in the order of its dimensions: pairs of normals from two 53-bit
//             uniforms (4 words), in the order of memory; the second of a pair is kept for later
//   randint   1 word modulo the range where it is below 2^28, else 2 words
//   randperm  n - 1 words: from the front, swap i with i + word % (n - i)
// The logarithm, sine and cosine of randn are those of torch's AVX2 code, operation for operation, so that normals are
// equal to torch's bit for bit and the same on every machine.
#ifndef PB_BASE_RNG_H
#define PB_BASE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

enum { PB_RNG_WORDS = 624, PB_RNG_STATE_BYTES = 5056 };

// A plain value: copy it to fork the stream. Not safe for two threads at once.
typedef struct pb_rng {
    uint64_t seed;
    uint32_t state[PB_RNG_WORDS];
    uint32_t left, next;   // words before the next refill; index of the next word
    bool has_next_normal;  // the second half of a pair drawn for fewer than 16 normals
    double next_normal;
} pb_rng;

// torch.Generator().manual_seed(seed); like torch, only the low 32 bits make a difference.
void pb_rng_seed(pb_rng *rng, uint64_t seed);

uint32_t pb_rng_u32(pb_rng *rng);
uint64_t pb_rng_u64(pb_rng *rng);  // two words, the high one first

// torch.rand(count), torch.randn(count) in float32; any shape of so many elements draws the same.
void pb_rng_rand(pb_rng *rng, float *values, size_t count);
void pb_rng_randn(pb_rng *rng, float *values, size_t count);
// torch.randn(count, dtype=...) for PB_F32, PB_F16, PB_BF16, as floats that hold the rounded values.
void pb_rng_randn_as(pb_rng *rng, pb_dtype dtype, float *values, size_t count);
// What torch.randn_like draws for a tensor in channels_last or any other order but its own: values in memory's order.
void pb_rng_randn_permuted(pb_rng *rng, pb_dtype dtype, float *values, size_t count);

// torch.randint(low, high, (1,)); low < high. For (n,), call n times.
int64_t pb_rng_randint(pb_rng *rng, int64_t low, int64_t high);

// torch.empty((), dtype=torch.int64).random_(): 63 bits; where samplers and data loaders take their seeds from.
int64_t pb_rng_random(pb_rng *rng);

// torch.randperm(count): the indices 0 .. count - 1 in random order; count < 2^32 / 20 (torch draws otherwise above).
void pb_rng_randperm(pb_rng *rng, int64_t *indices, size_t count);

// The bytes of torch.get_rng_state() (little endian), the kept normal included.
void pb_rng_save(const pb_rng *rng, uint8_t bytes[PB_RNG_STATE_BYTES]);
// PB_ERR_FORMAT where the bytes are no such state; `rng` is then unchanged.
pb_status pb_rng_restore(pb_rng *rng, const uint8_t bytes[PB_RNG_STATE_BYTES]);

#endif
