// AdamW on one element, the operations and their order: every backend and instruction set gives these bits. Decoupled
// weight decay as torch/optim/adamw.py has it; scalars are computed by the host in double and rounded once (pb_hyper).
// Every operation rounds once, to nearest; fmaf(a, b, c) is a b + c with one rounding.
#ifndef PB_KERNELS_ADAMW_H
#define PB_KERNELS_ADAMW_H

#include <math.h>

#include "base/op.h"

typedef struct pb_adamw_scalars {
    float scale;  // of the gradient
    float decay, one_minus_beta1, beta2, one_minus_beta2, sqrt_bias2, eps, step_size;
} pb_adamw_scalars;

static inline pb_adamw_scalars pb_adamw_scalars_of(const float hyper[PB_HYPER_COUNT],
                                                   const float control[PB_CONTROL_COUNT]) {
    return (pb_adamw_scalars){control[PB_CONTROL_SCALE], hyper[PB_HYPER_DECAY],
                              hyper[PB_HYPER_ONE_MINUS_BETA1], hyper[PB_HYPER_BETA2],
                              hyper[PB_HYPER_ONE_MINUS_BETA2], hyper[PB_HYPER_SQRT_BIAS2],
                              hyper[PB_HYPER_EPS], hyper[PB_HYPER_STEP_SIZE]};
}

static inline void pb_adamw_element(const pb_adamw_scalars *s, float gradient, float *p, float *m, float *v) {
    const float g = gradient * s->scale;
    *m = fmaf(g - *m, s->one_minus_beta1, *m);
    *v = fmaf(g * g, s->one_minus_beta2, *v * s->beta2);
    const float denominator = sqrtf(*v) / s->sqrt_bias2 + s->eps;
    *p = fmaf(-s->step_size, *m / denominator, *p * s->decay);
}

#endif
