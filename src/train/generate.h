// Pictures from a model and a prompt, as diffusers' StableDiffusionPipeline makes them on the CPU from the same noise.
#ifndef PB_TRAIN_GENERATE_H
#define PB_TRAIN_GENERATE_H

#include "base/rng.h"
#include "io/image.h"
#include "io/model_dir.h"
#include "kernels/backend.h"
#include "train/denoise.h"
#include "train/sampler.h"

typedef struct pb_generate_options {
    const pb_model_dir *model;
    const char *variant;            // of the weights, or NULL
    pb_dtype dtype;                 // to compute in; the latents are kept in fp32
    const char *prompt, *negative;  // `negative` "" for none
    double guidance;                // classifier-free guidance above 1, none up to it
    pb_sampler_kind sampler;
    int steps;
    int width, height;          // in pixels; 0: what the UNet was made for
    int batch;                  // pictures that go through the UNet together, 1 or more
    const pb_backend *backend;  // NULL: the CPU's
    const char *smaller;        // what needs less memory, for the message; NULL: --batch and --size
} pb_generate_options;

typedef struct pb_generator pb_generator;

// Reads the model, encodes the prompts, compiles UNet and decoder. Errors: PB_ERR_USAGE (a size or number of steps that
// does not suit the model), PB_ERR_FORMAT, PB_ERR_UNSUPPORTED (an SDXL pipeline, a scheduler), PB_ERR_MEMORY.
pb_status pb_generator_create(const pb_generate_options *options, pb_generator **generator);
void pb_generator_destroy(pb_generator *generator);  // NULL is allowed

int pb_generator_width(const pb_generator *generator);
int pb_generator_height(const pb_generator *generator);
void pb_generator_latent_shape(const pb_generator *generator, int64_t shape[3]);  // C, h, w
pb_sampler_kind pb_generator_sampler(const pb_generator *generator);

typedef pb_denoise_progress pb_generate_progress;

// Makes `count` pictures from unit normals: latents (count,C,h,w), drawn in one pb_rng_randn call for the same pictures
// as diffusers', become the final latents in place (before they are divided by the VAE's scaling factor). images[count]
// are to be released by the caller; none is left after an error. `images` may be NULL. `progress` may be NULL.
pb_status pb_generator_run(pb_generator *generator, float *latents, int count, pb_image *images,
                           pb_generate_progress progress, void *context);

// Class images: `missing` more JPEGs in `folder` (which is made if need be), named INDEX-SHA1.jpg with indices from
// `first` on, `options->batch` at a time, drawn from `rng` (the run's generator, before its first epoch) as
// train_dreambooth.py draws them. For its pictures: 50 steps, guidance 7.5, no negative prompt, the model's own sampler
// and size, fp32. Files that are there are left alone.
pb_status pb_generate_class_images(const pb_generate_options *options, const char *folder, int64_t first,
                                   int64_t missing, pb_rng *rng, pb_generate_progress progress, void *context);

#endif
