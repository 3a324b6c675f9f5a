// A target with a bug that is known, to show that the driver finds one behind a real parser: the product's JSON parser
// reads the input, and with PB_FUZZ_PLANT this file believes a number that the parser let through. It takes a document
// that stays well formed while a number in the right place becomes negative (or has only its last digits wrong).
// test_canary.sh wants it found, and nothing found without PB_FUZZ_PLANT.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { AXES = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int64_t extent_of_axis(const pb_json *document) {
    const pb_json *axis = pb_json_get(document, "axis"), *shape = pb_json_get(document, "shape");
    if (!axis || !axis->is_integer || !shape || shape->type != PB_JSON_ARRAY || shape->count != AXES) return 0;
    int64_t *extents = calloc(AXES, sizeof *extents), extent = 0;
    if (!extents) return 0;
    int64_t *next = extents;
    for (const pb_json *child = shape->first; child; child = child->next) *next++ = child->integer;
#ifndef PB_FUZZ_PLANT
    if (axis->integer >= 0)
#endif
        if (axis->integer < AXES) extent = extents[axis->integer];
    free(extents);
    return extent;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static volatile int64_t sink;
    const pb_json *root;
    pb_arena *arena = pb_arena_create();
    if (arena && pb_json_parse(arena, (const char *)data, size, "input", &root) == PB_OK) sink = extent_of_axis(root);
    (void)sink;
    pb_arena_destroy(arena);
    return 0;
}
