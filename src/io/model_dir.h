// A diffusers pipeline directory: model_index.json and one folder per part.
#ifndef PB_IO_MODEL_DIR_H
#define PB_IO_MODEL_DIR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/json.h"
#include "io/weights_file.h"

typedef struct pb_model_part_dir {
    bool present;
    const char *path;         // the part's folder
    const char *class_name;   // "UNet2DConditionModel": from model_index.json, else from its config; NULL if neither
    const char *config_path;  // config.json or scheduler_config.json; NULL for the tokenizer and where there is none
    const pb_json *config;    // NULL with it
} pb_model_part_dir;

typedef struct pb_model_dir {
    pb_arena *arena;
    const char *path;      // of the pipeline: a snapshot where a hub cache folder was given
    const pb_json *index;  // model_index.json; NULL where there is none
    pb_model_part_dir parts[PB_PART_COUNT];
} pb_model_dir;

// `path` is a pipeline directory, a folder of the hub's cache (models--ORG--NAME: the snapshot of `revision`, "main"
// where that is NULL; of a plain directory a revision is PB_ERR_USAGE, for it would change nothing), or, where no such
// path exists, the name ORG/NAME of a model that lies in the hub's cache on this machine (HF_HUB_CACHE, HF_HOME/hub,
// ~/.cache/huggingface/hub). Nothing is ever downloaded. Parts may be absent: whoever needs one calls
// pb_model_dir_require. Errors: PB_ERR_IO, PB_ERR_FORMAT, PB_ERR_UNSUPPORTED (a single-file checkpoint), PB_ERR_MEMORY.
pb_status pb_model_dir_open(const char *path, const char *revision, pb_model_dir **model);
void pb_model_dir_close(pb_model_dir *model);  // NULL is allowed

// PB_ERR_UNSUPPORTED where it is a pipeline of another kind, by its model_index.json.
pb_status pb_model_dir_trainable(const pb_model_dir *model);

// PB_ERR_FORMAT naming the folder or the config that is missing; PB_ERR_UNSUPPORTED for a pipeline of another kind.
pb_status pb_model_dir_require(const pb_model_dir *model, pb_part part);

// PB_ERR_USAGE where `variant` is given and no part has weights of it, naming one that there is: a misspelt variant
// would otherwise be the plain weights. A single part may lack it, as in diffusers.
pb_status pb_model_dir_require_variant(const pb_model_dir *model, const char *variant);

// The weights of a part that has some. `variant` as in pb_weights_open.
pb_status pb_model_dir_weights(const pb_model_dir *model, pb_part part, const char *variant, pb_weights **weights);

// --- Writing a pipeline directory that differs from `model` in the weights of some parts ---

typedef struct pb_model_writer pb_model_writer;

// Copies what belongs to the pipeline (the folders named in model_index.json, its JSON and text files) into a temporary
// folder within `path`, which is made if need be. Left out are the weights, of whatever variant or format, of the parts
// in `replaced`, and in the others pickles that have a safetensors twin. A part that only has a variant gets its plain
// name, so that the result loads without naming one.
pb_status pb_model_writer_begin(const pb_model_dir *model, const char *path, const bool replaced[PB_PART_COUNT],
                                pb_model_writer **writer);
// What it copies, in bytes, without copying. PB_ERR_IO naming what cannot be read: a link that leads nowhere, say.
pb_status pb_model_copied_bytes(const pb_model_dir *model, const bool replaced[PB_PART_COUNT], uint64_t *bytes);
// Where the weights of a replaced part are to be written (single file, plain name:
// "diffusion_pytorch_model.safetensors").
const char *pb_model_writer_weights_path(const pb_model_writer *writer, pb_part part);
// Puts the folders in place of those at `path`: model_index.json goes first and comes last, so that what a kill leaves
// half way is not taken for a model.
pb_status pb_model_writer_commit(pb_model_writer *writer);
// Removes what was not committed. NULL is allowed.
void pb_model_writer_destroy(pb_model_writer *writer);

#endif
