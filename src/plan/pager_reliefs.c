// What can be done for less to be in a tier, and in which order it is tried.
#include <stdlib.h>

#include "plan/pager.h"

// A gap of fewer slots is not worth two moves.
enum { SHORTEST_GAP = 4 };
// Nor are fewer bytes than this share of the budget, or than that many.
enum { SMALLEST_SHARE = 4096, SMALLEST_BYTES = 64 << 10 };

static pb_relief *add_relief(pb_relief_list *list, pb_relief_kind kind, uint32_t index, double rank) {
    if (list->count == list->room) {
        const uint32_t room = list->room ? list->room * 2 : 1024;
        pb_relief *grown = realloc(list->items, room * sizeof *grown);
        if (!grown) return NULL;
        list->items = grown;
        list->room = room;
    }
    pb_relief *r = &list->items[list->count];
    *r = (pb_relief){.kind = kind, .index = index, .rank = rank, .order = list->count++};
    return r;
}

// Long gaps first: they help in more places, and leave more time for the moves. Their ranks are in (base - span, base).
static bool add_gaps(const pb_tier_problem *p, pb_relief_list *list, uint32_t index, bool alternate, uint64_t smallest,
                     double base, double span) {
    const pb_tier_segment *s = &p->segments[index];
    const pb_accesses *use = &s->use[alternate];
    const double whole = p->seconds[p->slot_count - 1] > 0 ? p->seconds[p->slot_count - 1] : 1;
    if (s->bytes < smallest) return true;
    for (uint32_t i = 0; i + 1 < use->count; i++) {
        if (use->items[i + 1].slot - use->items[i].slot < SHORTEST_GAP) continue;
        if (use->items[i + 1].kind == PB_ACCESS_WRITE) continue;
        const double seconds = p->seconds[use->items[i + 1].slot] - p->seconds[use->items[i].slot];
        pb_relief *r = add_relief(list, PB_RELIEF_GAP, index, base - span * seconds / whole);
        if (!r) return false;
        r->gap = i;
        r->alternate = alternate;
    }
    return true;
}

// Ranks by what a byte costs per step.
enum { RANK_REMAKE = 1, RANK_STATE = 10, RANK_ACTIVATION = 20, RANK_GRADIENT = 30, RANK_WEIGHT = 40, RANK_OTHER = 50 };

// Within a rank, however many have to go, those that do lie evenly over the pass that uses them one after another, and
// so do their moves: the link is busy from the pass's begin to its end, and what stays is used in between. Multiples of
// the golden ratio do that; the very first stays longest, for nothing hides its arrival.
static double scattered(uint32_t ordinal) {
    const double multiple = 0.6180339887498949 * ordinal;
    return 0.9 * (multiple - (double)(uint32_t)multiple);
}

// With a drive, which is slower than the ops in one place and faster in another, evenly over the time instead.
// rank[chunk] and rank[unit] of state, in [-0.9, 0).
static bool rank_chunks(const pb_pager *p, double *rank) {
    const pb_chunking *l = p->layout;
    pb_spread_item *items = malloc((l->chunk_count + 1) * sizeof *items);
    uint32_t count = 0;
    for (uint32_t c = 0; c < l->chunk_count; c++) rank[c] = -scattered(c);
    for (uint32_t s = 0; s < p->slot_count && items && p->request->budget[PB_TIER_NVME]; s++) {
        const uint32_t unit = p->slots[s].unit, c = unit == UINT32_MAX ? 0 : l->units[unit].chunk;
        if (unit == UINT32_MAX || unit != l->chunks[c].first_unit) continue;
        pb_spread_item *item = &items[count++];
        *item = (pb_spread_item){.seconds = p->seconds[s], .wish = -scattered(c), .index = c};
        for (uint32_t u = unit; u < unit + l->chunks[c].unit_count; u++) item->bytes += l->units[u].state_bytes;
    }
    const bool good = items && pb_pager_spread(items, count);
    for (uint32_t i = 0; i < count && good; i++) rank[items[i].index] = 0.9 * ((double)i / count - 1);
    free(items);
    return good;
}

static bool rank_units(const pb_pager *p, double *rank) {
    pb_spread_item *items = malloc((p->layout->unit_count + 1) * sizeof *items);
    uint32_t count = 0;
    for (uint32_t u = 0; u < p->layout->unit_count && items; u++) {
        rank[u] = -scattered(u);
        if (p->update_slot[u] == UINT32_MAX || p->host_segment[p->state_segment + u] == UINT32_MAX) continue;
        items[count++] = (pb_spread_item){.seconds = p->seconds[p->update_slot[u]],
                                          .wish = -scattered(u),
                                          .bytes = p->layout->units[u].state_bytes,
                                          .index = u};
    }
    const bool good = items && pb_pager_spread(items, count);
    for (uint32_t i = 0; i < count && good; i++) rank[items[i].index] = 0.9 * ((double)i / count - 1);
    free(items);
    return good;
}

static bool add_home(const pb_tier_problem *p, pb_relief_list *list, uint32_t index, uint32_t ordinal, double rank) {
    if (!pb_tier_is_persistent(&p->segments[index])) return true;
    return add_relief(list, PB_RELIEF_HOME, index, rank - scattered(ordinal)) != NULL;
}

// Where the request says where state has to be, that is no choice.
static void force_state(const pb_pager *p, const pb_tier_problem *t, pb_relief_list *list, pb_state_home from) {
    for (uint32_t i = 0; i < list->count; i++)
        if (list->items[i].kind == PB_RELIEF_HOME && t->segments[list->items[i].index].class_ == PB_CLASS_STATE)
            list->items[i].forced = p->request->state >= from;
}

// A chunk's segments as one bundle: the host updates it. `rank`: within that of state.
static bool add_bundle(pb_pager *p, pb_relief_list *list, uint32_t chunk, double rank, uint32_t *used) {
    const pb_layout_chunk *c = &p->layout->chunks[chunk];
    pb_relief *r = add_relief(list, PB_RELIEF_BUNDLE, *used, RANK_STATE + rank);
    if (!r) return false;
    for (uint32_t u = 0; u < c->unit_count; u++) p->device.bundle[(*used)++] = p->state_segment + c->first_unit + u;
    p->device.bundle[(*used)++] = p->gradient_segment + chunk;
    p->device.bundle[(*used)++] = p->weight_segment + chunk;
    r->gap = c->unit_count + 2;
    r->forced = p->request->state >= PB_STATE_ON_HOST;
    return true;
}

// Weights that the host has need not stay on the device from the forward to the backward pass. They leave last, unless
// the state of the others is to have their room: then just after their own state.
static bool add_weight_gaps(const pb_pager *p, pb_relief_list *list, uint32_t chunk, double rank, bool alternate) {
    const uint32_t weights = p->weight_segment + chunk;
    if (!alternate || !p->attempt.weights_first)
        return add_gaps(&p->device, list, weights, alternate, 0, RANK_WEIGHT + 1, 0.9);
    static const double next = 1e-6;  // less than what two chunks' ranks differ by
    return add_gaps(&p->device, list, weights, alternate, 0, RANK_STATE + rank + 2 * next, next);
}

// Working copies that need not stay from the forward to the backward pass, for they can be made again.
static bool add_remake(const pb_pager *p, pb_relief_list *list, uint32_t chunk) {
    const uint32_t weights = p->weight_segment + chunk;
    return !p->device.segments[weights].stand_in_count ||
           add_relief(list, PB_RELIEF_REMAKE, weights, RANK_REMAKE - scattered(chunk));
}

// What moves nothing.
bool pb_pager_list_remakes(const pb_pager *p, pb_relief_list *list) {
    for (uint32_t c = 0; c < p->layout->chunk_count; c++)
        if (!add_remake(p, list, c)) return false;
    return true;
}

// What is carried from step to step in place of gradients goes when they would.
static double other_rank(const pb_pager *p, uint32_t i) {
    return p->device.segments[p->other_segment + i].class_ == PB_CLASS_ACTIVATION ? RANK_GRADIENT : RANK_OTHER;
}

// Where activations are to go first, that is those over the turning point: there a byte of state makes less room, for
// its working copy is wanted, and takes two trips in the forward pass.
static bool add_activation(const pb_pager *p, pb_relief_list *list, uint32_t s, uint64_t smallest, uint32_t backward) {
    const uint32_t begin = list->count;
    const pb_accesses *use = &p->device.segments[s].use[0];
    if (!add_gaps(&p->device, list, s, false, smallest, RANK_ACTIVATION, 0.9)) return false;
    for (uint32_t i = begin; i < list->count && p->attempt.activations_first; i++) {
        pb_relief *r = &list->items[i];
        if (use->items[r->gap].slot < backward && use->items[r->gap + 1].slot >= backward)
            r->rank -= RANK_ACTIVATION - (RANK_STATE - 1);
    }
    return true;
}

bool pb_pager_list_device_reliefs(pb_pager *p, pb_relief_list *list) {
    const pb_chunking *l = p->layout;
    const uint64_t budget = p->request->budget[PB_TIER_DEVICE];
    const uint64_t share = budget / SMALLEST_SHARE;
    const uint64_t smallest = share < SMALLEST_BYTES ? share : SMALLEST_BYTES;
    const uint32_t backward = pb_pager_first_backward(p);
    double *rank = malloc((l->chunk_count + 1) * sizeof *rank);
    bool good = rank && rank_chunks(p, rank);
    uint32_t used = 0;
    for (uint32_t c = 0; c < l->chunk_count && good; c++) {
        const pb_layout_chunk *chunk = &l->chunks[c];
        const uint32_t weights = p->weight_segment + c, gradients = p->gradient_segment + c;
        if (!p->adopted) {
            if (pb_host_updates(p)) {
                good = good && add_bundle(p, list, c, rank[c], &used);
            } else {
                for (uint32_t u = 0; u < chunk->unit_count; u++)
                    good = good && add_home(&p->device, list, p->state_segment + chunk->first_unit + u,
                                            chunk->first_unit + u, RANK_STATE);
                good = good && add_home(&p->device, list, gradients, c, RANK_GRADIENT);
                good = good && add_home(&p->device, list, weights, c, RANK_WEIGHT);
            }
        }
        good = good && add_remake(p, list, c);
        for (int alternate = 0; alternate < (pb_host_updates(p) ? 2 : 1); alternate++)
            good = good && add_weight_gaps(p, list, c, rank[c], alternate);
    }
    for (uint32_t i = 0; i < l->other_count && good; i++)
        good = p->adopted || add_home(&p->device, list, p->other_segment + i, i, other_rank(p, i));
    for (uint32_t s = p->value_segment; s < p->device.segment_count && good; s++)
        if (p->device.segments[s].class_ != PB_CLASS_INPUT) good = add_activation(p, list, s, smallest, backward);
    force_state(p, &p->device, list, PB_STATE_ON_HOST);
    free(rank);
    return good;
}

bool pb_pager_list_host_reliefs(pb_pager *p, pb_relief_list *list) {
    const double gradient = p->attempt.gradients_first ? RANK_STATE - 5 : RANK_GRADIENT;
    uint32_t ordinal[PB_CLASS_COUNT] = {0};
    double *of_unit = malloc((p->layout->unit_count + 1) * sizeof *of_unit);
    bool good = of_unit && rank_units(p, of_unit);
    for (uint32_t s = 0; s < p->device.segment_count && good; s++) {
        const uint32_t h = p->host_segment[s];
        if (h == UINT32_MAX) continue;
        const bool is_unit = s >= p->state_segment && s < p->other_segment;
        const pb_class class_ = p->host.segments[h].class_;
        const double rank = class_ == PB_CLASS_STATE      ? RANK_STATE
                            : class_ == PB_CLASS_GRADIENT ? gradient
                            : class_ == PB_CLASS_WEIGHT   ? RANK_WEIGHT
                                                          : RANK_ACTIVATION;
        if (!p->adopted && is_unit && pb_tier_is_persistent(&p->host.segments[h]))
            good = add_relief(list, PB_RELIEF_HOME, h, rank + of_unit[s - p->state_segment]) != NULL;
        else if (!p->adopted)
            good = add_home(&p->host, list, h, ordinal[class_]++, rank);
        good = good && add_gaps(&p->host, list, h, false, PB_EXTENT_ALIGNMENT, rank + 1, 0.9);
    }
    force_state(p, &p->host, list, PB_STATE_ON_NVME);
    free(of_unit);
    return good;
}
