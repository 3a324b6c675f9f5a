// The weights of one model part as one set of tensors, whatever files and names hold them: a single file, or shards
// with their index; a variant (".fp16.safetensors"); today's or yesterday's names. Lookup is by canonical name, the one
// that src/nn uses (diffusers' and transformers' own); what is written back keeps the file's names and shapes.
#ifndef PB_IO_WEIGHTS_FILE_H
#define PB_IO_WEIGHTS_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/dtype.h"
#include "base/error.h"
#include "io/safetensors.h"

// The first three have weights.
typedef enum pb_part {
    PB_PART_UNET,
    PB_PART_TEXT_ENCODER,
    PB_PART_VAE,
    PB_PART_TOKENIZER,
    PB_PART_SCHEDULER,
    PB_PART_COUNT
} pb_part;

const char *pb_part_name(pb_part part);  // its folder: "unet", "text_encoder", ...
// "diffusion_pytorch_model" or "model"; NULL for a part without weights.
const char *pb_part_weights_stem(pb_part part);

typedef struct pb_weight {
    const char *canonical;              // what src/nn calls it
    const pb_safetensors_entry *entry;  // the file's own name, dtype and shape
    const pb_safetensors *file;
    bool ignored;  // a buffer that the model does not read (position_ids); copied when saving
} pb_weight;

typedef struct pb_weights {
    const pb_weight *items;  // by canonical name, in byte order
    size_t count;
    uint64_t elements, bytes;  // over all
    pb_dtype dtype;            // of the most elements: the precision of the source
    const char *path;          // the file, or the index of the shards
    struct pb_weights_private *private_;
} pb_weights;

// `path` is a part's folder or a .safetensors file. In a folder the plain name is preferred where `variant` is NULL or
// "" (else a lone variant is taken; of several one must be named), STEM.VARIANT.safetensors where it is given (the
// plain name where that part has none). Errors: PB_ERR_UNSUPPORTED (only pickles: the message says how to convert
// them), PB_ERR_FORMAT (a broken file or index, two tensors that mean the same), PB_ERR_IO, PB_ERR_MEMORY.
pb_status pb_weights_open(const char *path, pb_part part, const char *variant, pb_weights **weights);
void pb_weights_close(pb_weights *weights);  // NULL is allowed

// O(log count). NULL where there is none.
const pb_weight *pb_weights_find(const pb_weights *weights, const char *canonical);

// Whether the file's shape is `shape`, or differs from it in trailing ones only (old VAEs keep the attention's matrices
// as [C,C,1,1]): the elements are the same in the same order.
bool pb_weight_has_shape(const pb_weight *weight, int rank, const int64_t *shape);

// As pb_safetensors_read.
pb_status pb_weight_read(const pb_weight *weight, pb_dtype dtype, void *data);

#endif
