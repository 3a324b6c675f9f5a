// What a tokenizer is made of; shared by its three files only.
#ifndef PB_IO_TOKENIZER_INTERNAL_H
#define PB_IO_TOKENIZER_INTERNAL_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/json.h"
#include "io/tokenizer.h"

typedef struct pb_vocab_entry {
    const char *text;
    size_t bytes;
    int32_t id;
} pb_vocab_entry;

// Two neighbours that become one. Sorted by (first, second), so that looking up is a binary search: there is no hash
// that a hostile file could make slow.
typedef struct pb_merge {
    int32_t first, second;
    int32_t rank, result;
} pb_merge;

// A token that is cut out of the text before it is split into words.
typedef struct pb_added_token {
    const char *content;
    size_t bytes;
    bool left_strip, right_strip;  // takes the white space beside it along
    bool special;
    bool normalized;  // matched in the normalised text, else in the raw text
    int32_t id;
    uint32_t *pattern;  // code points of the content, normalised if the token is
    size_t pattern_length;
} pb_added_token;

struct pb_tokenizer {
    pb_arena *arena;
    const char *name;          // for messages
    pb_vocab_entry *vocab;     // (vocab_size), sorted by text
    int32_t vocab_size, size;  // without and with added tokens
    pb_merge *merges;
    size_t merge_count;
    pb_added_token *added;
    size_t added_count;
    int32_t bytes[256][2];  // ids of the byte-level alphabet's letters; [1]: at a word's end ("</w>")
    int32_t bos, eos, pad;
    int32_t length;
};

// The id of a text in the vocabulary (not an added token), or -1.
int32_t pb_vocab_find(const pb_tokenizer *tokenizer, const char *text, size_t bytes);

// Replaces `ids`, the letters of a word, by its tokens; returns how many there are. `scratch` has room for
// pb_bpe_scratch_bytes(count). Of all pairs with a merge the one of the lowest rank, the leftmost of these, goes first.
size_t pb_bpe_scratch_bytes(size_t count);
size_t pb_bpe_merge(const pb_tokenizer *tokenizer, int32_t *ids, size_t count, void *scratch);

// NFC, white space to one blank, lower case: `points` to a new array (in `arena`).
pb_status pb_tokenizer_normalize(pb_arena *arena, const uint32_t *points, size_t count, uint32_t **normalized,
                                 size_t *normalized_count);

// The named and the added tokens, from the configuration files (NULL where absent): fills added, bos, eos, pad, size
// and the bytes' unknown letters. `added_list` is tokenizer.json's "added_tokens", `added_map` added_tokens.json.
typedef struct pb_tokenizer_settings {
    const pb_json *config, *special, *added_list, *added_map;
} pb_tokenizer_settings;
pb_status pb_tokenizer_read_added(pb_tokenizer *tokenizer, const pb_tokenizer_settings *settings);

#endif
