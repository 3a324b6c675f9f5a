// AdamW on one element, the operations and their order: every backend and instruction set gives these bits. Decoupled
// weight decay as torch/optim/adamw.py has it; scalars are computed by the host in double and rounded once (pb_hyper).
// Every operation rounds once, to nearest; fmaf(a, b, c) is a b + c with one rounding.
#ifndef PB_KERNELS_ADAMW_H
#define PB_KERNELS_ADAMW_H

#include <math.h>

#include "base/op.h"
#include "quant/philox.h"

typedef struct pb_adamw_scalars {
    float scale;  // of the gradient
    float decay, one_minus_beta1, beta2, one_minus_beta2, sqrt_bias2, eps, step_size;
} pb_adamw_scalars;

static inline pb_adamw_scalars pb_adamw_scalars_of(const float hyper[PB_HYPER_COUNT],
                                                   const float control[PB_CONTROL_COUNT]) {
    return (pb_adamw_scalars){
        control[PB_CONTROL_SCALE], hyper[PB_HYPER_DECAY],           hyper[PB_HYPER_ONE_MINUS_BETA1],
        hyper[PB_HYPER_BETA2],     hyper[PB_HYPER_ONE_MINUS_BETA2], hyper[PB_HYPER_SQRT_BIAS2],
        hyper[PB_HYPER_EPS],       hyper[PB_HYPER_STEP_SIZE]};
}

// Which random bits a value of the parameter's takes where it is rounded stochastically.
typedef enum pb_adamw_draw { PB_ADAMW_DRAW_WEIGHT, PB_ADAMW_DRAW_M, PB_ADAMW_DRAW_V, PB_ADAMW_DRAWS = 4 } pb_adamw_draw;

PB_DEVICE pb_random_key pb_adamw_key(const float hyper[PB_HYPER_COUNT], uint32_t stream, pb_adamw_draw draw) {
    pb_random_key key;
    key.seed = (uint32_t)hyper[PB_HYPER_SEED_LOW] | (uint32_t)hyper[PB_HYPER_SEED_HIGH] << 16;
    key.step = (uint32_t)hyper[PB_HYPER_STEP_LOW] | (uint32_t)hyper[PB_HYPER_STEP_HIGH] << 16;
    key.stream = stream * PB_ADAMW_DRAWS + (uint32_t)draw;
    return key;
}

static inline void pb_adamw_element(const pb_adamw_scalars *s, float gradient, float *p, float *m, float *v) {
    const float g = gradient * s->scale;
    *m = fmaf(g - *m, s->one_minus_beta1, *m);
    *v = fmaf(g * g, s->one_minus_beta2, *v * s->beta2);
    const float denominator = sqrtf(*v) / s->sqrt_bias2 + s->eps;
    *p = fmaf(-s->step_size, *m / denominator, *p * s->decay);
}

#endif
