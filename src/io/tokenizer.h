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

// Reads the files of `path`, the tokenizer's folder or a model directory with a folder `tokenizer`: tokenizer.json, or
// vocab.json with merges.txt; and, where present, tokenizer_config.json, special_tokens_map.json, added_tokens.json.
// Every id of the vocabulary is checked: unique, 0 .. size - 1.
// Errors: PB_ERR_IO, PB_ERR_FORMAT, PB_ERR_UNSUPPORTED (an option that CLIP's tokenizers do not use), PB_ERR_MEMORY.
pb_status pb_tokenizer_create(const char *path, pb_tokenizer **tokenizer);
void pb_tokenizer_destroy(pb_tokenizer *tokenizer);  // NULL is allowed

// The same from the files' contents; what is absent has NULL. `name` (a folder) is for messages.
typedef struct pb_tokenizer_text {
    const char *data;
    size_t bytes;
} pb_tokenizer_text;
typedef struct pb_tokenizer_files {
    pb_tokenizer_text unified;                 // tokenizer.json: then without the next two
    pb_tokenizer_text vocab, merges;           // vocab.json, merges.txt
    pb_tokenizer_text config, special, added;  // tokenizer_config.json, special_tokens_map.json, added_tokens.json
} pb_tokenizer_files;
pb_status pb_tokenizer_create_from(const pb_tokenizer_files *files, const char *name, pb_tokenizer **tokenizer);

// Ids per prompt: `model_max_length` of tokenizer_config.json, or 77 where it has none.
int32_t pb_tokenizer_length(const pb_tokenizer *tokenizer);
// Number of ids, added tokens included; the text encoder's `vocab_size` must not be smaller.
int32_t pb_tokenizer_size(const pb_tokenizer *tokenizer);

// tokenizer(text, padding="max_length", truncation=True, max_length=length): BOS, ids, EOS, padding, so that `length`
// (2 or more) ids are written. Linear in `bytes` up to a logarithm. PB_ERR_FORMAT where `text` is not UTF-8 (the offset
// is named), PB_ERR_MEMORY, PB_ERR_UNSUPPORTED for text above 256 MiB.
pb_status pb_tokenizer_encode(const pb_tokenizer *tokenizer, const char *text, size_t bytes, int32_t length,
                              int32_t *ids);

#endif
