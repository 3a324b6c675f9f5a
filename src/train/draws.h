// What a training run draws, in the order in which diffusers' train_dreambooth.py draws it on the CPU, from one
// generator (torch's default one, seeded with `seed`):
//
//   at the start of an epoch
//     1. random()         the data loader's base seed, which nothing uses without workers
//     2. random()         the seed of a generator of the sampler's own, which shuffles: randperm(length)
//     3. the crops of batch 0
//   for each batch of the epoch
//     4. the crops of the batch after it, where the epoch has one (accelerate's loader is one batch ahead)
//     5. randn(N,C,H,W)   the sample of the VAE's moments, in the VAE's type
//     6. randn(N,C,H,W)   the noise, in the same type. For N > 1 drawn as randn_like of a tensor in channels_last order
//                         (N,H,W,C): that is how torch's VAE leaves its latents where its middle block has attention
//     7. randn(N,C,1,1)   with offset_noise, always in float32: noise + 0.1 * offset, which makes the noise float32
//     8. randint(0,T)     N times: the timesteps
//
// Crops of a batch: for each of its items in order the instance picture's, then the class picture's. A crop draws
// randint(0, rows + 1) for its top and randint(0, columns + 1) for its left, where rows and columns are what the
// resized picture has beyond the target; if both are 0 nothing is drawn. A center crop draws nothing.
// N is the batch's items, twice as many with prior preservation: all instance pictures, then all class pictures.
// The last batch of an epoch may be smaller. Nothing is drawn where class images are complete at the start; sampling
// missing ones draws from the same generator before 1 (see train/generate.h).
#ifndef PB_TRAIN_DRAWS_H
#define PB_TRAIN_DRAWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/rng.h"

typedef struct pb_crop_slack {
    int32_t rows, columns;  // resized size minus target size, 0 or more
} pb_crop_slack;

typedef struct pb_crop {
    int32_t top, left;
} pb_crop;

typedef struct pb_draws_options {
    int64_t instances;              // instance pictures, 1 or more
    int64_t classes;                // class pictures that are used (at most num_class_images); 0: no prior preservation
    int64_t batch;                  // train_batch_size
    const pb_crop_slack *instance;  // (instances), copied; NULL with a center crop
    const pb_crop_slack *class_;    // (classes), copied; NULL with a center crop or without class pictures
} pb_draws_options;

typedef struct pb_draws_item {
    int64_t index;             // in the data set: 0 .. max(instances, classes) - 1
    int64_t instance, class_;  // pictures: index modulo their number (class_ is -1 without prior preservation)
    pb_crop instance_crop, class_crop;
} pb_draws_item;

typedef struct pb_draws_batch {
    int64_t epoch, number;  // from 0; `number` within the epoch
    bool last;              // of its epoch: it closes an optimizer step however many passes were accumulated
    int64_t count;
    const pb_draws_item *items;  // (count); until the next call
} pb_draws_batch;

typedef struct pb_draws pb_draws;

// `rng` is copied: seed it, and draw from it what comes before the first epoch. PB_ERR_MEMORY.
pb_status pb_draws_create(const pb_draws_options *options, const pb_rng *rng, pb_draws **draws);
void pb_draws_destroy(pb_draws *draws);  // NULL is allowed

// 1 to 4: the next batch; begins an epoch where the last one is over.
pb_draws_batch pb_draws_next(pb_draws *draws);

enum { PB_DRAWS_CHANNELS = 64 };

// 5 to 8, for the batch that pb_draws_next gave last.
typedef struct pb_draws_pass {
    pb_dtype dtype;           // of the VAE: PB_F32, PB_F16, PB_BF16
    bool vae_attention;       // the VAE's mid_block_add_attention (true for Stable Diffusion)
    size_t images;            // N
    size_t channels;          // C, at most PB_DRAWS_CHANNELS
    size_t pixels;            // H x W
    int64_t train_timesteps;  // T
    float *sample;            // (N,C,H,W)
    float *noise;             // (N,C,H,W); the offset is not yet added
    float *offset;            // (N,C), or NULL without offset_noise
    int64_t *timesteps;       // (N)
} pb_draws_pass;
void pb_draws_fill(pb_draws *draws, const pb_draws_pass *pass);

// Everything that the next calls depend on, for a checkpoint between two batches; a restored run goes on in the middle
// of its epoch. PB_ERR_FORMAT where the bytes are not from a run with as many pictures and the same batch size.
size_t pb_draws_state_bytes(const pb_draws *draws);
void pb_draws_save(const pb_draws *draws, uint8_t *bytes);
pb_status pb_draws_restore(pb_draws *draws, const uint8_t *bytes, size_t count);

#endif
