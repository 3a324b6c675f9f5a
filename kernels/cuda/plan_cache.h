// What was settled for a key, found again by it. Grows when something is added and never otherwise.
#ifndef PB_KERNELS_CUDA_PLAN_CACHE_H
#define PB_KERNELS_CUDA_PLAN_CACHE_H

#include <stdint.h>

#include "base/error.h"

enum { PB_PLAN_KEY_WORDS = 20 };
typedef struct pb_plan_key {
    int64_t word[PB_PLAN_KEY_WORDS];  // those that are not used are 0
} pb_plan_key;

typedef struct pb_plan_cache {
    struct pb_plan_entry *entries;  // a hash table with open addressing; at most half full
    int64_t capacity, count;
} pb_plan_cache;

void *pb_plan_cache_find(const pb_plan_cache *cache, const pb_plan_key *key);  // NULL: there is none
// Keeps `value` (not NULL), which the cache does not own, under a key that it does not have yet. PB_ERR_MEMORY.
pb_status pb_plan_cache_add(pb_plan_cache *cache, const pb_plan_key *key, void *value);
// What is kept under `key`, or what `make` makes of `context`, which is then kept. `destroy`: of a value that cannot
// be.
typedef pb_status (*pb_plan_maker)(const void *context, void **value);
pb_status pb_plan_cache_get(pb_plan_cache *cache, const pb_plan_key *key, pb_plan_maker make, const void *context,
                            void (*destroy)(void *value), void **value);
// Frees the table, and each value with `destroy` unless that is NULL.
void pb_plan_cache_deinit(pb_plan_cache *cache, void (*destroy)(void *value));

#endif
