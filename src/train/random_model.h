// Pipelines of random weights in diffusers' layout, for tests and benchmarks.
#ifndef PB_TRAIN_RANDOM_MODEL_H
#define PB_TRAIN_RANDOM_MODEL_H

#include "base/dtype.h"
#include "base/error.h"

// Writes a preset ("tiny", "medium", "sd14", "sd21"; nn/preset.h) to `path`, which must be free or an empty directory:
// unet, vae, text_encoder (safetensors of `dtype`, 16 or 32 bit), scheduler, tokenizer. Weights have the scale of
// PyTorch's default initialisation; the same seed gives the same bytes. The tokenizer knows single bytes only (no
// merges); the vocabulary is filled up to its full size with tokens that no text contains. The directory appears when
// it is complete; memory stays below 100 MiB. Errors: PB_ERR_UNSUPPORTED (no such preset), PB_ERR_IO, PB_ERR_MEMORY.
pb_status pb_random_model_write(const char *preset, uint64_t seed, pb_dtype dtype, const char *path);

#endif
