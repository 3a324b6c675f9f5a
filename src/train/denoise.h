// From noise to pictures: the calls that a sampler makes of a compiled UNet, and a decoder after them. The same for
// `pagebooth generate` and for validation pictures during training, where the two programs are some of the run's.
#ifndef PB_TRAIN_DENOISE_H
#define PB_TRAIN_DENOISE_H

#include "exec/executor.h"
#include "io/image.h"
#include "train/sampler.h"

// Called after each call of the UNet; what is not PB_OK ends the work and is returned. `total` is for all pictures.
typedef pb_status (*pb_denoise_progress)(void *context, int64_t done, int64_t total);

// The caller fills in the upper half and lets pb_denoise_init make the rest.
typedef struct pb_denoise {
    pb_dtype dtype;     // of the programs' inputs and outputs
    int batch, copies;  // pictures in a UNet call; of each: 2 with guidance, [unconditioned, conditioned]
    double guidance;
    int width, height;                // of a picture
    int64_t channels, rows, columns;  // of a latent
    float scaling_factor;             // of the VAE
    pb_sampler *sampler;              // for batch * channels * rows * columns elements
    pb_executor *unet, *decoder;
    pb_vid sample, timesteps, condition, prediction;  // (copies * batch,h,w,C), (copies * batch), .., like the first
    pb_vid latents, pixels;                           // of the decoder: (1,h,w,C), (1,H,W,3)
    const void *texts;                                // what `condition` is written with: ids or hidden states
    uint64_t text_bytes;
    // Called before each run of the programs, to write what else they need; NULL where that is nothing.
    pb_status (*before_unet)(void *context);
    pb_status (*before_decoder)(void *context);
    void *context;

    int64_t elements;   // of a latent
    float *x, *output;  // (batch,C,h,w); (copies * batch,C,h,w)
    float *wide;        // what goes in or comes out of a network, channels last, in float ...
    void *narrow;       // ... and in its dtype
    float *times;       // (copies * batch)
    bool overflowed;    // a pixel that was made is not finite
} pb_denoise;

// Nothing is allocated after it but pictures. PB_ERR_MEMORY.
pb_status pb_denoise_init(pb_denoise *denoise);
// Releases what pb_denoise_init made, not what the caller filled in.
void pb_denoise_deinit(pb_denoise *denoise);

// Makes `count` pictures from unit normals: latents (count,C,h,w) become the final ones in place, before they are
// divided by the scaling factor. images[count] are to be released by the caller; none is left after an error. `images`
// and `progress` may be NULL.
pb_status pb_denoise_run(pb_denoise *denoise, float *latents, int count, pb_image *images, pb_denoise_progress progress,
                         void *context);

#endif
