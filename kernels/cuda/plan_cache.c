#include "kernels/cuda/plan_cache.h"

#include <stdlib.h>
#include <string.h>

struct pb_plan_entry {
    pb_plan_key key;
    void *value;  // NULL: free
};

static uint64_t hash_of(const pb_plan_key *key) {
    uint64_t hash = 0;
    for (int i = 0; i < PB_PLAN_KEY_WORDS; i++) {
        hash = (hash ^ (uint64_t)key->word[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return hash;
}

// Where `key` is, or the free entry where it belongs.
static struct pb_plan_entry *locate(struct pb_plan_entry *entries, int64_t capacity, const pb_plan_key *key) {
    uint64_t at = hash_of(key) & (uint64_t)(capacity - 1);
    while (entries[at].value && memcmp(&entries[at].key, key, sizeof *key) != 0)
        at = (at + 1) & (uint64_t)(capacity - 1);
    return &entries[at];
}

void *pb_plan_cache_find(const pb_plan_cache *cache, const pb_plan_key *key) {
    return cache->capacity ? locate(cache->entries, cache->capacity, key)->value : NULL;
}

pb_status pb_plan_cache_add(pb_plan_cache *cache, const pb_plan_key *key, void *value) {
    if (2 * (cache->count + 1) > cache->capacity) {
        const int64_t capacity = cache->capacity ? 2 * cache->capacity : 64;
        struct pb_plan_entry *entries = calloc((size_t)capacity, sizeof *entries);
        if (!entries) return pb_error(PB_ERR_MEMORY, "no memory for the plans of kernels");
        for (int64_t i = 0; i < cache->capacity; i++)
            if (cache->entries[i].value) *locate(entries, capacity, &cache->entries[i].key) = cache->entries[i];
        free(cache->entries);
        cache->entries = entries;
        cache->capacity = capacity;
    }
    *locate(cache->entries, cache->capacity, key) = (struct pb_plan_entry){*key, value};
    cache->count++;
    return PB_OK;
}

pb_status pb_plan_cache_get(pb_plan_cache *cache, const pb_plan_key *key, pb_plan_maker make, const void *context,
                            void (*destroy)(void *value), void **value) {
    void *made = NULL;
    *value = pb_plan_cache_find(cache, key);
    if (*value) return PB_OK;
    PB_RETURN_IF(make(context, &made));
    const pb_status status = pb_plan_cache_add(cache, key, made);
    if (status == PB_OK)
        *value = made;
    else
        destroy(made);
    return status;
}

void pb_plan_cache_deinit(pb_plan_cache *cache, void (*destroy)(void *value)) {
    for (int64_t i = 0; destroy && i < cache->capacity; i++)
        if (cache->entries[i].value) destroy(cache->entries[i].value);
    free(cache->entries);
    *cache = (pb_plan_cache){0};
}
