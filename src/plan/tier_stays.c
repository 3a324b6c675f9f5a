#include "plan/tier_stays.h"

#include <math.h>
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

bool pb_tier_is_remade(const pb_tier_segment *s) {
    return s->remade && !s->alternate && !s->use[0].vacated[s->remake_gap];
}

// What access i is: one at whose begin the segment is made again finds nothing that is needed.
static pb_access_kind kind_of(const pb_tier_segment *s, const pb_accesses *use, uint32_t i) {
    return i && i - 1 == s->remake_gap && pb_tier_is_remade(s) ? PB_ACCESS_WRITE : use->items[i].kind;
}

// The stays that a segment's accesses and decisions come to, without time for moves. Returns how many.
static uint32_t stays(const pb_tier_problem *p, uint32_t index, pb_tier_block *out) {
    const pb_tier_segment *s = &p->segments[index];
    const pb_accesses *use = use_of(s);
    const uint32_t end = p->slot_count - 1;
    uint32_t count = 0;
    if (s->dormant) return 0;
    bool here = s->live_in && s->home, fresh_below = s->live_in && !s->home;
    pb_tier_block block = {.segment = index, .at_home = here};
    for (uint32_t i = 0; i < use->count; i++) {
        const pb_access a = {use->items[i].slot, kind_of(s, use, i)};
        if (!here && a.kind == PB_ACCESS_SEND) continue;
        if (!here) {
            block = (pb_tier_block){.segment = index, .first = a.slot, .needed = a.slot};
            block.fetched = a.kind != PB_ACCESS_WRITE;
            fresh_below |= block.fetched;
            here = true;
        }
        block.done = a.slot;
        if (a.kind == PB_ACCESS_MODIFY || a.kind == PB_ACCESS_WRITE) fresh_below = false;
        const bool last = i + 1 == use->count, sent = a.kind == PB_ACCESS_SEND;
        const bool wanted = sent || (last ? s->live_out : kind_of(s, use, i + 1) != PB_ACCESS_WRITE);
        if (wanted && !sent && (last ? s->home : !use->vacated[i])) continue;
        block.evicted = wanted && !fresh_below;
        block.last = a.slot;
        if (block.evicted && p->holds_eviction && block.last < end) block.last++;
        fresh_below |= block.evicted;
        here = false;
        out[count++] = block;
        // What is sent and not made anew by this program has to be at home after it, too: it keeps its place.
        if (!sent || !last || !s->home || !s->live_out) continue;
        here = block.last < end;
        if (!here) continue;
        block = (pb_tier_block){.segment = index, .first = block.last + 1, .needed = block.last + 1};
    }
    if (here) {  // only at home, or without any access
        block.at_home = true;
        block.done = block.last = end;
        out[count++] = block;
    }
    return count;
}

enum { PART = 64 };  // slots that are summed up

// What is used in slots [i * PART, (i + 1) * PART): p->used and `more` besides, in every one of them.
typedef struct part {
    uint64_t more, least, most;  // modulo 2^64; the other two include it
} part;

// What is used by slot, and by how much that is over the budget, as a sum over slots.
typedef struct tally {
    pb_tier_problem *p;
    uint64_t budget, over;
    part *parts;
    pb_tier_block *before, *after;  // room for a segment's stays
} tally;

static uint64_t excess(uint64_t used, uint64_t budget) {
    return used > budget ? used - budget : 0;
}

static uint32_t part_end(const tally *t, uint32_t index) {
    return (index + 1) * PART < t->p->slot_count ? (index + 1) * PART : t->p->slot_count;
}

static void sum_up(tally *t, uint32_t index) {
    const uint64_t *used = t->p->used;
    uint64_t least = UINT64_MAX, most = 0;
    for (uint32_t s = index * PART; s < part_end(t, index); s++) {
        if (used[s] < least) least = used[s];
        if (used[s] > most) most = used[s];
    }
    t->parts[index].least = least;
    t->parts[index].most = most;
}

// Into p->used what is noted of the part as a whole.
static void write_out(tally *t, uint32_t index) {
    const uint64_t more = t->parts[index].more;
    for (uint32_t s = index * PART; more && s < part_end(t, index); s++) t->p->used[s] += more;
    t->parts[index].more = 0;
}

// To all slots of a part that is within the budget or above it in each of them, before and after; else false.
static bool add_to_part(tally *t, uint32_t index, uint64_t bytes) {
    part *p = &t->parts[index];
    if (p->least > t->budget && p->least + bytes > t->budget)
        t->over += bytes * (part_end(t, index) - index * PART);
    else if (p->most > t->budget || p->most + bytes > t->budget)
        return false;
    p->more += bytes;
    p->least += bytes;
    p->most += bytes;
    return true;
}

static void add_bytes(tally *t, uint32_t begin, uint32_t end, uint64_t bytes) {
    const uint64_t budget = t->budget;
    uint64_t *used = t->p->used, less = 0, more = 0;
    while (begin < end) {
        const uint32_t index = begin / PART, next = part_end(t, index) < end ? part_end(t, index) : end;
        const bool whole = begin == index * PART && next == part_end(t, index);
        if (!whole || !add_to_part(t, index, bytes)) {
            write_out(t, index);
            for (uint32_t s = begin; s < next; s++) {
                const uint64_t now = used[s] + bytes;  // modulo 2^64: may be negative
                less += excess(used[s], budget);
                more += excess(now, budget);
                used[s] = now;
            }
            sum_up(t, index);
        }
        begin = next;
    }
    t->over += more - less;
}

static bool any_above(const tally *t, uint32_t begin, uint32_t end, uint64_t most) {
    const uint64_t *used = t->p->used;
    while (begin < end) {
        const uint32_t index = begin / PART, next = part_end(t, index) < end ? part_end(t, index) : end;
        const part *p = &t->parts[index];
        if (p->least > most) return true;
        for (uint32_t s = begin; p->most > most && s < next; s++)
            if (used[s] + p->more > most) return true;
        begin = next;
    }
    return false;
}

// The next slot at which one of the stays begins or ends; the i-th edge is a beginning where i is even.
static uint32_t edge(const pb_tier_block *stays, uint32_t count, uint32_t i) {
    if (i >= 2 * count) return UINT32_MAX;
    return i % 2 ? stays[i / 2].last + 1 : stays[i / 2].first;
}

// Goes through the slots that only one of two lists of stays covers. The stays of each list are apart and in order.
typedef struct difference {
    const pb_tier_block *before, *after;
    uint32_t before_count, after_count;
    uint32_t b, a, reached;  // edges passed, and where
    uint32_t begin, end;     // result: slots
    bool added;              // result: covered after, and not before
} difference;

static bool next_difference(difference *d) {
    for (;;) {
        const uint32_t next_a = edge(d->after, d->after_count, d->a), next_b = edge(d->before, d->before_count, d->b);
        const uint32_t next = next_a < next_b ? next_a : next_b;
        if (next == UINT32_MAX) return false;
        const bool found = d->a % 2 != d->b % 2 && d->reached < next;
        d->begin = d->reached;
        d->end = d->reached = next;
        d->added = d->a % 2;
        d->a += next_a == next;
        d->b += next_b == next;
        if (found) return true;
    }
}

// Counts a segment's stays as t->after[0 .. after) instead of as t->before[0 .. before).
static void count_change(tally *t, uint64_t bytes, uint32_t before, uint32_t after) {
    difference d = {.before = t->before, .after = t->after, .before_count = before, .after_count = after};
    while (next_difference(&d)) add_bytes(t, d.begin, d.end, d.added ? bytes : -bytes);
}

// Whether the change frees bytes where there are too many.
static bool relieves(const tally *t, uint32_t before, uint32_t after) {
    difference d = {.before = t->before, .after = t->after, .before_count = before, .after_count = after};
    while (next_difference(&d))
        if (!d.added && any_above(t, d.begin, d.end, t->budget)) return true;
    return false;
}

// Whether the change adds bytes where there is no room for them.
static bool overflows(const tally *t, uint64_t bytes, uint32_t before, uint32_t after) {
    if (bytes > t->budget) return true;
    difference d = {.before = t->before, .after = t->after, .before_count = before, .after_count = after};
    while (next_difference(&d))
        if (d.added && any_above(t, d.begin, d.end, t->budget - bytes)) return true;
    return false;
}

static void count_all(tally *t) {
    pb_tier_problem *p = t->p;
    memset(p->used, 0, p->slot_count * sizeof *p->used);
    for (uint32_t i = 0; i < p->segment_count; i++) {  // changes from slot to slot, modulo 2^64
        const uint32_t count = stays(p, i, t->after);
        for (uint32_t b = 0; b < count; b++) {
            p->used[t->after[b].first] += p->segments[i].bytes;
            if (t->after[b].last + 1 < p->slot_count) p->used[t->after[b].last + 1] -= p->segments[i].bytes;
        }
    }
    for (uint32_t s = 1; s < p->slot_count; s++) p->used[s] += p->used[s - 1];
    for (uint32_t s = 0; s < p->slot_count; s++) {
        p->used[s] += p->other[s];
        t->over += excess(p->used[s], t->budget);
    }
    for (uint32_t i = 0; i * PART < p->slot_count; i++) sum_up(t, i);
}

// How many segments a relief concerns, and the i-th of them: a bundle's, or one and its stand-ins.
static uint32_t concerned_count(const pb_tier_problem *p, const pb_relief *r) {
    const pb_tier_segment *s = &p->segments[r->index];
    if (r->kind == PB_RELIEF_BUNDLE) return r->gap;
    return r->kind == PB_RELIEF_GAP && (r->alternate || r->gap != s->remake_gap) ? 1 : 1 + s->stand_in_count;
}

static uint32_t concerned(const pb_tier_problem *p, const pb_relief *r, uint32_t i) {
    if (r->kind == PB_RELIEF_BUNDLE) return p->bundle[r->index + i];
    return i ? p->segments[r->index].stand_in + i - 1 : r->index;
}

// The part of it that is the i-th segment's.
static void switch_relief(pb_tier_problem *p, const pb_relief *r, uint32_t i, bool on) {
    if (i && r->kind != PB_RELIEF_BUNDLE) {
        // A stand-in is there where its segment is remade and not evicted, and its source lives below.
        const bool more = on == (r->kind == PB_RELIEF_GAP);
        uint32_t *dormant = &p->segments[concerned(p, r, i)].dormant;
        *dormant = more ? *dormant + 1 : *dormant - 1;
    } else if (r->kind == PB_RELIEF_GAP) {
        p->segments[r->index].use[r->alternate].vacated[r->gap] = on;
    } else if (r->kind == PB_RELIEF_REMAKE) {
        p->segments[r->index].remade = on;
    } else if (r->kind == PB_RELIEF_HOME) {
        p->segments[r->index].home = !on;
    } else {
        p->segments[p->bundle[r->index + i]].home = !on;
        p->segments[p->bundle[r->index + i]].alternate = on;
    }
}

static void apply(tally *t, const pb_relief *r, bool on) {
    pb_tier_problem *p = t->p;
    const uint32_t count = concerned_count(p, r);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t index = concerned(p, r, i);
        const uint32_t before = stays(p, index, t->before);
        switch_relief(p, r, i, on);
        count_change(t, p->segments[index].bytes, before, stays(p, index, t->after));
    }
}

// Like apply, but not where it can be seen beforehand that it is of no use: taking it frees nothing where too much is
// used, or giving it back makes too much. Returns whether it was applied.
static bool apply_if_useful(tally *t, const pb_relief *r, bool on) {
    if (r->kind != PB_RELIEF_BUNDLE) {
        const uint32_t before = stays(t->p, r->index, t->before);
        switch_relief(t->p, r, 0, on);
        const uint32_t after = stays(t->p, r->index, t->after);
        const uint64_t bytes = t->p->segments[r->index].bytes;
        // What is no longer remade adds its own bytes, but its stand-ins are gone. A gap over which it is remade has
        // the stand-ins alone to vacate.
        const bool others = concerned_count(t->p, r) > 1;
        const bool useful =
            (others && r->kind == PB_RELIEF_GAP) ||
            (on ? relieves(t, before, after) : r->kind == PB_RELIEF_REMAKE || !overflows(t, bytes, before, after));
        if (useful && !others) {
            count_change(t, bytes, before, after);
            return true;
        }
        switch_relief(t->p, r, 0, !on);
        if (!useful) return false;
    }
    apply(t, r, on);
    return true;
}

static int by_rank(const void *left, const void *right) {
    const pb_relief *a = left, *b = right;
    if (a->rank != b->rank) return a->rank < b->rank ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

static int by_order(const void *left, const void *right) {
    const pb_relief *a = left, *b = right;
    return a->order < b->order ? -1 : a->order > b->order;
}

uint64_t pb_tier_peak(const pb_tier_problem *p) {
    uint64_t most = 0;
    for (uint32_t t = 0; t < p->slot_count; t++)
        if (p->used[t] > most) most = p->used[t];
    return most;
}

// Of a bundle that is taken, what only waits to be sent comes back home where there is room for it.
static void bring_home(tally *t, const pb_relief *r) {
    for (uint32_t i = 0; i < r->gap; i++) {
        const uint32_t index = t->p->bundle[r->index + i];
        pb_tier_segment *s = &t->p->segments[index];
        if (!s->live_in || !s->live_out || !use_of(s)->count || use_of(s)->items[0].kind != PB_ACCESS_SEND) continue;
        const uint32_t before = stays(t->p, index, t->before);
        s->home = true;
        const uint32_t after = stays(t->p, index, t->after);
        if (overflows(t, s->bytes, before, after))
            s->home = false;
        else
            count_change(t, s->bytes, before, after);
    }
}

// In their order, until nothing is used that is not there.
static void take(tally *t, pb_relief *reliefs, uint32_t count) {
    for (uint32_t r = 0; r < count; r++) {
        reliefs[r].taken = reliefs[r].forced;
        if (reliefs[r].forced) apply(t, &reliefs[r], true);
    }
    for (uint32_t r = 0; r < count && t->over; r++) {
        if (reliefs[r].taken) continue;
        const uint64_t left = t->over;
        if (!apply_if_useful(t, &reliefs[r], true)) continue;
        reliefs[r].taken = t->over < left;
        if (!reliefs[r].taken) apply(t, &reliefs[r], false);
    }
}

// Those that need not be, the costliest first.
static void give_back(tally *t, pb_relief *reliefs, uint32_t count) {
    for (uint32_t r = count; r-- > 0 && !t->over;) {
        if (!reliefs[r].taken || reliefs[r].forced || !apply_if_useful(t, &reliefs[r], false)) continue;
        reliefs[r].taken = t->over > 0;
        if (reliefs[r].taken) apply(t, &reliefs[r], true);
    }
}

// The most stays that a segment can have.
static uint32_t most_stays(const pb_tier_problem *p) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < p->segment_count; i++)
        for (int k = 0; k < 2; k++)
            if (p->segments[i].use[k].count > most) most = p->segments[i].use[k].count;
    return most + 2;
}

bool pb_tier_relieve(pb_tier_problem *p, pb_relief *reliefs, uint32_t count, uint64_t budget) {
    const uint32_t most = most_stays(p);
    pb_tier_block *room = malloc(2 * (size_t)most * sizeof *room);
    part *parts = calloc(p->slot_count / PART + 1, sizeof *parts);
    tally t = {.p = p, .budget = budget, .over = 1, .parts = parts};
    if (!room || !parts) goto done;
    t.over = 0;
    t.before = room;
    t.after = room + most;
    if (count) qsort(reliefs, count, sizeof *reliefs, by_rank);
    count_all(&t);
    take(&t, reliefs, count);
    give_back(&t, reliefs, count);
    // What is wanted first, and was made last, waits the shortest: it comes first.
    if (count && p->brings_home) qsort(reliefs, count, sizeof *reliefs, by_order);
    for (uint32_t r = 0; r < count && !t.over && p->brings_home; r++)
        if (reliefs[r].kind == PB_RELIEF_BUNDLE && reliefs[r].taken) bring_home(&t, &reliefs[r]);
    for (uint32_t i = 0; i * PART < p->slot_count; i++) write_out(&t, i);
done:
    free(room);
    free(parts);
    return !t.over;
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

// The moves of a tier, and when its slots begin as far as the links let them: where they are slower than the ops, a
// slot waits for what it needs and, where the tier drains, until what was made before has left, but for the last of it.
// Wishes in the ops' own time would ask for all of the room at once, leave none to the moves that come last, and have
// the two directions of a link take turns.
enum { LEAVING = 1 };  // evictions that may still be under way

typedef struct timetable {
    deadline *fetches, *evictions;
    uint32_t fetch_count, eviction_count;
    double *begins;  // by slot, slot_count + 1 entries
} timetable;

static uint64_t bytes_of(const pb_tier_problem *p, const deadline *d) {
    return p->segments[p->blocks[d->block].segment].bytes;
}

static uint64_t moved_bytes(const pb_tier_problem *p, const deadline *list, uint32_t count) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) bytes += bytes_of(p, &list[i]);
    return bytes;
}

static void time_slots(const pb_tier_problem *p, timetable *t) {
    const double fetched = (double)moved_bytes(p, t->fetches, t->fetch_count);
    const double evicted = (double)moved_bytes(p, t->evictions, t->eviction_count);
    // Seconds per byte, beside what goes the other way.
    const double both = (fetched + evicted) / p->both_rate;
    const double arrive = fmax(1 / p->fetch_rate, fetched > 0 ? both / fetched : 0);
    const double leave = fmax(1 / p->evict_rate, evicted > 0 ? both / evicted : 0);
    double arrived = 0, left = 0, now = 0;
    for (uint32_t s = 0, f = 0, e = 0; s <= p->slot_count; s++) {
        if (s) now += p->seconds[s] - p->seconds[s - 1];
        for (; f < t->fetch_count && t->fetches[f].slot <= s; f++)
            arrived += arrive * (double)bytes_of(p, &t->fetches[f]);
        for (; p->drains && e + LEAVING < t->eviction_count && t->evictions[e + LEAVING].slot + 1 < s; e++) {
            if (left < t->begins[t->evictions[e].slot + 1]) left = t->begins[t->evictions[e].slot + 1];
            left += leave * (double)bytes_of(p, &t->evictions[e]);
        }
        if (now < arrived) now = arrived;
        if (now < left) now = left;
        t->begins[s] = now;
    }
}

// The last slot that has begun at `second`.
static uint32_t slot_at(const pb_tier_problem *p, const timetable *t, double second) {
    uint32_t low = 0, high = p->slot_count;
    while (low + 1 < high) {
        const uint32_t middle = (low + high) / 2;
        if (t->begins[middle] <= second)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// The link works off its moves one after another, each as late as the next ones and its deadline permit, less the lead.
static void wish_fetches(const pb_tier_problem *p, timetable *t) {
    double next = t->begins[p->slot_count];
    for (uint32_t i = t->fetch_count; i-- > 0;) {
        deadline *d = &t->fetches[i];
        const double needed = t->begins[p->blocks[d->block].needed], finish = needed < next ? needed : next;
        next = finish - (double)bytes_of(p, d) / p->fetch_rate;
        d->wish = next > p->lead ? slot_at(p, t, next - p->lead) : 0;
        if (d->wish) d->wish--;  // what is a little late costs more than what is a little early
    }
}

static void wish_evictions(const pb_tier_problem *p, timetable *t) {
    double link_free = 0;
    for (uint32_t i = 0; i < t->eviction_count; i++) {
        deadline *d = &t->evictions[i];
        const double made = t->begins[p->blocks[d->block].done + 1], begin = made > link_free ? made : link_free;
        link_free = begin + (double)bytes_of(p, d) / p->evict_rate;
        d->wish = slot_at(p, t, link_free);
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
    pb_status status = PB_OK;
    uint32_t room = 1;
    for (uint32_t i = 0; i < p->segment_count; i++) room += use_of(&p->segments[i])->count + 1;
    p->blocks = pb_arena_array(arena, room, sizeof *p->blocks);
    timetable t = {.fetches = malloc(room * sizeof *t.fetches),
                   .evictions = malloc(room * sizeof *t.evictions),
                   .begins = malloc(((size_t)p->slot_count + 1) * sizeof *t.begins)};
    if (!p->blocks || !t.fetches || !t.evictions || !t.begins) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    p->block_count = 0;
    for (uint32_t i = 0; i < p->segment_count; i++) {
        pb_tier_segment *s = &p->segments[i];
        s->first_block = p->block_count;
        s->block_count = stays(p, i, p->blocks + p->block_count);
        for (uint32_t b = s->first_block; b < s->first_block + s->block_count; b++) {
            if (p->blocks[b].fetched) t.fetches[t.fetch_count++] = (deadline){b, p->blocks[b].needed, 0};
            if (p->blocks[b].evicted) t.evictions[t.eviction_count++] = (deadline){b, p->blocks[b].done, 0};
        }
        p->block_count += s->block_count;
    }
    qsort(t.fetches, t.fetch_count, sizeof *t.fetches, by_slot);
    qsort(t.evictions, t.eviction_count, sizeof *t.evictions, by_slot);
    time_slots(p, &t);
    wish_fetches(p, &t);
    wish_evictions(p, &t);
    // What has to leave first, then what arrives: space that is still being emptied stalls everything.
    for (uint32_t i = 0; i < t.eviction_count; i++)
        stretch_eviction(p, &p->blocks[t.evictions[i].block], t.evictions[i].wish, budget);
    for (uint32_t i = 0; i < t.fetch_count; i++)
        stretch_fetch(p, &p->blocks[t.fetches[i].block], t.fetches[i].wish, budget);
fail:
    free(t.fetches);
    free(t.evictions);
    free(t.begins);
    return status;
}

const pb_tier_block *pb_tier_find(const pb_tier_problem *p, uint32_t segment, uint32_t slot) {
    const pb_tier_segment *s = &p->segments[segment];
    for (uint32_t b = s->first_block; b < s->first_block + s->block_count; b++)
        if (p->blocks[b].first <= slot && slot <= p->blocks[b].last) return &p->blocks[b];
    return NULL;
}
