// JSON one token at a time, without a tree: for texts whose size a stranger chose (a safetensors header may have 100
// MB), and the ground that pb_json_parse stands on. Strict RFC 8259; strings are checked to be UTF-8 (lone surrogates
// are refused), at most 32 levels, numbers of at most 400 characters that are finite as doubles. One exception:
// -Infinity, which diffusers writes into scheduler_config.json for "no limit", is read as null.
#ifndef PB_BASE_JSON_READER_H
#define PB_BASE_JSON_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { PB_JSON_DEPTH = 32 };

typedef enum pb_json_token {
    PB_JSON_OBJECT_BEGIN,
    PB_JSON_OBJECT_END,
    PB_JSON_ARRAY_BEGIN,
    PB_JSON_ARRAY_END,
    PB_JSON_KEY,
    PB_JSON_VALUE_STRING,
    PB_JSON_VALUE_NUMBER,
    PB_JSON_VALUE_TRUE,
    PB_JSON_VALUE_FALSE,
    PB_JSON_VALUE_NULL,
    PB_JSON_FINISHED  // the value is complete and only white space was left
} pb_json_token;

typedef struct pb_json_reader {
    const char *text, *end, *name;  // `name` (a path) is for messages
    const char *at;                 // the first byte that is not read yet
    const char *token;              // the last token's first byte; of a key or string the byte behind the quote
    size_t token_bytes;             // without quotes
    size_t string_bytes;            // of a key or string, decoded
    int depth;                      // open objects and arrays
    uint64_t objects;               // bit d: level d is an object
    enum { PB_JSON_WANT_VALUE, PB_JSON_WANT_FIRST, PB_JSON_WANT_MORE } want;
} pb_json_reader;

pb_json_reader pb_json_reader_make(const char *text, size_t bytes, const char *name);

// Errors: PB_ERR_FORMAT with line and column.
pb_status pb_json_reader_next(pb_json_reader *reader, pb_json_token *token);

// Writes the last key or string and a NUL: string_bytes + 1 bytes.
void pb_json_reader_string(const pb_json_reader *reader, char *text);
// The last number. `*is_integer`: no fraction, no exponent, fits int64; then *integer is set. *number always is.
pb_status pb_json_reader_number(const pb_json_reader *reader, bool *is_integer, int64_t *integer, double *number);

// PB_ERR_FORMAT with a message that begins with "NAME:LINE:COLUMN: ", the place of the last token.
pb_status pb_json_reader_error(const pb_json_reader *reader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
