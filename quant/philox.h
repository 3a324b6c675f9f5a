// Random bits by counter: Philox 4x32 with 10 rounds (Salmon and others, "Parallel random numbers: as easy as 1, 2, 3",
// 2011). What an element draws is a function of seed, step, stream and index alone, so neither placement nor the order
// of work, nor an interruption, changes it.
#ifndef PB_QUANT_PHILOX_H
#define PB_QUANT_PHILOX_H

#include "quant/device.h"

// `stream` tells the parameters of a model apart.
typedef struct pb_random_key {
    uint64_t seed;
    uint32_t step, stream;
} pb_random_key;

enum {
    PB_PHILOX_ROUNDS = 10,
    PB_PHILOX_ELEMENTS = 8,  // that take their 16 bits from one block of 128
};
#define PB_PHILOX_M0 0xd2511f53u
#define PB_PHILOX_M1 0xcd9e8d57u
#define PB_PHILOX_W0 0x9e3779b9u
#define PB_PHILOX_W1 0xbb67ae85u

PB_DEVICE void pb_philox(uint32_t counter[4], uint32_t key0, uint32_t key1) {
    for (int round = 0; round < PB_PHILOX_ROUNDS; round++) {
        const uint64_t a = (uint64_t)PB_PHILOX_M0 * counter[0], b = (uint64_t)PB_PHILOX_M1 * counter[2];
        counter[0] = (uint32_t)(b >> 32) ^ counter[1] ^ key0;
        counter[1] = (uint32_t)b;
        counter[2] = (uint32_t)(a >> 32) ^ counter[3] ^ key1;
        counter[3] = (uint32_t)a;
        key0 += PB_PHILOX_W0;
        key1 += PB_PHILOX_W1;
    }
}

// Block `block` of a stream: the bits of elements 8 block .. 8 block + 7, two to a word, the low half first.
PB_DEVICE void pb_philox_block(const pb_random_key *key, uint64_t block, uint32_t words[4]) {
    words[0] = (uint32_t)block;
    words[1] = (uint32_t)(block >> 32);
    words[2] = key->step;
    words[3] = key->stream;
    pb_philox(words, (uint32_t)key->seed, (uint32_t)(key->seed >> 32));
}

// x as bf16, up or down with the probability that leaves the mean at x; `random` has 16 bits. Infinity stays, a NaN
// stays one, and what lies beyond bf16's largest number may become infinity.
PB_DEVICE uint16_t pb_round_stochastic(float x, uint32_t random) {
    const uint32_t u = PB_DEVICE_BITS(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + random) >> 16);
}

#endif
