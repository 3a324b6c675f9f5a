// Samplers that turn noise into latents, as diffusers' schedulers of the same names do it: ddim (eta 0), pndm (PLMS,
// with or without its Runge-Kutta start), euler (EulerDiscrete) and dpmpp2m (DPMSolverMultistep, order 2, midpoint).
// Everything in float on plain arrays.
//
//   pb_sampler_create(kind or the model's own, ...); x = randn * pb_sampler_init_sigma
//   for i < pb_sampler_calls: pb_sampler_input(i, x, in); out = unet(in, pb_sampler_timestep(i)); (guidance)
//                             pb_sampler_step(i, out, x)
#ifndef PB_TRAIN_SAMPLER_H
#define PB_TRAIN_SAMPLER_H

#include <stddef.h>

#include "base/error.h"
#include "base/json.h"

typedef enum pb_sampler_kind {
    PB_SAMPLER_MODEL,  // what model_index.json or `_class_name` of the model's scheduler_config.json says
    PB_SAMPLER_DDIM,
    PB_SAMPLER_PNDM,
    PB_SAMPLER_EULER,
    PB_SAMPLER_DPMPP2M
} pb_sampler_kind;

typedef struct pb_sampler pb_sampler;

// "ddim", "pndm", "euler", "dpmpp2m"; PB_ERR_USAGE with the choices otherwise.
pb_status pb_sampler_kind_parse(const char *text, pb_sampler_kind *kind);
const char *pb_sampler_kind_name(pb_sampler_kind kind);  // "model" for PB_SAMPLER_MODEL
// That of a class of diffusers, "DDIMScheduler"; PB_SAMPLER_MODEL where it is none of ours.
pb_sampler_kind pb_sampler_kind_of_class(const char *class_name);

// `config` is scheduler_config.json's root, read as diffusers does it: for PB_SAMPLER_MODEL as StableDiffusionPipeline
// loads it (which sets steps_offset to 1 and clip_sample to false), else as `Kind.from_config(pipe.scheduler.config)`:
// an absent key has the default of the class that samples, not of the class that wrote the file.
// `count` is the number of latent elements of a step (the whole batch).
// Errors: PB_ERR_USAGE (steps below 1 or above num_train_timesteps, or too few for the Runge-Kutta start),
// PB_ERR_FORMAT, PB_ERR_UNSUPPORTED (the field is named), PB_ERR_MEMORY.
// `class_name` is the scheduler's for PB_SAMPLER_MODEL: model_index.json says it, and diffusers takes its word against
// the `_class_name` of `config`, which is taken where it is NULL.
pb_status pb_sampler_create(pb_sampler_kind kind, const char *class_name, const pb_json *config, const char *name,
                            int steps, size_t count, pb_sampler **sampler);
void pb_sampler_destroy(pb_sampler *sampler);  // NULL is allowed

pb_sampler_kind pb_sampler_kind_of(const pb_sampler *sampler);
int pb_sampler_calls(const pb_sampler *sampler);                 // model calls: steps, or more for pndm
float pb_sampler_timestep(const pb_sampler *sampler, int call);  // euler's may be fractional
float pb_sampler_init_sigma(const pb_sampler *sampler);

// The model's input for x (euler scales it). `input` may be `x`.
void pb_sampler_input(const pb_sampler *sampler, int call, const float *x, float *input);
// x after the call with the model's output; calls in order 0 .. calls - 1. After the last, 0 starts anew.
void pb_sampler_step(pb_sampler *sampler, int call, const float *output, float *x);

#endif
