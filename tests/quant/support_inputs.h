// Numbers that codecs get wrong: every kind of float, in blocks of every kind.
#ifndef PB_TESTS_QUANT_SUPPORT_INPUTS_H
#define PB_TESTS_QUANT_SUPPORT_INPUTS_H

#include <stdint.h>

uint32_t input_random(uint64_t *state);

// x[n]: stretches of 64 numbers, each of one kind: bit patterns at random (NaNs and infinities among them), denormals,
// zeros of both signs, powers of two and their neighbours, ties of bf16 and of fp16, exact 16-bit floats, normal
// weights, very unequal sizes, one large number among small ones.
void input_fill(float *x, int64_t n, uint64_t seed);

#endif
