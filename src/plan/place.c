// Interval placement: first fit, in several orders, until the result is as low as is of any use. Large blocks first do
// best: the small ones fit in between. What ends too high in one round is placed earlier in the next. Where a limit is
// given and a block does not fit below it for as long as it wishes to be there, it stays for a shorter time, and in the
// end gets back what nobody else took.
#include "plan/place.h"

#include <stdlib.h>
#include <string.h>

#include "plan/shelf.h"

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

static const double GOOD_ENOUGH = 1.002;  // of the lower bound
enum {
    HALVINGS = 2,  // of what a block stays longer than it must, before it stays no longer
    ROUNDS = 4,    // for an order
    HOPELESS = 24  // where the first round ends higher by more than this share of the limit, the others do, too
};

typedef enum order { BY_BYTES, BY_AREA, BY_MAGNITUDE } order;

typedef struct item {
    uint32_t index, urgency;
    uint64_t key, second;
} item;

// A pinned block; those side by side and with the same life, which none of them can shorten, are one.
typedef struct pinned {
    uint64_t offset;
    pb_shelf_block life;
    uint32_t index;
    bool rigid;
} pinned;

typedef struct placing {
    pb_block *blocks;
    uint32_t count, steps;
    uint64_t limit;
    bool shortens;
    pb_shelf shelf;
    item *items;  // what is not pinned
    uint32_t item_count;
    pinned *pins;  // by ascending offset
    uint32_t pin_count;
    uint32_t *urgency;     // by block: how often it has found no room
    pb_shelf_block *life;  // by block: of this attempt
    uint64_t *offset;
    uint64_t height;
    uint64_t ceiling;  // what ends above it is of no use: an attempt stops there
} placing;

static uint32_t magnitude(uint64_t v) {
    uint32_t bits = 0;
    for (; v > 1; v >>= 1) bits++;
    return bits;
}

static item item_of(const placing *p, uint32_t index, order by) {
    const pb_block *b = &p->blocks[index];
    const uint64_t duration = (uint64_t)b->last - b->first + 1;
    item result = {.index = index, .urgency = p->urgency[index], .key = b->bytes, .second = duration};
    if (by == BY_AREA) result.key = duration * (b->bytes / 256 + 1);
    if (by == BY_MAGNITUDE) result.key = 2 * magnitude(duration) + magnitude(b->bytes);
    return result;
}

static int compare_items(const void *left, const void *right) {
    const item *a = left, *b = right;
    if (a->urgency != b->urgency) return a->urgency > b->urgency ? -1 : 1;
    if (a->key != b->key) return a->key > b->key ? -1 : 1;
    if (a->second != b->second) return a->second > b->second ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static int compare_pins(const void *left, const void *right) {
    const pinned *a = left, *b = right;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return a->life.first < b->life.first ? -1 : a->life.first > b->life.first;
}

static void list_pins(placing *p) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        const pb_block *b = &p->blocks[i];
        if (b->bytes && b->pinned)
            p->pins[count++] = (pinned){.offset = b->offset,
                                        .life = {(int32_t)b->first, (int32_t)b->last, b->bytes},
                                        .index = i,
                                        .rigid = b->first == b->needed && b->last == b->done};
    }
    qsort(p->pins, count, sizeof *p->pins, compare_pins);
    p->pin_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const pinned *now = &p->pins[i];
        pinned *before = p->pin_count ? &p->pins[p->pin_count - 1] : NULL;
        if (before && before->rigid && now->rigid && before->life.first == now->life.first &&
            before->life.last == now->life.last && before->offset + before->life.bytes == now->offset)
            before->life.bytes += now->life.bytes;
        else
            p->pins[p->pin_count++] = *now;
    }
}

static void put(placing *p, const pb_shelf_block *block, uint64_t offset) {
    pb_shelf_insert(&p->shelf, block, offset);
    if (offset + block->bytes > p->height) p->height = offset + block->bytes;
}

// Where the block fits below the limit, for as long as it can stay there, or with `yield` for as long as it must; else
// as low as it can be.
static void place_one(placing *p, uint32_t index, bool yield) {
    const pb_block *b = &p->blocks[index];
    pb_shelf_block *life = &p->life[index];
    const uint32_t before = b->needed - b->first, after = b->last - b->done;
    uint64_t offset = UINT64_MAX;
    for (int h = yield ? HALVINGS : 0; h <= HALVINGS && offset == UINT64_MAX; h++) {
        const bool core = h == HALVINGS || !(before + after);
        *life = (pb_shelf_block){(int32_t)(b->needed - (core ? 0 : before >> h)),
                                 (int32_t)(b->done + (core ? 0 : after >> h)), b->bytes};
        offset = pb_shelf_lowest(&p->shelf, life, p->limit);
        if (core) break;
    }
    if (offset == UINT64_MAX) offset = pb_shelf_lowest(&p->shelf, life, UINT64_MAX);
    put(p, life, offset);
    p->offset[index] = offset;
}

// Gives back what was cut and is still free.
static void stretch(placing *p, uint32_t index) {
    const pb_block *b = &p->blocks[index];
    pb_shelf_block *life = &p->life[index];
    const int32_t first = (int32_t)b->first, last = (int32_t)b->last;
    if (life->first == first && life->last == last) return;
    pb_shelf_stretch(&p->shelf, life, p->offset[index], first, last);
}

// Blocks stay for as long as they wish and others leave them room, or, with `yield`, for as long as they must until all
// have found their places. False: it has stopped.
static bool attempt(placing *p, order by, bool yield) {
    pb_shelf_clear(&p->shelf, p->steps);
    p->height = 0;
    for (uint32_t i = 0; i < p->pin_count; i++) {
        const pinned *pin = &p->pins[i];
        const pb_block *b = &p->blocks[pin->index];
        pb_shelf_block life = pin->life;
        if (yield && !pin->rigid) life = (pb_shelf_block){(int32_t)b->needed, (int32_t)b->done, b->bytes};
        put(p, &life, pin->offset);
        p->life[pin->index] = life;
        p->offset[pin->index] = pin->offset;
    }
    p->item_count = 0;
    for (uint32_t i = 0; i < p->count; i++)
        if (p->blocks[i].bytes && !p->blocks[i].pinned) p->items[p->item_count++] = item_of(p, i, by);
    qsort(p->items, p->item_count, sizeof *p->items, compare_items);
    for (uint32_t i = 0; i < p->item_count; i++) {
        place_one(p, p->items[i].index, yield);
        if (p->height > p->ceiling) return false;
    }
    if (p->height > p->limit) return true;  // of no use, but for its height
    for (uint32_t i = 0; i < p->pin_count; i++)
        if (!p->pins[i].rigid) stretch(p, p->pins[i].index);
    for (uint32_t i = 0; i < p->item_count; i++) stretch(p, p->items[i].index);
    return true;
}

// --- The best of several attempts ---

typedef struct best {
    uint64_t height;
    pb_shelf_block *life;
    uint64_t *offset;
} best;

static void keep(const placing *p, best *b) {
    b->height = p->height;
    memcpy(b->life, p->life, p->count * sizeof *b->life);
    memcpy(b->offset, p->offset, p->count * sizeof *b->offset);
}

// What found no room in one round is placed earlier in the next.
static void hurry(placing *p, uint64_t enough) {
    for (uint32_t i = 0; i < p->item_count; i++) {
        const uint32_t index = p->items[i].index;
        if (p->offset[index] + p->blocks[index].bytes > enough) p->urgency[index]++;
    }
}

// One more attempt, up to a ceiling; whether one was low enough.
static bool try_order(placing *p, order by, bool yield, uint64_t enough, uint64_t ceiling, best *b) {
    p->ceiling = ceiling;
    const bool complete = attempt(p, by, yield);
    if (p->height < b->height && (complete || b->height == UINT64_MAX)) keep(p, b);
    if (complete) hurry(p, enough);
    return b->height <= enough;
}

// The last round is for nobody to learn from: where there is a limit, it stops there.
static bool try_rounds(placing *p, order by, int rounds, bool yield, uint64_t enough, best *b) {
    memset(p->urgency, 0, p->count * sizeof *p->urgency);
    for (int round = 0; round < rounds; round++)
        if (try_order(p, by, yield, enough, round + 1 < rounds ? UINT64_MAX : p->limit, b)) return true;
    return false;
}

static void place_blocks(placing *p, uint64_t enough, best *b) {
    b->height = UINT64_MAX;
    if (p->limit == UINT64_MAX) {
        for (order by = BY_BYTES; by <= BY_MAGNITUDE; by++)
            if (try_rounds(p, by, ROUNDS, false, enough, b)) return;
        return;
    }
    // With `shortens` large blocks first come close to what is alive.
    const bool yield = p->shortens;
    const uint64_t hopeless = p->limit + p->limit / HOPELESS;
    if (try_order(p, BY_BYTES, yield, enough, hopeless, b) || p->height > hopeless) return;
    if (!yield) {
        if (!try_order(p, BY_MAGNITUDE, yield, enough, hopeless, b) && p->height <= hopeless)
            try_order(p, BY_MAGNITUDE, yield, enough, p->limit, b);
        return;
    }
    if (try_order(p, BY_BYTES, yield, enough, p->limit, b)) return;
    for (order by = BY_AREA; by <= BY_MAGNITUDE; by++)
        if (try_rounds(p, by, 2, yield, enough, b)) return;
}

pb_status pb_blocks_place(pb_block *blocks, uint32_t count, uint32_t steps, uint64_t limit, bool shortens,
                          uint64_t *height) {
    const uint64_t bound = pb_blocks_lower_bound(blocks, count, steps);
    const uint64_t enough = limit < UINT64_MAX ? limit : (uint64_t)((double)bound * GOOD_ENOUGH);
    const uint32_t trays = pb_shelf_trays(count);
    pb_status status = PB_OK;
    placing p = {.blocks = blocks, .count = count, .steps = steps, .limit = limit, .shortens = shortens};
    best b = {.life = calloc(count + 1, sizeof *b.life), .offset = calloc(count + 1, sizeof *b.offset)};
    p.shelf.trays = calloc(trays, sizeof *p.shelf.trays);
    p.shelf.order = calloc(trays, sizeof *p.shelf.order);
    p.items = calloc(count + 1, sizeof *p.items);
    p.pins = calloc(count + 1, sizeof *p.pins);
    p.urgency = calloc(count + 1, sizeof *p.urgency);
    p.life = calloc(count + 1, sizeof *p.life);
    p.offset = calloc(count + 1, sizeof *p.offset);
    if (!b.life || !b.offset || !p.shelf.trays || !p.shelf.order || !p.items || !p.pins || !p.urgency || !p.life ||
        !p.offset || bound == UINT64_MAX)
        PB_FAIL(PB_ERR_MEMORY, "no memory to place %u blocks", count);
    list_pins(&p);
    place_blocks(&p, enough, &b);
    for (uint32_t i = 0; i < count && b.height <= limit; i++) {
        pb_block *block = &blocks[i];
        if (!block->bytes) continue;
        if (!block->pinned) block->offset = b.offset[i];
        if (block->pinned && block->first == block->needed && block->last == block->done) continue;
        block->first = (uint32_t)b.life[i].first;
        block->last = (uint32_t)b.life[i].last;
    }
    *height = b.height;
fail:
    free(b.life);
    free(b.offset);
    free(p.shelf.trays);
    free(p.shelf.order);
    free(p.items);
    free(p.pins);
    free(p.urgency);
    free(p.life);
    free(p.offset);
    return status;
}
