// The names that files of weights, and the tensors in them, go by.
#ifndef PB_IO_WEIGHTS_NAMES_H
#define PB_IO_WEIGHTS_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "base/error.h"
#include "io/weights_file.h"

#define PB_WEIGHTS_REMEDY                                                                                            \
    "pickles (.bin, .ckpt, .pt) can run any code when they are read and are not supported; convert the model once, " \
    "in Python: StableDiffusionPipeline.from_pretrained(OLD).save_pretrained(NEW), or from_single_file(FILE) for "   \
    ".ckpt"

#define PB_SINGLE_FILE_REMEDY \
    "convert it once, in Python: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(NEW)"

bool pb_name_ends_with(const char *name, const char *end);
// Whether a file of this name holds weights or the index of some, in any format.
bool pb_name_is_weights(const char *name);
// Whether it holds them as a pickle or in another format that has a safetensors twin as a rule.
bool pb_name_is_pickle(const char *name);
// "a.fp16.safetensors" -> "a.safetensors", "a.safetensors.index.fp16.json" -> "a.safetensors.index.json"; NULL for a
// name without a variant. `variant`, where not NULL, becomes "fp16". In the arena; *no_memory says why it is NULL.
const char *pb_name_without_variant(pb_arena *arena, const char *name, const char **variant, bool *no_memory);

// The file or index among a folder's names that pb_weights_open is to read.
pb_status pb_weights_choose(pb_arena *arena, const char *folder, const char *const *names, size_t count,
                            const char *stem, const char *variant, const char **chosen);
// Whether there is a file or index of STEM in that variant. *other: a variant that there is, left alone where there is
// none; *any: whether STEM has weights at all.
pb_status pb_weights_has_variant(pb_arena *arena, const char *const *names, size_t count, const char *stem,
                                 const char *variant, bool *has, const char **other, bool *any);

// In the arena or `name` itself; NULL when there is no memory.
const char *pb_weight_canonical(pb_arena *arena, pb_part part, const char *name);
bool pb_weight_is_ignored(pb_part part, const char *name);

#endif
