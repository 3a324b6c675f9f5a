#include "plan/tier.h"

#include <stdlib.h>
#include <string.h>

void pb_accesses_add(pb_accesses *list, uint32_t slot, pb_access_kind kind) {
    pb_access *last = list->count ? &list->items[list->count - 1] : NULL;
    if (!last || last->slot != slot)
        list->items[list->count++] = (pb_access){slot, kind};
    else if (last->kind == PB_ACCESS_READ && kind != PB_ACCESS_READ)
        last->kind = PB_ACCESS_MODIFY;
}

static const pb_accesses *use_of(const pb_tier_segment *s) {
    return &s->use[s->alternate];
}

// The stays that a segment's accesses and decisions come to, without time for moves. Returns how many.
static uint32_t stays(const pb_tier_problem *p, uint32_t index, pb_tier_block *out) {
    const pb_tier_segment *s = &p->segments[index];
    const pb_accesses *use = use_of(s);
    const uint32_t end = p->slot_count - 1;
    uint32_t count = 0;
    bool here = s->live_in && s->home, fresh_below = s->live_in && !s->home;
    pb_tier_block block = {.segment = index, .at_home = here};
    for (uint32_t i = 0; i < use->count; i++) {
        const pb_access a = use->items[i];
        if (!here) {
            block = (pb_tier_block){.segment = index, .first = a.slot, .needed = a.slot};
            block.fetched = a.kind != PB_ACCESS_WRITE;
            fresh_below |= block.fetched;
            here = true;
        }
        block.done = a.slot;
        if (a.kind != PB_ACCESS_READ) fresh_below = false;
        const bool last = i + 1 == use->count;
        const bool wanted = last ? s->live_out : use->items[i + 1].kind != PB_ACCESS_WRITE;
        if (wanted && (last ? s->home : !use->vacated[i])) continue;
        block.evicted = wanted && !fresh_below;
        block.last = a.slot;
        if (block.evicted && p->holds_eviction && block.last < end) block.last++;
        fresh_below |= block.evicted;
        here = false;
        out[count++] = block;
    }
    if (here) {  // only at home, or without any access
        block.at_home = true;
        block.done = block.last = end;
        out[count++] = block;
    }
    return count;
}

enum { MOST_STAYS = 64 };

// Adds a segment's stays to `used`, or takes them away.
static void count_in(pb_tier_problem *p, uint32_t index, bool add, pb_tier_block *scratch) {
    const uint64_t bytes = p->segments[index].bytes;
    const uint32_t count = stays(p, index, scratch);
    for (uint32_t b = 0; b < count; b++)
        for (uint32_t t = scratch[b].first; t <= scratch[b].last; t++) p->used[t] += add ? bytes : -bytes;
}

static void switch_relief(pb_tier_problem *p, const pb_relief *r, bool on) {
    if (r->kind == PB_RELIEF_GAP) {
        p->segments[r->index].use[r->alternate].vacated[r->gap] = on;
    } else if (r->kind == PB_RELIEF_HOME) {
        p->segments[r->index].home = !on;
    } else {
        for (uint32_t i = 0; i < r->gap; i++) {
            p->segments[p->bundle[r->index + i]].home = !on;
            p->segments[p->bundle[r->index + i]].alternate = on;
        }
    }
}

static void apply(pb_tier_problem *p, const pb_relief *r, bool on, pb_tier_block *scratch) {
    const uint32_t count = r->kind == PB_RELIEF_BUNDLE ? r->gap : 1;
    const uint32_t *segments = r->kind == PB_RELIEF_BUNDLE ? p->bundle + r->index : &r->index;
    for (uint32_t i = 0; i < count; i++) count_in(p, segments[i], false, scratch);
    switch_relief(p, r, on);
    for (uint32_t i = 0; i < count; i++) count_in(p, segments[i], true, scratch);
}

static uint64_t overflow(const pb_tier_problem *p, uint64_t budget) {
    uint64_t sum = 0;
    for (uint32_t t = 0; t < p->slot_count; t++)
        if (p->used[t] > budget) sum += (p->used[t] - budget) / 16 + 1;  // sixteenths: a sum over slots may be large
    return sum;
}

static int by_rank(const void *left, const void *right) {
    const pb_relief *a = left, *b = right;
    if (a->rank != b->rank) return a->rank < b->rank ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

uint64_t pb_tier_peak(const pb_tier_problem *p) {
    uint64_t most = 0;
    for (uint32_t t = 0; t < p->slot_count; t++)
        if (p->used[t] > most) most = p->used[t];
    return most;
}

bool pb_tier_relieve(pb_tier_problem *p, pb_relief *reliefs, uint32_t count, uint64_t budget) {
    uint32_t most = MOST_STAYS;
    for (uint32_t i = 0; i < p->segment_count; i++)
        for (int k = 0; k < 2; k++)
            if (p->segments[i].use[k].count + 2 > most) most = p->segments[i].use[k].count + 2;
    pb_tier_block *scratch = malloc(most * sizeof *scratch);
    if (!scratch) return false;
    qsort(reliefs, count, sizeof *reliefs, by_rank);
    memcpy(p->used, p->other, p->slot_count * sizeof *p->used);
    for (uint32_t i = 0; i < p->segment_count; i++) count_in(p, i, true, scratch);
    for (uint32_t r = 0; r < count; r++) {
        reliefs[r].taken = reliefs[r].forced;
        if (reliefs[r].forced) apply(p, &reliefs[r], true, scratch);
    }
    uint64_t left = overflow(p, budget);
    for (uint32_t r = 0; r < count && left; r++) {
        if (reliefs[r].taken) continue;
        apply(p, &reliefs[r], true, scratch);
        const uint64_t now = overflow(p, budget);
        if (now < left) {
            reliefs[r].taken = true;
            left = now;
        } else {
            apply(p, &reliefs[r], false, scratch);
        }
    }
    for (uint32_t r = count; r-- > 0 && !left;) {
        if (!reliefs[r].taken || reliefs[r].forced) continue;
        apply(p, &reliefs[r], false, scratch);
        if (overflow(p, budget))
            apply(p, &reliefs[r], true, scratch);
        else
            reliefs[r].taken = false;
    }
    free(scratch);
    return !left;
}

// --- Time for the moves ---

typedef struct deadline {
    uint32_t block;
    uint32_t slot;
    uint32_t wish;  // the slot in which the move should begin (a fetch) or end (an eviction)
} deadline;

static int by_slot(const void *left, const void *right) {
    const deadline *a = left, *b = right;
    if (a->slot != b->slot) return a->slot < b->slot ? -1 : 1;
    return a->block < b->block ? -1 : a->block > b->block;
}

// The last slot that has begun at `second`.
static uint32_t slot_at(const pb_tier_problem *p, double second) {
    uint32_t low = 0, high = p->slot_count;
    while (low + 1 < high) {
        const uint32_t middle = (low + high) / 2;
        if (p->seconds[middle] <= second)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// The link works off its moves one after another, each as late as the next ones and its deadline permit.
static void wish_fetches(const pb_tier_problem *p, deadline *list, uint32_t count) {
    double next = p->seconds[p->slot_count];
    for (uint32_t i = count; i-- > 0;) {
        const pb_tier_block *b = &p->blocks[list[i].block];
        const double finish = p->seconds[b->needed] < next ? p->seconds[b->needed] : next;
        next = finish - (double)p->segments[b->segment].bytes / p->fetch_rate;
        list[i].wish = next > 0 ? slot_at(p, next) : 0;
        if (list[i].wish) list[i].wish--;  // what is a little late costs more than what is a little early
    }
}

static void wish_evictions(const pb_tier_problem *p, deadline *list, uint32_t count) {
    double link_free = 0;
    for (uint32_t i = 0; i < count; i++) {
        const pb_tier_block *b = &p->blocks[list[i].block];
        const double begin = p->seconds[b->done + 1] > link_free ? p->seconds[b->done + 1] : link_free;
        link_free = begin + (double)p->segments[b->segment].bytes / p->evict_rate;
        list[i].wish = slot_at(p, link_free);
    }
}

static bool has_room(const pb_tier_problem *p, uint32_t slot, uint64_t bytes, uint64_t budget) {
    return p->used[slot] + bytes <= budget;
}

static void stretch_fetch(pb_tier_problem *p, pb_tier_block *b, uint32_t wish, uint64_t budget) {
    const pb_tier_segment *s = &p->segments[b->segment];
    uint32_t floor = b == &p->blocks[s->first_block] ? s->earliest[s->alternate] : 0;
    // Not before what its last stay wrote has gone below, nor over that stay.
    if (b > &p->blocks[s->first_block] && b[-1].last + 2 > floor) floor = b[-1].last + 2;
    while (b->first > wish && b->first > floor && has_room(p, b->first - 1, s->bytes, budget))
        p->used[--b->first] += s->bytes;
}

static void stretch_eviction(pb_tier_problem *p, pb_tier_block *b, uint32_t wish, uint64_t budget) {
    const pb_tier_segment *s = &p->segments[b->segment];
    uint32_t ceiling = p->slot_count - 1;
    if (b + 1 < &p->blocks[s->first_block + s->block_count]) ceiling = b[1].first - 1;
    while (b->last < wish && b->last < ceiling && has_room(p, b->last + 1, s->bytes, budget))
        p->used[++b->last] += s->bytes;
}

pb_status pb_tier_settle(pb_arena *arena, pb_tier_problem *p, uint64_t budget) {
    uint32_t room = 1;
    for (uint32_t i = 0; i < p->segment_count; i++) room += use_of(&p->segments[i])->count + 1;
    p->blocks = pb_arena_array(arena, room, sizeof *p->blocks);
    deadline *fetches = malloc(room * sizeof *fetches), *evictions = malloc(room * sizeof *evictions);
    if (!p->blocks || !fetches || !evictions) {
        free(fetches);
        free(evictions);
        return pb_error(PB_ERR_MEMORY, "no memory for a plan");
    }
    p->block_count = 0;
    uint32_t fetch_count = 0, eviction_count = 0;
    for (uint32_t i = 0; i < p->segment_count; i++) {
        pb_tier_segment *s = &p->segments[i];
        s->first_block = p->block_count;
        s->block_count = stays(p, i, p->blocks + p->block_count);
        for (uint32_t b = s->first_block; b < s->first_block + s->block_count; b++) {
            if (p->blocks[b].fetched) fetches[fetch_count++] = (deadline){b, p->blocks[b].needed, 0};
            if (p->blocks[b].evicted) evictions[eviction_count++] = (deadline){b, p->blocks[b].done, 0};
        }
        p->block_count += s->block_count;
    }
    qsort(fetches, fetch_count, sizeof *fetches, by_slot);
    qsort(evictions, eviction_count, sizeof *evictions, by_slot);
    wish_fetches(p, fetches, fetch_count);
    wish_evictions(p, evictions, eviction_count);
    // What has to leave first, then what arrives: space that is still being emptied stalls everything.
    for (uint32_t i = 0; i < eviction_count; i++)
        stretch_eviction(p, &p->blocks[evictions[i].block], evictions[i].wish, budget);
    for (uint32_t i = 0; i < fetch_count; i++)
        stretch_fetch(p, &p->blocks[fetches[i].block], fetches[i].wish, budget);
    free(fetches);
    free(evictions);
    return PB_OK;
}

const pb_tier_block *pb_tier_find(const pb_tier_problem *p, uint32_t segment, uint32_t slot) {
    const pb_tier_segment *s = &p->segments[segment];
    for (uint32_t b = s->first_block; b < s->first_block + s->block_count; b++)
        if (p->blocks[b].first <= slot && slot <= p->blocks[b].last) return &p->blocks[b];
    return NULL;
}
