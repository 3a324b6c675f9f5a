// The part of YAML 1.2 that configurations need: mappings, sequences and scalars in one document. Anchors, aliases,
// tags, duplicate keys and keys that are no scalars are refused; at most 64 KiB and 32 levels.
#ifndef PB_IO_YAML_H
#define PB_IO_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

enum { PB_YAML_BYTES = 64 * 1024, PB_YAML_DEPTH = 32 };

typedef enum pb_yaml_type { PB_YAML_SCALAR, PB_YAML_SEQUENCE, PB_YAML_MAPPING } pb_yaml_type;

typedef struct pb_yaml pb_yaml;
struct pb_yaml {
    pb_yaml_type type;
    bool plain;        // a scalar without quotes: may be a number, true, null
    const char *text;  // of a scalar
    const char *key;   // when a member of a mapping
    int line, column;  // from 1; of the key for members
    size_t count;
    const pb_yaml *first, *next;  // in the file's order
};

// An empty document is an empty mapping. `name` (a path) is for messages. Errors: PB_ERR_FORMAT with line and column,
// PB_ERR_MEMORY.
pb_status pb_yaml_parse(pb_arena *arena, const char *text, size_t bytes, const char *name, const pb_yaml **root);
const pb_yaml *pb_yaml_get(const pb_yaml *mapping, const char *key);

// What a plain scalar means in the core schema of YAML 1.2 (so `no` is a string, and 1e-4 a number). False where it is
// something else or out of range.
bool pb_yaml_is_null(const pb_yaml *node);
bool pb_yaml_bool(const pb_yaml *node, bool *value);
bool pb_yaml_int(const pb_yaml *node, int64_t *value);
bool pb_yaml_double(const pb_yaml *node, double *value);  // finite only

#endif
