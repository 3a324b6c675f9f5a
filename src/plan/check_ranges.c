#include "plan/check_ranges.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 48 };

typedef struct block {
    uint32_t count;  // at least 1
    pb_range ranges[BLOCK];
} block;

struct pb_ranges {
    uint64_t bytes;
    block **blocks;
    uint64_t *first;  // by block: where its first range begins; apart, for the search
    uint32_t count, capacity;
};

static const pb_touch untouched = {UINT32_MAX,
                                   {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}};
_Static_assert(PB_LANE_COUNT == 6, "untouched has a reader for each lane");

// Makes room for a block at `index`, which is left unset.
static bool add_block(pb_ranges *r, uint32_t index) {
    if (r->count == r->capacity) {
        const uint32_t capacity = r->capacity ? 2 * r->capacity : 16;
        block **blocks = realloc(r->blocks, capacity * sizeof *blocks);
        if (blocks) r->blocks = blocks;
        uint64_t *first = realloc(r->first, capacity * sizeof *first);
        if (first) r->first = first;
        if (!blocks || !first) return false;
        r->capacity = capacity;
    }
    block *b = malloc(sizeof *b);
    if (!b) return false;
    memmove(r->blocks + index + 1, r->blocks + index, (r->count - index) * sizeof *r->blocks);
    memmove(r->first + index + 1, r->first + index, (r->count - index) * sizeof *r->first);
    r->blocks[index] = b;
    r->count++;
    return true;
}

pb_ranges *pb_ranges_create(uint64_t bytes) {
    pb_ranges *r = calloc(1, sizeof *r);
    if (!r || !add_block(r, 0)) {
        pb_ranges_destroy(r);
        return NULL;
    }
    r->bytes = bytes;
    r->first[0] = 0;
    r->blocks[0]->count = 1;
    r->blocks[0]->ranges[0] = (pb_range){.value = PB_NONE, .touch = untouched};
    return r;
}

void pb_ranges_destroy(pb_ranges *r) {
    if (!r) return;
    for (uint32_t i = 0; i < r->count; i++) free(r->blocks[i]);
    free(r->blocks);
    free(r->first);
    free(r);
}

pb_range_place pb_ranges_find(const pb_ranges *r, uint64_t offset) {
    uint32_t low = 0, high = r->count;  // the last block that begins at or before `offset`
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (r->first[middle] <= offset)
            low = middle;
        else
            high = middle;
    }
    const block *b = r->blocks[low];
    uint32_t left = 0, right = b->count;
    while (right - left > 1) {
        const uint32_t middle = (left + right) / 2;
        if (b->ranges[middle].begin <= offset)
            left = middle;
        else
            right = middle;
    }
    return (pb_range_place){low, left};
}

pb_range *pb_ranges_at(const pb_ranges *r, pb_range_place place) {
    return &r->blocks[place.block]->ranges[place.slot];
}

pb_range_place pb_ranges_next(const pb_ranges *r, pb_range_place place) {
    if (++place.slot == r->blocks[place.block]->count) place = (pb_range_place){place.block + 1, 0};
    return place;
}

uint64_t pb_ranges_end(const pb_ranges *r, pb_range_place place) {
    const block *b = r->blocks[place.block];
    if (place.slot + 1 < b->count) return b->ranges[place.slot + 1].begin;
    return place.block + 1 < r->count ? r->first[place.block + 1] : r->bytes;
}

// Inserts a range just behind `place`.
static bool insert_behind(pb_ranges *r, pb_range_place place, const pb_range *range) {
    block *b = r->blocks[place.block];
    if (b->count == BLOCK) {
        if (!add_block(r, place.block + 1)) return false;
        block *second = r->blocks[place.block + 1];
        b->count = BLOCK / 2;
        second->count = BLOCK - BLOCK / 2;
        memcpy(second->ranges, b->ranges + BLOCK / 2, second->count * sizeof *second->ranges);
        r->first[place.block + 1] = second->ranges[0].begin;
        if (place.slot >= BLOCK / 2) {
            b = second;
            place.slot -= BLOCK / 2;
        }
    }
    const uint32_t slot = place.slot + 1;
    memmove(b->ranges + slot + 1, b->ranges + slot, (b->count - slot) * sizeof *b->ranges);
    b->ranges[slot] = *range;
    b->count++;
    return true;
}

static bool cut_at(pb_ranges *r, uint64_t offset) {
    if (offset >= r->bytes) return true;
    const pb_range_place place = pb_ranges_find(r, offset);
    pb_range rest = *pb_ranges_at(r, place);
    if (rest.begin == offset) return true;
    if (rest.value != PB_NONE) rest.from += offset - rest.begin;
    rest.begin = offset;
    return insert_behind(r, place, &rest);
}

bool pb_ranges_cut(pb_ranges *r, uint64_t begin, uint64_t end, pb_range_place *place) {
    if (!cut_at(r, end) || !cut_at(r, begin)) return false;
    *place = pb_ranges_find(r, begin);
    return true;
}

// Removes the ranges behind `place` that begin before `end`.
static void remove_behind(pb_ranges *r, pb_range_place place, uint64_t end) {
    block *b = r->blocks[place.block];
    uint32_t to = place.slot + 1;
    while (to < b->count && b->ranges[to].begin < end) to++;
    const bool reached = to < b->count;
    memmove(b->ranges + place.slot + 1, b->ranges + to, (b->count - to) * sizeof *b->ranges);
    b->count -= to - place.slot - 1;
    if (reached) return;
    // Blocks that vanish as a whole, then the beginning of the one that does not.
    uint32_t gone = place.block + 1;
    while (gone < r->count && r->blocks[gone]->ranges[r->blocks[gone]->count - 1].begin < end) free(r->blocks[gone++]);
    memmove(r->blocks + place.block + 1, r->blocks + gone, (r->count - gone) * sizeof *r->blocks);
    memmove(r->first + place.block + 1, r->first + gone, (r->count - gone) * sizeof *r->first);
    r->count -= gone - place.block - 1;
    if (place.block + 1 == r->count) return;
    b = r->blocks[place.block + 1];
    to = 0;
    while (b->ranges[to].begin < end) to++;
    memmove(b->ranges, b->ranges + to, (b->count - to) * sizeof *b->ranges);
    b->count -= to;
    r->first[place.block + 1] = b->ranges[0].begin;
}

bool pb_ranges_replace(pb_ranges *r, uint64_t begin, uint64_t end, const pb_range *with, uint32_t count) {
    pb_range_place place;
    if (!pb_ranges_cut(r, begin, end, &place)) return false;
    remove_behind(r, place, end);
    *pb_ranges_at(r, place) = with[0];
    for (uint32_t i = 1; i < count; i++)
        if (!insert_behind(r, pb_ranges_find(r, with[i - 1].begin), &with[i])) return false;
    return true;
}
