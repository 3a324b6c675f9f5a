// Placed blocks in trays of at most PB_TRAY_ROOM, all by ascending offset. A search goes through them from below and
// passes over groups of blocks none of which is alive at the time in a few vector instructions.
#include "plan/shelf.h"

#include <string.h>

uint32_t pb_shelf_trays(uint32_t blocks) {
    return blocks / (PB_TRAY_ROOM / 2) + 2;
}

// What lies behind the entries of a tray is alive at no time.
static void bury_rest(pb_tray *t) {
    for (uint32_t i = t->count; i < PB_TRAY_ROOM; i++) t->last[i] = -1;
    t->most_end = 0;
    for (uint32_t i = 0; i < t->count; i++)
        if (t->end[i] > t->most_end) t->most_end = t->end[i];
}

void pb_shelf_clear(pb_shelf *shelf) {
    shelf->count = 1;
    shelf->order[0] = 0;
    shelf->trays[0].count = 0;
    bury_rest(&shelf->trays[0]);
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
    bury_rest(left);
    bury_rest(right);
    memmove(shelf->order + position + 2, shelf->order + position + 1,
            (shelf->count - position - 1) * sizeof *shelf->order);
    shelf->order[position + 1] = shelf->count++;
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
}

static bool any_alive(const int32_t *first, const int32_t *last, const pb_shelf_block *block) {
    const int32_t begin = block->first, end = block->last;
    int32_t any = 0;
    for (int i = 0; i < PB_TRAY_GROUP; i++) any |= (first[i] <= end) & (last[i] >= begin);
    return any != 0;
}

uint64_t pb_shelf_lowest(const pb_shelf *shelf, const pb_shelf_block *block, uint64_t limit) {
    if (block->bytes > limit) return UINT64_MAX;
    const uint64_t highest = limit - block->bytes;
    uint64_t offset = 0;
    for (uint32_t i = 0; i < shelf->count; i++) {
        const pb_tray *t = &shelf->trays[shelf->order[i]];
        if (!t->count || t->most_end <= offset) continue;
        // Whatever follows begins higher still.
        if (t->offset[0] >= offset + block->bytes) return offset;
        for (uint32_t g = 0; g < t->count; g += PB_TRAY_GROUP) {
            if (!any_alive(t->first + g, t->last + g, block)) continue;
            const uint32_t end = g + PB_TRAY_GROUP < t->count ? g + PB_TRAY_GROUP : t->count;
            for (uint32_t k = g; k < end; k++) {
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
    const uint64_t end = offset + block->bytes;
    int32_t *own_first = NULL, *own_last = NULL;
    for (uint32_t i = 0; i < shelf->count; i++) {
        pb_tray *t = &shelf->trays[shelf->order[i]];
        if (!t->count || t->most_end <= offset) continue;
        if (t->offset[0] >= end) break;
        for (uint32_t k = 0; k < t->count && t->offset[k] < end; k++) {
            if (t->end[k] <= offset) continue;
            if (t->last[k] < block->first) {
                if (t->last[k] >= first) first = t->last[k] + 1;
            } else if (t->first[k] > block->last) {
                if (t->first[k] <= last) last = t->first[k] - 1;
            } else {  // nothing but the block itself can be alive then
                own_first = &t->first[k];
                own_last = &t->last[k];
            }
        }
    }
    if (!own_first) return;
    if (first < block->first) *own_first = block->first = first;
    if (last > block->last) *own_last = block->last = last;
}
