// Placed blocks in trays of at most PB_TRAY_ROOM, all by ascending offset. A search goes through them from below and
// passes over groups of blocks none of which is alive at the time in a few vector instructions.
#include "plan/shelf.h"

#include <string.h>

uint32_t pb_shelf_trays(uint32_t blocks) {
    return blocks / (PB_TRAY_ROOM / 2) + 2;
}

static uint32_t part_of(const pb_shelf *shelf, int32_t step) {
    return (uint32_t)(((uint64_t)(uint32_t)step * shelf->scale) >> PB_SHELF_SCALE);
}

// The parts of the step from `first` to `last`.
static uint64_t parts(const pb_shelf *shelf, int32_t first, int32_t last) {
    return (~UINT64_C(0) << part_of(shelf, first)) & (~UINT64_C(0) >> (63 - part_of(shelf, last)));
}

// Sums up the groups from the one of entry `at` on.
static void note_groups(const pb_shelf *shelf, pb_tray *t, uint32_t at) {
    for (uint32_t g = at / PB_TRAY_GROUP; g * PB_TRAY_GROUP < t->count; g++) {
        const uint32_t begin = g * PB_TRAY_GROUP;
        const uint32_t end = begin + PB_TRAY_GROUP < t->count ? begin + PB_TRAY_GROUP : t->count;
        t->times[g] = t->top[g] = 0;
        for (uint32_t i = begin; i < end; i++) {
            t->times[g] |= parts(shelf, t->first[i], t->last[i]);
            if (t->end[i] > t->top[g]) t->top[g] = t->end[i];
        }
    }
}

static void sum_up(const pb_shelf *shelf, pb_tray *t) {
    t->most_end = 0;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->end[i] > t->most_end) t->most_end = t->end[i];
    note_groups(shelf, t, 0);
}

void pb_shelf_clear(pb_shelf *shelf, uint32_t steps) {
    shelf->count = 1;
    shelf->order[0] = 0;
    shelf->trays[0].count = 0;
    shelf->trays[0].most_end = 0;
    shelf->steps = steps;
    shelf->scale = (uint32_t)((UINT64_C(64) << PB_SHELF_SCALE) / (steps > 64 ? steps : 64));
    memset(shelf->full, 0, sizeof shelf->full);
}

static void move_entries(pb_tray *to, uint32_t at, const pb_tray *from, uint32_t begin, uint32_t count) {
    memmove(to->first + at, from->first + begin, count * sizeof *to->first);
    memmove(to->last + at, from->last + begin, count * sizeof *to->last);
    memmove(to->offset + at, from->offset + begin, count * sizeof *to->offset);
    memmove(to->end + at, from->end + begin, count * sizeof *to->end);
}

static void split(pb_shelf *shelf, uint32_t position) {
    pb_tray *left = &shelf->trays[shelf->order[position]], *right = &shelf->trays[shelf->count];
    const uint32_t half = left->count / 2;
    right->count = left->count - half;
    move_entries(right, 0, left, half, right->count);
    left->count = half;
    sum_up(shelf, left);
    sum_up(shelf, right);
    memmove(shelf->order + position + 2, shelf->order + position + 1,
            (shelf->count - position - 1) * sizeof *shelf->order);
    shelf->order[position + 1] = shelf->count++;
}

// Of the parts of the step that the block takes whole, those that are full up to where it begins are now full up to
// its end.
static void fill(pb_shelf *shelf, const pb_shelf_block *block, uint64_t offset) {
    uint32_t begin = part_of(shelf, block->first), end = part_of(shelf, block->last) + 1;
    if (block->first > 0 && part_of(shelf, block->first - 1) == begin) begin++;
    if ((uint32_t)block->last + 1 < shelf->steps && part_of(shelf, block->last + 1) == end - 1) end--;
    for (uint32_t p = begin; p < end; p++)
        if (offset <= shelf->full[p] && shelf->full[p] < offset + block->bytes) shelf->full[p] = offset + block->bytes;
}

void pb_shelf_insert(pb_shelf *shelf, const pb_shelf_block *block, uint64_t offset) {
    uint32_t low = 0, high = shelf->count;
    while (low + 1 < high) {  // the last tray that begins at or below it
        const uint32_t middle = (low + high) / 2;
        if (shelf->trays[shelf->order[middle]].offset[0] <= offset)
            low = middle;
        else
            high = middle;
    }
    if (shelf->trays[shelf->order[low]].count == PB_TRAY_ROOM) {
        split(shelf, low);
        if (shelf->trays[shelf->order[low + 1]].offset[0] <= offset) low++;
    }
    pb_tray *t = &shelf->trays[shelf->order[low]];
    uint32_t at = t->count;
    while (at > 0 && t->offset[at - 1] > offset) at--;
    move_entries(t, at + 1, t, at, t->count - at);
    t->first[at] = block->first;
    t->last[at] = block->last;
    t->offset[at] = offset;
    t->end[at] = offset + block->bytes;
    t->count++;
    if (t->end[at] > t->most_end) t->most_end = t->end[at];
    note_groups(shelf, t, at);
    fill(shelf, block, offset);
}

uint64_t pb_shelf_lowest(const pb_shelf *shelf, const pb_shelf_block *block, uint64_t limit) {
    if (block->bytes > limit) return UINT64_MAX;
    const uint64_t highest = limit - block->bytes;
    const uint64_t times = parts(shelf, block->first, block->last);
    uint64_t offset = 0;
    for (uint32_t p = part_of(shelf, block->first); p <= part_of(shelf, block->last); p++)
        if (shelf->full[p] > offset) offset = shelf->full[p];
    if (offset > highest) return UINT64_MAX;
    for (uint32_t i = 0; i < shelf->count; i++) {
        const pb_tray *t = &shelf->trays[shelf->order[i]];
        if (!t->count || t->most_end <= offset) continue;
        // Whatever follows begins higher still.
        if (t->offset[0] >= offset + block->bytes) return offset;
        for (uint32_t begin = 0, g = 0; begin < t->count; begin += PB_TRAY_GROUP, g++) {
            if (!(t->times[g] & times) || t->top[g] <= offset) continue;
            const uint32_t end = begin + PB_TRAY_GROUP < t->count ? begin + PB_TRAY_GROUP : t->count;
            for (uint32_t k = begin; k < end; k++) {
                if (t->first[k] > block->last || t->last[k] < block->first) continue;
                if (t->offset[k] >= offset + block->bytes) return offset;
                if (t->end[k] <= offset) continue;
                offset = t->end[k];
                if (offset > highest) return UINT64_MAX;
            }
        }
    }
    return offset;
}

void pb_shelf_stretch(pb_shelf *shelf, pb_shelf_block *block, uint64_t offset, int32_t first, int32_t last) {
    const uint64_t end = offset + block->bytes, times = parts(shelf, first, last);
    pb_tray *own = NULL;
    uint32_t at = 0;
    for (uint32_t i = 0; i < shelf->count; i++) {
        pb_tray *t = &shelf->trays[shelf->order[i]];
        if (!t->count || t->most_end <= offset) continue;
        if (t->offset[0] >= end) break;
        for (uint32_t begin = 0, g = 0; begin < t->count && t->offset[begin] < end; begin += PB_TRAY_GROUP, g++) {
            if (!(t->times[g] & times) || t->top[g] <= offset) continue;
            const uint32_t stop = begin + PB_TRAY_GROUP < t->count ? begin + PB_TRAY_GROUP : t->count;
            for (uint32_t k = begin; k < stop && t->offset[k] < end; k++) {
                if (t->end[k] <= offset) continue;
                if (t->last[k] < block->first) {
                    if (t->last[k] >= first) first = t->last[k] + 1;
                } else if (t->first[k] > block->last) {
                    if (t->first[k] <= last) last = t->first[k] - 1;
                } else {  // nothing but the block itself can be alive then
                    own = t;
                    at = k;
                }
            }
        }
    }
    if (!own) return;
    if (first < block->first) own->first[at] = block->first = first;
    if (last > block->last) own->last[at] = block->last = last;
    own->times[at / PB_TRAY_GROUP] |= parts(shelf, block->first, block->last);
}
