// A region that is released as a whole. One per lifetime: a graph, a program, a configuration.
#ifndef PB_BASE_ARENA_H
#define PB_BASE_ARENA_H

#include <stddef.h>

typedef struct pb_arena pb_arena;

// NULL when there is no memory.
pb_arena *pb_arena_create(void);
void pb_arena_destroy(pb_arena *arena);  // NULL is allowed

// Zeroed bytes, aligned for any type; NULL when there is no memory. `bytes` may be 0.
void *pb_arena_alloc(pb_arena *arena, size_t bytes);
// count * size with the overflow checked.
void *pb_arena_array(pb_arena *arena, size_t count, size_t size);
// Copies; NULL when there is no memory.
char *pb_arena_string(pb_arena *arena, const char *text);
char *pb_arena_string_n(pb_arena *arena, const char *text, size_t bytes);
char *pb_arena_format(pb_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
