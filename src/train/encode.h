// What the frozen parts of a model make of a run's data: the VAE of pictures, the text encoder of prompts.
#ifndef PB_TRAIN_ENCODE_H
#define PB_TRAIN_ENCODE_H

#include "exec/executor.h"
#include "io/image.h"
#include "io/model_dir.h"
#include "io/run_config.h"
#include "nn/module.h"
#include "train/draws.h"

// How a frozen part is run.
typedef struct pb_encoding {
    const pb_backend *backend;
    const pb_model_dir *model;
    const char *variant;        // of the weights, or NULL
    pb_dtype dtype;             // what it computes in
    pb_frozen_weights weights;  // how they are held
} pb_encoding;

// --- Pictures ---

// A picture's VAE moments: the mean, and the deviation exp(log variance / 2), each (C,h,w), rounded as torch does it in
// the VAE's type.
typedef struct pb_moments {
    float *mean, *deviation;
} pb_moments;

typedef struct pb_vae_encoder {
    pb_graph *graph;
    pb_module *module;
    pb_program *program;
    pb_executor *executor;
    pb_vid pixels, moments;
    int32_t size;  // of the pictures
    int64_t channels, latent_pixels;
    pb_dtype dtype;
    float *values;  // pixels, then moments, in fp32
    void *narrow;   // the same in `dtype`
} pb_vae_encoder;

// For pictures of size x size pixels. Errors: those of compiling and of reading weights.
pb_status pb_vae_encoder_create(const pb_encoding *encoding, const pb_vae_config *config, int32_t size,
                                pb_vae_encoder **encoder);
void pb_vae_encoder_destroy(pb_vae_encoder *encoder);  // NULL is allowed
// Of the size x size pixels at `crop`. `moments` has room for C * h * w floats twice.
pb_status pb_vae_encoder_run(pb_vae_encoder *encoder, const pb_image *image, pb_crop crop, pb_moments *moments);

// --- Prompts ---

// The hidden states of `count` prompts, each (T,D) in the encoding's dtype, one after another into `hidden`. ids:
// (count,T). *device_bytes (or NULL): what it took of the device meanwhile. Errors as above.
pb_status pb_encode_prompts(const pb_encoding *encoding, const pb_clip_config *config, const int32_t *ids, int count,
                            int tokens, void *hidden, uint64_t *device_bytes);

#endif
