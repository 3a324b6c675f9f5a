// Interval placement. In a training step activations pile up and shrink while gradients pile up in turn, so the two
// make stacks that grow towards each other: gradients from the top of the slab, everything else from the bottom, first
// fit. Several orders are tried, and the lowest result wins.
#include "plan/place.h"

#include <stdlib.h>
#include <string.h>

uint64_t pb_blocks_lower_bound(const pb_block *blocks, uint32_t count, uint32_t steps) {
    int64_t *change = calloc((size_t)steps + 2, sizeof *change);
    if (!change) return UINT64_MAX;
    for (uint32_t i = 0; i < count; i++) {
        if (!blocks[i].bytes) continue;
        change[blocks[i].first] += (int64_t)blocks[i].bytes;
        change[blocks[i].last + 1] -= (int64_t)blocks[i].bytes;
    }
    int64_t alive = 0, most = 0;
    for (uint32_t s = 0; s <= steps; s++) {
        alive += change[s];
        if (alive > most) most = alive;
    }
    free(change);
    return (uint64_t)most;
}

enum { FEW_BLOCKS = 3000, MANY_BLOCKS = 15000 };
static const double GOOD_ENOUGH = 1.002;  // of the lower bound

typedef struct item {
    uint32_t index;
    uint32_t first;
    uint64_t key;
} item;

// A placed block, with all that a search looks at side by side: the searches are most of a plan's time.
typedef struct placed {
    uint64_t offset, end;
    uint32_t first, last;
} placed;

typedef struct attempt {
    const pb_block *blocks;
    uint64_t *offset;  // by block
    placed *placed;    // by ascending offset
    uint32_t placed_count;
} attempt;

static bool overlap(const pb_block *a, const placed *b) {
    return a->first <= b->last && b->first <= a->last;
}

static void insert(attempt *a, uint32_t index, uint64_t offset) {
    const pb_block *b = &a->blocks[index];
    uint32_t low = 0, high = a->placed_count;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (a->placed[middle].offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    memmove(a->placed + low + 1, a->placed + low, (a->placed_count - low) * sizeof *a->placed);
    a->placed[low] = (placed){offset, offset + b->bytes, b->first, b->last};
    a->placed_count++;
    a->offset[index] = offset;
}

// The lowest gap that is free during the block's life.
static void place_low(attempt *a, uint32_t index) {
    const pb_block *b = &a->blocks[index];
    uint64_t offset = 0;
    for (const placed *other = a->placed, *end = other + a->placed_count; other < end; other++) {
        if (!overlap(b, other)) continue;
        if (other->offset >= offset + b->bytes) break;
        if (other->end > offset) offset = other->end;
    }
    insert(a, index, offset);
}

// The highest gap below `height`; false where there is none.
static bool place_high(attempt *a, uint32_t index, uint64_t height) {
    const pb_block *b = &a->blocks[index];
    uint64_t end = height;
    for (bool moved = true; moved;) {
        moved = false;
        if (end < b->bytes) return false;
        for (const placed *other = a->placed + a->placed_count; other-- > a->placed;) {
            if (overlap(b, other) && other->offset < end && other->end > end - b->bytes) {
                end = other->offset;
                moved = true;
                break;
            }
        }
    }
    insert(a, index, end - b->bytes);
    return true;
}

static int compare_items(const void *left, const void *right) {
    const item *a = left, *b = right;
    if (a->key != b->key) return a->key > b->key ? -1 : 1;
    if (a->first != b->first) return a->first < b->first ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

typedef enum order { BY_DURATION, BY_AREA, BY_START, BY_BYTES, ORDERS } order;

static uint64_t order_key(const pb_block *b, order by, uint32_t steps) {
    const uint64_t duration = (uint64_t)b->last - b->first + 1;
    switch (by) {
    case BY_DURATION: return duration;
    case BY_BYTES: return b->bytes;
    case BY_AREA: return duration * (b->bytes / 256 + 1);
    default: return steps - b->first;
    }
}

// Places all blocks; those with `top` below `height` from above if `stacked`, else like the others. Returns what it
// takes, or UINT64_MAX where the stacked ones found no room.
static uint64_t try_order(attempt *a, item *items, uint32_t count, order by, uint32_t steps, bool stacked,
                          uint64_t height) {
    a->placed_count = 0;
    uint32_t listed = 0;
    for (uint32_t i = 0; i < count; i++)
        if (a->blocks[i].bytes && a->blocks[i].pinned) insert(a, i, a->blocks[i].offset);
    for (uint32_t i = 0; i < count; i++)
        if (a->blocks[i].bytes && !a->blocks[i].pinned && !(stacked && a->blocks[i].top))
            items[listed++] = (item){i, a->blocks[i].first, order_key(&a->blocks[i], by, steps)};
    if (stacked) {
        // First come, first to the top: the stack then never has a hole.
        uint32_t tops = listed;
        for (uint32_t i = 0; i < count; i++)
            if (a->blocks[i].bytes && !a->blocks[i].pinned && a->blocks[i].top)
                items[tops++] = (item){i, a->blocks[i].first, 0};
        qsort(items + listed, tops - listed, sizeof *items, compare_items);
        for (uint32_t i = listed; i < tops; i++)
            if (!place_high(a, items[i].index, height)) return UINT64_MAX;
    }
    qsort(items, listed, sizeof *items, compare_items);
    for (uint32_t i = 0; i < listed; i++) place_low(a, items[i].index);
    uint64_t most = 0;
    for (uint32_t i = 0; i < a->placed_count; i++) {
        if (a->placed[i].end > most) most = a->placed[i].end;
    }
    return most;
}

pb_status pb_blocks_place(pb_block *blocks, uint32_t count, uint32_t steps, uint64_t *height) {
    const uint64_t bound = pb_blocks_lower_bound(blocks, count, steps);
    pb_status status = PB_OK;
    uint64_t *best = calloc(count + 1, sizeof *best);
    item *items = calloc(count + 1, sizeof *items);
    attempt a = {.blocks = blocks};
    a.offset = calloc(count + 1, sizeof *a.offset);
    a.placed = calloc(count + 1, sizeof *a.placed);
    if (!best || !items || !a.offset || !a.placed || bound == UINT64_MAX)
        PB_FAIL(PB_ERR_MEMORY, "no memory to place %u blocks", count);

    // Two stacks that meet at the lower bound; where they do not fit, the lower ones run over it. Without stacks only
    // where there are few blocks: training steps never gain by it, and each try is quadratic.
    uint64_t lowest = UINT64_MAX;
    const int tries = count <= FEW_BLOCKS ? 2 * ORDERS : count <= MANY_BLOCKS ? BY_BYTES : BY_DURATION + 1;
    for (int t = 0; t < 2 * ORDERS && (double)lowest > (double)bound * GOOD_ENOUGH; t++) {
        if (t >= tries && lowest != UINT64_MAX) break;
        const uint64_t got = try_order(&a, items, count, (order)(t % ORDERS), steps, t < ORDERS, bound / 256 * 256);
        if (got >= lowest) continue;
        lowest = got;
        memcpy(best, a.offset, count * sizeof *best);
    }
    for (uint32_t i = 0; i < count; i++) blocks[i].offset = best[i];
    *height = lowest;
fail:
    free(best);
    free(items);
    free(a.offset);
    free(a.placed);
    return status;
}
