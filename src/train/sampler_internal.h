// The state of a sampler, shared by sampler.c (settings, timesteps) and sampler_step.c (the arithmetic).
#ifndef PB_TRAIN_SAMPLER_INTERNAL_H
#define PB_TRAIN_SAMPLER_INTERNAL_H

#include <stdbool.h>

#include "train/noise_schedule.h"
#include "train/sampler.h"

enum { PB_SAMPLER_HISTORY = 4, PB_RUNGE_KUTTA_CALLS = 12 };

struct pb_sampler {
    pb_arena *arena;
    pb_sampler_kind kind;
    pb_noise_schedule noise;
    int steps, calls;
    size_t count;
    float *timesteps;  // (calls)
    float init_sigma;
    // ddim and pndm
    int stride;         // num_train_timesteps / steps
    float final_alpha;  // alphas_cumprod "before" timestep 0
    float clip;         // ddim: range of the predicted sample; infinite where it is not clipped
    bool runge_kutta;   // pndm: the first 12 calls
    // euler and dpmpp2m
    float *sigmas;          // (calls + 1)
    bool first_order_last;  // dpmpp2m: the last step
    // What earlier calls left behind, newest first: (count) each.
    float *history[PB_SAMPLER_HISTORY];
    int history_count;
    float *kept_sample;  // (count) pndm: x of an earlier call
    float *sum;          // (count) pndm: the weighted outputs of a Runge-Kutta step
};

#endif
