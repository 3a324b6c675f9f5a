// JSON as a tree in an arena. Strict (RFC 8259), UTF-8 checked, depth at most 32, duplicate keys refused. The tree
// takes up to 60 times the text's bytes: cap the text by what its kind needs (src/base/json_reader.h reads without a
// tree).
#ifndef PB_BASE_JSON_H
#define PB_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

typedef enum pb_json_type {
    PB_JSON_NULL,
    PB_JSON_BOOL,
    PB_JSON_NUMBER,
    PB_JSON_STRING,
    PB_JSON_ARRAY,
    PB_JSON_OBJECT
} pb_json_type;

typedef struct pb_json pb_json;
struct pb_json {
    pb_json_type type;
    bool boolean;
    bool is_integer;  // a number without fraction or exponent that fits int64
    int64_t integer;
    double number;       // always set for numbers
    const char *string;  // NUL-terminated; string_bytes without it (may hold NULs)
    size_t string_bytes;
    const char *key;  // when this is a member of an object
    size_t key_bytes;
    size_t count;                 // children of an array or object
    const pb_json *first, *next;  // children, siblings, in the file's order
};

// `name` (a path) is for messages, which give line and column. Errors: PB_ERR_FORMAT, PB_ERR_MEMORY.
pb_status pb_json_parse(pb_arena *arena, const char *text, size_t bytes, const char *name, const pb_json **root);

// Member of an object or NULL (also where `object` is NULL or no object). Linear.
const pb_json *pb_json_get(const pb_json *object, const char *key);

// Typed members with a default where the key is absent or null; PB_ERR_FORMAT naming `name` and the key where the type
// or range is wrong.
pb_status pb_json_get_int(const pb_json *object, const char *key, int64_t low, int64_t high, int64_t fallback,
                          const char *name, int64_t *value);
pb_status pb_json_get_double(const pb_json *object, const char *key, double fallback, const char *name, double *value);
pb_status pb_json_get_bool(const pb_json *object, const char *key, bool fallback, const char *name, bool *value);
// NULL where absent or null and `fallback` is NULL.
pb_status pb_json_get_string(const pb_json *object, const char *key, const char *fallback, const char *name,
                             const char **value);

// --- Writing ---
typedef struct pb_text {
    char *data;  // NUL-terminated; NULL before the first append
    size_t bytes, capacity;
    bool failed;  // no memory: all later appends do nothing
} pb_text;

void pb_text_append(pb_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void pb_text_append_json_string(pb_text *text, const char *string, size_t bytes);  // with the quotes
// 15 to 17 significant digits, as few as read back as the same double; NaN and infinities as null.
void pb_text_append_json_number(pb_text *text, double value);
// A whole value, on one line. Integers keep all their digits.
void pb_text_append_json(pb_text *text, const pb_json *value);
void pb_text_deinit(pb_text *text);

#endif
