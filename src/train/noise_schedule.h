// The forward diffusion process of a model's scheduler_config.json, as diffusers' DDPMScheduler has it.
#ifndef PB_TRAIN_NOISE_SCHEDULE_H
#define PB_TRAIN_NOISE_SCHEDULE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/json.h"

typedef struct pb_noise_schedule {
    int timesteps;          // num_train_timesteps
    bool v_prediction;      // prediction_type: v_prediction, else epsilon
    float *alphas_cumprod;  // (timesteps): product of 1 - beta, accumulated in double, each rounded to float
} pb_noise_schedule;

// `config` is the root of scheduler_config.json, `name` its path for messages. beta_schedule linear, scaled_linear or
// squaredcos_cap_v2, or trained_betas; rescale_betas_zero_snr, unless `rescales` is false: not every scheduler of
// diffusers knows it. Keys that are absent have DDPMScheduler's defaults.
// Errors: PB_ERR_FORMAT, PB_ERR_UNSUPPORTED (naming the field), PB_ERR_MEMORY.
pb_status pb_noise_schedule_init(pb_arena *arena, const pb_json *config, const char *name, bool rescales,
                                 pb_noise_schedule *schedule);

// Over one image's `count` elements, with a = alphas_cumprod[t] rounded to `dtype` (the latents' type):
//   add:      sqrt(a) * sample + sqrt(1 - a) * noise
//   velocity: sqrt(a) * noise - sqrt(1 - a) * sample       (the target of v-prediction)
// Every operation is rounded as torch does it. `dtype` and `noise_dtype` are PB_F32, PB_F16 or PB_BF16, the floats hold
// values of these types; noise that has an offset added is PB_F32 (torch promotes it), and then so is the result.
// `out` may be either input.
typedef struct pb_noise_operands {
    pb_dtype dtype, noise_dtype;
    const float *sample, *noise;
    size_t count;
} pb_noise_operands;
void pb_noise_add(const pb_noise_schedule *schedule, int t, const pb_noise_operands *operands, float *out);
void pb_noise_velocity(const pb_noise_schedule *schedule, int t, const pb_noise_operands *operands, float *out);

// Signal to noise: a / (1 - a), as diffusers computes it in float: (sqrt(a) / sqrt(1 - a))^2.
float pb_noise_snr(const pb_noise_schedule *schedule, int t);

// min-SNR weight of an image's mean squared error (Hang et al. 2023): min(snr, gamma) / snr, with v-prediction
// / (snr + 1). One weight per image, instance and class images each by their own t (diffusers gets this wrong with
// prior preservation). Zero terminal SNR with epsilon: 1, the limit.
float pb_noise_min_snr_weight(const pb_noise_schedule *schedule, int t, float gamma);

#endif
