#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Blocks form a list, newest first; an allocation larger than a block gets a block of its own.
enum { BLOCK_BYTES = 64 * 1024, ALIGNMENT = 16 };

typedef struct block {
    struct block *next;
    size_t used, size;
    _Alignas(ALIGNMENT) unsigned char bytes[];
} block;

struct pb_arena {
    block *newest;
};

pb_arena *pb_arena_create(void) {
    return calloc(1, sizeof(pb_arena));
}

void pb_arena_destroy(pb_arena *arena) {
    if (!arena) return;
    for (block *b = arena->newest; b;) {
        block *next = b->next;
        free(b);
        b = next;
    }
    free(arena);
}

void *pb_arena_alloc(pb_arena *arena, size_t bytes) {
    if (bytes > SIZE_MAX - BLOCK_BYTES) return NULL;
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    block *b = arena->newest;
    if (!b || b->size - b->used < bytes) {
        const size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        b = calloc(1, sizeof(block) + size);
        if (!b) return NULL;
        b->size = size;
        b->next = arena->newest;
        arena->newest = b;
    }
    void *result = b->bytes + b->used;
    b->used += bytes;
    return result;
}

void *pb_arena_array(pb_arena *arena, size_t count, size_t size) {
    if (size && count > SIZE_MAX / size) return NULL;
    return pb_arena_alloc(arena, count * size);
}

char *pb_arena_string_n(pb_arena *arena, const char *text, size_t bytes) {
    char *copy = pb_arena_alloc(arena, bytes + 1);
    if (copy) memcpy(copy, text, bytes);
    return copy;
}

char *pb_arena_string(pb_arena *arena, const char *text) {
    return pb_arena_string_n(arena, text, strlen(text));
}

char *pb_arena_format(pb_arena *arena, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    const int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = length < 0 ? NULL : pb_arena_alloc(arena, (size_t)length + 1);
    if (text) vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}
