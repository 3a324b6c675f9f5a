// CLIP's byte-level BPE tokenizer from vocab.json and merges.txt, equal to transformers' CLIPTokenizer: special tokens
// are cut out of the raw text, the rest is normalised (NFC, runs of white space to one space, lower case), split into
// words (contractions, letters, single digits, other signs), written in the byte-level alphabet with "</w>" at a word's
// end, and merged by rank. Immutable once made: any number of threads may encode.
#ifndef PB_IO_TOKENIZER_H
#define PB_IO_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct pb_tokenizer pb_tokenizer;

// Reads vocab.json, merges.txt and, where present, tokenizer_config.json and special_tokens_map.json from `path`: the
// tokenizer's folder, or a model directory with a folder `tokenizer`. Every id is checked: unique, 0 .. size - 1.
// Errors: PB_ERR_IO, PB_ERR_FORMAT, PB_ERR_UNSUPPORTED, PB_ERR_MEMORY.
pb_status pb_tokenizer_create(const char *path, pb_tokenizer **tokenizer);
void pb_tokenizer_destroy(pb_tokenizer *tokenizer);  // NULL is allowed

// The same from the files' contents; `config` and `special` may be NULL. `name` (a folder) is for messages.
typedef struct pb_tokenizer_files {
    const char *vocab, *merges, *config, *special;
    size_t vocab_bytes, merges_bytes, config_bytes, special_bytes;
} pb_tokenizer_files;
pb_status pb_tokenizer_create_from(const pb_tokenizer_files *files, const char *name, pb_tokenizer **tokenizer);

// Ids per prompt: `model_max_length` of tokenizer_config.json, or 77 where it has none.
int32_t pb_tokenizer_length(const pb_tokenizer *tokenizer);
// Number of ids, added tokens included; the text encoder's `vocab_size` must not be smaller.
int32_t pb_tokenizer_size(const pb_tokenizer *tokenizer);

// tokenizer(text, padding="max_length", truncation=True, max_length=length): BOS, ids, EOS, padding, so that `length`
// (2 or more) ids are written. Linear in `bytes` up to a logarithm. PB_ERR_FORMAT where `text` is not UTF-8 (the offset
// is named), PB_ERR_MEMORY.
pb_status pb_tokenizer_encode(const pb_tokenizer *tokenizer, const char *text, size_t bytes, int32_t length,
                              int32_t *ids);

#endif
