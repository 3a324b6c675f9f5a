// Decides what is where and when: first for the device, then, with the moves that this comes to, for the host.
#include <stdlib.h>
#include <string.h>

#include "plan/pager.h"
#include "plan/place.h"

enum { TRIES = 6, PATIENT = 3, REFILLS = 5 };
enum { LITTLE = 32 };  // a budget's share

// --- Offsets ---

typedef struct homed {
    uint32_t segment, vacated;  // the slot from which its home is free for a while
} homed;

static int by_vacated(const void *left, const void *right) {
    const homed *a = left, *b = right;
    if (a->vacated != b->vacated) return a->vacated > b->vacated ? -1 : 1;
    return a->segment < b->segment ? -1 : 1;
}

// Homes side by side from the bottom. What is there all the time comes first, then what leaves, the last one to do so
// first: the room that homes leave free is then a single one, which grows downwards and meets what lies above them.
static pb_status place_homes(pb_tier_problem *t, uint64_t alignment) {
    homed *homes = malloc((t->segment_count + 1) * sizeof *homes);
    if (!homes) return NO_MEMORY;
    uint32_t count = 0;
    for (uint32_t i = 0; i < t->segment_count; i++) {
        const pb_tier_segment *s = &t->segments[i];
        if (!pb_tier_is_persistent(s) || !s->home) continue;
        homes[count++] = (homed){i, s->block_count ? t->blocks[s->first_block].done : 0};
    }
    qsort(homes, count, sizeof *homes, by_vacated);
    uint64_t offset = 0;
    for (uint32_t i = 0; i < count; i++) {
        t->segments[homes[i].segment].home_offset = offset;
        offset += pb_aligned(t->segments[homes[i].segment].bytes, alignment);
    }
    free(homes);
    return PB_OK;
}

// Homes, then everything else around them; where that does not fit `budget`, moves get less time. Returns in *height
// what it takes.
static pb_status place(pb_pager *p, pb_tier_problem *t, uint64_t budget, uint64_t alignment, bool shortens,
                       const uint64_t *scratch, uint64_t *scratch_offset, uint64_t *height) {
    pb_status status = PB_OK;
    // Where nothing moves, there is no reason to leave room unused.
    const uint64_t limit = p->request->budget[PB_TIER_HOST] ? budget : UINT64_MAX;
    pb_block *blocks = calloc((size_t)t->block_count + t->slot_count + 1, sizeof *blocks);
    if (!blocks) return NO_MEMORY;
    if (!p->adopted) PB_TRY(place_homes(t, alignment));
    for (uint32_t i = 0; i < t->block_count; i++) {
        const pb_tier_block *b = &t->blocks[i];
        const pb_tier_segment *s = &t->segments[b->segment];
        const bool held = b->evicted && t->holds_eviction && b->done < b->last;
        blocks[i] = (pb_block){.bytes = pb_aligned(s->bytes, alignment),
                               .first = b->first,
                               .last = b->last,
                               .needed = b->needed,
                               .done = b->done + held,
                               .pinned = b->at_home && pb_tier_is_persistent(s),
                               .offset = s->home_offset};
    }
    for (uint32_t s = 0; s < t->slot_count && scratch; s++)
        blocks[t->block_count + s] = (pb_block){.bytes = scratch[s], .first = s, .last = s, .needed = s, .done = s};
    PB_TRY(pb_blocks_place(blocks, t->block_count + (scratch ? t->slot_count : 0), t->slot_count, limit, shortens,
                           height));
    for (uint32_t i = 0; i < t->block_count && *height <= limit; i++) {
        t->blocks[i].offset = blocks[i].offset;
        t->blocks[i].first = blocks[i].first;
        t->blocks[i].last = blocks[i].last;
    }
    for (uint32_t s = 0; s < t->slot_count && scratch; s++) scratch_offset[s] = blocks[t->block_count + s].offset;
fail:
    free(blocks);
    return status;
}

// The same decisions as at the beginning.
static void reset(pb_tier_problem *t, const bool *home, const bool *alternate) {
    for (uint32_t i = 0; i < t->segment_count; i++) {
        pb_tier_segment *s = &t->segments[i];
        s->home = home[i];
        s->alternate = alternate[i];
        s->remade = false;
        for (int k = 0; k < 2; k++)
            for (uint32_t a = 0; a < s->use[k].count; a++) s->use[k].vacated[a] = false;
        // Of a source: that nothing is remade is one reason, that it is here itself or is of no use is another.
        if (s->class_ == PB_CLASS_STATE && s->stand_in_count)
            t->segments[s->stand_in].dormant = 1 + (home[i] || alternate[i]);
    }
}

// Of a budget, what is left for moves.
static uint64_t reserved(const pb_pager *p, uint64_t budget) {
    const uint64_t bytes = (uint64_t)((double)budget * p->attempt.reserve);
    return bytes < p->attempt.most_reserved ? bytes : p->attempt.most_reserved;
}

// With moves that take as much time as the links want and as there is room for, within *filled bytes; where no offsets
// are found below the budget, with less and less room: each move gives up some of its time, and nothing else moves.
static pb_status settle_and_place(pb_pager *p, pb_tier_problem *t, uint64_t budget, uint64_t alignment,
                                  const uint64_t *scratch, uint64_t *scratch_offset, uint64_t target, bool patient,
                                  uint64_t *filled, uint64_t *height) {
    pb_status status = PB_OK;
    uint64_t *used = malloc((t->slot_count + 1) * sizeof *used);
    if (!used) return NO_MEMORY;
    memcpy(used, t->used, t->slot_count * sizeof *used);
    if (*filled > target) *filled = target;
    for (int again = 0;; again++) {
        memcpy(t->used, used, t->slot_count * sizeof *used);
        PB_TRY(pb_tier_settle(p->arena, t, *filled));
        if (p->estimates) break;
        PB_TRY(place(p, t, budget, alignment, false, scratch, scratch_offset, height));
        if (*height <= budget || again + 1 >= REFILLS || !p->request->budget[PB_TIER_HOST]) break;
        // Where little is missing, a little more that leaves is better than moves with less time.
        if (patient && *height - budget <= budget / LITTLE) break;
        const uint64_t less = (*height - budget) << again;
        if (less >= *filled) break;
        *filled -= less;
    }
fail:
    free(used);
    return status;
}

// Relieves, settles and places until the height fits, too: fragmentation takes a little more than what is alive.
static pb_status fit(pb_pager *p, pb_tier_problem *t, pb_relief_list *list, uint64_t budget, uint64_t alignment,
                     const uint64_t *scratch, uint64_t *scratch_offset, uint64_t *height, uint64_t *needed) {
    pb_status status = PB_OK;
    bool *home = calloc(t->segment_count + 1, sizeof *home);
    bool *alternate = calloc(t->segment_count + 1, sizeof *alternate);
    if (!home || !alternate) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    for (uint32_t i = 0; i < t->segment_count; i++) {
        home[i] = t->segments[i].home;
        alternate[i] = t->segments[i].alternate;
    }
    uint64_t target = budget, filled = budget;
    bool last = false;       // that more leaves is of no use: once more with all of the budget,
    uint64_t exhausted = 0;  // unless all was tried with that: its height
    for (int attempt = 0;; attempt++) {
        reset(t, home, alternate);
        bool fits = pb_tier_relieve(t, list->items, list->count, target - reserved(p, target));
        // Without a reserve it would be as before.
        if (!fits && p->exhausted && t == &p->device && reserved(p, target))
            PB_FAIL(PB_ERR_BUDGET, "too much for the budget");
        if (!fits && reserved(p, target)) {
            reset(t, home, alternate);
            fits = pb_tier_relieve(t, list->items, list->count, target);
        }
        if (!fits && exhausted) {
            *needed = exhausted;
            p->unplaced = true;
            PB_FAIL(PB_ERR_BUDGET, "too much for the budget");
        }
        if (!fits && target < budget && !last) {
            target = filled = budget;
            last = true;
            continue;
        }
        if (!fits) {
            *needed = pb_tier_peak(t);
            PB_FAIL(PB_ERR_BUDGET, "too much for the budget");
        }
        const bool patient = !last && attempt < PATIENT;
        PB_TRY(settle_and_place(p, t, budget, alignment, scratch, scratch_offset, target, patient, &filled, height));
        if (p->estimates) break;
        const bool shorten = *height > budget && (!patient || *height - budget > budget / LITTLE);
        if (shorten) PB_TRY(place(p, t, budget, alignment, true, scratch, scratch_offset, height));
        if (*height <= budget) break;
        const uint64_t over = *height - budget;
        if (target == budget && shorten) exhausted = *height;
        if (target < budget && !last && !exhausted && attempt + 1 >= TRIES) {
            target = filled = budget;
            last = true;
            continue;
        }
        if (last || attempt + 1 >= TRIES || over > target / 2) {
            *needed = *height;
            p->unplaced = true;
            PB_FAIL(PB_ERR_BUDGET, "too much for the budget");
        }
        // What is too much may be little, and just as much after each try.
        const uint64_t less = target >> (10 - attempt);
        target -= over > less ? over : less;
    }
fail:
    free(home);
    free(alternate);
    return status;
}

// --- The host's problem ---

static bool on_host(const pb_tier_problem *d, uint32_t index) {
    const pb_tier_segment *s = &d->segments[index];
    if (s->alternate || (pb_tier_is_persistent(s) && !s->home)) return true;
    for (uint32_t b = s->first_block; b < s->first_block + s->block_count; b++)
        if (d->blocks[b].fetched || d->blocks[b].evicted) return true;
    return false;
}

// What the host's updates of a chunk touch of one of its segments.
static void host_update_events(const pb_pager *p, uint32_t device_segment, uint32_t slot, uint32_t unit,
                               pb_accesses *use) {
    const pb_chunking *l = p->layout;
    const uint32_t chunk = l->units[unit].chunk;
    const pb_layout_param *param = &l->params[l->chunks[chunk].first_param];
    if (device_segment == p->state_segment + unit) pb_accesses_add(use, slot, PB_ACCESS_MODIFY);
    if (device_segment == p->gradient_segment + chunk) pb_accesses_add(use, slot, PB_ACCESS_READ);
    if (device_segment != p->weight_segment + chunk || param->weight == PB_NONE) return;
    const bool first = !param->reads_weight && unit == l->chunks[chunk].first_unit;
    pb_accesses_add(use, slot, first ? PB_ACCESS_WRITE : PB_ACCESS_MODIFY);
}

static int by_access(const void *left, const void *right) {
    const pb_access *a = left, *b = right;
    return a->slot != b->slot ? (a->slot < b->slot ? -1 : 1) : (int)a->kind - (int)b->kind;
}

static pb_home home_of(const pb_pager *p, uint32_t s) {
    const pb_chunking *l = p->layout;
    if (s < p->gradient_segment) return l->weight_home[s - p->weight_segment];
    if (s < p->state_segment) return l->gradient_home[s - p->gradient_segment];
    if (s < p->other_segment) return l->state_home[s - p->state_segment];
    return l->other_home[s - p->other_segment];
}

static pb_status host_accesses(pb_pager *p, uint32_t s, const uint32_t *update_slot, pb_tier_segment *h) {
    const pb_tier_segment *d = &p->device.segments[s];
    const uint32_t room = 2 * d->block_count + p->layout->unit_count + 1;
    pb_accesses *use = &h->use[0];
    pb_access *moves = malloc(room * sizeof *moves);
    uint32_t count = 0;
    if (!moves) return NO_MEMORY;
    for (uint32_t b = d->first_block; b < d->first_block + d->block_count; b++) {
        const pb_tier_block *block = &p->device.blocks[b];
        if (block->fetched) moves[count++] = (pb_access){block->first, PB_ACCESS_READ};
        if (block->evicted) moves[count++] = (pb_access){pb_tier_eviction_slot(&p->device, block), PB_ACCESS_WRITE};
    }
    if (d->alternate && s < p->other_segment) {
        const uint32_t chunk = s < p->gradient_segment ? s - p->weight_segment
                               : s < p->state_segment  ? s - p->gradient_segment
                                                       : p->layout->units[s - p->state_segment].chunk;
        const pb_layout_chunk *c = &p->layout->chunks[chunk];
        for (uint32_t u = c->first_unit; u < c->first_unit + c->unit_count; u++) {
            pb_access one[1];
            pb_accesses touched = {.items = one};
            if (update_slot[u] != UINT32_MAX) host_update_events(p, s, update_slot[u], u, &touched);
            if (touched.count) moves[count++] = one[0];
        }
    }
    qsort(moves, count, sizeof *moves, by_access);
    use->items = pb_arena_array(p->arena, count + 1, sizeof *use->items);
    use->vacated = pb_arena_array(p->arena, count + 1, sizeof *use->vacated);
    if (use->items && use->vacated)
        for (uint32_t i = 0; i < count; i++) pb_accesses_add(use, moves[i].slot, moves[i].kind);
    free(moves);
    return use->items && use->vacated ? PB_OK : NO_MEMORY;
}

// Like on the device (pager_build.c), the step's end leaves room for what a flush brings to the host for any one chunk
// that the host updates, its next unit's state arriving while the last one's leaves. What only passes through takes
// less.
static void leave_room(pb_pager *p) {
    const pb_chunking *l = p->layout;
    uint64_t most = 0;
    for (uint32_t u = 0; u < l->unit_count; u++) {
        const pb_layout_chunk *c = &l->chunks[l->units[u].chunk];
        uint64_t part = 0, gradients = c->gradient_bytes;
        if (p->in_parts[l->units[u].chunk]) pb_pager_find_part(p, u, &part, &gradients);
        const uint64_t bytes = 2 * pb_aligned(l->units[u].state_bytes, PB_EXTENT_ALIGNMENT) +
                               pb_aligned(c->weight_bytes, PB_EXTENT_ALIGNMENT) +
                               (part ? 2 : 1) * pb_aligned(gradients, PB_EXTENT_ALIGNMENT);
        if (bytes > most) most = bytes;
    }
    if (!p->adopted && pb_host_updates(p) && p->request->budget[PB_TIER_NVME]) p->host.other[p->slot_count] = most;
}

void pb_pager_find_part(const pb_pager *p, uint32_t unit, uint64_t *begin, uint64_t *bytes) {
    const pb_chunking *l = p->layout;
    const pb_layout_unit *u = &l->units[unit];
    const pb_layout_chunk *c = &l->chunks[u->chunk];
    *begin = 0;
    *bytes = c->gradient_bytes;
    if (c->unit_count < 2) return;
    // Of several units each is a slice of one and the same parameter.
    const pb_layout_slice *slice = &l->slices[u->first_slice];
    const pb_layout_param *param = &l->params[slice->param];
    const pb_value *value = &p->graph->values[param->gradient];
    *begin = pb_layout_slice_bytes(value, param->elements, slice->first);
    *bytes = pb_aligned(pb_layout_slice_bytes(value, param->elements, slice->count), PB_ALIGNMENT);
}

// The parts of a chunk's gradients: there from the moves before the update to the update.
static pb_status build_parts(pb_pager *p, uint32_t chunk) {
    const pb_layout_chunk *c = &p->layout->chunks[chunk];
    for (uint32_t u = c->first_unit; u < c->first_unit + c->unit_count; u++) {
        uint64_t begin, bytes;
        pb_tier_segment *h = &p->host.segments[p->host.segment_count];
        if (p->update_slot[u] == UINT32_MAX) continue;
        pb_pager_find_part(p, u, &begin, &bytes);
        *h = (pb_tier_segment){
            .bytes = pb_aligned(bytes, PB_EXTENT_ALIGNMENT), .class_ = PB_CLASS_GRADIENT, .home = true};
        h->use[0].items = pb_arena_array(p->arena, 2, sizeof *h->use[0].items);
        h->use[0].vacated = pb_arena_array(p->arena, 2, sizeof *h->use[0].vacated);
        if (!h->use[0].items || !h->use[0].vacated) return NO_MEMORY;
        pb_accesses_add(&h->use[0], p->update_slot[u] - PB_PART_AHEAD, PB_ACCESS_WRITE);
        pb_accesses_add(&h->use[0], p->update_slot[u], PB_ACCESS_READ);
        p->part_segment[u] = p->host.segment_count++;
    }
    return PB_OK;
}

static pb_status build_host(pb_pager *p) {
    const pb_tier_problem *d = &p->device;
    const uint32_t units = p->layout->unit_count, segments = d->segment_count + units;
    p->host_segment = pb_arena_array(p->arena, d->segment_count + 1, sizeof *p->host_segment);
    p->host = (pb_tier_problem){.slot_count = d->slot_count,
                                .seconds = p->seconds,
                                .segments = pb_arena_array(p->arena, segments + 1, sizeof *p->host.segments),
                                .other = pb_arena_array(p->arena, d->slot_count, sizeof *p->host.other),
                                .used = pb_arena_array(p->arena, d->slot_count, sizeof *p->host.used),
                                .fetch_rate = p->machine->nvme_read,
                                .evict_rate = p->machine->nvme_write,
                                .both_rate = p->machine->nvme_both,
                                .drains = p->attempt.strategy == PB_STRATEGY_STREAM,
                                .holds_eviction = true};
    p->part_segment = pb_arena_array(p->arena, units + 1, sizeof *p->part_segment);
    p->update_slot = pb_arena_array(p->arena, units + 1, sizeof *p->update_slot);
    if (!p->host_segment || !p->host.segments || !p->host.other || !p->host.used || !p->part_segment || !p->update_slot)
        return NO_MEMORY;
    leave_room(p);
    memset(p->update_slot, 0xff, (units + 1) * sizeof *p->update_slot);
    memset(p->part_segment, 0xff, (units + 1) * sizeof *p->part_segment);
    for (uint32_t s = 0; s < p->slot_count; s++)
        if (p->slots[s].unit != UINT32_MAX) p->update_slot[p->slots[s].unit] = s;
    p->last_host_update = UINT32_MAX;
    for (uint32_t s = 0; s < d->segment_count; s++) {
        p->host_segment[s] = UINT32_MAX;
        if (!on_host(d, s) || !d->segments[s].bytes) continue;
        if (pb_sends_parts(p, s)) {
            PB_RETURN_IF(build_parts(p, s - p->gradient_segment));
            continue;
        }
        const bool lives = pb_tier_is_persistent(&d->segments[s]) && !d->segments[s].home;
        pb_tier_segment *h = &p->host.segments[p->host.segment_count];
        *h = (pb_tier_segment){.bytes = pb_aligned(d->segments[s].bytes, PB_EXTENT_ALIGNMENT),
                               .class_ = d->segments[s].class_,
                               .live_in = lives,
                               .live_out = lives,
                               .home = true};
        if (lives && p->adopted) {
            h->home = home_of(p, s).tier == PB_TIER_HOST;
            h->home_offset = home_of(p, s).offset;
        }
        PB_RETURN_IF(host_accesses(p, s, p->update_slot, h));
        p->host_segment[s] = p->host.segment_count++;
        if (d->segments[s].alternate && s >= p->state_segment && s < p->other_segment) {
            const uint32_t slot = p->update_slot[s - p->state_segment];
            if (slot != UINT32_MAX && (p->last_host_update == UINT32_MAX || slot > p->last_host_update))
                p->last_host_update = slot;
        }
    }
    return PB_OK;
}

// --- NVMe ---

static bool on_nvme(const pb_pager *p, uint32_t s) {
    const pb_tier_problem *t = &p->host;
    const uint32_t h = p->host_segment[s];
    if (h == UINT32_MAX) return false;
    if (pb_tier_is_persistent(&t->segments[h]) && !t->segments[h].home) return true;
    for (uint32_t b = 0; b < t->segments[h].block_count; b++) {
        const pb_tier_block *block = &t->blocks[t->segments[h].first_block + b];
        if (block->fetched || block->evicted) return true;
    }
    return false;
}

static pb_status assign_extents(pb_pager *p, uint64_t *total) {
    const uint32_t segments = p->device.segment_count;
    p->extent = pb_arena_array(p->arena, segments + 1, sizeof *p->extent);
    p->extent_bytes = pb_arena_array(p->arena, (size_t)segments + p->layout->extent_count + 1, sizeof *p->extent_bytes);
    if (!p->extent || !p->extent_bytes) return NO_MEMORY;
    for (uint32_t s = 0; s < segments; s++) p->extent[s] = UINT32_MAX;
    if (!p->adopted) p->layout->extent_count = 0;
    for (uint32_t s = 0; s < p->value_segment; s++) {
        if (!on_nvme(p, s) || !pb_tier_is_persistent(&p->host.segments[p->host_segment[s]])) continue;
        if (p->host.segments[p->host_segment[s]].home) continue;  // only passes through
        p->extent[s] = p->adopted ? home_of(p, s).extent : p->layout->extent_count++;
        p->extent_bytes[p->extent[s]] = p->host.segments[p->host_segment[s]].bytes;
    }
    p->extent_count = p->layout->extent_count;
    for (uint32_t s = 0; s < segments; s++) {
        if (!on_nvme(p, s) || p->extent[s] != UINT32_MAX) continue;
        p->extent[s] = p->extent_count++;
        p->extent_bytes[p->extent[s]] = p->host.segments[p->host_segment[s]].bytes;
    }
    *total = 0;
    for (uint32_t e = 0; e < p->extent_count; e++) *total += p->extent_bytes[e];
    return PB_OK;
}

// --- All of it ---

static void adopt_decisions(pb_pager *p) {
    const pb_chunking *l = p->layout;
    for (uint32_t c = 0; c < l->chunk_count && p->adopted && l->host_updates; c++) {
        const pb_layout_chunk *chunk = &l->chunks[c];
        if (!chunk->unit_count || l->state_home[chunk->first_unit].tier == PB_TIER_DEVICE) continue;
        p->device.segments[p->weight_segment + c].alternate = true;
        p->device.segments[p->gradient_segment + c].alternate = true;
        // A working copy that does not live on comes from the host as well.
        if (!pb_tier_is_persistent(&p->device.segments[p->weight_segment + c]))
            p->device.segments[p->weight_segment + c].home = false;
        for (uint32_t u = 0; u < chunk->unit_count; u++)
            p->device.segments[p->state_segment + chunk->first_unit + u].alternate = true;
    }
}

static void keep_homes(pb_pager *p) {
    pb_chunking *l = p->layout;
    for (uint32_t s = 0; s < p->value_segment; s++) {
        const pb_tier_segment *d = &p->device.segments[s];
        if (!pb_tier_is_persistent(d)) continue;
        pb_home home = {.tier = PB_TIER_DEVICE, .offset = d->home_offset};
        if (!d->home && d->bytes) {
            const pb_tier_segment *h = &p->host.segments[p->host_segment[s]];
            home = h->home ? (pb_home){.tier = PB_TIER_HOST, .offset = h->home_offset}
                           : (pb_home){.tier = PB_TIER_NVME, .extent = p->extent[s]};
        }
        if (s < p->gradient_segment)
            l->weight_home[s - p->weight_segment] = home;
        else if (s < p->state_segment)
            l->gradient_home[s - p->gradient_segment] = home;
        else if (s < p->other_segment)
            l->state_home[s - p->state_segment] = home;
        else
            l->other_home[s - p->other_segment] = home;
    }
    l->paged = p->request->budget[PB_TIER_HOST] > 0;
    l->host_updates = pb_host_updates(p);
}

// What the host's updates read of the step's small inputs has a place of its own there.
static void find_hyper(pb_pager *p, uint64_t *extra) {
    p->hyper = p->control = PB_NONE;
    for (uint32_t n = 0; n < p->graph->node_count; n++) {
        if (p->graph->nodes[n].op != PB_OP_ADAMW) continue;
        p->control = p->graph->nodes[n].in[1];
        p->hyper = p->graph->nodes[n].in[2];
        break;
    }
    *extra = p->last_host_update == UINT32_MAX ? 0 : 2 * PB_EXTENT_ALIGNMENT;
}

pb_status pb_pager_solve(pb_pager *p, uint64_t needed[PB_TIER_COUNT]) {
    pb_status status = PB_OK;
    pb_relief_list device = {0}, host = {0};
    uint64_t nvme = 0, extra = 0;
    const uint64_t *budget = p->request->budget;
    memset(needed, 0, PB_TIER_COUNT * sizeof *needed);
    p->device.bundle = pb_arena_array(p->arena, (size_t)p->layout->unit_count + 2 * p->layout->chunk_count + 1,
                                      sizeof *p->device.bundle);
    if (!p->device.bundle) return NO_MEMORY;
    adopt_decisions(p);
    if (!(budget[PB_TIER_HOST] ? pb_pager_list_device_reliefs(p, &device) : pb_pager_list_remakes(p, &device)))
        PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    PB_TRY(fit(p, &p->device, &device, budget[PB_TIER_DEVICE], PB_ALIGNMENT, p->scratch, p->scratch_offset,
               &p->device_bytes, &needed[PB_TIER_DEVICE]));
    PB_TRY(build_host(p));
    // What is left for moves is full of what is on its way.
    if (budget[PB_TIER_NVME]) p->host.lead = (double)reserved(p, budget[PB_TIER_HOST]) / p->host.both_rate;
    find_hyper(p, &extra);
    if (budget[PB_TIER_HOST] < extra) {
        needed[PB_TIER_HOST] = extra;
        PB_FAIL(PB_ERR_BUDGET, "too much for the budget");
    }
    if (budget[PB_TIER_NVME] && !pb_pager_list_host_reliefs(p, &host)) PB_FAIL(PB_ERR_MEMORY, "no memory for a plan");
    PB_TRY(fit(p, &p->host, &host, budget[PB_TIER_HOST] - extra, PB_EXTENT_ALIGNMENT, NULL, NULL, &p->host_bytes,
               &needed[PB_TIER_HOST]));
    for (uint32_t i = 0; i < host.count; i++) p->host_relieved |= host.items[i].taken;
    if (p->estimates) goto fail;
    // Behind all blocks, so that it is at nobody's way.
    p->control_offset = p->host_bytes;
    p->hyper_offset = p->host_bytes + PB_EXTENT_ALIGNMENT;
    p->host_bytes += extra;
    PB_TRY(assign_extents(p, &nvme));
    if (nvme > budget[PB_TIER_NVME]) {
        needed[PB_TIER_NVME] = nvme;
        PB_FAIL(PB_ERR_BUDGET, "too much for the budget");
    }
    if (!p->adopted) keep_homes(p);
fail:
    free(device.items);
    free(host.items);
    return status;
}
